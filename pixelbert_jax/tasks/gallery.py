"""The batches of retrieval: each image with one of its captions and with captions of others."""

import dataclasses
import functools
from typing import Self

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.groups import Groups
from pixelbert_jax.input.order import Batching, Plan, batch_groups
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth

# How often a caption is drawn again if it is one of the image.
TRIES = 50


@dataclasses.dataclass(frozen=True)
class Gallery:
  """The I images and T captions that an evaluation ranks.

  Attributes:
    image: [I] int, image numbers in the split, ascending.
    caption: [T] int, caption numbers in the split, ascending.
    row: [T] int, the row of each caption's image among the I.
    existing: number of captions of these images; the T are the first of each image.
  """

  image: np.ndarray
  caption: np.ndarray
  row: np.ndarray
  existing: int


def choose_gallery(sidecar: Sidecar, images: int = 0, captions: int = 0) -> Gallery:
  """Chooses images, evenly spread over a split, and the first captions of each; 0 takes all.

  Raises:
    UserError: the split has no captions, or a chosen image has none.
  """
  number = len(sidecar.image_id)
  chosen = np.arange(number)
  if 0 < images < number:
    chosen = np.linspace(0, number - 1, images).round().astype(int)
  start, end = sidecar.captions.start[chosen], sidecar.captions.start[chosen + 1]
  count = end - start
  if not count.sum():
    raise UserError('the split has no captions to rank: evaluate on another, --config.data.test=')
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


def plan_gallery(sidecar: Sidecar, gallery: Gallery, batching: Batching) -> Plan:
  """Plans batches of every image of a gallery, each with its first caption."""
  text = sidecar.captions.start[gallery.image][:, None]
  groups = Groups(
    canvas=batching.canvases.choose(sidecar.size[gallery.image]),
    image=gallery.image,
    text=text,
    matched=np.ones(text.shape, bool),
    weight=np.ones(text.shape, np.float32),
  )
  return batch_groups(groups, batching, batching.generator(0))  # evaluation draws nothing


def listed(sidecar: Sidecar) -> Sidecar:
  """Drops the claims of a sidecar: true of an image are then its captions, word for word."""
  none = np.zeros(0, np.int32)
  return dataclasses.replace(sidecar, claim=none, claims=Ragged(none, sidecar.claims.start * 0))


def plan_ranking(
  sidecar: Sidecar, batching: Batching, epoch: int, own: Truth | None = None
) -> Plan:
  """Plans a training epoch: every caption once with its image, beside others that are not of it.

  The image's own caption is the first of the `texts_per_image`; the others are drawn at random
  from the whole split (paper section 4.4), anew in each epoch. None equals a caption of the image.
  Some may still be true of it: recall counts them as misses, so the model learns which of the true
  captions are likely an image's own. Images that do not fill a batch are dropped.

  `own` tells which captions are equal to one of an image; by default those that are word for word.

  Raises:
    UserError: the split has no captions, or labelled false ones, or nearly every image has the same
      captions, or there are too few for one batch.
  """
  captions = len(sidecar.text)
  if not captions:
    raise UserError('the split has no captions')
  if not sidecar.label.all():
    raise UserError(
      'some captions of the split are false of their images: retrieval learns from true ones'
    )
  rng = batching.generator(epoch)
  image_of, own = sidecar.caption_image, own or Truth(listed(sidecar))
  others = rng.integers(captions, size=(captions, batching.texts_per_image - 1))
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
      f'{sidecar.caption(others[i[0], j[0]])!r}: there is nothing to tell images apart by'
    )
  text = np.concatenate([np.arange(captions)[:, None], others], axis=1)
  weight = np.ones(text.shape, np.float32)
  weight[i, j + 1] = 0
  weight[:, 0] = weight[:, 1:].any(axis=1)  # Without other captions there is nothing to rank.
  groups = Groups(
    canvas=batching.canvases.choose(sidecar.size)[image_of],
    image=image_of,
    text=text,
    matched=np.broadcast_to(np.arange(batching.texts_per_image) == 0, text.shape),
    weight=weight,
  )
  return batch_groups(groups, batching, rng)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RankingBatches(Batches):
  """The batches of `tasks/retrieval.py`; in evaluation, of the gallery's images only.

  Attributes:
    most_images: images in an evaluation, evenly spread over the split; 0 takes all.
    most_captions: captions of each of these images, its first; 0 takes all.
    contrast: whether training batches say which of their captions are which images' own.
  """

  most_images: int = 0
  most_captions: int = 0
  contrast: bool = False

  @functools.cached_property
  def gallery(self) -> Gallery:
    """The images and captions that an evaluation ranks."""
    return choose_gallery(self.split.sidecar, self.most_images, self.most_captions)

  def regrouped(self) -> Self:
    """Returns these batches: an evaluation runs the CNN once an image as it is."""
    return self

  @property
  def truth(self) -> Truth:
    """Which captions are an image's own, or are read like one of these."""
    if not self._truth:
      self._truth.append(Truth(listed(self.split.sidecar), self.tokenizer))
    return self._truth[0]

  def _plan(self, epoch: int) -> Plan:
    sidecar = self.split.sidecar
    if not self.training:
      return plan_gallery(sidecar, self.gallery, self)
    return plan_ranking(sidecar, self, epoch, self.truth)

  def _weights(self, plan: Plan, number: int, step: int) -> dict[str, np.ndarray]:
    names = ('retrieval', 'first_stage') if self.contrast else ('retrieval',)
    return dict.fromkeys(names, plan.weight[number, :, 0])

  def _texts(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> Batch:
    ids, mask = self.tokens(plan.text[number, mine])
    batch = {'token_ids': ids, 'token_mask': mask, 'weight': plan.weight[number, mine]}
    if self.contrast and self.training:
      batch['own'] = self._own(plan, number, mine)
    return batch

  def _own(self, plan: Plan, number: int, mine: np.ndarray) -> np.ndarray:
    """Tells of which images `mine` [R] the captions of the (micro-)batch are own, [R, B, K]."""
    size = self.images // self.micro_batches
    first = mine[0] // size * size
    text = plan.text[number, first : first + size]
    text = np.broadcast_to(text, (len(mine), *text.shape))
    image = np.broadcast_to(plan.image[number, mine][:, None, None], text.shape)
    return self.truth(image.reshape(-1), text.reshape(-1)).reshape(text.shape)
