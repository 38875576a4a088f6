"""Pre-training: masked language modelling and image-text matching (paper section 3.3).

A batch has B images of K texts, of T tokens with at most M hidden:
  image [B, H, W, 3] uint8 as it travels; source_size [B, 2] its height and width there;
  size [B, 2] those the model is to see (int32) on its canvas, which is that of canvas
  [B, H', W', 0]; perhaps flip [B] bool (`input/image.py: model_input`)
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  mlm_position, mlm_target [B, K, M] int32; mlm_weight [B, K, M] float32, 0 in unmatched pairs
  itm_label [B, K] int32, 1 for a matched pair; weight [B, K] float32, 0 where only filled up
  with micro-batches mlm_total and itm_total [B] float32, the weights of the whole batch in each row
  in evaluation mlm_kind [B, K, M] int32, 1 + the kind of a visual word that the image determines,
  and mlm_guessed [B, K, M] float32, 1 where the text alone gives the word away
"""

import dataclasses
import functools
import math
import pathlib
from typing import ClassVar

import jax
import numpy as np
import optax

from pixelbert_jax.input.order import WORDS, Plan, Shares, plan_epoch, swap_images
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.text import hide_words
from pixelbert_jax.input.visual import KINDS, TextGuess, visual_words
from pixelbert_jax.metrics import Metrics
from pixelbert_jax.metrics import table as text_table
from pixelbert_jax.tasks.sums import Run, Sums, finish, total


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PairBatches(Batches):
  """The batches of `tasks/pretraining.py`.

  Attributes:
    mask_share: of the tokens to hide.
    whole_share: of the texts in which nothing is hidden.
    shares: of the sources of a mixture.
    swapped: show the wrong image with every text.
    guess: guesses visual words from text; with it, batches say which places are visual.
  """

  WEIGHTS: ClassVar[tuple[str, ...]] = ('weight', 'mlm_weight')

  mask_share: float
  whole_share: float
  shares: Shares | None = None
  swapped: bool = False
  guess: TextGuess | None = None

  def _plan(self, epoch: int) -> Plan:
    plan = plan_epoch(self.split.sidecar, self.batching, epoch, self.shares)
    return swap_images(plan) if self.swapped else plan

  @functools.lru_cache(maxsize=8)  # noqa: B019 - two numbers a step
  def _totals(self, step: int) -> dict[str, np.float32]:
    epoch, number = divmod(step, len(self))
    plan = self.plan(epoch)
    whole = self._texts(plan, number, slice(None), step)
    words = whole['mlm_weight'].sum(dtype=np.float32)
    return {'mlm_total': words, 'itm_total': plan.weight[number].sum()}

  def _texts(self, plan: Plan, number: int, mine: slice, step: int) -> Batch:
    texts, weight = plan.text[number, mine], plan.weight[number, mine]
    matched = plan.matched[number, mine]
    b, k = texts.shape
    flat = texts.reshape(-1)
    ids, word = self.tokenizer([self.split.sidecar.caption(i) for i in flat])
    # Drawn for the whole batch and sliced, so that nothing depends on the number of processes.
    draws = np.random.default_rng([self.seed, WORDS, step]).random(
      (self.images, k, 2 * ids.shape[1] + 2)
    )
    draws = draws[mine].reshape(b * k, -1)
    hideable = (word >= 0) & (draws[:, :1] >= self.whole_share)
    masked = hide_words(ids, hideable, draws[:, 1:], self.mask_share, self.tokenizer)
    batch = {
      'token_ids': masked.ids,
      'token_mask': ids != self.tokenizer.pad_id,
      'mlm_position': masked.position,
      'mlm_target': masked.target,
      # MLM counts matched pairs only: an untrue text says nothing about the image.
      'mlm_weight': masked.weight * (matched * weight).reshape(-1, 1),
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


Array = jax.Array

LOGGED = ('mlm_loss', 'itm_loss', 'mlm_accuracy', 'itm_accuracy')
SHOWN = ('loss', 'itm_accuracy', 'mlm_accuracy', 'mlm_visual_accuracy')
CHOSEN_BY = ''


def losses(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """Cross-entropies of both tasks in nats, as totals over the batch."""
  mlm = optax.softmax_cross_entropy_with_integer_labels(outputs['mlm_logits'], batch['mlm_target'])
  itm = optax.sigmoid_binary_cross_entropy(outputs['itm_logits'], batch['itm_label'])
  return {
    'mlm_loss': total(mlm, batch['mlm_weight']),
    'itm_loss': total(itm, batch['weight']),
  }


def accuracies(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """Shares of right answers, as totals over the batch."""
  mlm = outputs['mlm_logits'].argmax(-1) == batch['mlm_target']
  itm = (outputs['itm_logits'] > 0) == (batch['itm_label'] > 0)
  sums = {
    'mlm_accuracy': total(mlm, batch['mlm_weight']),
    'itm_accuracy': total(itm, batch['weight']),
  }
  if 'mlm_kind' not in batch:
    return sums
  kind, weight = batch['mlm_kind'], batch['mlm_weight']
  sums['mlm_visual_accuracy'] = total(mlm, weight * (kind > 0))
  sums['mlm_visual_accuracy_text_only'] = total(batch['mlm_guessed'], weight * (kind > 0))
  for i, name in enumerate(KINDS):
    sums[f'mlm_{name}_accuracy'] = total(mlm, weight * (kind == i + 1))
    sums[f'mlm_{name}_accuracy_text_only'] = total(batch['mlm_guessed'], weight * (kind == i + 1))
  return sums


def items(outputs: dict[str, Array], batch: dict[str, Array]) -> dict[str, Array]:
  """Nothing: all there is to know of pre-training are sums."""
  return {}


def evaluate(run: Run, batches: PairBatches) -> Metrics:
  """Means over all pairs of a split; what never occurs is not a number.

  Every text is seen twice: whole for matching, with words hidden for the rest.
  """
  whole, _ = run(dataclasses.replace(batches, whole_share=1.0))
  hidden, _ = run(dataclasses.replace(batches, whole_share=0.0))
  return finish({k: (whole if k.startswith('itm') else hidden)[k] for k in hidden})


def result(run: Run, batches: PairBatches, path: pathlib.Path) -> Metrics:
  """The same, and again (`..._swapped`) with every image swapped for another; writes nothing."""
  swapped = evaluate(run, dataclasses.replace(batches, swapped=True))
  return evaluate(run, batches) | {f'{name}_swapped': x for name, x in swapped.items()}


def table(split: str, metrics: Metrics) -> str:
  """Accuracies on a split beside those with swapped images and a guess from the text alone."""
  rows = {'image-text matching': 'itm_accuracy', 'hidden words': 'mlm_accuracy'}
  rows |= {'visual words, determined': 'mlm_visual_accuracy'}
  rows |= {f'  {kind}': f'mlm_{kind}_accuracy' for kind in KINDS}
  missing = float('nan')
  return text_table(
    f'accuracy on {split}',
    ['own image', 'swapped image', 'text alone'],
    [
      (title, [metrics.get(name + end, missing) for end in ('', '_swapped', '_text_only')])
      for title, name in rows.items()
      if math.isfinite(metrics.get(name, missing))
    ],
  )
