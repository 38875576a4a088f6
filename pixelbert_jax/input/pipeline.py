"""Host batches: the plan's images decoded and its texts tokenised, in parallel, in order."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from data.build import Split
from pixelbert_jax.input import image
from pixelbert_jax.input.plan import WORDS, Canvases, Plan, plan_epoch, swap_images
from pixelbert_jax.input.text import Tokenizer, hide_words
from pixelbert_jax.input.visual import TextGuess, visual_words

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class PairBatches:
  """The batches of pre-training by number: batch k is the same whoever asks, and whenever.

  With `micro_batches` A, batch k comes in A parts of B / A images, which are numbers A k to
  A k + A - 1; each then says how many words and pairs are counted in all of batch k.

  Attributes:
    split: records and sidecar.
    tokenizer: of the texts.
    canvases: how images are resized and placed.
    seed: of the plan and of hidden words.
    images: B, images in a global batch.
    texts_per_image: K.
    mask_share: of the tokens to hide.
    whole_share: of the texts in which nothing is hidden.
    micro_batches: A.
    training: shuffled epochs without end, or each caption once.
    swapped: show the wrong image with every text.
    guess: guesses visual words from text; with it, batches say which places are visual.
    process: number of this process and of all; each makes its share of the B images.
  """

  split: Split
  tokenizer: Tokenizer
  canvases: Canvases
  seed: int
  images: int
  texts_per_image: int
  mask_share: float
  whole_share: float
  training: bool
  micro_batches: int = 1
  swapped: bool = False
  guess: TextGuess | None = None
  process: tuple[int, int] = (0, 1)

  @functools.lru_cache(maxsize=2)  # noqa: B019 - two plans an instance, and instances are few
  def plan(self, epoch: int) -> Plan:
    """The plan of an epoch."""
    plan = plan_epoch(
      self.split.sidecar,
      self.canvases,
      self.seed,
      epoch,
      self.images,
      self.texts_per_image,
      self.training,
    )
    return swap_images(plan) if self.swapped else plan

  def __len__(self) -> int:
    """Batches in an epoch, micro-batches taken together; the same in every epoch."""
    return len(self.plan(0))

  def __getitem__(self, index: int) -> Batch:
    """(Micro-)batch `index`, counted over all epochs, as `tasks/pretraining.py` describes it."""
    step, micro = divmod(index, self.micro_batches)
    epoch, number = divmod(step, len(self))
    plan = self.plan(epoch)
    rows = self.images // self.process[1] // self.micro_batches
    first = (self.process[0] * self.micro_batches + micro) * rows
    mine = slice(first, first + rows)
    shape = self.canvases.shapes[plan.canvas[number]]
    batch = {
      **self._images(plan.image[number, mine], shape),
      **self._texts(plan, number, mine, step),
    }
    if self.micro_batches > 1:
      batch['mlm_total'] = np.full(rows, self._counted_words(step))
      batch['itm_total'] = np.full(rows, plan.weight[number].sum())
    return batch

  @functools.lru_cache(maxsize=8)  # noqa: B019 - one number a step
  def _counted_words(self, step: int) -> np.float32:
    """How many hidden words count in the whole of a batch, by all processes."""
    epoch, number = divmod(step, len(self))
    whole = self._texts(self.plan(epoch), number, slice(None), step)
    return whole['mlm_weight'].sum(dtype=np.float32)

  def _images(self, numbers: np.ndarray, shape: tuple[int, int]) -> Batch:
    sidecar = self.split.sidecar
    target = self.canvases.target(sidecar.size[numbers])
    pixels, sizes = [], []
    for number, wanted in zip(numbers, target, strict=True):
      name = sidecar.image_id[number].decode()
      canvas, size = image.place(
        image.decode(self.split.source[number]['image'], name), wanted, shape
      )
      pixels.append(canvas)
      sizes.append(size)
    return {
      'image': np.stack(pixels),
      'source_size': np.array(sizes, np.int32),
      'size': target,
    }

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
      'token_mask': (word >= 0) | self.tokenizer.special[ids] & (ids != self.tokenizer.pad_id),
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


def read(batches: PairBatches, numbers: Sequence[int], threads: int = 2) -> Iterator[Batch]:
  """The batches of these numbers in order, made ahead of time by threads."""
  dataset = grain.MapDataset.source(numbers).map(batches.__getitem__)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
  return iter(dataset.to_iter_dataset(options))
