"""NLVR2's official scores, as nlvr2/eval/metrics.py of https://github.com/lil-lab/nlvr.

An identifier is `split-set-pair-sentence`: one of up to four image pairs of a set, and one of the
set's sentences.
"""

import collections
from collections.abc import Mapping

from pixelbert_jax.score.nlvr import accuracy, consistent


def sentence(identifier: str) -> str:
  """The sentence of an example: of 'dev-850-2-0' it is 'dev-850--0', whatever the pair."""
  fields = identifier.split('-')
  fields[2] = ''
  return '-'.join(fields)


def pair(identifier: str) -> str:
  """The pair of images of an example: of 'dev-850-2-0' it is 'dev-850-2'."""
  return identifier.rpartition('-')[0]


def subsets(labels: Mapping[str, bool]) -> dict[str, list[str]]:
  """The identifiers of the subsets `balanced` and `unbalanced` of a split.

  Of the image pairs with two sentences, balanced are those of which one sentence is true and one
  is false: there the images alone tell nothing. This gives the sizes of the published lists,
  2,300 and 3,562 of dev, 2,316 and 3,536 of test1.
  """
  pairs = collections.defaultdict(list)
  for identifier in labels:
    pairs[pair(identifier)].append(identifier)
  found: dict[str, list[str]] = {'balanced': [], 'unbalanced': []}
  for identifiers in pairs.values():
    if len(identifiers) > 1:
      differ = len({labels[identifier] for identifier in identifiers}) > 1
      found['balanced' if differ else 'unbalanced'] += identifiers
  return found


def summarise(correct: Mapping[str, bool], labels: Mapping[str, bool]) -> dict[str, float]:
  """`accuracy` over examples and `consistency` over sentences, in 0..1.

  The same of both subsets, with their name before it, unless they are empty. Consistency on a
  subset asks only for the examples in it, as if the program were run on its list alone.
  """
  summary = _scores('', correct)
  for name, identifiers in subsets(labels).items():
    if identifiers:
      summary |= _scores(f'{name}_', {i: correct[i] for i in identifiers})
  return summary


def _scores(prefix: str, correct: Mapping[str, bool]) -> dict[str, float]:
  return {
    f'{prefix}accuracy': accuracy(correct),
    f'{prefix}consistency': accuracy(consistent(correct, sentence)),
  }
