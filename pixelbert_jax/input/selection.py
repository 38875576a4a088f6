"""Selections: the texts of a dataset that a run uses, such as `train+val[!karpathy_val]`.

A selection is a split by name; `split[a,b]`, its texts in the subsets a and b; `split[!a,b]`, those
in neither; or several of these joined by '+'. The README of each dataset lists its subsets, such as
test-dev of VQA v2's test, balanced of NLVR2's dev, and the directories of NLVR.
"""

import dataclasses
import re
from typing import Any, TypeVar

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Dataset, Split
from pixelbert_jax.input.joined import join_splits
from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.sidecar import Questions, Sidecar, Statements

Texts = TypeVar('Texts', Questions, Statements)
KINDS = ('captions', 'questions', 'statements')
PART = re.compile(r'([^\[\]+]+)(?:\[(!?)([^\[\]!]+)\])?')


def splits(selection: str) -> list[str]:
  """Returns the names of the splits in a selection.

  Raises:
    UserError: the selection cannot be parsed.
  """
  return [part[1] for part in _parts(selection)]


def exists(dataset: Dataset, selection: str) -> bool:
  """Tells whether a dataset has all splits of a selection, or is a mixture that has it.

  Raises:
    UserError: the selection cannot be parsed.
  """
  return selection in dataset.splits or set(splits(selection)) <= dataset.splits.keys()


def existing(dataset: Dataset, selection: str) -> str:
  """Returns the part of a selection whose splits a dataset has; '' if it has none of them."""
  return '+'.join(part[0] for part in _parts(selection) if part[1] in dataset.splits)


def select(dataset: Dataset, selection: str) -> Split:
  """Returns the selected texts; all images stay, also those without a selected text.

  The splits of a mixture are selections already (`mixture.mix`).

  Raises:
    UserError: the selection cannot be parsed, or a split or subset does not exist.
  """
  if selection in dataset.splits:
    return dataset[selection]
  parts = _parts(selection)
  taken = [
    _take(dataset[p[1]], p[1], p[3].split(','), bool(p[2])) if p[3] else dataset[p[1]]
    for p in parts
  ]
  if len(taken) == 1:
    return taken[0]
  if len({p[1] for p in parts}) < len(parts):
    raise UserError(
      f'{selection!r} names a split twice: list all its subsets in one pair of brackets'
    )
  return join_splits({p[0]: split for p, split in zip(parts, taken, strict=True)})


def _parts(selection: str) -> list[re.Match]:
  parts = [PART.fullmatch(part) for part in selection.split('+')]
  if None in parts:
    raise UserError(
      f'{selection!r} is not a selection: write SPLIT, SPLIT[SUBSET,...] or SPLIT[!SUBSET,...], '
      "several of them joined by '+'"
    )
  return [part for part in parts if part]


def _take(split: Split, name: str, subsets: list[str], others: bool) -> Split:
  """Returns the texts in these subsets or, with `others`, those in none of them."""
  sidecar, existing, taken = split.sidecar, set(), []
  for table in (sidecar, sidecar.questions, sidecar.statements):
    strings = np.array([table.strings.text(i) for i in range(len(table.strings))], object)
    existing |= set(strings[np.unique(table.subset)])
    taken.append(np.flatnonzero(np.isin(strings, subsets)[table.subset] != others))
  missing = [subset for subset in subsets if subset not in existing]
  if missing:
    known = ', '.join(sorted(existing - {''})) or 'none'
    raise UserError(f'{name} has no subset {missing[0]!r}; its subsets: {known}')
  sidecar, expected = _with_texts(sidecar, *taken), _expected(split, subsets, others)
  return dataclasses.replace(split, sidecar=sidecar, expected=expected)


def _expected(split: Split, subsets: list[str], others: bool) -> dict[str, int]:
  """Counts the texts that would be taken from a whole split; {} if that is not known."""
  kinds = [kind for kind in KINDS if split.expected.get(kind)]
  if len(kinds) != 1 or not split.expected.keys() >= set(subsets):
    return {}
  (kind,), inside = kinds, sum(split.expected[subset] for subset in subsets)
  return {kind: split.expected[kind] - inside if others else inside}


def _with_texts(
  sidecar: Sidecar, captions: np.ndarray, questions: np.ndarray, statements: np.ndarray
) -> Sidecar:
  """Returns the sidecar with only the texts of these numbers."""
  kept = np.bincount(sidecar.caption_image[captions], minlength=len(sidecar.image_id))
  start = np.append(0, np.cumsum(kept))
  names = ('text', 'label', 'subset', 'kinds', 'rivals', 'foils')
  columns: dict[str, Any] = {name: getattr(sidecar, name).take(captions) for name in names}
  claim = sidecar.claim[captions] if len(sidecar.claim) else sidecar.claim
  return dataclasses.replace(
    sidecar,
    captions=Ragged(sidecar.captions.values[captions], start),
    claim=claim,
    questions=_table(sidecar.questions, questions),
    statements=_table(sidecar.statements, statements),
    **columns,
  )


def _table(table: Texts, rows: np.ndarray) -> Texts:
  names = [f.name for f in dataclasses.fields(table) if f.name != 'strings']
  columns: dict[str, Any] = {name: getattr(table, name).take(rows) for name in names}
  return dataclasses.replace(table, **columns)
