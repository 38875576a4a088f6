"""Host batches: the plan's images decoded and its texts tokenised, in parallel, in order."""

import dataclasses
import functools
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import grain
import numpy as np

from data.build import Split
from pixelbert_jax.input import image
from pixelbert_jax.input.plan import FLIPS, WORDS, Canvases, Plan, Shares, plan_epoch, swap_images
from pixelbert_jax.input.text import Tokenizer, hide_words
from pixelbert_jax.input.unreadable import Unreadable
from pixelbert_jax.input.visual import TextGuess, visual_words

Batch = dict[str, np.ndarray]

# Words that are no longer true of a mirrored image; 'leftmost' and 'right-hand' too.
SIDES = re.compile(r'\b(left|right)', re.IGNORECASE)
# Images that a thread decodes in one go.
CHUNK = 8


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
    shares: of the sources of a mixture.
    flip: share of the training images to mirror, of those whose texts say neither left nor right.
    swapped: show the wrong image with every text.
    guess: guesses visual words from text; with it, batches say which places are visual.
    process: number of this process and of all; each makes its share of the B images.
    unreadable: counts what cannot be read in training; in evaluation it is an error.
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
  shares: Shares | None = None
  flip: float = 0.0
  swapped: bool = False
  guess: TextGuess | None = None
  process: tuple[int, int] = (0, 1)
  unreadable: Unreadable = dataclasses.field(default_factory=Unreadable)
  _plans: dict[int, Plan] = dataclasses.field(default_factory=dict, init=False, repr=False)
  _planning: threading.Lock = dataclasses.field(
    default_factory=threading.Lock, init=False, repr=False
  )

  def plan(self, epoch: int) -> Plan:
    """The plan of an epoch; two are kept."""
    with self._planning:  # Of millions of pairs it takes seconds, and all threads want it at once.
      if epoch not in self._plans:
        if len(self._plans) == 2:
          del self._plans[min(self._plans)]
        self._plans[epoch] = self._plan(epoch)
      return self._plans[epoch]

  def _plan(self, epoch: int) -> Plan:
    plan = plan_epoch(
      self.split.sidecar,
      self.canvases,
      self.seed,
      epoch,
      self.images,
      self.texts_per_image,
      self.training,
      self.shares,
    )
    return swap_images(plan) if self.swapped else plan

  @functools.cached_property
  def _length(self) -> int:
    return len(self.plan(0))

  @functools.cached_property
  def _sources(self) -> list[tuple[int, int]]:
    """The canvas on which images travel, for each of the model's."""
    return self.canvases.sources(self.split.sidecar.size)

  def __len__(self) -> int:
    """Batches in an epoch, micro-batches taken together; the same in every epoch."""
    return self._length

  def __getitem__(self, index: int) -> Batch:
    """(Micro-)batch `index`, counted over all epochs, as `tasks/pretraining.py` describes it."""
    return self.make(index)

  def make(self, index: int, pool: Executor | None = None) -> Batch:
    """(Micro-)batch `index`, its images decoded by the threads of `pool`.

    The pairs of an image that cannot be read have weight 0. Only in the totals of micro-batches
    they still count, as no process knows what another cannot read.
    """
    step, micro = divmod(index, self.micro_batches)
    epoch, number = divmod(step, len(self))
    plan = self.plan(epoch)
    rows = self.images // self.process[1] // self.micro_batches
    first = (self.process[0] * self.micro_batches + micro) * rows
    mine = slice(first, first + rows)
    batch = self._texts(plan, number, mine, step)
    images, readable = self._images(plan.image[number, mine], plan.canvas[number], pool)
    batch |= images
    batch['weight'] *= readable[:, None]
    batch['mlm_weight'] *= readable[:, None, None]
    if self.flip and self.training:
      batch['flip'] = self._flips(plan.text[number, mine], mine, step)
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

  def _images(
    self, numbers: np.ndarray, canvas: int, pool: Executor | None
  ) -> tuple[Batch, np.ndarray]:
    """The images on their canvases, and [B] bool: which of them could be read."""
    sidecar, names = self.split.sidecar, [self.split.sidecar.image_id[n].decode() for n in numbers]
    size = sidecar.size[numbers]
    target = self.canvases.target(size)
    placed = image.placed_size(size, target).astype(np.int32)
    pixels = np.zeros((len(numbers), *self._sources[canvas], 3), np.uint8)

    def load(rows: range) -> dict[int, image.ImageError]:
      bad = {}
      for i in rows:
        data = self.split.encoded(numbers[i])
        try:
          image.place(image.load(data, size[i], target[i], names[i]), pixels[i])
        except image.ImageError as error:
          if not self.training:
            raise
          bad[i] = error
          pixels[i] = image.GREY
      return bad

    chunks = [range(len(numbers))[i : i + CHUNK] for i in range(0, len(numbers), CHUNK)]
    bad = {i: e for found in (pool.map if pool else map)(load, chunks) for i, e in found.items()}
    self.unreadable.count(len(numbers), {names[i]: error for i, error in bad.items()})
    batch = {
      'image': pixels,
      'source_size': placed,
      'size': target,
      # Nothing but a shape, as static as that of the images.
      'canvas': np.zeros((len(numbers), *self.canvases.shapes[canvas], 0), np.uint8),
    }
    return batch, np.array([i not in bad for i in range(len(numbers))], np.float32)

  def _flips(self, texts: np.ndarray, mine: slice, step: int) -> np.ndarray:
    """[B] bool: which images to mirror, given all of their texts [B, K], true or not."""
    rng = np.random.default_rng([self.seed, FLIPS, step])
    flip = rng.random(self.images)[mine] < self.flip
    for row in np.flatnonzero(flip):
      flip[row] = not any(SIDES.search(self.split.sidecar.caption(i)) for i in texts[row])
    return flip

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
  """The batches of these numbers in order, made ahead of time; `threads` decode their images."""
  make = functools.partial(batches.make, pool=ThreadPoolExecutor(threads))
  dataset = grain.MapDataset.source(numbers).map(make)
  # Two at a time, however many threads: a batch may be gigabytes.
  options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
  return iter(dataset.to_iter_dataset(options))
