"""Official scores of NLVR2, after nlvr2/eval/metrics.py of https://github.com/lil-lab/nlvr.

An identifier is `split-set-pair-sentence`. A set has up to four image pairs and several
sentences; an example is one pair with one sentence.
"""

import collections
from collections.abc import Collection, Mapping

from pixelbert_jax.score import nlvr

# Published statements, by split.
STATEMENTS = {'train': 86_373, 'dev': 6_982, 'test1': 6_967, 'test2': 6_970}


def partial(identifiers: Collection[str]) -> str:
  """Returns 'N of 6,967 statements' if the splits named by identifiers lack some; '' if none."""
  splits = {identifier.partition('-')[0] for identifier in identifiers}
  published = sum(STATEMENTS.get(split, 0) for split in splits)
  if len(identifiers) >= published:
    return ''
  return f'{len(identifiers):,} of {published:,} statements'


def sentence(identifier: str) -> str:
  """Returns the sentence id of an example: 'dev-850--0' for 'dev-850-2-0', whatever the pair."""
  fields = identifier.split('-')
  fields[2] = ''
  return '-'.join(fields)


def pair(identifier: str) -> str:
  """Returns the image pair id of an example: 'dev-850-2' for 'dev-850-2-0'."""
  return identifier.rpartition('-')[0]


def subsets(labels: Mapping[str, bool]) -> dict[str, list[str]]:
  """Returns the identifiers of the subsets `balanced` and `unbalanced` of a split.

  Both hold image pairs with two sentences. A pair is balanced if one sentence is true and one
  false, so that the images alone do not predict the label. The sizes are those of the published
  lists: 2,300 and 3,562 in dev, 2,316 and 3,536 in test1.
  """
  pairs = collections.defaultdict(list)
  for identifier in labels:
    pairs[pair(identifier)].append(identifier)
  by_name: dict[str, list[str]] = {'balanced': [], 'unbalanced': []}
  for identifiers in pairs.values():
    if len(identifiers) > 1:
      differ = len({labels[identifier] for identifier in identifiers}) > 1
      by_name['balanced' if differ else 'unbalanced'] += identifiers
  return by_name


def items(correct: dict[str, bool], labels: Mapping[str, bool]) -> nlvr.Items:
  """Returns what each metric averages: `accuracy` examples, `consistency` sentences.

  Adds both metrics of each subset that is not empty, prefixed with its name. Consistency on a
  subset counts only its own examples, as if the official program ran on its list alone.
  """
  found = nlvr.items(correct, sentence)
  for subset, identifiers in subsets(labels).items():
    if identifiers:
      inside = nlvr.items({i: correct[i] for i in identifiers}, sentence)
      found |= {f'{subset}_{name}': x for name, x in inside.items()}
  return found


def summarise(correct: dict[str, bool], labels: Mapping[str, bool]) -> dict[str, float]:
  """Computes each metric of `items`, in 0..1."""
  return nlvr.shares(items(correct, labels))
