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
# Random streams of a seed: for an epoch's plan, a step's hidden words and a step's mirrored images.
PLAN, WORDS, FLIPS = 1, 2, 3


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
    canvas: [S] int, number of the canvas of each batch.
    image: [S, B] int64, image numbers; [S, B, 2] where texts are about two images.
    text: [S, B, K] int64, text numbers.
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
  count, per_group = np.diff(start), batching.texts_per_image
  # Texts in a random order within their image.
  order = np.lexsort((rng.random(count.sum()), np.repeat(np.arange(len(count)), count)))
  groups = -(-count // per_group)
  if batching.training:
    groups = np.maximum(count // per_group, np.minimum(groups, 1))
  image = np.repeat(np.arange(len(count)), groups)
  number = np.arange(len(image)) - np.repeat(np.cumsum(groups) - groups, groups)
  place = number[:, None] * per_group + np.arange(per_group)
  real = place < count[image][:, None]
  text = order[start[image][:, None] + np.where(real, place, 0)]
  return Groups(
    canvas=canvas[image],
    image=image,
    text=text,
    matched=label[text],
    weight=real.astype(np.float32),
  )


def batch_groups(groups: Groups, batching: Batching, rng: np.random.Generator) -> Plan:
  """Puts groups into batches of one canvas each.

  In training, groups of a canvas that has too few for a batch move to one that holds them, if there
  is one.

  Raises:
    UserError: there are too few groups for one batch.
  """
  per_batch, training = batching.images, batching.training
  batches, filled, moves = [], [], list[tuple[int, int]]()
  if training:
    canvas, moves = batching.canvases.fill(groups.canvas, per_batch, rng)
    groups = dataclasses.replace(groups, canvas=canvas)
  for number in np.unique(groups.canvas):
    members = np.flatnonzero(groups.canvas == number)
    if training:
      members = rng.permutation(members)[: len(members) // per_batch * per_batch]
    short = -len(members) % per_batch
    batches.append(np.append(members, np.repeat(members[:1], short)).reshape(-1, per_batch))
    filled.append(np.append(np.ones(len(members)), np.zeros(short)).reshape(batches[-1].shape))
  rows, real = np.concatenate(batches), np.concatenate(filled).astype(np.float32)
  if training:
    order = rng.permutation(len(rows))
    rows, real = rows[order], real[order]
  if not len(rows):
    available = np.bincount(groups.canvas).max(initial=0)
    raise UserError(
      f'batch_size: a batch takes {per_batch} images of {batching.texts_per_image} texts each, on '
      f'one canvas, and there are {available}: lower batch_size, or texts_per_image with it'
    )
  batched = groups.take(rows)
  canvas = batched.canvas[:, 0]
  missed = groups.image[~np.isin(groups.canvas, canvas)]
  return Plan(
    canvas=canvas,
    image=batched.image,
    text=batched.text,
    matched=batched.matched,
    weight=batched.weight * real[..., None],
    moves=moves,
    missed=len(np.unique(missed, axis=0)),
  )


def swap_images(plan: Plan) -> Plan:
  """Replaces every image by the next one of its canvas; all else stays."""
  swapped = plan.image.copy()
  for canvas in np.unique(plan.canvas):
    rows = plan.canvas == canvas
    images = np.unique(plan.image[rows])
    swapped[rows] = np.roll(images, -1)[np.searchsorted(images, plan.image[rows])]
  return dataclasses.replace(plan, image=swapped)
