"""The batches of retrieval: images with a caption of their own and captions of other images."""

import dataclasses
import functools

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.order import PLAN, Plan, batch_groups
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.sidecar import Ragged, Sidecar
from pixelbert_jax.input.truth import Truth

# How often a drawn caption is replaced while it is one of the image's own.
TRIES = 50


@dataclasses.dataclass(frozen=True)
class Gallery:
  """The I images and T captions of them that an evaluation ranks.

  Attributes:
    image: [I] the indices of the images in the split, ascending.
    caption: [T] the indices of the captions in the split, ascending.
    row: [T] the index in `image` of each caption's image.
    existing: number of captions that the images have; T is smaller where only the first are ranked.
  """

  image: np.ndarray
  caption: np.ndarray
  row: np.ndarray
  existing: int


def choose_gallery(sidecar: Sidecar, images: int = 0, captions: int = 0) -> Gallery:
  """Chooses images, evenly spread over a split, and their first captions.

  Args:
    sidecar: of the split.
    images: number of images; 0 takes all.
    captions: largest number of captions per image; 0 takes all.

  Raises:
    UserError: there are no images, or one has no caption.
  """
  there = len(sidecar.image_id)
  chosen = np.arange(there)
  if 0 < images < there:
    chosen = np.linspace(0, there - 1, images).round().astype(int)
  start, end = sidecar.captions.start[chosen], sidecar.captions.start[chosen + 1]
  count = end - start
  if not count.sum():
    raise UserError(
      'the split has no captions to rank: name another with --config.data.validation or '
      '--config.data.test'
    )
  if not count.all():
    bare = np.flatnonzero(count == 0)
    raise UserError(
      f'{len(bare):,} of {len(count):,} images have no caption, for example '
      f'{sidecar.image_id[chosen[bare[0]]].decode()}: build the dataset again without them'
    )
  existing = int(count.sum())
  count = np.minimum(count, captions) if captions else count
  row = np.repeat(np.arange(len(chosen)), count)
  place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
  return Gallery(chosen, start[row] + place, row, existing)


def plan_gallery(
  sidecar: Sidecar, canvases: Canvases, gallery: Gallery, images_per_batch: int
) -> Plan:
  """Plans batches with every image of a gallery once, with its first caption; padding weighs 0."""
  canvas = canvases.choose(sidecar.size[gallery.image])
  text = sidecar.captions.start[gallery.image][:, None]
  matched, weight = np.ones(text.shape, bool), np.ones(text.shape, np.float32)
  return batch_groups(
    canvases,
    canvas,
    gallery.image,
    text,
    matched,
    weight,
    images_per_batch,
    rng=np.random.default_rng(0),  # Evaluation draws nothing from it.
    training=False,
  )


def listed(sidecar: Sidecar) -> Sidecar:
  """Returns the sidecar without claims: only an image's own captions, literally, are true of it."""
  none = np.zeros(0, np.int32)
  return dataclasses.replace(sidecar, claim=none, claims=Ragged(none, sidecar.claims.start * 0))


def plan_ranking(
  sidecar: Sidecar,
  canvases: Canvases,
  seed: int,
  epoch: int,
  images_per_batch: int,
  texts_per_image: int,
) -> Plan:
  """Plans an epoch with every caption once, with its image and captions of other images.

  The image's own caption is the first of the `texts_per_image`; the others are drawn at random
  from the whole split (paper section 4.4), anew in each epoch. None of them is worded like one of
  the image's own. Some may still be true of the image: recall counts them as wrong, so the model
  learns which true captions are likely to be an image's own. Incomplete batches are dropped.

  Raises:
    UserError: the split has no captions, or labels some as false, or most drawn captions are the
      image's own, or there are too few for one batch.
  """
  captions = len(sidecar.text)
  if not captions:
    raise UserError('the split has no captions: name another with --config.data.train')
  if not sidecar.label.all():
    raise UserError(
      'some captions of the split are false of their images, but retrieval learns from true ones: '
      'name another dataset with --config.data.name'
    )
  rng = np.random.default_rng([seed, PLAN, epoch])
  image_of, own = sidecar.caption_image, Truth(listed(sidecar))
  others = rng.integers(captions, size=(captions, texts_per_image - 1))
  i, j = np.indices(others.shape).reshape(2, -1)
  for _ in range(TRIES):
    wrong = own(image_of[i], others[i, j])
    i, j = i[wrong], j[wrong]
    if not len(i):
      break
    others[i, j] = rng.integers(captions, size=len(i))
  wrong = own(image_of[i], others[i, j])
  i, j = i[wrong], j[wrong]
  if 2 * len(i) > others.size:
    raise UserError(
      f'{len(i):,} of {others.size:,} captions drawn are those of the image, for example '
      f'{sidecar.caption(others[i[0], j[0]])!r}: images need captions that tell them apart'
    )
  text = np.concatenate([np.arange(captions)[:, None], others], axis=1)
  weight = np.ones(text.shape, np.float32)
  weight[i, j + 1] = 0
  weight[:, 0] = weight[:, 1:].any(axis=1)  # Without another caption there is nothing to rank.
  matched = np.broadcast_to(np.arange(texts_per_image) == 0, text.shape)
  canvas = canvases.choose(sidecar.size)[image_of]
  return batch_groups(
    canvases, canvas, image_of, text, matched, weight, images_per_batch, rng, True
  )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RankingBatches(Batches):
  """The batches of `tasks/retrieval.py`; in evaluation they hold the images of the gallery.

  Attributes:
    most_images: largest number of images in an evaluation, evenly spread over the split; 0 is all.
    most_captions: largest number of captions of each of these images, the first ones; 0 is all.
  """

  most_images: int = 0
  most_captions: int = 0

  @functools.cached_property
  def gallery(self) -> Gallery:
    """The images and captions that an evaluation ranks."""
    return choose_gallery(self.split.sidecar, self.most_images, self.most_captions)

  def _plan(self, epoch: int) -> Plan:
    sidecar = self.split.sidecar
    if not self.training:
      return plan_gallery(sidecar, self.canvases, self.gallery, self.images)
    return plan_ranking(sidecar, self.canvases, self.seed, epoch, self.images, self.texts_per_image)

  def _totals(self, step: int) -> dict[str, np.float32]:
    epoch, number = divmod(step, len(self))
    return {'retrieval_total': self.plan(epoch).weight[number, :, 0].sum(dtype=np.float32)}

  def _texts(self, plan: Plan, number: int, mine: slice, step: int) -> Batch:
    ids, mask = self.tokens(plan.text[number, mine])
    return {
      'token_ids': ids,
      'token_mask': mask,
      'weight': plan.weight[number, mine],
    }
