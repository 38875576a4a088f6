"""Unreadable images in training: skipped, counted and named, and an error if there are too many."""

import pathlib
import sys
import threading
from collections.abc import Mapping

from pixelbert_jax import UserError, files, jsons


class Unreadable:
  """Counts images that are read and those that are unreadable, each time; safe for threads.

  Each process counts those of its rows.
  """

  def __init__(self, share: float = 0.005, at_least: int = 10):
    """Allows up to `share` of the images read, or `at_least` images, to be unreadable."""
    self._share, self._at_least = share, at_least
    self._read = self._bad = 0
    self._named: dict[str, str] = {}  # what is wrong, by the name of the image
    self._of: dict[int, int] = {}  # how many, by the number of the (micro-)batch
    self._file: pathlib.Path | None = None
    self._before: list[str] = []  # lines of that file
    self._lock = threading.Lock()

  def count(self, index: int, read: int, bad: Mapping[str, UserError]) -> None:
    """Counts `read` images of (micro-)batch `index`, of which those in `bad` are unreadable.

    Prints each of these once, and adds it to the file that is open.

    Raises:
      UserError: too many are unreadable.
    """
    with self._lock:
      self._read += read
      self._bad += len(bad)
      if bad:
        self._of[index] = len(bad)
      new = {name: str(error) for name, error in bad.items() if name not in self._named}
      for error in new.values():
        print(f'unreadable  {error}; its pairs do not count', file=sys.stderr)
      self._named |= new
      if new:
        self._write()
      if self._bad > max(self._at_least, self._share * self._read):
        raise UserError(
          f'{self._bad:,} of {self._read:,} images read are unreadable, such as '
          f'{", ".join(list(self._named)[:3])}: mend or remove them and build the dataset again'
        )

  def open(self, file: pathlib.Path) -> None:
    """Names unreadable images in a file: a JSON object on a line each. Lines there stay."""
    with self._lock:
      self._file = file
      self._before = files.read_text(file).splitlines() if file.exists() else []
      if self._named:
        self._write()

  def number(self, indices: range) -> int:
    """Returns how many unreadable images these (micro-)batches have; they must have been read."""
    with self._lock:
      return sum(number for index, number in self._of.items() if index in indices)

  def _write(self) -> None:
    if self._file:
      new = [jsons.text({'image': name, 'error': error}) for name, error in self._named.items()]
      lines = dict.fromkeys([*self._before, *new])
      files.write_text(self._file, '\n'.join([*lines, '']))
