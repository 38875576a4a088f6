"""Official accuracy of VQA v2, bugs of the official program included.

The definition is the organisers' program, vqaEval.py of https://github.com/GT-Vision-Lab/VQA,
rather than its description: only then are numbers comparable.
"""

import collections
import dataclasses
import functools
import pathlib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

from pixelbert_jax import files

# Part of the definition, misspellings included.
_TABLES = files.read_json(pathlib.Path(__file__).with_name('vqa_normalisation.json'))
MARKS: Sequence[str] = _TABLES['punctuation']
NUMBERS: Mapping[str, str] = _TABLES['numbers']
ARTICLES = frozenset(_TABLES['articles'])
# Keys with a capital never match: words are in lower case when they are looked up.
CONTRACTIONS: Mapping[str, str] = _TABLES['contractions']

_COMMA_IN_NUMBER = re.compile(r'\d,\d')
# The official pattern also means to require that no digit precedes, but its look-behind is
# misspelt and always matches. It also passes a flag (32) as the count of replacements.
_PERIOD, _PERIODS = re.compile(r'\.(?!\d)'), 32
# An answer that this many other annotators gave has an accuracy of 1.
_ENOUGH = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
  """A question with its annotations; officially by ten annotators."""

  question_id: int
  image_id: int
  question_type: str
  answer_type: str
  answers: tuple[str, ...]


@functools.lru_cache(maxsize=1 << 20)  # Most answers are repeated many times.
def clean(answer: str) -> str:
  """Replaces newlines and tabs by spaces and strips the answer."""
  return answer.replace('\n', ' ').replace('\t', ' ').strip()


@functools.lru_cache(maxsize=1 << 20)
def normalise(answer: str) -> str:
  """Removes punctuation, capitals and articles; writes number words as digits.

  Apostrophes, colons and full stops before digits stay. The result may be empty ('the').
  """
  return _replace_words(_replace_marks(clean(answer)))


def _replace_marks(text: str) -> str:
  """Replaces each punctuation mark by a space, or deletes it.

  A mark that touches a space anywhere in the text is deleted everywhere in it. A comma between
  two digits deletes all marks.
  """
  if _COMMA_IN_NUMBER.search(text):
    replacements = dict.fromkeys(map(ord, MARKS), '')
  else:
    replacements = {ord(m): '' if f'{m} ' in text or f' {m}' in text else ' ' for m in MARKS}
  return _PERIOD.sub('', text.translate(replacements), count=_PERIODS)


def _replace_words(text: str) -> str:
  """Lowercases; replaces number words, removes articles, adds apostrophes to contractions."""
  words = (NUMBERS.get(word, word) for word in text.lower().split())
  return ' '.join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
  """Computes the official accuracy of a prediction, in 0..1.

  It is the mean over annotators of min(1, n / 3), where n counts equal answers of the *other*
  annotators. Prediction and answers are normalised only if the answers differ: where all agree
  on 'yes', 'Yes' is wrong.

  Args:
    prediction: as written in the prediction file.
    answers: of all annotators, as in the annotation file; at least one.
  """
  prediction, answers = clean(prediction), [clean(answer) for answer in answers]
  if len(set(answers)) > 1:
    prediction, answers = normalise(prediction), [normalise(answer) for answer in answers]
  return share(answers.count(prediction), len(answers))


def share(equal: int, total: int) -> float:
  """Computes the accuracy of an answer that `equal` of `total` annotators gave.

  It is .3, .6, .9 and 1 for 1, 2, 3 and at least 4 of ten annotators.
  """
  # A single division of integers gives exactly these numbers.
  thirds = equal * min(_ENOUGH, equal - 1) + (total - equal) * min(_ENOUGH, equal)
  return thirds / (_ENOUGH * total)


def per_question(predictions: Mapping[int, str], questions: Iterable[Question]) -> dict[int, float]:
  """Computes accuracies by question id; KeyError for a question without prediction."""
  return {q.question_id: accuracy(predictions[q.question_id], q.answers) for q in questions}


def summarise(accuracies: Mapping[int, float], questions: Sequence[Question]) -> dict:
  """Computes means over questions: `accuracy`, `per_answer_type` and `per_question_type`, in 0..1.

  `accuracy` weighs each question, not each type, the same.
  """
  return {
    'accuracy': statistics.fmean(accuracies[q.question_id] for q in questions),
    'per_answer_type': _means(accuracies, {q.question_id: q.answer_type for q in questions}),
    'per_question_type': _means(accuracies, {q.question_id: q.question_type for q in questions}),
  }


def _means(accuracies: Mapping[int, float], kinds: Mapping[int, str]) -> dict[str, float]:
  groups = collections.defaultdict(list)
  for question_id, kind in kinds.items():
    groups[kind].append(accuracies[question_id])
  return {kind: statistics.fmean(groups[kind]) for kind in sorted(groups)}
