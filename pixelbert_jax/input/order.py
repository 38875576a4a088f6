"""The plan of an epoch: which images and texts make up each global batch, before any is read.

A plan is a function of (sidecar, seed, epoch, batch size) alone. Every process computes the whole
and takes its slice of each batch; that no pair comes twice in an epoch, that resuming needs only
the step, and that the number of processes changes nothing all follow from it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth

# Streams of chance of a seed: an epoch's plan, a step's hidden words, a step's mirrored images.
PLAN, WORDS, FLIPS = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Shares:
  """A mixture's declared shares; without them every pair comes once an epoch.

  Attributes:
    first: [S] number of the first image of each source.
    share: [S] of the pairs of an epoch, adding up to 1.
  """

  first: tuple[int, ...]
  share: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
  """Batches of an epoch. S batches of B images with K texts each.

  Attributes:
    canvas: [S] number of the canvas of each batch.
    image: [S, B] int64, image numbers; [S, B, 2] where texts are about two.
    text: [S, B, K] int64, text numbers.
    matched: [S, B, K] bool: whether the text is true of the image.
    weight: [S, B, K] float32, 0 for places that are only filled up.
    moves: from which canvas to which images went, for want of a batch of them.
    missed: images, or pairs of them, that come in no epoch for want of one.
  """

  canvas: np.ndarray
  image: np.ndarray
  text: np.ndarray
  matched: np.ndarray
  weight: np.ndarray
  moves: Sequence[tuple[int, int]] = ()
  missed: int = 0

  def __len__(self) -> int:
    return len(self.canvas)


def plan_epoch(
  sidecar: Sidecar,
  canvases: Canvases,
  seed: int,
  epoch: int,
  images_per_batch: int,
  texts_per_image: int,
  training: bool,
  shares: Shares | None = None,
) -> Plan:
  """Plans an epoch of image-text pairs.

  Training visits images in an order of each epoch's own and drops what does not fill a batch (or,
  for images with enough texts, a group of `texts_per_image`); evaluation keeps every caption once,
  in a fixed order, with weight 0 where a group or batch is filled up.

  Half of the texts are matched. The others are given to images of which they are not true by
  permuting them among each other, so true and false pairs have the same texts. Where the corpus
  labels its texts itself, those labels are taken and nothing is permuted.

  With `shares`, an epoch has as many pairs as it can have without any coming twice: all of one
  source, and others of the rest in each epoch.

  Raises:
    UserError: the split has no texts, or in training too few for one batch.
  """
  if not len(sidecar.text):
    raise UserError('the split has no texts')
  rng = np.random.default_rng([seed, PLAN, epoch])
  image_of, text, weight = group_texts(sidecar.captions.start, texts_per_image, rng, training)
  canvas = canvases.choose(sidecar.size)[image_of]
  if shares:
    kept = keep_shares(shares, canvas, image_of, weight, rng)
    canvas, image_of, text, weight = (x[kept] for x in (canvas, image_of, text, weight))
  if sidecar.label.all():
    text, matched, weight = mismatch_half(sidecar, image_of, text, weight, rng)
  else:
    matched = sidecar.label[text]
  return batch_groups(
    canvases, canvas, image_of, text, matched, weight, images_per_batch, rng, training
  )


def plan_texts(
  start: np.ndarray,
  image: np.ndarray,
  canvases: Canvases,
  canvas: np.ndarray,
  label: np.ndarray,
  seed: int,
  epoch: int,
  images_per_batch: int,
  texts_per_image: int,
  training: bool,
) -> Plan:
  """Plans an epoch of texts that stay with their images; order and remainders as in `plan_epoch`.

  Args:
    start: [G + 1] int; texts start[g] to start[g + 1] are about group g.
    image: [G] int, its image, or [G, 2], its two.
    canvases: that there are.
    canvas: [G] int, which of them is whose.
    label: [N] bool, whether a text is true.
    seed: and the rest, as of `plan_epoch`.

  Raises:
    UserError: the split has no texts, or in training too few for one batch.
  """
  if not len(label):
    raise UserError('the split has no texts')
  rng = np.random.default_rng([seed, PLAN, epoch])
  group, text, weight = group_texts(start, texts_per_image, rng, training)
  return batch_groups(
    canvases,
    canvas[group],
    image[group],
    text,
    label[text],
    weight,
    images_per_batch,
    rng,
    training,
  )


def group_texts(
  start: np.ndarray, texts_per_image: int, rng: np.random.Generator, training: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Deals each image's texts, numbers start[i] to start[i + 1], into groups of `texts_per_image`.

  Returns:
    image [G], text [G, K] and weight [G, K] float32. Texts that fill no group are left out in
    training (others in each epoch), unless their image would then have none.
  """
  count = np.diff(start)
  # Texts in a random order within their image.
  order = np.lexsort((rng.random(count.sum()), np.repeat(np.arange(len(count)), count)))
  groups = -(-count // texts_per_image)
  if training:
    groups = np.maximum(count // texts_per_image, np.minimum(groups, 1))
  image_of = np.repeat(np.arange(len(count)), groups)
  number = np.arange(len(image_of)) - np.repeat(np.cumsum(groups) - groups, groups)
  place = number[:, None] * texts_per_image + np.arange(texts_per_image)
  real = place < count[image_of][:, None]
  first = start[image_of][:, None]
  return image_of, order[first + np.where(real, place, 0)], real.astype(np.float32)


def keep_shares(
  shares: Shares,
  canvas: np.ndarray,
  image_of: np.ndarray,
  weight: np.ndarray,
  rng: np.random.Generator,
) -> np.ndarray:
  """The groups [G'] that make up an epoch of the declared shares, in order.

  How many there are of each source and canvas is the same in every epoch, so that all epochs have
  as many batches.
  """
  source = np.searchsorted(shares.first, image_of, side='right') - 1
  pairs = np.bincount(source, weight.sum(1), minlength=len(shares.first))
  share = np.array(shares.share)
  kept = share * (pairs / share).min() / np.maximum(pairs, 1)
  canvases = canvas.max(initial=0) + 1
  cell = source * canvases + canvas
  # A random order within each cell, of which the first are taken.
  order = np.lexsort((rng.random(len(cell)), cell))
  number, first, count = np.unique(cell[order], return_index=True, return_counts=True)
  taken = np.floor(count * kept[number // canvases] + 0.5).astype(int)
  rank = np.arange(len(cell)) - np.repeat(first, count)
  return np.sort(order[rank < np.repeat(taken, count)])


def mismatch_half(
  sidecar: Sidecar,
  image_of: np.ndarray,
  text: np.ndarray,
  weight: np.ndarray,
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Makes half of each group's pairs untrue, by permuting their texts among all such places.

  Returns:
    text [G, K], matched [G, K] bool, and weight [G, K], 0 for the few texts that are true of so
    many images that no place is left for them.

  Raises:
    UserError: that is so for most texts.
  """
  g, k = text.shape
  # Half of each group; where K is odd, half of the groups have one more.
  rank = np.argsort(np.argsort(rng.random((g, k)), axis=1), axis=1)
  matched = rank >= (k + (rng.permutation(g) % 2)[:, None]) // 2
  i, j = np.nonzero(~matched & (weight > 0))
  images, texts = image_of[i], rng.permutation(text[i, j])
  truth = Truth(sidecar)
  wrong = np.flatnonzero(truth(images, texts))
  for _ in range(200):
    if not len(wrong):
      break
    # Swap each with a random partner; disjoint pairs, so that swaps do not interfere.
    swap = np.stack([wrong, rng.integers(len(texts), size=len(wrong))], axis=1)
    first = np.zeros(swap.size, bool)
    first[np.unique(swap, return_index=True)[1]] = True
    a, b = swap[first.reshape(-1, 2).all(1)].T
    good = ~truth(images[a], texts[b]) & ~truth(images[b], texts[a])
    a, b = a[good], b[good]
    texts[a], texts[b] = texts[b], texts[a]
    wrong = np.setdiff1d(wrong, np.concatenate([a, b]), assume_unique=True)
  if 2 * len(wrong) > len(texts):
    raise UserError(
      f'{len(wrong)} of {len(texts)} texts are true of nearly every image, for example '
      f'{sidecar.caption(texts[wrong[0]])!r}: there is no image to mismatch them with'
    )
  text, weight = text.copy(), weight.copy()
  text[i, j] = texts
  weight[i[wrong], j[wrong]] = 0
  return text, matched, weight


def batch_groups(
  canvases: Canvases,
  canvas: np.ndarray,
  image_of: np.ndarray,
  text: np.ndarray,
  matched: np.ndarray,
  weight: np.ndarray,
  images_per_batch: int,
  rng: np.random.Generator,
  training: bool,
) -> Plan:
  """Batches groups of one canvas each; the arguments are by group, as `group_texts` gives them.

  In training no canvas is left with fewer than a batch, where another holds its images.

  Raises:
    UserError: there are too few for one batch.
  """
  batches, filled, moves = [], [], []
  if training:
    canvas, moves = canvases.fill(canvas, images_per_batch, rng)
  for number in np.unique(canvas):
    members = np.flatnonzero(canvas == number)
    if training:
      members = rng.permutation(members)[: len(members) // images_per_batch * images_per_batch]
    short = -len(members) % images_per_batch
    batches.append(np.append(members, np.repeat(members[:1], short)).reshape(-1, images_per_batch))
    filled.append(np.append(np.ones(len(members)), np.zeros(short)).reshape(batches[-1].shape))
  groups, real = np.concatenate(batches), np.concatenate(filled).astype(np.float32)
  if training:
    order = rng.permutation(len(groups))
    groups, real = groups[order], real[order]
  if not len(groups):
    most = np.bincount(canvas).max(initial=0)
    raise UserError(
      f'batch_size: a batch takes {images_per_batch} images of {text.shape[1]} texts each, on one '
      f'canvas, and there are {most}: lower batch_size, or texts_per_image with it'
    )
  return Plan(
    canvas[groups[:, 0]],
    image_of[groups],
    text[groups],
    matched[groups],
    weight[groups] * real[..., None],
    moves,
    len(np.unique(image_of[~np.isin(canvas, canvas[groups[:, 0]])], axis=0)),
  )


def swap_images(plan: Plan) -> Plan:
  """The same plan with every image swapped for the next one of its canvas (labels stay)."""
  swapped = plan.image.copy()
  for canvas in np.unique(plan.canvas):
    here = plan.image[plan.canvas == canvas]
    images = np.unique(here)
    swapped[plan.canvas == canvas] = np.roll(images, -1)[np.searchsorted(images, here)]
  return dataclasses.replace(plan, image=swapped)
