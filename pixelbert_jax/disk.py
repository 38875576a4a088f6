"""A disk that cannot be written: full, read-only, of too small a quota; one line with its room."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from pixelbert_jax import UserError

Path = str | os.PathLike

# The system's errors of a disk without room, and of one that refuses to be written.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST}

CURE = 'give another folder'


class WriteError(UserError, OSError):
  """A file or folder that cannot be written; the line says what room it needs and there is."""


def size(count: float) -> str:
  """Formats a number of bytes: '1.5 GB'."""
  for unit in ('bytes', 'kB', 'MB', 'GB'):
    if count < 1000:
      break
    count, unit = count / 1000, 'TB'
  return f'{count:.3g} {unit}'


def room(path: Path) -> int | None:
  """Returns the bytes that are free on the disk of a path, None if that is not known."""
  path = pathlib.Path(path).absolute()
  for folder in (path, *path.parents):
    with contextlib.suppress(OSError):
      usage = shutil.disk_usage(folder)
      return usage.free if usage.total else None
  return None


def check_room(path: Path, needed: float, cure: str = CURE) -> None:
  """Raises WriteError if the disk of a path has less room than is needed."""
  free = room(path)
  if free is not None and free < needed:
    raise write_error(path, errno.ENOSPC, needed, cure)


def fault_of_disk(error: BaseException | None) -> int | None:
  """Returns the number of the system's error if a disk cannot be written, given one or its effect.

  Libraries in other languages have it in their words only.
  """
  if error is None or isinstance(error, UserError):
    return None
  number = getattr(error, 'errno', None)
  if found := re.search(r"os[ _]error(?:_code=')? ?(\d+)", str(error)):
    number = int(found[1])
  elif ' requested and ' in str(error):  # NumPy
    number = errno.ENOSPC
  if number in FULL | REFUSED:
    return number
  number = fault_of_disk(error.__cause__ or error.__context__)
  return number if number in FULL else None


def write_error(path: Path, number: int, needed: float = 0, cure: str = CURE) -> WriteError:
  """Makes the error of a path that cannot be written.

  Args:
    path: the file or folder.
    number: of the system's error.
    needed: bytes, as far as is known.
    cure: what to do, but for making room.
  """
  said = f'{path} cannot be written ({os.strerror(number)})'
  if number not in FULL:
    return WriteError(f'{said}: {cure}')
  free = room(path)
  amounts = [f'{size(needed)} needed'] * bool(needed)
  amounts += [] if free is None else [f'{size(free)} free on that disk']
  return WriteError(': '.join(filter(None, [said, ', '.join(amounts), f'make room, or {cure}'])))


@contextlib.contextmanager
def writing(path: Path, needed: float = 0, cure: str = CURE) -> Iterator[None]:
  """Makes the errors of a disk, while a path on it is written, those of `write_error`."""
  path = pathlib.Path(path).absolute()
  try:
    yield
  except Exception as error:
    number, name = fault_of_disk(error), getattr(error, 'filename', None)
    # That another file cannot be read is no fault of this disk.
    ours = (
      not isinstance(name, str)
      or path.is_relative_to(name)
      or pathlib.Path(name).is_relative_to(path.parent)
    )
    if number is None or not (ours or number in FULL):
      raise
    raise write_error(path, number, needed, cure) from error
