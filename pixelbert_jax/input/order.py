"""The order of an epoch: which images and texts make up each global batch, before any is read.

A plan is a function of (sidecar, seed, epoch, batch size) alone. Every process computes all of it
and takes its slice of each batch. So no pair comes twice in an epoch, resuming needs only the step,
and the number of processes changes nothing.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.groups import Groups, Shares, keep_shares
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.sidecar import Sidecar

# Texts that the Transformer reads in the time that the CNN takes for an image: by R50's FLOPs 8
# where pixels are sampled and 4 where they are not; 3 in the small model.
CNN = 4
# Random streams of a seed: for an epoch's plan, a step's hidden words, its mirrored images and its
# changed boxes.
PLAN, WORDS, FLIPS, CHANGES = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
  """How the texts of a split are put into batches.

  Attributes:
    canvases: how images are resized, and the shapes they are placed on.
    seed: of the plan and of all random draws.
    images: B, images in a global batch, or pairs of images.
    texts_per_image: K, texts in a group.
    training: in a random order and full batches only, without end; else each text once, in a fixed
      order.
  """

  canvases: Canvases
  seed: int
  images: int
  texts_per_image: int
  training: bool

  def generator(self, epoch: int) -> np.random.Generator:
    """Makes the random generator of an epoch's plan."""
    return np.random.default_rng([self.seed, PLAN, epoch])


@dataclasses.dataclass(frozen=True)
class Plan(Groups):
  """The batches of an epoch: S batches of B groups with K texts each.

  Attributes:
    canvas: [S] int16, number of the canvas of each batch.
    image: [S, B] int32, image numbers; [S, B, 2] where texts are about two images.
    text: [S, B, K] int32, text numbers.
    matched: [S, B, K] bool, whether the text is true of the image.
    weight: [S, B, K] float32, 0 for places that only fill up a group or a batch.
    moves: pairs of canvases, from the first of which groups were moved to the second, because they
      did not fill a batch of their own.
    missed: number of images, or pairs of images, that are in no epoch because no batch could be
      filled on their canvas.
  """

  moves: Sequence[tuple[int, int]] = ()
  missed: int = 0


