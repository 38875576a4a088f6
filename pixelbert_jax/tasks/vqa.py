"""Visual question answering (paper section 4.2): a classifier over answers, on soft scores.

A batch has B images with K questions each, of T tokens; there are A answers to choose from:
  image, source_size, size, canvas and optionally flip as in `tasks/pretraining.py`
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  vqa_target [B, K, A] float32, the score of each answer: officially 0, .3, .6, .9 or 1
  weight [B, K] float32, 0 for padding, and in training where no answer of the list scores
  question [B, K] int32, its index in the split
  with micro-batches vqa_total [B] float32, the weight of the whole batch in each row
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from pixelbert_jax import UserError, files, jsons, processes
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.order import Plan, plan_texts
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.sidecar import Questions
from pixelbert_jax.metrics import Metrics, compare
from pixelbert_jax.models.heads import VqaModel
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.score import annotations, predictions
from pixelbert_jax.score import vqa as official
from pixelbert_jax.score.vqa import OFFICIAL, Scoring
from pixelbert_jax.tasks.answers import (
  FILE,
  answer_numbers,
  answerable,
  answers_of,
  best_scores,
  guess_by_type,
  read_answers,
  soft_targets,
  spellings,
  unreachable,
)
from pixelbert_jax.tasks.base import Arrays, Rows, Run, Task, token_row
from pixelbert_jax.tasks.evaluator import counted
from pixelbert_jax.tasks.sums import Sums, finish, total


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class QuestionBatches(Batches):
  """The batches of `tasks/vqa.py`.

  Attributes:
    answers: the A answers to choose from.
    scoring: how they are scored.
  """

  answers: Sequence[str]
  scoring: Scoring = OFFICIAL

  @property
  def table(self) -> Questions:
    """The questions of the split."""
    return self.split.sidecar.questions

  @property
  def starts(self) -> np.ndarray:
    """The first question of each image; the last is the number of questions."""
    return np.searchsorted(self.table.image, np.arange(len(self.split.sidecar.image_id) + 1))

  @functools.cached_property
  def _numbers(self) -> np.ndarray:
    return answer_numbers(self.table, self.answers, self.scoring)

  @functools.cached_property
  def _answerable(self) -> np.ndarray:
    return answerable(self.table, self._numbers)

  def _plan(self, epoch: int) -> Plan:
    sidecar = self.split.sidecar
    if not len(self.table):
      raise UserError('the split has no questions')
    return plan_texts(
      self,
      epoch,
      start=self.starts,
      image=np.arange(len(sidecar.image_id)),
      canvas=self.canvases.choose(sidecar.size),
      label=np.ones(len(self.table), bool),
    )

  def full_text(self, i: int) -> str:
    """Returns the question and its answers."""
    answers = map(self.table.strings.text, self.table.answers[i])
    return ' '.join([self.text(i), *answers])

  def _weight(self, plan: Plan, number: int) -> np.ndarray:
    weight = plan.weight[number]
    # A question without a right answer in the list would only teach to score all answers low.
    return weight * self._answerable[plan.text[number]] if self.training else weight

  def _weights(self, plan: Plan, number: int, step: int) -> dict[str, np.ndarray]:
    return {'vqa': self._weight(plan, number)}

  def _texts(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> Batch:
    texts = plan.text[number, mine]
    ids, mask = self.tokens(texts)
    target = soft_targets(
      self.table, self._numbers, texts.reshape(-1), len(self.answers), self.scoring
    )
    return {
      'token_ids': ids,
      'token_mask': mask,
      'vqa_target': target.reshape(*texts.shape, -1),
      'weight': self._weight(plan, number)[mine],
      'question': texts.astype(np.int32),
    }


@dataclasses.dataclass(frozen=True)
class Vqa(Task):
  """Visual question answering.

  Attributes:
    answers: the A answers to choose from.
    guess: the image-blind baseline, the best answer to each question type, with '' for types that
      `train` does not have; None without `train`.
    scoring: how answers are scored, as the dataset says.
  """

  LOGGED = ('vqa_loss', 'vqa_accuracy')
  SHOWN = ('loss', 'vqa_accuracy')
  CHOSEN_BY, ASKED = 'vqa_accuracy', 'answer'
  MIXES = True

  answers: Sequence[str]
  guess: Mapping[str, str] | None = None
  scoring: Scoring = OFFICIAL

  @classmethod
  def of(cls, config: ConfigDict, splits: Mapping[str, Split], files: Mapping[str, bytes]) -> 'Vqa':
    """Makes the task with the answers of `data.answers`, the files, or the annotated splits.

    Raises:
      UserError: `data.answers` cannot be read or differs from the files, no answer is given
        often enough, or the dataset's scoring is unknown.
    """
    splits = {role: split.first for role, split in splits.items()}  # Others add no answers.
    named = [split.scoring for split in splits.values()]
    scoring = official.scoring_of(named[0], config.data.name) if named else OFFICIAL
    listed = jsons.parse(files[FILE], list) if FILE in files else None
    if config.data.answers and (splits or not listed):  # That file may be elsewhere by now.
      answers = read_answers(pathlib.Path(config.data.answers))
      if listed and answers != listed:
        raise UserError(
          f'data.answers: {config.data.answers} has {len(answers):,} answers and the checkpoint '
          f'{len(listed):,} different ones: leave data.answers empty to use those of the checkpoint'
        )
    else:
      answers = listed or answers_of(config, splits, scoring)
    train = splits.get('train')
    guess = guess_by_type(train.sidecar.questions, answers, scoring) if train else None
    return cls(answers, guess, scoring)

  def files(self) -> dict[str, bytes]:
    text = jsons.text(list(self.answers), indent=0, ensure_ascii=False) + '\n'
    return {FILE: text.encode()}

  def model(self, backbone: PixelBert) -> VqaModel:
    return VqaModel(backbone, len(self.answers))

  def batches(self, role: str, **fields: Any) -> QuestionBatches:
    if role != 'train' and fields['split'].sources:  # Their ids meet: scores would be mixed up.
      raise UserError(f'data.{role}: a mixture cannot be scored: give the first dataset alone')
    return QuestionBatches(answers=self.answers, scoring=self.scoring, **fields)

  def row(self, texts: int, length: int, training: bool) -> Rows:
    return {
      **token_row(texts, length),
      'vqa_target': np.zeros((1, texts, len(self.answers)), np.float32),
      'weight': np.zeros((1, texts), np.float32),
      'question': np.zeros((1, texts), np.int32),
    }

  def summary(self, batches: Mapping[str, Any]) -> list[str]:
    """Describes the answers to choose from, and by split the questions that none of them answers.

    Answers that count as one are named, since a user may have meant two.
    """
    tables = {role: b.table for role, b in batches.items()}
    lines = [f'answers     {len(self.answers):,} to choose from; score: {self.scoring.title}']
    lines += spellings(tables.values(), self.answers, self.scoring)
    for role, table in tables.items():
      lines += unreachable(role, table, self.answers, self.scoring)
    return lines

  def losses(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the binary cross-entropy in nats, summed over answers, as a total over questions."""
    each = optax.sigmoid_binary_cross_entropy(outputs['vqa_logits'], batch['vqa_target'])
    return {'vqa_loss': total(each.sum(-1), batch['weight'])}

  def accuracies(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the soft scores of the most likely answers, as a total over questions."""
    best = outputs['vqa_logits'].argmax(-1, keepdims=True)
    score = jax.numpy.take_along_axis(batch['vqa_target'], best, axis=-1)[..., 0]
    return {'vqa_accuracy': total(score, batch['weight'])}

  def items(self, outputs: Arrays, batch: Arrays) -> Arrays:
    """Selects the most likely answer to each question [B, K], and which questions count."""
    answer = outputs['vqa_logits'].argmax(-1)
    return {'question': batch['question'], 'answer': answer, 'weight': batch['weight']}

  def evaluate(self, run: Run, batches: QuestionBatches) -> Metrics:
    """Computes loss and accuracy; returns no metrics for a split without answers."""
    return self._judge(run, batches)[2]

  def report(self, run: Run, batches: QuestionBatches, path: pathlib.Path) -> Metrics:
    """Evaluates on all questions; writes the answers in the form of VQA's evaluation server.

    The score of each question goes to a file beside them (`..._scores.json`) and, where no
    annotations are published, they do too (`..._annotations.json`). The metrics have accuracies by
    type, those of the image-blind baseline (`/guess`), and those of the best answers in the list
    (`/ceiling`). A split without answers has no metrics.
    """
    predicted, questions, metrics = self._judge(run, batches, whole=True)
    if processes.is_first():
      predictions.write_vqa(path, predicted)
      if questions:
        scores = official.per_question(predicted, questions)
        files.write_text(path.with_name(f'{path.stem}_scores.json'), jsons.text(scores))
      if questions and self.scoring != OFFICIAL:
        annotations.write_vqa(path.with_name(f'{path.stem}_annotations.json'), questions)
    if not questions:
      return {}
    if guess := self.guess:
      blind = {q.question_id: guess.get(q.question_type, guess['']) for q in questions}
      guessed = official.per_question(blind, questions)
      metrics |= {f'{name}/guess': x for name, x in _means(guessed, questions).items()}
    reached = best_scores(batches.table, self.answers, self.scoring)
    best = dict(zip(batches.table.id.tolist(), reached.tolist(), strict=True))
    return metrics | {f'{name}/ceiling': x for name, x in _means(best, questions).items()}

  def table(self, split: str, metrics: Metrics) -> str:
    """Formats accuracy by type, with the image-blind baseline and the ceiling."""
    if 'vqa_accuracy' not in metrics:
      return f'{split} has no public answers: send its predictions to the evaluation server'
    columns = {'model': '', 'image-blind': '/guess', 'ceiling': '/ceiling'}
    rows = {
      name.removeprefix('vqa_accuracy/').replace('vqa_accuracy', 'all questions'): name
      for name in metrics
      if name.startswith('vqa_accuracy') and not name.endswith(('/guess', '/ceiling'))
    }
    return compare(f'{self.scoring.title} on {split}', columns, rows, metrics)

  def _judge(
    self, run: Run, batches: QuestionBatches, whole: bool = False
  ) -> tuple[dict[int, str], list[official.Question], Metrics]:
    """Returns the answer to each question by id, the questions with answers, and the metrics."""
    sums, items = run(batches, whole=whole)
    items = counted(items, 'question')
    ids = batches.table.id[items['question']].tolist()
    predicted = {i: self.answers[a] for i, a in zip(ids, items['answer'], strict=True)}
    questions = annotated(batches.table, items['question'], self.scoring)
    if not questions:
      return predicted, [], {}
    loss = finish({'vqa_loss': sums['vqa_loss']})
    scores = official.per_question(predicted, questions)
    return predicted, questions, loss | _means(scores, questions)


def annotated(
  questions: Questions, numbers: Iterable[int], scoring: Scoring = OFFICIAL
) -> list[official.Question]:
  """Converts those questions at the given indices that have answers, to be scored."""
  string = [questions.strings.text(i) for i in range(len(questions.strings))]
  return [
    official.Question(
      question_id=int(questions.id[q]),
      image_id=int(questions.image[q]),
      question_type=string[questions.question_type[q]],
      answer_type=string[questions.answer_type[q]],
      answers=tuple(string[a] for a in questions.answers[q]),
      scoring=scoring,
    )
    for q in numbers
    if len(questions.answers[q])
  ]


def _means(scores: Mapping[int, float], questions: Sequence[official.Question]) -> Metrics:
  """Computes the official summary of scores by question id as plain metrics."""
  summary = official.summarise(scores, questions)
  metrics = {'vqa_accuracy': summary['accuracy']}
  for kind in ('answer_type', 'question_type'):
    for name, value in summary[f'per_{kind}'].items():
      if name:  # A user's own questions may lack types.
        metrics[f'vqa_accuracy/{kind}/{name}'] = value
  return metrics
