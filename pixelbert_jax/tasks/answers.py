"""The answers that a VQA model chooses from, and how right each of them is.

The published rule (UNITER, LXMERT, ViLT and others): every normalised most frequent answer that
stands with at least nine questions of train and val together.
"""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.sidecar import Questions
from pixelbert_jax.score.vqa import normalise, share

FILE = 'answers.json'  # of a run: the answers to choose from
LEAST = 9


def answer_list(tables: Sequence[Questions], least: int = LEAST) -> list[str]:
  """The answers, the most frequent first.

  Args:
    tables: the questions of train and of val.
    least: number of questions that an answer stands with.
  """
  total: dict[str, int] = {}
  for questions in tables:
    answered = np.diff(questions.answers.start) > 0
    counts = np.bincount(
      questions.multiple_choice_answer[answered], minlength=len(questions.strings)
    )
    for number in np.flatnonzero(counts):
      answer = normalise(questions.strings.text(number))
      total[answer] = total.get(answer, 0) + int(counts[number])
  often = [answer for answer, count in total.items() if count >= least]
  return sorted(often, key=lambda answer: (-total[answer], answer))


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
  """[strings] int32: the place in `answers` of each of the strings of `questions`, or -1."""
  number = {answer: i for i, answer in enumerate(answers)}
  strings = (normalise(questions.strings.text(i)) for i in range(len(questions.strings)))
  return np.fromiter((number.get(s, -1) for s in strings), np.int32, len(questions.strings))


def soft_targets(
  questions: Questions, numbers: np.ndarray, chosen: Sequence[int], answers: int
) -> np.ndarray:
  """How right each answer is to some questions.

  Args:
    questions: Q questions.
    numbers: [strings], from `answer_numbers`.
    chosen: [B], numbers of questions.
    answers: A, the length of the list.

  Returns:
    [B, A] float32, what each answer scores: of ten annotators 0, .3, .6, .9 or 1. All 0 where no
    annotator's answer is in the list: such questions teach nothing, but count in an evaluation.
  """
  target = np.zeros((len(chosen), answers), np.float32)
  for row, question in enumerate(chosen):
    given = numbers[questions.answers[question]]
    for answer, equal in collections.Counter(given.tolist()).items():
      if answer >= 0:
        target[row, answer] = share(equal, len(given))
  return target


def answerable(questions: Questions, numbers: np.ndarray) -> np.ndarray:
  """[Q] bool: which questions have an annotator's answer in the list of `answer_numbers`."""
  row = np.repeat(np.arange(len(questions)), np.diff(questions.answers.start))
  return np.bincount(row, numbers[questions.answers.values] >= 0, len(questions)) > 0


def guess_by_type(questions: Questions, answers: Sequence[str]) -> dict[str, str]:
  """For each question type the answer of the list that is most right on average; the first if tied.

  The best that can be said without image and without the rest of the question; '' is the type for
  what is asked in no type of these.
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
  return {'': answers[sum(totals.values()).argmax()]} | best


def read_answers(path: pathlib.Path) -> list[str]:
  """Reads a JSON list of answers, or an object of answers with their numbers.

  Raises:
    UserError: the file is neither, or has an answer twice.
  """
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f'data.answers: {path} cannot be read ({error})') from error
  if isinstance(found, dict) and sorted(map(str, found.values())) == sorted(
    map(str, range(len(found)))
  ):
    found = sorted(found, key=found.get)
  if not isinstance(found, list) or not found or not all(isinstance(x, str) for x in found):
    raise UserError(f'data.answers: {path} is neither a list of answers nor answers with numbers')
  if len(set(found)) < len(found):
    raise UserError(f'data.answers: {path} has an answer twice')
  return found
