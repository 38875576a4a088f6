"""Joined splits: the images and texts of several, one split after the other, as of one."""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.ragged import Ragged, concatenated
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth


class Joined(Sequence):
  """The records of several splits, one split after the other; an image each."""

  def __init__(self, splits: Sequence[Split]):
    self._splits = splits
    self.first = firsts(len(split.sidecar.image_id) for split in splits)

  def __len__(self) -> int:
    return self.first[-1]

  def __getitem__(self, i: int) -> Mapping[str, bytes]:  # type: ignore[override] # No slices.
    if not 0 <= i < len(self):
      raise IndexError(i)
    number = bisect.bisect_right(self.first, i) - 1
    return {'image': self._splits[number].encoded(i - self.first[number])}


def join_splits(splits: Mapping[str, Split]) -> Split:
  """Joins the splits of several sources; errors are those of `join`."""
  sidecar = join({name: split.sidecar for name, split in splits.items()})
  parts = list(splits.values())
  known = set.intersection(*(set(part.expected) for part in parts))
  expected = {name: sum(part.expected[name] for part in parts) for name in sorted(known)}
  return Split(Joined(parts), sidecar, scoring=parts[0].scoring, expected=expected)


def join(sidecars: Mapping[str, Sidecar]) -> Sidecar:
  """Joins the sidecars of several sources, in memory.

  Image ids become `source/id`. Equal claims mean the same in all sources, as within one; texts of a
  source without claims have some of their own. If no source has claims, equal texts are the same
  claim.

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
  images = firsts(len(part.image_id) for part in parts)
  if not any(len(part.claim) for part in parts):
    return _stack(parts, images)
  return _with_shared_claims(_stack(list(_with_claims(parts)), images))


def firsts(lengths: Iterable[int]) -> list[int]:
  """Numbers the first item of each part, given how many it has; last, the sum."""
  return np.cumsum([0, *lengths]).tolist()


def _with_claims(parts: Sequence[Sidecar]) -> Iterator[Sidecar]:
  """Gives all texts claims; where a source has none, numbers of its own beyond all strings."""
  first = sum(len(part.strings) for part in parts)
  for part in parts:
    if len(part.claim):
      yield part
      continue
    truth = Truth(part)
    yield dataclasses.replace(part, claim=truth.claim + first, claims=truth.claims + first)
    first += truth.number


def _with_shared_claims(whole: Sidecar) -> Sidecar:
  """Gives equal claims one number, the first of their strings.

  So a text of one source is known to be true of the images of another that its claim is true of.
  """
  values = whole.claims.values
  number, first = np.arange(values.max(initial=-1) + 1, dtype=values.dtype), dict[str, int]()
  used = np.unique(values)
  for n in used[used < len(whole.strings)]:  # Others are of a source without claims.
    number[n] = first.setdefault(whole.strings.text(n), n)
  values = number[values]
  image = np.repeat(np.arange(len(whole.claims)), np.diff(whole.claims.start))
  claims = Ragged(values[np.lexsort((values, image))], whole.claims.start)
  return dataclasses.replace(whole, claim=number[whole.claim], claims=claims)


def _stack(parts: Sequence[Any], images: Sequence[int]) -> Any:
  """Concatenates tables column by column, and shifts the numbers of their strings and images.

  `images` are the new numbers of the first image of each part.
  """
  if isinstance(parts[0], np.ndarray):
    return np.concatenate(parts)
  if isinstance(parts[0], Ragged):
    return concatenated(parts)
  strings = firsts(len(part.strings) for part in parts)
  shifts = dict.fromkeys(parts[0].NUMBERS, strings) | dict.fromkeys(parts[0].IMAGES, images)
  parts = [
    dataclasses.replace(part, **{name: getattr(part, name) + n[i] for name, n in shifts.items()})
    for i, part in enumerate(parts)
  ]
  names = [field.name for field in dataclasses.fields(parts[0])]
  columns = {name: _stack([getattr(part, name) for part in parts], images) for name in names}
  return type(parts[0])(**columns)
