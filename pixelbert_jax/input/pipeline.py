"""Host batches: decodes the images of a plan and tokenises its texts, in parallel and in order."""

import abc
import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, NamedTuple, Self

import grain
import jax
import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input import image
from pixelbert_jax.input.dataset import RecordError, Split
from pixelbert_jax.input.order import FLIPS, Batching, Plan, texts_at_a_time
from pixelbert_jax.input.plans import Plans
from pixelbert_jax.input.sidecar import Questions, Sidecar, Statements
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.truth import Truth
from pixelbert_jax.input.unreadable import Unreadable

Batch = dict[str, np.ndarray]

# Words that mirroring an image makes untrue; 'leftmost' and 'right-hand' too.
SIDES = re.compile(r'\b(left|right)', re.IGNORECASE)
# Images that a thread decodes at a time.
CHUNK = 8


class Threads(NamedTuple):
  """Numbers of threads: those that decode images are for the cores, those that read wait."""

  decoding: int
  reading: int


FEW = Threads(2, 2)


class Pools(NamedTuple):
  """The threads themselves."""

  decoding: ThreadPoolExecutor
  reading: ThreadPoolExecutor


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Batches(Batching, abc.ABC):
  """The batches of a task, by number: batch k is the same in every process and at any time.

  With `micro_batches` A, batch k is split into A parts of B / A images, numbers A k to
  A k + A - 1; each part also holds the total weights of batch k (`x_total`).

  Attributes, beside those of `Batching`:
    split: records and sidecar.
    tokenizer: tokenises the texts.
    micro_batches: A, parts of a batch.
    flip: share of images to mirror in training, of those whose texts say neither left nor right.
    devices: places in the mesh of the devices of this process, ascending, and how many there are in
      all; each process makes the rows that its devices hold.
    unreadable: counts images that cannot be read in training; in evaluation that is an error.
    WEIGHTS: names of the weights [B, K, ...] that an unreadable image sets to 0.
  """

  WEIGHTS: ClassVar[tuple[str, ...]] = ('weight',)

  split: Split
  tokenizer: Tokenizer
  micro_batches: int = 1
  flip: float = 0.0
  devices: tuple[tuple[int, ...], int] = ((0,), 1)
  unreadable: Unreadable = dataclasses.field(default_factory=Unreadable)
  # Copies of these batches share it: of millions of texts it takes seconds.
  _truth: list[Truth] = dataclasses.field(default_factory=list, repr=False)
  _plans: Plans = dataclasses.field(default_factory=Plans, init=False, repr=False)

  @abc.abstractmethod
  def _plan(self, epoch: int) -> Plan:
    """Plans an epoch."""

  @property
  def table(self) -> Sidecar | Questions | Statements:
    """The table with the texts: of captions, unless the task has texts of another kind."""
    return self.split.sidecar

  @property
  def texts(self) -> int:
    """Number of texts in the split."""
    return len(self.table.text)

  @property
  def starts(self) -> np.ndarray:
    """The first text [N + 1] of each image, or pair of images; the last is the number of texts."""
    return self.split.sidecar.captions.start

  def regrouped(self) -> Self:
    """Returns these batches with as many texts of an image at a time as cost an evaluation least.

    A batch has no more images and no more texts than before.
    """
    devices, texts = self.devices[1], self.images * self.texts_per_image
    at_a_time = texts_at_a_time(np.diff(self.starts), texts // devices)
    images = min(self.images, texts // at_a_time // devices * devices)
    return dataclasses.replace(self, images=images, texts_per_image=at_a_time)

  def text(self, i: int) -> str:
    """Returns the text that has number i in the plan."""
    return self.table.text.text(i)

  def full_text(self, i: int) -> str:
    """Returns text i with its answers, if it has any: all that mirroring may make untrue."""
    return self.text(i)

  def tokens(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokenises the texts of numbers [...]: ids [..., T] int32 and mask [..., T] bool."""
    return self.tokens_of([self.text(i) for i in texts.reshape(-1)], texts.shape)

  def tokens_of(
    self, texts: Sequence[str], shape: tuple[int, ...]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Tokenises texts as `tokens` does; `shape` is [...]."""
    ids = self.tokenizer(texts)[0].reshape(*shape, -1)
    return ids, ids != self.tokenizer.pad_id

  @abc.abstractmethod
  def _texts(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> Batch:
    """Makes the rows `mine` of batch `number` of a plan, all but the images."""

  @abc.abstractmethod
  def _weights(self, plan: Plan, number: int, step: int) -> dict[str, np.ndarray]:
    """Returns, by x, the weights of each loss `x_loss` in a whole batch, of all processes."""

  @functools.lru_cache(maxsize=8)  # noqa: B019 - a few numbers a step
  def _totals(self, step: int) -> dict[str, np.float32]:
    epoch, number = divmod(step, len(self))
    weights = self._weights(self.plan(epoch), number, step)
    return {f'{name}_total': weight.sum(dtype=np.float32) for name, weight in weights.items()}

  def plan(self, epoch: int) -> Plan:
    """Returns the plan of an epoch; two are kept."""
    return self._plans.get(epoch, self._plan)

  def plan_ahead(self, index: int, last: int) -> None:
    """Starts planning the epoch after that of (micro-)batch `index`, if `last` comes after it.

    This is done in the second half of an epoch: by then no thread makes batches of the epoch before
    it, whose plan the next one replaces.
    """
    (epoch, number), end = (
      divmod(index // self.micro_batches, len(self)),
      last // self.micro_batches,
    )
    if 2 * number >= len(self) - 1 and end // len(self) > epoch:
      self._plans.start(epoch + 1, self._plan)

  @property
  def truth(self) -> Truth:
    """Which captions are true of which images, for a model that reads them by `tokenizer`."""
    if not self._truth:
      self._truth.append(Truth(self.split.sidecar, self.tokenizer))
    return self._truth[0]

  @functools.cached_property
  def _length(self) -> int:
    return len(self.plan(0))

  @functools.cached_property
  def _sources(self) -> list[tuple[int, int]]:
    """Shape of the host canvas for each canvas of the model."""
    return self.canvases.sources(self._sizes, self.plan(0).moves)

  @property
  def _sizes(self) -> np.ndarray:
    """Image sizes [I, 2], or [I, 2, 2] where the texts are about pairs of images."""
    return self.split.sidecar.size

  def shapes(self, numbers: Sequence[int]) -> list[dict[str, jax.ShapeDtypeStruct]]:
    """Returns shapes and types of (micro-)batches, for each canvas of the batches `numbers`.

    These are of one epoch. Every epoch has the same canvases.
    """
    plan, places = self.plan(numbers[0] // len(self)), [number % len(self) for number in numbers]
    batch, images = self._blank(0)
    made = (batch | self._images(images, canvas) for canvas in np.unique(plan.canvas[places]))
    return [{k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in b.items()} for b in made]

  def __len__(self) -> int:
    """Number of batches in an epoch, not of micro-batches; the same in every epoch."""
    return self._length

  def __getitem__(self, index: int) -> Batch:
    """Makes (micro-)batch `index`, counted over all epochs; its task's module describes it."""
    return self.make(index)

  def mine(self, micro: int) -> np.ndarray:
    """Returns the rows [R] of a batch that this process makes of its micro-batch `micro`."""
    places, count = self.devices
    each = self.images // self.micro_batches // count
    first = np.array(places) + micro * count
    return (first[:, None] * each + np.arange(each)).reshape(-1)

  def make(self, index: int, pool: Pools | None = None) -> Batch:
    """Makes (micro-)batch `index`; the threads of `pool` read and decode its images.

    The texts of an unreadable image get weight 0. The totals of micro-batches still count them,
    because no process knows which images another one cannot read.
    """
    batch, numbers = self._blank(index)
    bad = self._load(numbers, batch, pool)
    name = self.split.sidecar.image_id[numbers]
    self.unreadable.count(index, len(numbers), {name[i].decode(): bad[i] for i in bad})
    readable = np.array([i not in bad for i in range(len(numbers))])
    for name in self.WEIGHTS:
      rows = len(batch[name])
      counts = readable.reshape(rows, -1).all(1)
      batch[name] *= counts.reshape(-1, *[1] * (batch[name].ndim - 1))
    return batch

  def _blank(self, index: int) -> tuple[Batch, np.ndarray]:
    """Makes (micro-)batch `index` without pixels; returns it, and the numbers of its images."""
    step, micro = divmod(index, self.micro_batches)
    epoch, number = divmod(step, len(self))
    plan = self.plan(epoch)
    mine = self.mine(micro)
    batch = self._texts(plan, number, mine, step)
    numbers = plan.image[number, mine].reshape(-1)
    batch |= self._images(numbers, plan.canvas[number])
    if self.flip and self.training:
      flips = self._flips(plan.text[number, mine], mine, step)
      batch['flip'] = np.repeat(flips, len(numbers) // len(mine))
    if self.micro_batches > 1:
      batch |= {name: np.full(len(mine), value) for name, value in self._totals(step).items()}
    return batch, numbers

  def _images(self, numbers: np.ndarray, canvas: int) -> Batch:
    """Makes the arrays of images on a canvas, without pixels."""
    size = self.split.sidecar.size[numbers]
    target = self.canvases.target(size)
    return {
      'image': np.zeros((len(numbers), *self._sources[canvas], 3), np.uint8),
      'source_size': image.placed_size(size, target).astype(np.int32),
      'size': target,
      # It holds no data: its shape tells the model the shape of the canvas.
      'canvas': np.zeros((len(numbers), *self.canvases.shapes[canvas], 0), np.uint8),
    }

  def _load(self, numbers: np.ndarray, batch: Batch, pool: Pools | None) -> dict[int, UserError]:
    """Decodes the images of a batch onto their canvases; returns what is wrong with which rows."""
    sidecar, pixels = self.split.sidecar, batch['image']
    # All are asked for at once: storage that answers late still answers many at a time.
    coming = [pool.reading.submit(self.split.encoded, n) for n in numbers] if pool else []

    def load(rows: range) -> dict[int, UserError]:
      bad: dict[int, UserError] = {}
      for i in rows:
        size, target = sidecar.size[numbers[i]], batch['size'][i]
        name = sidecar.image_id[numbers[i]].decode()
        try:
          data = coming[i].result() if coming else self.split.encoded(numbers[i])
          image.place(image.load(data, size, target, name), pixels[i])
        except (image.ImageError, RecordError) as error:
          if not self.training:
            raise
          bad[i] = error
          pixels[i] = image.GREY
      return bad

    chunks = [range(len(numbers))[i : i + CHUNK] for i in range(0, len(numbers), CHUNK)]
    parts = (pool.decoding.map if pool else map)(load, chunks)
    return {i: error for part in parts for i, error in part.items()}

  def _flips(self, texts: np.ndarray, mine: np.ndarray, step: int) -> np.ndarray:
    """Draws which images to mirror, [B] bool, given all their texts [B, K], true or not."""
    rng = np.random.default_rng([self.seed, FLIPS, step])
    flip = rng.random(self.images)[mine] < self.flip
    for row in np.flatnonzero(flip):
      flip[row] = not any(SIDES.search(self.full_text(i)) for i in texts[row])
    return flip


def read(batches: Batches, numbers: Sequence[int], threads: Threads = FEW) -> Iterator[Batch]:
  """Yields the batches of these ascending numbers; makes them, and plans, ahead in threads."""
  pool = Pools(*map(ThreadPoolExecutor, threads))

  def make(index: int) -> Batch:
    batches.plan_ahead(index, numbers[-1])
    return batches.make(index, pool)

  dataset = grain.MapDataset.source(numbers).map(make)
  # Two batches at a time, for any number of threads: a batch may take gigabytes.
  options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
  return iter(dataset.to_iter_dataset(options))
