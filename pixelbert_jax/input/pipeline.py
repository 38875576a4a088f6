"""Host batches: the plan's images decoded and its texts tokenised, in parallel, in order."""

import abc
import dataclasses
import functools
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ClassVar

import grain
import numpy as np

from pixelbert_jax.input import image
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.order import FLIPS, Batching, Plan
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.unreadable import Unreadable

Batch = dict[str, np.ndarray]

# Words that are no longer true of a mirrored image; 'leftmost' and 'right-hand' too.
SIDES = re.compile(r'\b(left|right)', re.IGNORECASE)
# Images that a thread decodes in one go.
CHUNK = 8


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Batches(abc.ABC):
  """A task's batches by number: batch k is the same whoever asks, and whenever.

  With `micro_batches` A, batch k comes in A parts of B / A images, which are numbers A k to
  A k + A - 1; each then says how much is counted in all of batch k.

  Attributes:
    split: records and sidecar.
    tokenizer: of the texts.
    canvases: how images are resized and placed.
    seed: of the plan and of all that is drawn.
    images: B, images in a global batch, or pairs of images.
    texts_per_image: K.
    training: shuffled epochs without end, or each text once.
    micro_batches: A.
    flip: share of the training images to mirror, of those whose texts say neither left nor right.
    process: number of this process and of all; each makes its share of the B images.
    unreadable: counts what cannot be read in training; in evaluation it is an error.
    WEIGHTS: names of the weights [B, K, ...] by which a batch counts.
  """

  WEIGHTS: ClassVar[tuple[str, ...]] = ('weight',)

  split: Split
  tokenizer: Tokenizer
  canvases: Canvases
  seed: int
  images: int
  texts_per_image: int
  training: bool
  micro_batches: int = 1
  flip: float = 0.0
  process: tuple[int, int] = (0, 1)
  unreadable: Unreadable = dataclasses.field(default_factory=Unreadable)
  _plans: dict[int, Plan] = dataclasses.field(default_factory=dict, init=False, repr=False)
  _planning: threading.Lock = dataclasses.field(
    default_factory=threading.Lock, init=False, repr=False
  )

  @abc.abstractmethod
  def _plan(self, epoch: int) -> Plan:
    """Makes the plan of an epoch."""

  @property
  def texts(self) -> int:
    """How many texts the split has: captions, where a task is about no others."""
    return len(self.split.sidecar.text)

  def text(self, i: int) -> str:
    """The text of number i in the plan."""
    return self.split.sidecar.caption(i)

  def said(self, i: int) -> str:
    """All that may be true of the image of text i alone, and not of its mirror image."""
    return self.text(i)

  def tokens(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids [..., T] int32 of the texts of numbers [...], and which of them are no padding, bool."""
    ids, _ = self.tokenizer([self.text(i) for i in texts.reshape(-1)])
    ids = ids.reshape(*texts.shape, -1)
    return ids, ids != self.tokenizer.pad_id

  @property
  def batching(self) -> Batching:
    """How the texts of the split are put into batches."""
    return Batching(
      canvases=self.canvases,
      seed=self.seed,
      images_per_batch=self.images,
      texts_per_image=self.texts_per_image,
      training=self.training,
    )

  @abc.abstractmethod
  def _texts(self, plan: Plan, number: int, mine: slice, step: int) -> Batch:
    """All of rows `mine` of a batch, the plan's `number`, but the images."""

  @abc.abstractmethod
  def _totals(self, step: int) -> dict[str, np.float32]:
    """`x_total` for each loss `x_loss`: how much is counted in the whole of a batch, by all."""

  def plan(self, epoch: int) -> Plan:
    """The plan of an epoch; two are kept."""
    with self._planning:  # Of millions of pairs it takes seconds, and all threads want it at once.
      if epoch not in self._plans:
        if len(self._plans) == 2:
          del self._plans[min(self._plans)]
        self._plans[epoch] = self._plan(epoch)
      return self._plans[epoch]

  @functools.cached_property
  def _length(self) -> int:
    return len(self.plan(0))

  @functools.cached_property
  def _sources(self) -> list[tuple[int, int]]:
    """The canvas on which images travel, for each of the model's."""
    return self.canvases.sources(self._sizes, self.plan(0).moves)

  @property
  def _sizes(self) -> np.ndarray:
    """[I, 2] of the images, or [I, 2, 2] of those pairs of images that the texts are about."""
    return self.split.sidecar.size

  def __len__(self) -> int:
    """Batches in an epoch, micro-batches taken together; the same in every epoch."""
    return self._length

  def __getitem__(self, index: int) -> Batch:
    """(Micro-)batch `index`, counted over all epochs, as its module in `tasks` describes it."""
    return self.make(index)

  def make(self, index: int, pool: Executor | None = None) -> Batch:
    """(Micro-)batch `index`, its images decoded by the threads of `pool`.

    The texts of an image that cannot be read have weight 0. Only in the totals of micro-batches
    they still count, as no process knows what another cannot read.
    """
    step, micro = divmod(index, self.micro_batches)
    epoch, number = divmod(step, len(self))
    plan = self.plan(epoch)
    rows = self.images // self.process[1] // self.micro_batches
    first = (self.process[0] * self.micro_batches + micro) * rows
    mine = slice(first, first + rows)
    batch = self._texts(plan, number, mine, step)
    shown = plan.image[number, mine]
    images, readable = self._images(shown.reshape(-1), plan.canvas[number], pool)
    readable = readable.reshape(rows, -1).all(1)
    batch |= images
    for name in self.WEIGHTS:
      batch[name] *= readable.reshape(-1, *[1] * (batch[name].ndim - 1))
    if self.flip and self.training:
      flips = self._flips(plan.text[number, mine], mine, step)
      batch['flip'] = np.repeat(flips, shown.size // rows)
    if self.micro_batches > 1:
      batch |= {name: np.full(rows, value) for name, value in self._totals(step).items()}
    return batch

  def _images(
    self, numbers: np.ndarray, canvas: int, pool: Executor | None
  ) -> tuple[Batch, np.ndarray]:
    """The images on their canvases, and [B] bool, which of them could be read."""
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
    return batch, np.array([i not in bad for i in range(len(numbers))])

  def _flips(self, texts: np.ndarray, mine: slice, step: int) -> np.ndarray:
    """[B] bool: which images to mirror, given all of their texts [B, K], true or not."""
    rng = np.random.default_rng([self.seed, FLIPS, step])
    flip = rng.random(self.images)[mine] < self.flip
    for row in np.flatnonzero(flip):
      flip[row] = not any(SIDES.search(self.said(i)) for i in texts[row])
    return flip


def read(batches: Batches, numbers: Sequence[int], threads: int = 2) -> Iterator[Batch]:
  """The batches of these numbers in order, made ahead of time; `threads` decode their images."""
  make = functools.partial(batches.make, pool=ThreadPoolExecutor(threads))
  dataset = grain.MapDataset.source(numbers).map(make)
  # Two at a time, however many threads: a batch may be gigabytes.
  options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
  return iter(dataset.to_iter_dataset(options))
