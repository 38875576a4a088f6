"""Batches of statements, true or false, about one image or two.

A batch has B images, or pairs of images, with K texts each, of T tokens:
  image, source_size, size, canvas and optionally flip as in `tasks/pretraining.py`; for pairs they
    have 2 B rows, left and right in turn, and canvas may be of two shapes (`input/pairs.py`)
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  label [B, K] bool, True if the text is true
  weight [B, K] float32, 0 for padding
  statement [B, K] int32, its index in the split
  with micro-batches nlvr_total [B] float32, the weight of the whole batch in each row
"""

import abc
import dataclasses
import functools
import re

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input import image
from pixelbert_jax.input.boxes import BOXES, ORDERS, Change
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.order import CHANGES, Plan, plan_epoch, plan_texts
from pixelbert_jax.input.pipeline import Batch, Batches, Pools
from pixelbert_jax.input.sidecar import Sidecar, Statements

NLVR_IMAGE = re.compile(r'[a-z]+-(\d+-\d+-\d+)')


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StatementBatches(Batches):
  """Batches of statements, with the names that their corpus gives them."""

  @abc.abstractmethod
  def name(self, i: int) -> str:
    """Returns the name of text i in a file of predictions."""

  def mismatched(self) -> dict[str, str]:
    """Returns by a text's name the id of the image it is shown with, where not all are its own."""
    return {}

  def _weights(self, plan: Plan, number: int, step: int) -> dict[str, np.ndarray]:
    return {'nlvr': plan.weight[number]}

  def _said(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> list[str]:
    """Returns the texts of the rows `mine` of batch `number`, as the model reads them."""
    return [self.text(i) for i in plan.text[number, mine].reshape(-1)]

  def _texts(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> Batch:
    texts = plan.text[number, mine]
    ids, mask = self.tokens_of(self._said(plan, number, mine, step), texts.shape)
    return {
      'token_ids': ids,
      'token_mask': mask,
      'label': plan.matched[number, mine],
      'weight': plan.weight[number, mine],
      'statement': texts.astype(np.int32),
    }


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NlvrBatches(StatementBatches):
  """Batches of captions of one image each: labelled true or false, or else mismatched at random.

  Attributes, beside those of `Batches`: those of `Nlvr`.
  """

  augment: float = 0.0
  blank: str = 'none'

  def _plan(self, epoch: int) -> Plan:
    sidecar = self.split.sidecar
    height, width = sidecar.size.T
    if self.augment and (width != 4 * height).any():
      raise UserError(
        'config.augment is for pictures of three boxes, four times as wide as high, as nlvr and '
        'boxes have: set it to 0'
      )
    return plan_epoch(sidecar, self, epoch, negatives=Negatives(sidecar, self.truth))

  def make(self, index: int, pool: Pools | None = None) -> Batch:
    """Makes (micro-)batch `index` as `Batches` does, with changed or blank images."""
    batch = super().make(index, pool)
    step, micro = divmod(index, self.micro_batches)
    epoch, number = divmod(step, len(self))
    changes = self._changes(self.plan(epoch), number, self.mine(micro), step)
    for row, change in enumerate(changes):
      pixels, (height, width) = batch['image'][row], batch['source_size'][row]
      image.place(change.picture(pixels[:height, :width]), pixels)
    if self.blank == 'image':
      batch['image'][:] = image.GREY
    return batch

  def _said(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> list[str]:
    said = super()._said(plan, number, mine, step)
    if self.blank == 'text':
      return [''] * len(said)
    k = self.texts_per_image
    for i, change in enumerate(self._changes(plan, number, mine, step)):
      said[i * k : (i + 1) * k] = map(change.sentence, said[i * k : (i + 1) * k])
    return said

  def _changes(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> list[Change]:
    """Draws the changes of the images `mine` of a batch; in evaluation there are none."""
    if not (self.augment and self.training):
      return []
    rng = np.random.default_rng([self.seed, CHANGES, step])
    drawn = rng.random(self.images) < self.augment
    mirrored = (rng.random((self.images, len(BOXES))) < 0.5) & drawn[:, None]
    order = rng.integers(len(ORDERS), size=self.images) * drawn
    return [
      Change.of(map(self.text, plan.text[number, row]), mirrored[row], ORDERS[order[row]])
      for row in mine
    ]

  @functools.cached_property
  def _image(self) -> np.ndarray:
    return self.split.sidecar.caption_image

  def name(self, i: int) -> str:
    return caption_name(self.split.sidecar, i, int(self._image[i]))

  def mismatched(self) -> dict[str, str]:
    sidecar, plan = self.split.sidecar, self.plan(0)
    if not sidecar.label.all():  # They are judged by their own images.
      return {}
    images = np.broadcast_to(plan.image[..., None], plan.text.shape)
    shown = zip(plan.text[plan.weight > 0], images[plan.weight > 0], strict=True)
    return {self.name(i): sidecar.image_id[image].decode() for i, image in shown}


def caption_name(sidecar: Sidecar, i: int, image: int) -> str:
  """Names caption i as NLVR does, such as '1572-0-3'; elsewhere image index, caption index, 0."""
  official = NLVR_IMAGE.fullmatch(sidecar.image_id[image].decode())
  return official[1] if official else f'{image}-{i - int(sidecar.captions.start[image])}-0'


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Nlvr2Batches(StatementBatches):
  """Batches of statements about two images; a batch has 2 B images, left and right alternating."""

  @property
  def table(self) -> Statements:
    """The statements of the split."""
    return self.split.sidecar.statements

  @functools.cached_property
  def _runs(self) -> tuple[np.ndarray, np.ndarray]:
    """Finds the runs of statements about the same images: the first [G], the images [G, 2]."""
    pair = np.stack([self.table.left, self.table.right], axis=1)
    first = np.flatnonzero(np.any(np.diff(pair, axis=0, prepend=-1), axis=1))
    return first, pair[first]

  @property
  def starts(self) -> np.ndarray:
    """The first statement of each run; the last is the number of statements."""
    return np.append(self._runs[0], len(self.table))

  @property
  def _sizes(self) -> np.ndarray:
    return self.split.sidecar.size[self._runs[1]]

  def _plan(self, epoch: int) -> Plan:
    if not len(self.table):
      raise UserError('the split has no statements about two images: name an NLVR2 dataset')
    return plan_texts(
      self,
      epoch,
      start=self.starts,
      image=self._runs[1],
      canvas=self.canvases.choose(self._sizes),
      label=self.table.label,
    )

  def name(self, i: int) -> str:
    return self.table.identifier[i].decode()
