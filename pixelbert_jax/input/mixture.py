"""Mixtures: several datasets drawn from as one, `coco_karpathy+visual_genome` by name.

Their sidecars are joined, images and texts of one source after those of the other; everything that
holds for one dataset then holds for the mixture. Batches mix sources, and so do untrue pairs.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Dataset, Split
from pixelbert_jax.input.order import Shares
from pixelbert_jax.input.sidecar import Ragged, Sidecar
from pixelbert_jax.input.truth import Truth


class Joined(Sequence):
  """Records of one image each, of several splits one after the other."""

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
  """The mixture of datasets.

  Its split `train` is that of all of them; of other splits, a mixture has those of the first
  dataset that has them.

  Raises:
    DatasetError: a dataset has no split `train`.
    UserError: one is named twice, or their labels do not go together.
  """
  names = [dataset.name for dataset in datasets]
  if len(set(names)) < len(names):
    raise UserError(f'data.name: {"+".join(names)} has a dataset twice, so pairs would come twice')
  splits = {s: d.splits[s] for s in evaluation for d in reversed(datasets) if s in d.splits}
  parts = [dataset[train] for dataset in datasets]
  splits[train] = Split(
    Joined(parts),
    join({name: part.sidecar for name, part in zip(names, parts, strict=True)}),
  )
  return Dataset('+'.join(names), datasets[0].path, splits)


def join(sidecars: Mapping[str, Sidecar]) -> Sidecar:
  """The sidecars of several sources as one, in memory.

  Ids of images become `source/id`, and claims of different sources are different. Where no source
  has claims, the same text is the same claim whoever lists it, as it is within a source.

  Raises:
    UserError: only some sources label their texts true and false.
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
  """The number of each part's first image among those of all."""
  return np.cumsum([0, *(len(part.image_id) for part in parts[:-1])]).tolist()


def _renumbered(part: Sidecar, first: int) -> Sidecar:
  """With the images that questions and statements are about numbered from `first` on."""
  asked, stated = part.questions, part.statements
  return dataclasses.replace(
    part,
    questions=dataclasses.replace(asked, image=asked.image + first),
    statements=dataclasses.replace(stated, left=stated.left + first, right=stated.right + first),
  )


def _with_distinct_claims(parts: Sequence[Sidecar]) -> Iterator[Sidecar]:
  """Gives all texts claims, numbered on from those of the source before."""
  first = 0
  for part in parts:
    truth = Truth(part)
    claims = dataclasses.replace(truth.claims, values=truth.claims.values + first)
    yield dataclasses.replace(part, claim=truth.claim + first, claims=claims)
    first += truth.number


def _stack(parts: Sequence[Any]) -> Any:
  """Tables one behind the other, column by column; `strings` too, so that their numbers move on."""
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
  """The declared shares of a mixture's sources in an epoch; with none, every pair comes once.

  Raises:
    UserError: they are not one positive number a source.
  """
  if not share:
    return None
  first = split.source.first[:-1] if isinstance(split.source, Joined) else [0]
  if len(share) != len(first) or min(share) <= 0:
    raise UserError(
      f'data.shares {tuple(share)}: give one positive number for each of {len(first)} sources, '
      'in the order of data.name, or none for every pair once an epoch'
    )
  return Shares(tuple(first), tuple(x / sum(share) for x in share))


def summary(datasets: Sequence[Dataset], mixture: Dataset, train: str) -> str:
  """One line: what comes from where."""
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
