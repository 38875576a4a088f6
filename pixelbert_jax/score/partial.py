"""Score matrices under construction: finished rows survive the end of the process.

Missing scores are NaN, so an unfinished row is recognised.
"""

import glob
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pixelbert_jax import files, jsons


class Matrix:
  """A score matrix in memory.

  Attributes:
    scores: [I, T] float32.
    finished: [I] bool, rows that are complete.
  """

  def __init__(self, shape: tuple[int, int]):
    self.scores, self.finished = np.full(shape, np.nan, np.float32), np.zeros(shape[0], bool)

  def write(self, rows: np.ndarray, scores: np.ndarray) -> None:
    """Writes scores [R, T] to the rows with numbers `rows` [R]."""
    self.scores[rows] = scores
    self.finished[rows] = True

  def remove(self) -> None:
    """Discards the matrix after its scores are saved elsewhere."""


class PartialMatrix(Matrix):
  """A score matrix mapped from a file beside the final one."""

  scores: np.memmap

  def __init__(self, path: files.Path, identity: Mapping[str, Any], shape: tuple[int, int]):
    """Resumes the file with this identity, or creates it; deletes those of other identities.

    Args:
      path: of the final file.
      identity: everything that the scores depend on, as JSON.
      shape: I and T.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = jsons.digest(identity)[:16]
    self._path = path.with_name(f'.{path.name}.{digest}.rows')
    for other in path.parent.glob(f'.{glob.escape(path.name)}.*.rows'):
      if other != self._path:
        print(
          f'{other}: discarded, its scores come from other weights, data or settings', flush=True
        )
        other.unlink()
    if self._path.exists() and not self._is_whole(shape):
      print(f'{self._path}: discarded, the file is damaged', flush=True)
      self._path.unlink()
    if not self._path.exists():
      with files.atomic(self._path) as partial:
        rows = np.lib.format.open_memmap(partial, 'w+', np.float32, shape)
        with partial.open('rb+') as file:
          # Of a full disk, writing to the mapped file would tell by a signal that kills.
          os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        rows[:] = np.nan
    self.scores = np.load(self._path, mmap_mode='r+')
    self.finished = np.array([not np.isnan(row).any() for row in self.scores], bool)
    if self.finished.any():
      print(f'{self._path}: resuming, {self.finished.sum():,} of {shape[0]:,} images are done')

  def _is_whole(self, shape: tuple[int, int]) -> bool:
    try:
      scores = np.load(self._path, mmap_mode='r')  # 'r+' would pad a truncated file.
    except Exception:  # For damaged headers NumPy raises many types.
      return False
    return scores.shape == shape and scores.dtype == np.float32

  def write(self, rows: np.ndarray, scores: np.ndarray) -> None:
    super().write(rows, scores)
    self.scores.flush()

  def remove(self) -> None:
    """Deletes the file; `scores`, which is mapped from it, stays readable."""
    self._path.unlink(missing_ok=True)
