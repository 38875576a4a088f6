"""Mixtures: several datasets used as one, such as `coco_karpathy+visual_genome`.

Their sidecars are joined: the images and texts of a source follow those of the one before it. A
mixture is then planned like any dataset; batches and untrue pairs mix the sources.
"""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Dataset, Split
from pixelbert_jax.input.groups import Shares
from pixelbert_jax.input.sidecar import Ragged, Sidecar, joined
from pixelbert_jax.input.truth import Truth


class Joined(Sequence):
  """The records of several splits, one split after the other; an image each."""

  def __init__(self, splits: Sequence[Split]):
    self._splits = splits
    self.first = _firsts(len(split.sidecar.image_id) for split in splits)

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
  splits[train] = join_splits(dict(zip(names, parts, strict=True)))
  return Dataset(
    '+'.join(names),
    datasets[0].path,
    splits,
    {name: digests for dataset in datasets for name, digests in dataset.identity.items()},
    [check for dataset in datasets for check in dataset.checks],
  )


def join_splits(splits: Mapping[str, Split]) -> Split:
  """Joins the splits of several sources; errors are those of `join`."""
  sidecar = join({name: split.sidecar for name, split in splits.items()})
  parts = list(splits.values())
  known = set.intersection(*(set(part.expected) for part in parts))
  expected = {name: sum(part.expected[name] for part in parts) for name in sorted(known)}
  return Split(Joined(parts), sidecar, scoring=parts[0].scoring, expected=expected)


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
  parts = [
    dataclasses.replace(sidecar, image_id=np.char.add(f'{name}/'.encode(), sidecar.image_id))
    for name, sidecar in sidecars.items()
  ]
  if any(len(part.claim) for part in parts):
    parts = list(_with_distinct_claims(parts))
  return _stack(parts, _firsts(len(part.image_id) for part in parts))


def _firsts(lengths: Iterable[int]) -> list[int]:
  """Numbers the first item of each part, given how many it has; last, the sum."""
  return np.cumsum([0, *lengths]).tolist()


def _with_distinct_claims(parts: Sequence[Sidecar]) -> Iterator[Sidecar]:
  """Gives all texts claims; each source's numbers follow those of the source before."""
  first = 0
  for part in parts:
    truth = Truth(part)
    yield dataclasses.replace(part, claim=truth.claim + first, claims=truth.claims + first)
    first += truth.number


def _stack(parts: Sequence[Any], images: Sequence[int]) -> Any:
  """Concatenates tables column by column, and shifts the numbers of their strings and images.

  `images` are the new numbers of the first image of each part.
  """
  if isinstance(parts[0], np.ndarray):
    return np.concatenate(parts)
  if isinstance(parts[0], Ragged):
    return joined(parts)
  strings = _firsts(len(part.strings) for part in parts)
  shifts = dict.fromkeys(parts[0].NUMBERS, strings) | dict.fromkeys(parts[0].IMAGES, images)
  parts = [
    dataclasses.replace(part, **{name: getattr(part, name) + n[i] for name, n in shifts.items()})
    for i, part in enumerate(parts)
  ]
  names = [field.name for field in dataclasses.fields(parts[0])]
  columns = {name: _stack([getattr(part, name) for part in parts], images) for name in names}
  return type(parts[0])(**columns)


def firsts(split: Split) -> tuple[int, ...]:
  """Returns the number of the first image of each source of a split."""
  return tuple(split.source.first[:-1]) if isinstance(split.source, Joined) else (0,)


def shares_of(split: Split, share: Sequence[float]) -> Shares | None:
  """Normalises the declared shares of a mixture's sources; None if none are declared.

  Without shares, every pair comes once in an epoch.

  Raises:
    UserError: there is not one positive number for each source.
  """
  if not share:
    return None
  first = firsts(split)
  if len(share) != len(first) or min(share) <= 0:
    raise UserError(
      f'data.shares {tuple(share)}: give one positive number for each of {len(first)} sources, '
      'in the order of data.name, or none to use every pair once in an epoch'
    )
  return Shares(first, tuple(x / sum(share) for x in share))


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
