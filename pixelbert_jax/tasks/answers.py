"""The answers that a VQA model chooses from, and their soft scores.

The list follows the published rule (UNITER, LXMERT, ViLT and others): all normalised answers that
are the most frequent answer to at least nine questions of train and val together.
"""

import collections
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from pixelbert_jax import UserError, jsons
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.sidecar import Questions
from pixelbert_jax.score.vqa import normalise, share

FILE = 'answers.json'  # of a run: the answers to choose from
LEAST = 9


def answer_list(tables: Sequence[Questions], least: int = LEAST) -> list[str]:
  """Lists the answers to choose from, the most frequent first.

  Args:
    tables: the questions of train and of val.
    least: smallest number of questions that an answer has to be the most frequent answer to.
  """
  total: collections.Counter[str] = collections.Counter()
  for questions in tables:
    given = questions.multiple_choice_answer[np.diff(questions.answers.start) > 0]
    for number, count in collections.Counter(given.tolist()).items():
      total[normalise(questions.strings.text(number))] += count
  frequent = [answer for answer, count in total.items() if count >= least]
  return sorted(frequent, key=lambda answer: (-total[answer], answer))


def frequent_answers(config: ConfigDict, splits: Mapping[str, Split]) -> list[str]:
  """Lists the answers given often in the training and validation questions.

  Raises:
    UserError: these splits are not there, or no answer is given often enough.
  """
  roles = ('train', 'validation')
  if not all(role in splits for role in roles):
    raise UserError(
      f'data.answers is empty and the checkpoint has no {FILE} to choose from: give a checkpoint '
      'that configs/vqa.py trained'
    )
  answers = answer_list([splits[role].sidecar.questions for role in roles])
  if not answers:
    raise UserError(
      f'{config.data.name}: no answer is given to {LEAST} or more questions of '
      f'{config.data.train} and {config.data.validation}: give a list by '
      '--config.data.answers=FILE'
    )
  return answers


def answer_numbers(questions: Questions, answers: Sequence[str]) -> np.ndarray:
  """Returns the index in `answers` of each string of `questions`, or -1: [strings] int32."""
  number = {answer: i for i, answer in enumerate(answers)}
  strings = (normalise(questions.strings.text(i)) for i in range(len(questions.strings)))
  return np.fromiter((number.get(s, -1) for s in strings), np.int32, len(questions.strings))


def soft_targets(
  questions: Questions, numbers: np.ndarray, chosen: Sequence[int] | np.ndarray, answers: int
) -> np.ndarray:
  """Computes the soft score of every answer to the chosen questions.

  Args:
    questions: Q questions.
    numbers: [strings], from `answer_numbers`.
    chosen: [B], indices of questions.
    answers: A, the length of the answer list.

  Returns:
    [B, A] float32, with ten annotators 0, .3, .6, .9 or 1. A row is all 0 if no annotator's answer
    is in the list; such a question is left out of training, but counts in evaluation.
  """
  target = np.zeros((len(chosen), answers), np.float32)
  for row, question in enumerate(chosen):
    given = numbers[questions.answers[question]]
    for answer, equal in collections.Counter(given.tolist()).items():
      if answer >= 0:
        target[row, answer] = share(equal, len(given))
  return target


def answerable(questions: Questions, numbers: np.ndarray) -> np.ndarray:
  """Tells which questions have an annotator's answer in the answer list: [Q] bool.

  `numbers` [strings] comes from `answer_numbers`.
  """
  row = np.repeat(np.arange(len(questions)), np.diff(questions.answers.start))
  return np.bincount(row, numbers[questions.answers.values] >= 0, len(questions)) > 0


def guess_by_type(questions: Questions, answers: list[str]) -> dict[str, str]:
  """Fits the image-blind baseline: the answer with the best mean score for each question type.

  It is the best constant answer per type; ties go to the first answer in the list. The type ''
  stands for all questions, and for types that do not occur.
  """
  numbers = answer_numbers(questions, answers)
  totals: dict[int, np.ndarray] = {}
  for first in range(0, len(questions), 4096):
    chosen = range(first, min(first + 4096, len(questions)))
    target = soft_targets(questions, numbers, chosen, len(answers))
    types = questions.question_type[first : first + 4096]
    for kind in np.unique(types).tolist():
      totals[kind] = totals.get(kind, 0) + target[types == kind].sum(0)
  if not totals:
    return {}
  best = {questions.strings.text(kind): answers[total.argmax()] for kind, total in totals.items()}
  return {'': answers[np.argmax(sum(totals.values()))]} | best


def read_answers(path: pathlib.Path) -> list[str]:
  """Reads a JSON list of answers, or an object that maps each answer to its index.

  Raises:
    UserError: the file cannot be read, is neither of these, or has an answer twice.
  """
  try:
    answers = jsons.parse(path.read_bytes())
  except (OSError, ValueError) as error:
    raise UserError(
      f'data.answers: {path} cannot be read ({error}): give a JSON list of answers'
    ) from error
  if isinstance(answers, dict) and sorted(map(str, answers.values())) == sorted(
    map(str, range(len(answers)))
  ):
    answers = sorted(answers, key=answers.__getitem__)
  if not isinstance(answers, list) or not answers or not all(isinstance(x, str) for x in answers):
    raise UserError(
      f'data.answers: {path}: expected a JSON list of answers, or an object that maps answers to '
      'their indices 0, 1, ...'
    )
  if len(set(answers)) < len(answers):
    twice, _ = collections.Counter(answers).most_common(1)[0]
    raise UserError(f'data.answers: {path} has the answer {twice!r} twice: remove one')
  return answers
