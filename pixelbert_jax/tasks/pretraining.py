"""Pre-training: masked language modelling and image-text matching (paper section 3.3).

A batch has B images with K texts each, of T tokens with at most M hidden:
  image [B, H, W, 3] uint8, as sent to the device; source_size [B, 2] int32, its height and width
  size [B, 2] int32, its height and width as the model sees it; canvas [B, H', W', 0] uint8, whose
    shape is the model's canvas; optionally flip [B] bool (`input/image.py: model_input`)
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  mlm_position, mlm_target [B, K, M] int32; mlm_weight [B, K, M] float32, 0 in unmatched pairs
  itm_label [B, K] int32, 1 for a matched pair; weight [B, K] float32, 0 for padding
  with micro-batches mlm_total and itm_total [B] float32, the weights of the whole batch in each row
  in evaluation mlm_kind [B, K, M] int32, 0 or 1 + the kind of a visual word that the image
    determines; mlm_guessed [B, K, M] float32, 1 where the image-blind baseline is right
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.mixture import firsts, shares_of
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.order import WORDS, Plan, Shares, plan_epoch, swap_images
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.text import hide_words, hiding_places
from pixelbert_jax.input.visual import KINDS, TextGuess, visual_words
from pixelbert_jax.metrics import Metrics, compare
from pixelbert_jax.models.heads import PretrainingModel
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.tasks.base import Arrays, Rows, Run, Task, token_row
from pixelbert_jax.tasks.sums import Sums, finish, total


@dataclasses.dataclass(frozen=True)
class Hiding:
  """Which tokens are hidden for MLM.

  Attributes:
    share: share of the tokens to hide.
    whole: share of the texts in which nothing is hidden.
    at_least_one: whether each of the other texts hides a token, however short it is.
    all_pairs: whether MLM counts untrue pairs too.
  """

  share: float
  whole: float = 0.0
  at_least_one: bool = False
  all_pairs: bool = False


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PairBatches(Batches):
  """The batches of `tasks/pretraining.py`.

  Attributes:
    hiding: which tokens are hidden.
    untrue: whether half of the pairs are made untrue.
    shares: the shares of the sources of a mixture.
    corpora: number of the first image of each corpus in which untrue texts stay.
    hard: share of the untrue texts that are hard, as in `Negatives`.
    swapped: True for shuffled images, where every text has a wrong image.
    guess: predicts visual words from their text alone; with it, batches have `mlm_kind` and
      `mlm_guessed`.
  """

  WEIGHTS: ClassVar[tuple[str, ...]] = ('weight', 'mlm_weight')

  hiding: Hiding
  untrue: bool = True
  shares: Shares | None = None
  corpora: tuple[int, ...] = (0,)
  hard: float = 0.0
  swapped: bool = False
  guess: TextGuess | None = None

  def _plan(self, epoch: int) -> Plan:
    sidecar, negatives = self.split.sidecar, None
    if self.untrue:
      negatives = Negatives(sidecar, self.truth, self.corpora, self.hard)
    plan = plan_epoch(sidecar, self, epoch, self.shares, negatives)
    return swap_images(plan) if self.swapped else plan

  def text(self, i: int) -> str:
    sidecar, captions = self.split.sidecar, len(self.split.sidecar.text)
    return sidecar.caption(i) if i < captions else sidecar.strings.text(i - captions)

  def _weights(self, plan: Plan, number: int, step: int) -> dict[str, np.ndarray]:
    whole = self._texts(plan, number, np.arange(self.images), step)
    return {'mlm': whole['mlm_weight'], 'itm': plan.weight[number]}

  def _texts(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> Batch:
    texts, weight = plan.text[number, mine], plan.weight[number, mine]
    matched = plan.matched[number, mine]
    b, k = texts.shape
    flat = texts.reshape(-1)
    ids, word = self.tokenizer([self.text(i) for i in flat])
    # Drawn for the whole batch, then sliced, so that the number of processes changes nothing.
    draws = np.random.default_rng([self.seed, WORDS, step]).random(
      (self.images, k, 2 * ids.shape[1] + 2)
    )
    draws = draws[mine].reshape(b * k, -1)
    how = self.hiding
    hideable = (word >= 0) & (draws[:, :1] >= how.whole)
    masked = hide_words(
      ids, hideable, draws[:, 1:], how.share, self.tokenizer, least=int(how.at_least_one)
    )
    counted = weight if how.all_pairs else matched * weight
    batch = {
      'token_ids': masked.ids,
      'token_mask': ids != self.tokenizer.pad_id,
      'mlm_position': masked.position,
      'mlm_target': masked.target,
      'mlm_weight': masked.weight * counted.reshape(-1, 1),
      'itm_label': matched.astype(np.int32).reshape(-1),
      'weight': weight.reshape(-1),
    }
    if self.guess:
      kind, guessed = visual_words(
        self.split.sidecar,
        flat,
        word,
        masked=masked,
        mask_id=self.tokenizer.mask_id,
        guess=self.guess,
      )
      batch |= {'mlm_kind': kind, 'mlm_guessed': guessed}
    return {name: x.reshape(b, k, *x.shape[1:]) for name, x in batch.items()}


@dataclasses.dataclass(frozen=True)
class Pretraining(Task):
  """Pre-training; the image-blind baseline of visual words is fitted on `train`.

  Attributes:
    hiding: which tokens are hidden in training.
    mlm_weight, itm_weight: of the losses; 0 switches a task off.
    hard: share of the untrue texts that are hard.
    within: whether untrue texts stay in their corpus.
    shares: the shares of the sources of a mixture.
    guess: predicts visual words from their text alone; None without `train`.
  """

  LOGGED = ('mlm_loss', 'itm_loss', 'mlm_accuracy', 'itm_accuracy', 'mlm_targets')
  SHOWN = ('loss', 'itm_accuracy', 'mlm_accuracy', 'mlm_visual_accuracy')
  MIXES = True
  ASKED = 'fill'

  hiding: Hiding
  mlm_weight: float = 1.0
  itm_weight: float = 1.0
  hard: float = 0.0
  within: bool = True
  shares: Shares | None = None
  guess: TextGuess | None = None

  @classmethod
  def of(
    cls, config: ConfigDict, splits: Mapping[str, Split], files: Mapping[str, bytes]
  ) -> 'Pretraining':
    train = splits.get('train')
    # Earlier checkpoints lack some of these fields.
    mlm, itm = config.get('mlm', {}), config.get('itm', {})
    return cls(
      hiding=Hiding(
        share=config.mask_share,
        whole=config.whole_share if config.get('mlm_weight', 1) else 1.0,
        at_least_one=mlm.get('at_least_one', False),
        all_pairs=mlm.get('pairs') == 'all',
      ),
      mlm_weight=config.get('mlm_weight', 1.0),
      itm_weight=config.get('itm_weight', 1.0),
      hard=itm.get('hard', 0.0),
      within=itm.get('negatives') != 'across',
      shares=shares_of(train, config.data.shares) if train else None,
      guess=TextGuess(train.sidecar) if train else None,
    )

  @property
  def weights(self) -> dict[str, float]:
    return {'mlm_loss': self.mlm_weight, 'itm_loss': self.itm_weight}

  def model(self, backbone: PixelBert) -> PretrainingModel:
    return PretrainingModel(backbone)

  def batches(self, role: str, **fields: Any) -> PairBatches:
    hiding = self.hiding
    if role == 'train':
      fields |= {'shares': self.shares, 'hard': self.hard, 'untrue': self.itm_weight > 0}
    else:  # The same for all runs, so that these compare.
      fields['guess'] = self.guess
      hiding = dataclasses.replace(hiding, at_least_one=False, all_pairs=False)
    if self.within:
      fields['corpora'] = firsts(fields['split'])
    return PairBatches(hiding=hiding, **fields)

  def row(self, texts: int, length: int, training: bool) -> Rows:
    pair, place = (1, texts), (1, texts, hiding_places(length, self.hiding.share))
    row: Rows = {
      **token_row(texts, length),
      'mlm_position': np.zeros(place, np.int32),
      'mlm_target': np.zeros(place, np.int32),
      'mlm_weight': np.zeros(place, np.float32),
      'itm_label': np.zeros(pair, np.int32),
      'weight': np.zeros(pair, np.float32),
    }
    if not training:
      row['mlm_kind'], row['mlm_guessed'] = np.zeros(place, np.int32), np.zeros(place, np.float32)
    return row

  def losses(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the cross-entropies of both tasks in nats, as totals over the batch."""
    logits, target = outputs['mlm_logits'], batch['mlm_target']
    mlm = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    itm = optax.sigmoid_binary_cross_entropy(outputs['itm_logits'], batch['itm_label'])
    return self._trained(
      {'mlm_loss': total(mlm, batch['mlm_weight']), 'itm_loss': total(itm, batch['weight'])}
    )

  def _trained(self, sums: Sums) -> Sums:
    """Returns sums, of a task that is switched off zeros: its head is then not computed."""
    return {
      name: x if self.weights[f'{name[:3]}_loss'] else jnp.zeros(2) for name, x in sums.items()
    }

  def accuracies(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the shares of correct predictions, as totals over the batch."""
    mlm = outputs['mlm_logits'].argmax(-1) == batch['mlm_target']
    itm = (outputs['itm_logits'] > 0) == (batch['itm_label'] > 0)
    sums = self._trained(
      {'mlm_accuracy': total(mlm, batch['mlm_weight']), 'itm_accuracy': total(itm, batch['weight'])}
    )
    if 'mlm_kind' not in batch:
      # The words of a batch, of which a micro-batch is a part.
      words = batch['mlm_weight'].sum().astype(float)
      whole = batch['mlm_total'][0] if 'mlm_total' in batch else words
      return sums | {'mlm_targets': jnp.stack([words, words / jnp.maximum(whole, 1)])}
    kind, weight, guessed = batch['mlm_kind'], batch['mlm_weight'], batch['mlm_guessed']
    chosen = {'visual': kind > 0} | {name: kind == i + 1 for i, name in enumerate(KINDS)}
    for name, these in chosen.items():
      sums[f'mlm_{name}_accuracy'] = total(mlm, weight * these)
      sums[f'mlm_{name}_accuracy_text_only'] = total(guessed, weight * these)
    return self._trained(sums)

  def evaluate(self, run: Run, batches: PairBatches) -> Metrics:
    """Computes the metrics over all pairs of a split; a metric without any pair is left out.

    Every text is used twice: unmasked for matching, masked for the rest.
    """
    unmasked, masked = (
      run(dataclasses.replace(batches, hiding=dataclasses.replace(batches.hiding, whole=whole)))[0]
      for whole in (1.0, 0.0)
    )
    return finish(
      {k: (unmasked if k.startswith('itm') else masked)[k] for k in masked}, self.weights
    )

  def report(self, run: Run, batches: PairBatches, path: pathlib.Path) -> Metrics:
    """Computes the metrics with own and with shuffled images (`..._swapped`); writes nothing.

    `itm_hard_accuracy` is that of matching where all untrue texts are hard.
    """
    metrics = self.evaluate(run, batches)
    if self.itm_weight and batches.split.sidecar.label.all():
      whole = dataclasses.replace(batches.hiding, whole=1.0)
      hard, _ = run(dataclasses.replace(batches, hiding=whole, hard=1.0))
      metrics['itm_hard_accuracy'] = finish(hard)['itm_accuracy']
    shuffled = self.evaluate(run, dataclasses.replace(batches, swapped=True))
    return metrics | {f'{name}_swapped': x for name, x in shuffled.items()}

  def table(self, split: str, metrics: Metrics) -> str:
    """Formats the accuracies with own images, with shuffled images, and from the text alone."""
    rows = {'image-text matching': 'itm_accuracy', '  nearly true texts': 'itm_hard_accuracy'}
    rows |= {'hidden words': 'mlm_accuracy'}
    rows |= {'visual words, determined': 'mlm_visual_accuracy'}
    rows |= {f'  {kind}': f'mlm_{kind}_accuracy' for kind in KINDS}
    rows = {title: name for title, name in rows.items() if name in metrics}
    columns = {'own image': '', 'shuffled image': '_swapped', 'text alone': '_text_only'}
    return compare(f'accuracy on {split}', columns, rows, metrics)
