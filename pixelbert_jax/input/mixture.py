"""Mixtures: several datasets used as one, such as `coco_karpathy+visual_genome`.

Their sidecars are joined: the images and texts of a source follow those of the one before it. A
mixture is then planned like any dataset; batches and untrue pairs mix the sources.
"""

import dataclasses
from collections.abc import Sequence

from pixelbert_jax import UserError
from pixelbert_jax.input import joined
from pixelbert_jax.input.dataset import Dataset, Split
from pixelbert_jax.input.groups import Shares
from pixelbert_jax.input.selection import existing, exists, select


def mix(datasets: Sequence[Dataset], train: str, evaluation: Sequence[str]) -> Dataset:
  """Mixes datasets.

  Its splits are selections, by name. `train` is joined from all datasets: the first has all of it,
  each other one those of its splits that exist there. A selection in `evaluation` is that of the
  first dataset that has its splits.

  Raises:
    DatasetError: the first dataset lacks a split of `train`, or another one all of them.
    UserError: a dataset is named twice, a selection cannot be made, or only some have labels.
  """
  names = [dataset.name for dataset in datasets]
  if len(set(names)) < len(names):
    raise UserError(f'data.name: {"+".join(names)} names a dataset twice: its pairs would repeat')
  splits = {s: select(d, s) for s, d in _evaluated(datasets, evaluation).items()}
  first, *others = datasets
  parts = [select(first, train), *(select(d, existing(d, train) or train) for d in others)]
  whole = joined.join_splits(dict(zip(names, parts, strict=True)))
  splits[train] = dataclasses.replace(whole, sources=parts)
  return Dataset(
    '+'.join(names),
    datasets[0].path,
    splits,
    {name: digests for dataset in datasets for name, digests in dataset.identity.items()},
    [check for dataset in datasets for check in dataset.checks],
  )


def _evaluated(datasets: Sequence[Dataset], evaluation: Sequence[str]) -> dict[str, Dataset]:
  """Returns the dataset of each selection, the first that has its splits, if there is one."""
  return {s: d for s in evaluation for d in reversed(datasets) if exists(d, s)}


def firsts(split: Split) -> tuple[int, ...]:
  """Returns the number of the first image of each dataset of a split."""
  sources = split.sources or (split,)
  return tuple(joined.firsts(len(source.sidecar.image_id) for source in sources)[:-1])


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
    f'{d.name} {len(split.sidecar.image_id):,} images with {_texts(split)}'
    for d, split in zip(datasets, mixture.splits[train].sources, strict=True)
  )
  evaluated = _evaluated(datasets, [name for name in mixture.splits if name != train])
  others = [f'{name} of {d.name}' for name, d in evaluated.items()]
  return f'mixture     {train} of ' + ' + '.join(counts) + '; ' + ', '.join(others)


def _texts(split: Split) -> str:
  """Counts the texts of each kind that a split has."""
  s = split.sidecar
  counts = {'captions': len(s.text), 'questions': len(s.questions), 'statements': len(s.statements)}
  return ', '.join(f'{n:,} {kind}' for kind, n in counts.items() if n) or 'no texts'
