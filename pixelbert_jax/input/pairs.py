"""The batches of pre-training: images with texts, true and untrue, in which words are hidden."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.plan import WORDS, Plan, Shares, plan_epoch, swap_images
from pixelbert_jax.input.text import hide_words
from pixelbert_jax.input.visual import TextGuess, visual_words


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
    plan = plan_epoch(
      self.split.sidecar, self.canvases, epoch=epoch, shares=self.shares, **self._planned
    )
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
        self.split.sidecar, flat, word, masked, self.tokenizer.mask_id, self.guess
      )
      batch |= {'mlm_kind': kind, 'mlm_guessed': guessed}
    return {name: x.reshape(b, k, *x.shape[1:]) for name, x in batch.items()}
