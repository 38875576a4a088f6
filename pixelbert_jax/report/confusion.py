"""Confusion of answers: how often which answer was given where which is true."""

import collections
import dataclasses
from collections.abc import Sequence

from pixelbert_jax.report.examples import Example

MOST = 8  # answers of a type that have a row and a column
OTHERS = 'others'


@dataclasses.dataclass(frozen=True)
class Confusion:
  """The counts of answers of a type.

  Attributes:
    kind: the type; '' if answers have none.
    answers: of the columns, the most frequent true ones first; OTHERS may follow.
    rows: the true answer of each row, with the count of each column.
  """

  kind: str
  answers: list[str]
  rows: list[tuple[str, list[int]]]


def confusions(examples: Sequence[Example]) -> list[Confusion]:
  """Counts by type of answer; examples whose truth is not known do not count."""
  by_kind = collections.defaultdict(list)
  for example in examples:
    if example.truth:
      by_kind[example.kind].append((example.truth, example.given))
  return [_counted(kind, by_kind[kind]) for kind in sorted(by_kind)]


def _counted(kind: str, pairs: Sequence[tuple[str, str]]) -> Confusion:
  frequent = [x for x, _ in collections.Counter(truth for truth, _ in pairs).most_common(MOST)]
  kept = set(frequent)
  named = [tuple(x if x in kept else OTHERS for x in pair) for pair in pairs]
  count = collections.Counter(named)
  there = {x for pair in named for x in pair}
  answers = frequent + [OTHERS] * (OTHERS in there - kept)
  return Confusion(kind, answers, [(t, [count[t, given] for given in answers]) for t in answers])