def texts_at_a_time(count: np.ndarray, most: int) -> int:
  """Returns the size of groups, at most `most`, in which all texts take the least time.

  Smaller groups run the CNN more often, larger ones have more places that only fill up.

  Args:
    count: [N] int, texts of each image.
    most: largest size.
  """
  size = np.arange(1, max(1, min(most, count.max(initial=1))) + 1)
  each, images = np.unique(count, return_counts=True)
  groups = (-(-each // size[:, None]) * images).sum(1)
  return int(size[(groups * (CNN + size)).argmin()])


def plan_epoch(
  sidecar: Sidecar,
  batching: Batching,
  epoch: int,
  shares: Shares | None = None,
  negatives: Negatives | None = None,
) -> Plan:
  """Plans an epoch of image-text pairs.

  Training visits images in a random order, another one in each epoch, and drops what does not fill
  a batch (or, for images with enough texts, a group of `texts_per_image`). Evaluation keeps every
  caption once, in a fixed order; places that fill up a group or batch have weight 0.

  Half of the texts are matched; the others become untrue by `negatives`. Without these, or where
  the corpus labels its texts itself, pairs stay as they are listed.

  With `shares`, an epoch has as many pairs as it can have without any coming twice: all of one
  source, and another part of the rest in each epoch.

  Raises:
    UserError: the split has no texts, or in training too few for one batch.
  """
  if not len(sidecar.text):
    raise UserError('the split has no texts')
  rng = batching.generator(epoch)
  canvas = batching.canvases.choose(sidecar.size)
  groups = group_texts(sidecar.captions.start, canvas, sidecar.label, batching, rng)
  if shares:
    groups = keep_shares(shares, groups, rng)
  if negatives and sidecar.label.all():
    groups = negatives(groups, rng)
  return batch_groups(groups, batching, rng)


def plan_texts(
  batching: Batching,
  epoch: int,
  *,
  start: np.ndarray,
  image: np.ndarray,
  canvas: np.ndarray,
  label: np.ndarray,
) -> Plan:
  """Plans an epoch of texts that stay with their images; order and remainders as in `plan_epoch`.

  Args:
    batching: how texts are put into batches.
    epoch: number of the epoch.
    start: [N + 1] int; texts start[n] to start[n + 1] are about image n.
    image: [N] int, image numbers; [N, 2] where texts are about two images.
    canvas: [N] int, number of the canvas of each.
    label: [M] bool, whether a text is true.

  Raises:
    UserError: the split has no texts, or in training too few for one batch.
  """
  if not len(label):
    raise UserError('the split has no texts')
  rng = batching.generator(epoch)
  groups = group_texts(start, canvas, label, batching, rng)
  groups = dataclasses.replace(groups, image=image[groups.image])
  return batch_groups(groups, batching, rng)


def group_texts(
  start: np.ndarray,
  canvas: np.ndarray,
  label: np.ndarray,
  batching: Batching,
  rng: np.random.Generator,
) -> Groups:
  """Deals the texts of each image into groups of `texts_per_image`.

  In training, texts that do not fill a group are dropped (others in each epoch), unless their image
  would then have none.

  Args:
    start: [N + 1] int; texts start[n] to start[n + 1] are about image n.
    canvas: [N] int, number of the canvas of each image.
    label: [M] bool, whether a text is true.
    batching: how texts are put into batches.
    rng: shuffles the texts of each image.
  """
  per_group, start = batching.texts_per_image, start.astype(np.int32)
  count = np.diff(start)
  groups = -(-count // per_group)
  if batching.training:
    groups = np.maximum(count // per_group, np.minimum(groups, 1))
  image = np.repeat(np.arange(len(count), dtype=np.int32), groups)
  # The place of a group's first text among those of its image.
  first = np.arange(len(image), dtype=np.int32) - np.repeat(np.cumsum(groups) - groups, groups)
  first = first.astype(np.int32) * per_group
  each = np.arange(per_group, dtype=np.int32)
  real = each < (count[image] - first)[:, None]
  text = (start[image] + first)[:, None] + each
  np.copyto(text, start[image][:, None], where=~real)
  if per_group > 1:  # Else each text is a group, in whatever order.
    text = shuffled(start, rng)[text]
  return Groups(
    canvas=canvas.astype(np.int16)[image],
    image=image,
    text=text,
    matched=label[text],
    weight=real.astype(np.float32),
  )


def shuffled(start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Shuffles the texts of each image.

  Args:
    start: [N + 1] int; texts start[n] to start[n + 1] are about image n.
    rng: draws the order.

  Returns:
    [M] int32, text numbers; those of image n in places start[n] to start[n + 1].
  """
  count, first = np.diff(start), start[:-1].astype(np.int32)
  images = np.arange(len(count), dtype=np.uint64)
  high, low = (max(1, int(most).bit_length()) for most in (len(count), count.max(initial=0)))
  place = np.arange(start[-1], dtype=np.int32) - np.repeat(first, count)
  # Sorting numbers is five times as fast as sorting places by two keys. So a number has the image
  # in its high bits, the place within the image in its low ones, and random bits between these.
  key = rng.integers(2**64, size=len(place), dtype=np.uint64)
  key >>= np.uint64(high + low)
  key <<= np.uint64(low)
  key |= place.astype(np.uint64)
  key |= np.repeat(images << np.uint64(64 - high), count)
  key.sort()
  key &= np.uint64(2**low - 1)
  return key.astype(np.int32) + np.repeat(first, count)


def batch_groups(groups: Groups, batching: Batching, rng: np.random.Generator) -> Plan:
  """Puts groups into batches of one canvas each.

  In training, groups of a canvas that has too few for a batch move to one that holds them, if there
  is one.

  Raises:
    UserError: there are too few groups for one batch.
  """
  per_batch, training = batching.images, batching.training
  batches, moves = [np.zeros((0, per_batch), np.int32)], list[tuple[int, int]]()
  short = []  # The last batch of each canvas, and how many places of it only fill it up.
  canvas = groups.canvas
  if training:
    canvas, moves = batching.canvases.fill(canvas, per_batch, rng)
  available = np.bincount(canvas)
  for number in np.flatnonzero(available):
    members = np.flatnonzero(canvas == number).astype(np.int32)
    if training:
      rng.shuffle(members)
      members = members[: len(members) // per_batch * per_batch]
    missing = -len(members) % per_batch
    batches.append(np.append(members, np.repeat(members[:1], missing)).reshape(-1, per_batch))
    short.append((sum(map(len, batches)) - 1, missing))
  rows = np.concatenate(batches)
  if training:
    rows = rows[rng.permutation(len(rows))]
  if not len(rows):
    raise UserError(
      f'batch_size: a batch takes {per_batch} images of {batching.texts_per_image} texts each, on '
      f'one canvas, and there are {available.max(initial=0)}: lower batch_size, or texts_per_image '
      'with it'
    )
  weight = groups.weight[rows]
  if not training:
    for row, missing in short:
      weight[row, per_batch - missing :] = 0
  shown = np.isin(np.arange(len(available)), canvas[rows[:, 0]])
  return Plan(
    canvas=canvas[rows[:, 0]].astype(np.int16, copy=False),
    image=groups.image[rows].astype(np.int32, copy=False),
    text=groups.text[rows].astype(np.int32, copy=False),
    matched=groups.matched[rows],
    weight=weight,
    moves=moves,
    missed=len(np.unique(groups.image[~shown[canvas]], axis=0)),
  )


def swap_images(plan: Plan) -> Plan:
  """Replaces every image by the next one of its canvas; all else stays."""
  swapped = plan.image.copy()
  for canvas in np.unique(plan.canvas):
    rows = plan.canvas == canvas
    images = np.unique(plan.image[rows])
    swapped[rows] = np.roll(images, -1)[np.searchsorted(images, plan.image[rows])]
  return dataclasses.replace(plan, image=swapped)
