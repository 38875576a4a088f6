"""The answers that a VQA model chooses from, and how right each of them is.

The published rule (UNITER, LXMERT, ViLT and others): every normalised most frequent answer that
stands with at least nine questions of train and val together.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from pixelbert_jax.input.sidecar import Questions
from pixelbert_jax.scores.vqa import normalise

LEAST = 9
# Of the list that the rule gives on the whole of VQA v2: its length, and the SHA-256 of its
# answers, sorted, one a line.
PUBLISHED = 3_129, '1f90989493f83a0ae7be39aefb97d9aec8b9127806506c7ca5585a85e7933c35'
# By how many of the ten annotators gave an answer: what that answer scores on average.
SCORES = np.array([0, 0.3, 0.6, 0.9] + [1] * 7, np.float32)


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


def is_published(answers: Sequence[str]) -> bool:
  """Whether this is the list that others use, in whatever order."""
  digest = hashlib.sha256('\n'.join(sorted(answers)).encode()).hexdigest()
  return (len(answers), digest) == PUBLISHED


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
    [B, A] float32 of 0, .3, .6, .9, 1. All 0 where no annotator's answer is in the list: such
    questions teach nothing, but count in an evaluation.
  """
  target = np.zeros((len(chosen), answers), np.float32)
  for row, question in enumerate(chosen):
    given = numbers[questions.answers[question]]
    target[row] = SCORES[np.bincount(given[given >= 0], minlength=answers)]
  return target
