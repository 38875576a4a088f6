"""Which texts of a dataset a run takes: `train+val[!karpathy_val]` and the like.

A split by name; `split[a,b]`, its texts in the subsets a and b; `split[!a,b]`, those in neither;
and several of these joined by '+'. What subsets there are, a dataset's own README says: test-dev
of VQA v2's test, balanced of NLVR2's dev, the directories of NLVR.
"""

import dataclasses
import re
from typing import Any, TypeVar

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Dataset, Split
from pixelbert_jax.input.mixture import Joined, join
from pixelbert_jax.input.sidecar import Questions, Ragged, Sidecar, Statements

Texts = TypeVar('Texts', Questions, Statements)
PART = re.compile(r'([^\[\]+]+)(?:\[(!?)([^\[\]!]+)\])?')


def splits(selection: str) -> list[str]:
  """The names of the splits that a selection takes from; UserError if it cannot be read."""
  return [part[1] for part in _parts(selection)]


def select(dataset: Dataset, selection: str) -> Split:
  """The texts that a selection names; images stay, whether texts of theirs do or not.

  Raises:
    UserError: it cannot be read, or there is no such split or subset.
  """
  parts = _parts(selection)
  taken = [
    _take(dataset[p[1]], p[1], p[3].split(','), bool(p[2])) if p[3] else dataset[p[1]]
    for p in parts
  ]
  if len(taken) == 1:
    return taken[0]
  if len({p[1] for p in parts}) < len(parts):
    raise UserError(
      f'{selection!r} takes a split twice: name all its subsets in one pair of brackets'
    )
  return Split(Joined(taken), join({p[0]: s.sidecar for p, s in zip(parts, taken, strict=True)}))


def _parts(selection: str) -> list[re.Match]:
  parts = [PART.fullmatch(part) for part in selection.split('+')]
  if None in parts:
    raise UserError(
      f'{selection!r} is no selection: write SPLIT, SPLIT[SUBSET,...] or SPLIT[!SUBSET,...], '
      "several of them joined by '+'"
    )
  return [part for part in parts if part]


def _take(split: Split, name: str, subsets: list[str], others: bool) -> Split:
  """The texts in the subsets of these names or, with `others`, in none of them."""
  sidecar, found, taken = split.sidecar, set(), []
  for table in (sidecar, sidecar.questions, sidecar.statements):
    strings = np.array([table.strings.text(i) for i in range(len(table.strings))], object)
    found |= set(strings[np.unique(table.subset)])
    taken.append(np.flatnonzero(np.isin(strings, subsets)[table.subset] != others))
  missing = [subset for subset in subsets if subset not in found]
  if missing:
    known = ', '.join(sorted(found - {''})) or 'none'
    raise UserError(f'{name} has no subset {missing[0]!r}: there is {known}')
  return dataclasses.replace(split, sidecar=_with_texts(sidecar, *taken))


def _with_texts(
  sidecar: Sidecar, captions: np.ndarray, questions: np.ndarray, statements: np.ndarray
) -> Sidecar:
  """The sidecar with some of its texts, by their numbers."""
  kept = np.bincount(sidecar.caption_image[captions], minlength=len(sidecar.image_id))
  start = np.append(0, np.cumsum(kept))
  names = ('text', 'label', 'subset', 'kinds', 'rivals')
  columns: dict[str, Any] = {name: _rows(getattr(sidecar, name), captions) for name in names}
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
  columns: dict[str, Any] = {name: _rows(getattr(table, name), rows) for name in names}
  return dataclasses.replace(table, **columns)


def _rows(column: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
  return column.take(rows) if isinstance(column, Ragged) else column[rows]
