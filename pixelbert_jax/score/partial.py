"""A score matrix while it is made: rows that are there stay there, whatever becomes of the process.

A score that is not there yet is not a number, so a row is whole or is seen not to be.
"""

import glob
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pixelbert_jax import files


class Matrix:
  """Scores in memory.

  Attributes:
    scores: [I, T] float32.
    finished: [I] bool, the rows that are there.
  """

  def __init__(self, shape: tuple[int, int]):
    self.scores, self.finished = np.full(shape, np.nan, np.float32), np.zeros(shape[0], bool)

  def write(self, rows: np.ndarray, scores: np.ndarray) -> None:
    """Puts rows [R] of scores [R, T] in their places."""
    self.scores[rows] = scores
    self.finished[rows] = True

  def remove(self) -> None:
    """Called when they are elsewhere."""


class PartialMatrix(Matrix):
  """Scores mapped from a file beside the one that they are to become."""

  scores: np.memmap

  def __init__(self, path: files.Path, identity: Mapping[str, Any], shape: tuple[int, int]):
    """Opens what there is of this identity, or begins; another one's is discarded, and said so.

    Args:
      path: of the file to be.
      identity: whatever the scores depend on, as JSON; the same scores only for the same.
      shape: I and T.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    self._path = path.with_name(f'.{path.name}.{digest}.rows')
    for other in path.parent.glob(f'.{glob.escape(path.name)}.*.rows'):
      if other != self._path:
        print(f'{other}: discarded, its scores are of other weights, data or settings', flush=True)
        other.unlink()
    self.finished = np.zeros(shape[0], bool)
    begun = self._open(shape)
    if begun is None:
      self.scores = self._begin(shape)
      return
    self.scores = begun
    for row, values in enumerate(self.scores):
      self.finished[row] = not np.isnan(values).any()
    if self.finished.any():
      print(f'{self._path}: going on, {self.finished.sum():,} of {shape[0]:,} images are done')

  def _open(self, shape: tuple[int, int]) -> np.memmap | None:
    if not self._path.exists():
      return None
    try:
      scores = np.load(self._path, mmap_mode='r')  # To write, NumPy would fill up a short file.
    except (ValueError, OSError, EOFError):
      scores = None
    if scores is None or scores.shape != shape or scores.dtype != np.float32:
      print(f'{self._path}: discarded, it is damaged', flush=True)
      self._path.unlink()
      return None
    return np.load(self._path, mmap_mode='r+')

  def _begin(self, shape: tuple[int, int]) -> np.memmap:
    new = self._path.with_suffix('.new')
    scores = np.lib.format.open_memmap(new, 'w+', np.float32, shape)
    scores[:] = np.nan
    scores.flush()
    os.replace(new, self._path)
    return scores

  def write(self, rows: np.ndarray, scores: np.ndarray) -> None:
    super().write(rows, scores)
    self.scores.flush()

  def remove(self) -> None:
    """Deletes the file; what is mapped of it stays readable."""
    self._path.unlink(missing_ok=True)
