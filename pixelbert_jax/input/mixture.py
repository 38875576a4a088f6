"""Mixtures: several datasets used as one, such as `coco_karpathy+visual_genome`.

Their sidecars are joined: the images and texts of a source follow those of the one before it. A
mixture is then planned like any dataset; batches and untrue pairs mix the sources.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Dataset, Split
from pixelbert_jax.input.groups import Shares
from pixelbert_jax.input.sidecar import Ragged, Sidecar
from pixelbert_jax.input.truth import Truth


class Joined(Sequence):
  """The records of several splits, one split after the other; an image each."""

  def __init__(self, splits: Sequence[Split]):
    self._splits = splits
    self.first = np.cumsum([0, *(len(split.sidecar.image_id) for split in splits)]).tolist()

  def __len__(self) -> int:
    return self.first[-1]

  def __getitem__(self, i: int) -> Mapping[str, bytes]:  # type: ignore[override] # No slices.
    if not 0 <= i < len(self):
      raise IndexError(i)
    number = bisect.bisect_right(self.first, i) - 1
    return {'image': self._splits[number].encoded(i - self.first[number])}


def mix(datasets: Sequence[Dataset], train: str, evaluation: Sequence[str]) -> Dataset:
  """Mixes datasets.

  The split `train` is joined from all of them; each split in `evaluation` is that of the first
  dataset that has it.

  Raises:
    DatasetError: a dataset has no split `train`.
    UserError: a dataset is named twice, or only some have labels.
  """
  names = [dataset.name for dataset in datasets]
  if len(set(names)) < len(names):
    raise UserError(f'data.name: {"+".join(names)} names a dataset twice: its pairs would repeat')
  splits = {s: d.splits[s] for s in evaluation for d in reversed(datasets) if s in d.splits}
  parts = [dataset[train] for dataset in datasets]
  splits[train] = Split(
    Joined(parts),
    join({name: part.sidecar for name, part in zip(names, parts, strict=True)}),
  )
  return Dataset('+'.join(names), datasets[0].path, splits)


def join(sidecars: Mapping[str, Sidecar]) -> Sidecar:
  """Joins the sidecars of several sources, in memory.

  Image ids become `source/id`, and claims of different sources are different. If no source has
  claims, equal texts are the same claim in all sources, as they are within one.

  Raises:
    UserError: only some sources label their texts as true or false.
  """
  labelled = [name for name, sidecar in sidecars.items() if not sidecar.label.all()]
  if 0 < len(labelled) < len(sidecars):
    raise UserError(
      f'data.name: {", ".join(labelled)} has labels of its own, which cannot be mixed with pairs '
      'that are mismatched at random: train on one or the other'
    )
  parts = list(sidecars.values())
  if any(len(part.claim) for part in parts):
    parts = list(_with_distinct_claims(parts))
  ids = (np.char.add(f'{name}/'.encode(), x.image_id) for name, x in sidecars.items())
  parts = [dataclasses.replace(p, image_id=i) for p, i in zip(parts, ids, strict=True)]
  return _stack(
    [_renumbered(part, first) for part, first in zip(parts, _first(parts), strict=True)]
  )


def _first(parts: Sequence[Sidecar]) -> list[int]:
  """Numbers the first image of each part, counted over all parts."""
  return np.cumsum([0, *(len(part.image_id) for part in parts[:-1])]).tolist()


def _renumbered(part: Sidecar, first: int) -> Sidecar:
  """Renumbers the images of questions and statements to start at `first`."""
  asked, stated = part.questions, part.statements
  return dataclasses.replace(
    part,
    questions=dataclasses.replace(asked, image=asked.image + first),
    statements=dataclasses.replace(stated, left=stated.left + first, right=stated.right + first),
  )


def _with_distinct_claims(parts: Sequence[Sidecar]) -> Iterator[Sidecar]:
  """Gives all texts claims; each source's numbers follow those of the source before."""
  first = 0
  for part in parts:
    truth = Truth(part)
    claims = dataclasses.replace(truth.claims, values=truth.claims.values + first)
    yield dataclasses.replace(part, claim=truth.claim + first, claims=claims)
    first += truth.number


def _stack(parts: Sequence[Any]) -> Any:
  """Concatenates tables column by column; numbers of `strings` are shifted accordingly."""
  if isinstance(parts[0], np.ndarray):
    return np.concatenate(parts)
  if isinstance(parts[0], Ragged):
    starts = [np.diff(part.start) for part in parts]
    start = np.concatenate([[0], np.cumsum(np.concatenate(starts))]).astype(np.int64)
    return Ragged(np.concatenate([part.values for part in parts]), start)
  first = np.cumsum([0, *(len(part.strings) for part in parts[:-1])]).tolist()
  parts = [
    dataclasses.replace(part, **{name: _plus(getattr(part, name), n) for name in part.NUMBERS})
    for part, n in zip(parts, first, strict=True)
  ]
  names = [field.name for field in dataclasses.fields(parts[0])]
  return type(parts[0])(**{name: _stack([getattr(x, name) for x in parts]) for name in names})


def _plus(column: np.ndarray | Ragged, number: int) -> np.ndarray | Ragged:
  if isinstance(column, Ragged):
    return dataclasses.replace(column, values=column.values + number)
  return column + number


def shares_of(split: Split, share: Sequence[float]) -> Shares | None:
  """Normalises the declared shares of a mixture's sources; None if none are declared.

  Without shares, every pair comes once in an epoch.

  Raises:
    UserError: there is not one positive number for each source.
  """
  if not share:
    return None
  first = split.source.first[:-1] if isinstance(split.source, Joined) else [0]
  if len(share) != len(first) or min(share) <= 0:
    raise UserError(
      f'data.shares {tuple(share)}: give one positive number for each of {len(first)} sources, '
      'in the order of data.name, or none to use every pair once in an epoch'
    )
  return Shares(tuple(first), tuple(x / sum(share) for x in share))


def summary(datasets: Sequence[Dataset], mixture: Dataset, train: str) -> str:
  """Describes in one line which splits and counts come from which dataset."""
  counts = (
    f'{d.name} {len(d[train].source):,} images with {len(d[train].sidecar.text):,} texts'
    for d in datasets
  )
  others = [
    f'{name} of {next(d.name for d in datasets if name in d.splits)}'
    for name in mixture.splits
    if name != train
  ]
  return f'mixture     {train} of ' + ' + '.join(counts) + '; ' + ', '.join(others)
