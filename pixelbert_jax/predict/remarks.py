"""The remarks below what a model says: what nearly ties, that nothing is likely, unknown words.

They go by the numbers as they are printed.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from pixelbert_jax.input.text import UnknownWordsWarning

Rows = Sequence[tuple[str, float]]  # names and probabilities

# By head: the line above the rows, which says what their numbers are.
TITLES = {
  'answer': 'answers and their scores from 0 to 1, which need not add up to 1',
  'match': 'texts, each with the probability that it is true of the image',
  'fill': 'hidden words, each with its probability among all words of the vocabulary',
}
DIGITS = 3
TIE = 0.9  # of the first number: from here on the model has as good as no preference
LIKELY = 0.5  # below it the model holds something to be wrong rather than right
RULES = (
  f'An answer or word nearly ties with the first from {TIE} of its number on;\n'
  f'where nothing reaches {LIKELY}, nothing is likely.'
)
MARK = '*'  # behind the number of a row that rests on words which the vocabulary lacks
UNSAID = (
  UnknownWordsWarning,
  DeprecationWarning,
  PendingDeprecationWarning,
  ImportWarning,
  ResourceWarning,
)
NOUNS = {'answer': 'answer', 'match': 'text', 'find': 'photo', 'fill': 'word'}


def number(probability: float) -> str:
  """Formats a probability."""
  return f'{probability:.{DIGITS}f}'


def row(name: str, probability: float, unknown: Sequence[str]) -> str:
  """Formats a row of the table, marked if it rests on words unknown to the model."""
  return f'{number(probability)}{MARK if unknown else " "} {name}'


def page(title: str, head: str, rows: Rows, unknown: Sequence[Sequence[str]]) -> list[str]:
  """Formats in lines what is printed of rows, given the unknown words of each."""
  lines = [f'{title}:', *(row(*each, words) for each, words in zip(rows, unknown, strict=True))]
  return [*lines, *legend(unknown), *remarks(head, [p for _, p in rows])]


def objects(
  key: str, rows: Rows, unknown: Sequence[Sequence[str]]
) -> dict[str, list[dict[str, Any]]]:
  """Returns rows as `--json` has them, each under `key` by its name."""
  return {
    f'{key}s': [
      {key: name, 'probability': p, 'unknown_words': words}
      for (name, p), words in zip(rows, unknown, strict=True)
    ]
  }


def title(head: str, text: str, best: tuple[str, float]) -> str:
  """Makes the line above a heat map of a text, with its best row (name, probability)."""
  name, probability = best
  return f'{text}:  {"" if head == "match" else f"{name}  "}{number(probability)}'


def legend(unknown: Iterable[Sequence[str]]) -> list[str]:
  """Explains the mark in a line, given the unknown words of each row; no line without a mark."""
  words = dict.fromkeys(repr(word) for each in unknown for word in each)
  said = "rests on words that are not in the model's vocabulary and mean nothing to it"
  return [f'{MARK} {said}: {", ".join(words)}'] if words else []


def remarks(head: str, probabilities: Sequence[float]) -> list[str]:
  """Says in lines what nearly ties and whether nothing is likely.

  Args:
    head: 'answer' or 'fill', the best first; 'match' or, of photos of one text, 'find', whose rows
      do not exclude each other, so that they do not tie.
    probabilities: of the rows, at least one.
  """
  shown = [round(p, DIGITS) for p in probabilities]
  tied = [p for p in shown if p >= TIE * shown[0]]
  lines = []
  if head in ('answer', 'fill') and len(tied) > 1:
    which = f'All {len(shown)}' if len(tied) == len(shown) else f'The first {len(tied)}'
    how = 'tie' if len(set(tied)) == 1 else 'nearly tie'
    lines.append(f'{which} {NOUNS[head]}s {how}: the model prefers none of them.')
  if max(shown) < LIKELY:
    lines.append(f'No {NOUNS[head]} reaches {LIKELY}: to this model none is likely.')
  return lines


def notes(caught: Iterable[warnings.WarningMessage], note: str) -> list[str]:
  """Formats warnings in lines, each once.

  Leaves out what is said elsewhere, unknown words and the model's own note, and what is for those
  who write programs.
  """
  others = [w for w in caught if not issubclass(w.category, UNSAID)]
  return [line for line in dict.fromkeys(str(w.message) for w in others) if line != note]
