"""Accuracy of answers to questions: the official one of VQA v2, and one for one's own data.

The definition of the official one is the organisers' program, vqaEval.py of
https://github.com/GT-Vision-Lab/VQA, bugs included, rather than its description: only then are
numbers comparable. It takes ten annotators for granted, and English.
"""

import collections
import dataclasses
import functools
import pathlib
import re
import statistics
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from pixelbert_jax import UserError, files

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


def share(equal: int, total: int) -> float:
  """Computes the accuracy of an answer that `equal` of `total` annotators gave.

  It is .3, .6, .9 and 1 for 1, 2, 3 and at least 4 of ten annotators.
  """
  # A single division of integers gives exactly these numbers.
  thirds = equal * min(_ENOUGH, equal - 1) + (total - equal) * min(_ENOUGH, equal)
  return thirds / (_ENOUGH * total)


# --- Rules ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1 << 20)
def as_written(answer: str) -> str:
  """Returns an answer without its case and outer blanks; `-5` is not `5`, nor `C++` `C`.

  The same letters in another encoding (Unicode's NFC and NFD) are the same.
  """
  return unicodedata.normalize('NFC', answer.strip().lower())


def share_of_annotators(equal: int, total: int) -> float:
  """Computes equal / total: how probable it is that one of the annotators gave the answer.

  It is 1 where all agree, be they one or ten. It is not relative to the most frequent answer: then
  'red' would score as much where two of four say so as where all four do.
  """
  return equal / total


@dataclasses.dataclass(frozen=True)
class Scoring:
  """A rule by which an answer is scored.

  Attributes:
    name: in the metadata of datasets, and in annotation files.
    title: of tables.
    key: returns what of an answer is compared.
    agreed_key: the same where all annotators gave one answer.
    share: computes the accuracy of an answer that `equal` of `total` annotators gave.
  """

  name: str
  title: str
  key: Callable[[str], str]
  agreed_key: Callable[[str], str]
  share: Callable[[int, int], float]

  def accuracy(self, prediction: str, answers: Sequence[str]) -> float:
    """Computes the accuracy of a prediction, in 0..1, given the answers of all annotators."""
    agreed = len({self.agreed_key(answer) for answer in answers}) == 1
    key = self.agreed_key if agreed else self.key
    return self.share([key(answer) for answer in answers].count(key(prediction)), len(answers))


OFFICIAL = Scoring('official', 'official VQA accuracy', normalise, clean, share)
# Of one's own data.
SHARES = Scoring('shares', 'share of annotators', as_written, as_written, share_of_annotators)


def scoring_of(name: object, where: object) -> Scoring:
  """Returns the rule of a name that was read `where`; UserError if there is none."""
  for scoring in (OFFICIAL, SHARES):
    if scoring.name == name:
      return scoring
  raise UserError(
    f'{where} names the scoring {name!r}: expected {OFFICIAL.name!r} or {SHARES.name!r}'
  )


# --- Scores --------------------------------------------------------------------------------


def accuracy(prediction: str, answers: Sequence[str]) -> float:
  """Computes the official accuracy of a prediction, in 0..1.

  It is the mean over annotators of min(1, n / 3), where n counts equal answers of the *other*
  annotators. Prediction and answers are normalised only if the answers differ: where all agree
  on 'yes', 'Yes' is wrong.

  Args:
    prediction: as written in the prediction file.
    answers: of all annotators, as in the annotation file; at least one.
  """
  return OFFICIAL.accuracy(prediction, answers)


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
  """A question with its annotations, officially by ten annotators, and how they are compared."""

  question_id: int
  image_id: int
  question_type: str
  answer_type: str
  answers: tuple[str, ...]
  scoring: Scoring = OFFICIAL


def per_question(predictions: Mapping[int, str], questions: Iterable[Question]) -> dict[int, float]:
  """Computes accuracies by question id; KeyError for a question without prediction."""
  return {
    q.question_id: q.scoring.accuracy(predictions[q.question_id], q.answers) for q in questions
  }


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
