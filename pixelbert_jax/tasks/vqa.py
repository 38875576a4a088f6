"""Visual question answering (paper section 4.2): a classifier over answers, on soft scores.

A batch has B images of K questions, of T tokens; A answers to choose from:
  image, source_size, size, canvas and perhaps flip as of `tasks/pretraining.py`
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  vqa_target [B, K, A] float32, how right each answer is: 0, .3, .6, .9 or 1
  weight [B, K] float32, 0 where only filled up, and in training where no answer is right
  question [B, K] int32, its number in the split
  with micro-batches vqa_total [B] float32, the weight of the whole batch in each row
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax

from pixelbert_jax import UserError, files, processes
from pixelbert_jax.input.order import Plan, plan_texts
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.sidecar import Questions
from pixelbert_jax.metrics import Metrics, choice
from pixelbert_jax.metrics import table as text_table
from pixelbert_jax.score import predictions
from pixelbert_jax.score import vqa as official
from pixelbert_jax.tasks.answers import answer_numbers, answerable, soft_targets
from pixelbert_jax.tasks.sums import Run, Sums, finish, total


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
      self.batching,
      epoch,
      start=np.searchsorted(self.questions.image, np.append(images, len(images))),
      image=images,
      canvas=self.canvases.choose(sidecar.size),
      label=np.ones(len(self.questions), bool),
    )

  @property
  def texts(self) -> int:
    return len(self.questions)

  def text(self, i: int) -> str:
    return self.questions.text.text(i)

  def full_text(self, i: int) -> str:
    """Returns the question and its answers."""
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


Array = jax.Array

LOGGED = ('vqa_loss', 'vqa_accuracy')
SHOWN = ('loss', 'vqa_accuracy')
CHOSEN_BY = 'vqa_accuracy'


def losses(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """Binary cross-entropy in nats, summed over answers, as a total over questions."""
  each = optax.sigmoid_binary_cross_entropy(outputs['vqa_logits'], batch['vqa_target'])
  return {'vqa_loss': total(each.sum(-1), batch['weight'])}


def accuracies(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """How right the likeliest answers are, as a total over questions."""
  best = outputs['vqa_logits'].argmax(-1, keepdims=True)
  right = jax.numpy.take_along_axis(batch['vqa_target'], best, axis=-1)[..., 0]
  return {'vqa_accuracy': total(right, batch['weight'])}


def items(outputs: dict[str, Array], batch: dict[str, Array]) -> dict[str, Array]:
  """[B, K]: the likeliest answer to each question, and which of them count."""
  answer = outputs['vqa_logits'].argmax(-1)
  return {'question': batch['question'], 'answer': answer, 'weight': batch['weight']}


def evaluate(run: Run, batches: QuestionBatches) -> Metrics:
  """Loss and official accuracy; the latter is not there where no answers are public."""
  sums, found = run(batches)
  metrics = finish({'vqa_loss': sums['vqa_loss']})
  answers = chosen_answers(found, batches)
  questions = annotated(batches.questions, answers)
  return (metrics | _scores(_texts(batches, answers), questions)) if questions else {}


def result(run: Run, batches: QuestionBatches, path: pathlib.Path) -> Metrics:
  """Evaluates on all questions; writes the answers in the form of VQA's evaluation server.

  Beside them lie the scores of each question (`..._scores.json`). The metrics have accuracies by
  type, with those of the best guess for each question type and of the best answers in the list.
  """
  sums, found = run(batches, whole=True)
  answers = chosen_answers(found, batches)
  said = _texts(batches, answers)
  if processes.is_first():
    path.parent.mkdir(parents=True, exist_ok=True)
    predictions.write_vqa(path, said)
  questions = annotated(batches.questions, answers)
  if not questions:
    return {}
  if processes.is_first():
    scores = official.per_question(said, questions)
    files.write(
      path.with_name(f'{path.stem}_scores.json'),
      lambda file: file.write(json.dumps(scores).encode()),
    )
  known = set(batches.answers)
  best = {q.question_id: best_answer(q, known) for q in questions}
  metrics = finish({'vqa_loss': sums['vqa_loss']}) | _scores(said, questions)
  if guess := batches.guess:
    guessed = {q.question_id: guess.get(q.question_type, guess['']) for q in questions}
    metrics |= {f'{name}/guess': x for name, x in _scores(guessed, questions).items()}
  return metrics | {f'{name}/ceiling': x for name, x in _scores(best, questions).items()}


def table(split: str, metrics: Metrics) -> str:
  """Accuracy, over all and by type, beside the guess by question type and the ceiling."""
  if 'vqa_accuracy' not in metrics:
    return f'{split} has no public answers: its predictions are for the evaluation server'
  missing = float('nan')
  names = [n for n in metrics if n.startswith('vqa_accuracy')]
  rows = {n: n for n in names if not n.endswith(('/guess', '/ceiling'))}
  shown = text_table(
    f'accuracy on {split}',
    ['model', 'guess by type', 'ceiling'],
    [
      (
        name.removeprefix('vqa_accuracy/').replace('vqa_accuracy', 'all questions'),
        [metrics.get(name + end, missing) for end in ('', '/guess', '/ceiling')],
      )
      for name in rows
    ],
  )
  return shown + choice(metrics, CHOSEN_BY)


def chosen_answers(found: dict[str, np.ndarray], batches: QuestionBatches) -> dict[int, int]:
  """The number of the answer to each question, by its number, ascending."""
  counts = found['weight'].reshape(-1) > 0
  question, answer = (found[n].reshape(-1)[counts] for n in ('question', 'answer'))
  order = np.argsort(question)
  return dict(zip(question[order].tolist(), answer[order].tolist(), strict=True))


def _texts(batches: QuestionBatches, answers: Mapping[int, int]) -> dict[int, str]:
  """Answers in words by question id."""
  return {int(batches.questions.id[q]): batches.answers[a] for q, a in answers.items()}


def annotated(questions: Questions, chosen: Sequence[int]) -> list[official.Question]:
  """Questions of these numbers as the official scores take them, of those that have answers."""
  string = [questions.strings.text(i) for i in range(len(questions.strings))]
  return [
    official.Question(
      int(questions.id[q]),
      int(questions.image[q]),
      string[questions.question_type[q]],
      string[questions.answer_type[q]],
      tuple(string[a] for a in questions.answers[q]),
    )
    for q in chosen
    if len(questions.answers[q])
  ]


def best_answer(question: official.Question, known: set[str]) -> str:
  """The answer of the list that scores best; '' where none scores."""
  given = dict.fromkeys(map(official.normalise, question.answers))
  scores = {a: official.accuracy(a, question.answers) for a in given if a in known}
  return max(scores, key=scores.get, default='')


def _scores(said: Mapping[int, str], questions: Sequence[official.Question]) -> Metrics:
  """The official summary as plain metrics."""
  found = official.summarise(official.per_question(said, questions), questions)
  metrics = {'vqa_accuracy': found['accuracy']}
  for kind in ('answer_type', 'question_type'):
    for name, value in found[f'per_{kind}'].items():
      if name:  # one's own questions need not have types
        metrics[f'vqa_accuracy/{kind}/{name}'] = value
  return metrics
