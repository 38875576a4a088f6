"""The batches of VQA: images with questions, and how right each answer is to them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.answers import answer_numbers, answerable, soft_targets
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.plan import Plan, plan_texts
from pixelbert_jax.input.sidecar import Questions


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class QuestionBatches(Batches):
  """The batches of `tasks/vqa.py`.

  Attributes:
    answers: A, to choose from.
    guess: the answer to each question type that is best without looking, '' for others.
  """

  answers: Sequence[str]
  guess: Mapping[str, str] | None = None

  @property
  def questions(self) -> Questions:
    """Those of the split."""
    return self.split.sidecar.questions

  @functools.cached_property
  def _numbers(self) -> np.ndarray:
    return answer_numbers(self.questions, self.answers)

  @functools.cached_property
  def _answerable(self) -> np.ndarray:
    return answerable(self.questions, self._numbers)

  def _plan(self, epoch: int) -> Plan:
    sidecar = self.split.sidecar
    images = np.arange(len(sidecar.image_id))
    if not len(self.questions):
      raise UserError('the split has no questions')
    return plan_texts(
      np.searchsorted(self.questions.image, np.append(images, len(images))),
      images,
      self.canvases,
      self.canvases.choose(sidecar.size),
      np.ones(len(self.questions), bool),
      epoch=epoch,
      **self._planned,
    )

  @property
  def texts(self) -> int:
    return len(self.questions)

  def text(self, i: int) -> str:
    return self.questions.text.text(i)

  def said(self, i: int) -> str:
    """The question and its answers."""
    answers = map(self.questions.strings.text, self.questions.answers[i])
    return ' '.join([self.text(i), *answers])

  def _weight(self, plan: Plan, number: int) -> np.ndarray:
    weight = plan.weight[number]
    # There is nothing to learn where no answer of the list is right, but much to get wrong.
    return weight * self._answerable[plan.text[number]] if self.training else weight

  def _totals(self, step: int) -> dict[str, np.float32]:
    epoch, number = divmod(step, len(self))
    return {'vqa_total': self._weight(self.plan(epoch), number).sum(dtype=np.float32)}

  def _texts(self, plan: Plan, number: int, mine: slice, step: int) -> Batch:
    texts = plan.text[number, mine]
    ids, mask = self.tokens(texts)
    target = soft_targets(self.questions, self._numbers, texts.reshape(-1), len(self.answers))
    return {
      'token_ids': ids,
      'token_mask': mask,
      'vqa_target': target.reshape(*texts.shape, -1),
      'weight': self._weight(plan, number)[mine],
      'question': texts.astype(np.int32),
    }
