"""Unreadable images in training: skipped and named, and an error if there are too many."""

import threading
from collections.abc import Mapping

from pixelbert_jax import UserError


class Unreadable:
  """Counts images that are read and those that are unreadable, each time; safe for threads."""

  def __init__(self, share: float = 0.005, at_least: int = 10):
    """Allows up to `share` of the images read, or `at_least` images, to be unreadable."""
    self._share, self._at_least = share, at_least
    self._read = self._bad = 0
    self._named: list[str] = []
    self._lock = threading.Lock()

  def count(self, read: int, bad: Mapping[str, UserError]) -> None:
    """Counts `read` images, of which those in `bad` are unreadable, and prints each of these once.

    Raises:
      UserError: too many are unreadable.
    """
    with self._lock:
      self._read += read
      self._bad += len(bad)
      for name, error in bad.items():
        if name not in self._named:
          self._named.append(name)
          print(f'unreadable  {error}; its pairs do not count', flush=True)
      if self._bad > max(self._at_least, self._share * self._read):
        raise UserError(
          f'{self._bad:,} of {self._read:,} images read are unreadable, such as '
          f'{", ".join(self._named[:3])}: mend or remove them and build the dataset again'
        )
