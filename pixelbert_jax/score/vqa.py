"""VQA v2's official accuracy, quirks included.

The definition is the organisers' program, vqaEval.py of https://github.com/GT-Vision-Lab/VQA,
rather than its description: numbers are comparable only if its slips are kept.
"""

import collections
import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

# Part of the definition, spelling mistakes included.
_TABLES = json.loads(
  pathlib.Path(__file__).with_name('vqa_normalisation.json').read_text(encoding='utf-8')
)
MARKS: Sequence[str] = _TABLES['punctuation']
NUMBERS: Mapping[str, str] = _TABLES['numbers']
ARTICLES = frozenset(_TABLES['articles'])
# Keys with a capital never apply: words are in lower case by then.
CONTRACTIONS: Mapping[str, str] = _TABLES['contractions']

_COMMA_IN_NUMBER = re.compile(r'\d,\d')
# Officially a full stop that no digit precedes either, but that look-behind is misspelt and
# always holds; and a flag is given in the place of a count, so that only 32 are removed.
_PERIOD, _PERIODS = re.compile(r'\.(?!\d)'), 32
# An answer that this many others gave counts wholly.
_ENOUGH = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
  """A question as annotated; officially there are ten answers."""

  question_id: int
  image_id: int
  question_type: str
  answer_type: str
  answers: tuple[str, ...]


@functools.lru_cache(maxsize=1 << 20)  # The same few answers are given again and again.
def clean(answer: str) -> str:
  """The answer on one line, with no space around it."""
  return answer.replace('\n', ' ').replace('\t', ' ').strip()


@functools.lru_cache(maxsize=1 << 20)
def normalise(answer: str) -> str:
  """The answer without punctuation, capitals and articles, numbers as digits.

  Apostrophes, colons and full stops before digits stay. The result may be empty ('the').
  """
  return _replace_words(_replace_marks(clean(answer)))


def _replace_marks(text: str) -> str:
  """A mark becomes a space; or nothing, where it or a comma within a number says so.

  A mark that touches a space anywhere in the text vanishes everywhere in it. A comma between
  two digits makes all marks vanish.
  """
  if _COMMA_IN_NUMBER.search(text):
    places: dict[str, str | int | None] = dict.fromkeys(MARKS, '')
  else:
    places = {m: '' if f'{m} ' in text or f' {m}' in text else ' ' for m in MARKS}
  return _PERIOD.sub('', text.translate(str.maketrans(places)), count=_PERIODS)


def _replace_words(text: str) -> str:
  """Lower case; number words, then articles, then contractions, each of whole words."""
  words = (NUMBERS.get(word, word) for word in text.lower().split())
  return ' '.join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
  """The official accuracy of a prediction, in 0..1.

  For each annotator it is min(1, n / 3) with n equal answers among the *others*; this is the
  mean over annotators. Prediction and answers are normalised only if the answers differ: where
  all are the same, 'Yes' is not 'yes'.

  Args:
    prediction: as written in the prediction file.
    answers: those of all annotators, as in the annotation file; at least one.
  """
  prediction, answers = clean(prediction), [clean(answer) for answer in answers]
  if len(set(answers)) > 1:
    prediction, answers = normalise(prediction), [normalise(answer) for answer in answers]
  return share(answers.count(prediction), len(answers))


def share(equal: int, total: int) -> float:
  """Accuracy of what `equal` of `total` annotators said: .3, .6, .9, 1 for 1, 2, 3, 4+ of ten."""
  # One division of integers, so that ten annotators give exactly these numbers.
  thirds = equal * min(_ENOUGH, equal - 1) + (total - equal) * min(_ENOUGH, equal)
  return thirds / (_ENOUGH * total)


def per_question(predictions: Mapping[int, str], questions: Iterable[Question]) -> dict[int, float]:
  """The accuracy of each question by its id; KeyError for a question without prediction."""
  return {q.question_id: accuracy(predictions[q.question_id], q.answers) for q in questions}


def summarise(accuracies: Mapping[int, float], questions: Sequence[Question]) -> dict:
  """Means over questions: `accuracy`, `per_answer_type` and `per_question_type`, in 0..1.

  A mean over all questions is not one over types: each question counts the same.
  """
  return {
    'accuracy': _mean([accuracies[q.question_id] for q in questions]),
    'per_answer_type': _means(accuracies, {q.question_id: q.answer_type for q in questions}),
    'per_question_type': _means(accuracies, {q.question_id: q.question_type for q in questions}),
  }


def _means(accuracies: Mapping[int, float], kinds: Mapping[int, str]) -> dict[str, float]:
  groups = collections.defaultdict(list)
  for question_id, kind in kinds.items():
    groups[kind].append(accuracies[question_id])
  return {kind: _mean(groups[kind]) for kind in sorted(groups)}


def _mean(values: Sequence[float]) -> float:
  return math.fsum(values) / len(values)
