"""The answers that a VQA model chooses from, and their soft scores.

For VQA v2 the list follows the published rule (UNITER, LXMERT, ViLT and others): all normalised
answers that are the most frequent answer to at least nine questions of train and val together.
Where the scoring is that of one's own data, it has every answer to the questions of train.
"""

import collections
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from pixelbert_jax import UserError, jsons
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.sidecar import Questions
from pixelbert_jax.score.vqa import OFFICIAL, SHARES, Scoring, normalise

FILE = 'answers.json'  # of a run: the answers to choose from
LEAST = 9
SHOWN = 3  # examples in a line


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


def every_answer(questions: Questions) -> list[str]:
  """Lists the distinct answers to questions of one's own data, the most frequent first.

  Each is spelt as most annotators did. Validation has no part in it: it chooses a step, and an
  answer that it alone has could be said, but not learnt.
  """
  spelt: dict[str, collections.Counter[str]] = {}
  for number, count in collections.Counter(questions.answers.values.tolist()).items():
    answer = questions.strings.text(number).strip()
    spelt.setdefault(SHARES.key(answer), collections.Counter())[answer] += count
  order = sorted(spelt, key=lambda key: (-spelt[key].total(), key))
  return [min(spelt[key], key=lambda answer: (-spelt[key][answer], answer)) for key in order]


def answers_of(config: ConfigDict, splits: Mapping[str, Split], scoring: Scoring) -> list[str]:
  """Lists the answers to choose from, given the annotated splits by role.

  Raises:
    UserError: these splits are not there, or no answer is given often enough.
  """
  roles = ('train', 'validation') if scoring == OFFICIAL else ('train',)
  if not all(role in splits for role in roles):
    raise UserError(
      f'data.answers is empty and the checkpoint has no {FILE} to choose from: give a checkpoint '
      'that configs/vqa.py trained'
    )
  tables = [splits[role].sidecar.questions for role in roles]
  answers = answer_list(tables) if scoring == OFFICIAL else every_answer(tables[0])
  if not answers and scoring != OFFICIAL:
    raise UserError(
      f'{config.data.name}: no question of {config.data.train} has an answer: give a list by '
      '--config.data.answers=FILE'
    )
  if not answers:
    raise UserError(
      f'{config.data.name}: no answer is given to {LEAST} or more questions of '
      f'{config.data.train} and {config.data.validation}: give a list by '
      '--config.data.answers=FILE'
    )
  return answers


def answer_numbers(
  questions: Questions, answers: Sequence[str], scoring: Scoring = OFFICIAL
) -> np.ndarray:
  """Returns the index in `answers` of each string of `questions`, or -1: [strings] int32."""
  return _numbers(questions, answers, scoring.key)


def _numbers(questions: Questions, answers: Sequence[str], key: Callable[[str], str]) -> np.ndarray:
  number = {key(answer): i for i, answer in enumerate(answers)}
  strings = (key(questions.strings.text(i)) for i in range(len(questions.strings)))
  return np.fromiter((number.get(s, -1) for s in strings), np.int32, len(questions.strings))


def soft_targets(
  questions: Questions,
  numbers: np.ndarray,
  chosen: Sequence[int] | np.ndarray,
  answers: int,
  scoring: Scoring = OFFICIAL,
) -> np.ndarray:
  """Computes the soft score of every answer to the chosen questions.

  Args:
    questions: Q questions.
    numbers: [strings], from `answer_numbers`.
    chosen: [B], indices of questions.
    answers: A, the length of the answer list.
    scoring: how answers are scored.

  Returns:
    [B, A] float32, officially (ten annotators) 0, .3, .6, .9 or 1. A single annotator's
    answer has 1: the official rule asks whether others gave it too, so that all would be wrong. A
    row is all 0 if no annotator's answer is in the list; such a question is left out of training,
    but counts in evaluation.
  """
  target = np.zeros((len(chosen), answers), np.float32)
  for row, question in enumerate(chosen):
    given = numbers[questions.answers[question]]
    for answer, equal in collections.Counter(given.tolist()).items():
      if answer >= 0:
        target[row, answer] = scoring.share(equal, len(given)) if len(given) > 1 else 1
  return target


