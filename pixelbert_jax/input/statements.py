"""The batches of NLVR and NLVR2: texts that are true or false of an image, or of two."""

import abc
import dataclasses
import functools
import re

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.plan import Plan, plan_epoch, plan_texts
from pixelbert_jax.input.sidecar import Statements
from pixelbert_jax.scores import nlvr, nlvr2, predictions
from pixelbert_jax.scores.files import Path

NLVR_IMAGE = re.compile(r'[a-z]+-(\d+-\d+-\d+)')


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StatementBatches(Batches):
  """The batches of `tasks/nlvr.py`, and how their corpus calls and scores its texts."""

  @abc.abstractmethod
  def name(self, i: int) -> str:
    """What text i is called in a file of predictions."""

  @abc.abstractmethod
  def sentence(self, name: str) -> str:
    """What is the same of all texts that consistency takes together."""

  @abc.abstractmethod
  def summarise(self, correct: dict[str, bool], labels: dict[str, bool]) -> dict[str, float]:
    """The official scores, in 0..1."""

  @abc.abstractmethod
  def write(self, path: Path, said: dict[str, bool], split: str) -> None:
    """Writes predictions in the official form."""

  def _totals(self, step: int) -> dict[str, np.float32]:
    epoch, number = divmod(step, len(self))
    return {'nlvr_total': self.plan(epoch).weight[number].sum(dtype=np.float32)}

  def _texts(self, plan: Plan, number: int, mine: slice, step: int) -> Batch:
    texts = plan.text[number, mine]
    ids, mask = self.tokens(texts)
    return {
      'token_ids': ids,
      'token_mask': mask,
      'label': plan.matched[number, mine],
      'weight': plan.weight[number, mine],
      'statement': texts.astype(np.int32),
    }


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NlvrBatches(StatementBatches):
  """Captions of one image each, true or false: as labelled or, without labels, mismatched."""

  def _plan(self, epoch: int) -> Plan:
    return plan_epoch(self.split.sidecar, self.canvases, epoch=epoch, **self._planned)

  @functools.cached_property
  def _image(self) -> np.ndarray:
    return self.split.sidecar.caption_image

  def name(self, i: int) -> str:
    """NLVR's '1572-0-3'; of a caption of another corpus, its image, number there and 0."""
    image = int(self._image[i])
    official = NLVR_IMAGE.fullmatch(self.split.sidecar.image_id[image].decode())
    place = i - int(self.split.sidecar.captions.start[image])
    return official[1] if official else f'{image}-{place}-0'

  def sentence(self, name: str) -> str:
    return nlvr.sentence(name)

  def summarise(self, correct: dict[str, bool], labels: dict[str, bool]) -> dict[str, float]:
    return nlvr.summarise(correct)

  def write(self, path: Path, said: dict[str, bool], split: str) -> None:
    predictions.write_nlvr(path, said, split)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Nlvr2Batches(StatementBatches):
  """Statements about two images, which come one after the other: 2 B images in a batch."""

  @property
  def statements(self) -> Statements:
    """Those of the split."""
    return self.split.sidecar.statements

  @functools.cached_property
  def _first(self) -> np.ndarray:
    """[G] the first of the statements that stand together and are about the same two images."""
    pair = np.stack([self.statements.left, self.statements.right], axis=1)
    return np.flatnonzero(np.any(np.diff(pair, axis=0, prepend=-1), axis=1))

  @functools.cached_property
  def _pairs(self) -> np.ndarray:
    """[G, 2] their images, left and right."""
    return np.stack([self.statements.left, self.statements.right], axis=1)[self._first]

  @property
  def _sizes(self) -> np.ndarray:
    return self.split.sidecar.size[self._pairs]

  def _plan(self, epoch: int) -> Plan:
    if not len(self.statements):
      raise UserError('the split has no statements about two images')
    return plan_texts(
      np.append(self._first, len(self.statements)),
      self._pairs,
      self.canvases,
      self.canvases.choose(self._sizes),
      self.statements.label,
      epoch=epoch,
      **self._planned,
    )

  @property
  def texts(self) -> int:
    return len(self.statements)

  def text(self, i: int) -> str:
    return self.statements.text.text(i)

  def name(self, i: int) -> str:
    return self.statements.identifier[i].decode()

  def sentence(self, name: str) -> str:
    return nlvr2.sentence(name)

  def summarise(self, correct: dict[str, bool], labels: dict[str, bool]) -> dict[str, float]:
    return nlvr2.summarise(correct, labels)

  def write(self, path: Path, said: dict[str, bool], split: str) -> None:
    predictions.write_nlvr2(path, said)
