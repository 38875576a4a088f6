"""Rows of unequal length in one array."""

import array
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ragged:
  """Rows of unequal length: row i is `values[start[i]:start[i + 1]]`."""

  values: np.ndarray
  start: np.ndarray

  def __len__(self) -> int:
    return len(self.start) - 1

  def __getitem__(self, i: int) -> np.ndarray:
    return self.values[self.start[i] : self.start[i + 1]]

  def __add__(self, number: int) -> 'Ragged':
    """Adds a number to every value."""
    return Ragged(self.values + number, self.start)

  def text(self, i: int) -> str:
    """Decodes row i, where rows are texts in UTF-8."""
    return self[i].tobytes().decode('utf-8')

  def take(self, rows: np.ndarray) -> 'Ragged':
    """Returns the rows of these numbers."""
    start = np.append(0, np.cumsum(np.diff(self.start)[rows]))
    moved = np.repeat(self.start[rows] - start[:-1], np.diff(start))
    return Ragged(self.values[moved + np.arange(start[-1])], start)

  @classmethod
  def of(cls, rows: Iterable[Sequence], dtype: type) -> 'Ragged':
    """Packs rows of numbers, or for uint8 of bytes."""
    values, start = array.array(np.dtype(dtype).char), array.array('q', [0])
    for row in rows:
      values.frombytes(row) if isinstance(row, bytes) else values.extend(row)
      start.append(len(values))
    return cls(np.array(values, dtype), np.array(start, np.int64))


def concatenated(parts: Sequence[Ragged]) -> Ragged:
  """Returns the rows of several tables, one table after the other."""
  lengths = np.concatenate([np.diff(part.start) for part in parts])
  return Ragged(np.concatenate([part.values for part in parts]), np.append(0, np.cumsum(lengths)))