def answerable(questions: Questions, numbers: np.ndarray) -> np.ndarray:
  """Tells which questions have an annotator's answer in the answer list: [Q] bool.

  `numbers` [strings] comes from `answer_numbers`.
  """
  row = np.repeat(np.arange(len(questions)), np.diff(questions.answers.start))
  return np.bincount(row, numbers[questions.answers.values] >= 0, len(questions)) > 0


def best_scores(
  questions: Questions, answers: Sequence[str], scoring: Scoring = OFFICIAL
) -> np.ndarray:
  """Computes the score of the best answer in the list to each question: [Q] float64.

  It is 0 where none scores.
  """
  count = np.diff(questions.answers.start)
  row, given = np.repeat(np.arange(len(questions)), count), questions.answers.values
  # Where all annotators agree, the official rule compares answers as they are.
  distinct: dict[str, int] = {}
  strings = map(questions.strings.text, range(len(questions.strings)))
  spelt = np.array([distinct.setdefault(scoring.agreed_key(s), len(distinct)) for s in strings])
  first = np.zeros(len(questions), int)
  first[count > 0] = given[questions.answers.start[:-1][count > 0]]
  differs = np.bincount(row, spelt[given] != spelt[first[row]], len(questions)) > 0
  number = np.where(
    differs[row],
    answer_numbers(questions, answers, scoring)[given],
    _numbers(questions, answers, scoring.agreed_key)[given],
  )
  pairs = row[number >= 0] * len(answers) + number[number >= 0]
  pairs, equal = np.unique(pairs, return_counts=True)
  asked = pairs // max(len(answers), 1)
  kinds, kind = np.unique(np.stack([equal, count[asked]]), axis=1, return_inverse=True)
  score = np.array([scoring.share(*numbers) for numbers in kinds.T.tolist()])
  best = np.zeros(len(questions))
  if len(pairs):
    np.maximum.at(best, asked, score[kind])
  return best


def unreachable(
  role: str, questions: Questions, answers: Sequence[str], scoring: Scoring
) -> list[str]:
  """Describes in a line the questions of a split that no answer in the list scores on, if any.

  In training the answer of a single annotator does (`soft_targets`).
  """
  count = np.diff(questions.answers.start)
  annotated, best = count > 0, best_scores(questions, answers, scoring)
  if role == 'train':
    listed = answerable(questions, answer_numbers(questions, answers, scoring))
    best = np.where(count == 1, listed, best)
  lost = np.flatnonzero(annotated & (best == 0))
  if not len(lost):
    return []
  given = collections.Counter(x for q in lost for x in questions.answers[int(q)].tolist())
  examples = [_quoted(questions.strings.text(x)) for x, _ in given.most_common(SHOWN)]
  return [
    f'out of reach {len(lost):,} of {annotated.sum():,} questions of {role}, as answered by '
    f'{", ".join(examples)}: the ceiling is {best[annotated].mean():.3f}'
  ]


def spellings(tables: Iterable[Questions], answers: Sequence[str], scoring: Scoring) -> list[str]:
  """Describes in a line the answers in the list that annotators gave in several forms, if any."""
  forms: dict[str, set[str]] = {scoring.key(answer): set() for answer in answers}
  for table in tables:
    for number in np.unique(table.answers.values).tolist():
      text = table.strings.text(number)
      forms.get(scoring.key(text), set()).add(text.strip())
  several = [sorted(texts) for texts in forms.values() if len(texts) > 1]
  if not several:
    return []
  examples = [' = '.join(map(_quoted, texts[:SHOWN])) for texts in several[:SHOWN]]
  return [f'same answer {len(several):,} in several forms: {", ".join(examples)}']


def _quoted(answer: str) -> str:
  return jsons.text(answer if len(answer) <= 30 else f'{answer[:27]}...', ensure_ascii=False)


def guess_by_type(
  questions: Questions, answers: list[str], scoring: Scoring = OFFICIAL
) -> dict[str, str]:
  """Fits the image-blind baseline: the answer with the best mean score for each question type.

  It is the best constant answer per type; ties go to the first answer in the list. The type ''
  stands for all questions, and for types that do not occur.
  """
  numbers = answer_numbers(questions, answers, scoring)
  totals: dict[int, np.ndarray] = {}
  for first in range(0, len(questions), 4096):
    chosen = range(first, min(first + 4096, len(questions)))
    target = soft_targets(questions, numbers, chosen, len(answers), scoring)
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
