"""Reads text and JSON within limits, and writes files and folders whole or not at all."""

import atexit
import contextlib
import glob
import gzip
import os
import pathlib
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from pixelbert_jax import UserError, disk, jsons

Path = str | os.PathLike

MOST = 1 << 31  # bytes of a text file that is read whole


def read_bytes(path: Path, most: int = MOST) -> bytes:
  """Reads a file, unpacking it if it is gzipped.

  Raises:
    UserError: it cannot be read, or has more than `most` bytes, unpacked.
  """
  path = pathlib.Path(path)
  try:
    with path.open('rb') as file:
      size, packed = os.fstat(file.fileno()).st_size, file.peek(2)[:2] == b'\x1f\x8b'
      if size <= most:
        content = _unpack(file, most) if packed else file.read()
        size = len(content)
  except FileNotFoundError as error:
    raise UserError(f'{path} does not exist: name a file that does') from error
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, 'strerror', None) or error
    raise UserError(f'{path} cannot be read ({reason}): copy it again') from error
  if size > most:
    raise UserError(
      f'{path} has more than the {most:,} bytes that are read{" (unpacked)" if packed else ""}: '
      'is it the right file?'
    )
  return content


def _unpack(file: IO[bytes], most: int) -> bytes:
  """Unpacks a gzipped file up to one byte more than `most`."""
  parts, size = [], 0
  with gzip.open(file) as unpacked:
    while size <= most and (part := unpacked.read(min(1 << 24, most + 1 - size))):
      parts.append(part)
      size += len(part)
  return b''.join(parts)


def read_text(path: Path) -> str:
  """Reads a UTF-8 file, gzipped or not, less a byte order mark; UserError if it cannot be read."""
  try:
    return read_bytes(path).decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise UserError(f'{path} is not UTF-8 text ({error}): write it again as such') from error


def read_json(path: Path, kind: type = object) -> Any:
  """Reads a JSON file, gzipped or not; errors are those of `jsons.parse`, with the path."""
  content = read_bytes(path)
  try:
    return jsons.parse(content, kind)
  except jsons.JsonError as error:
    raise jsons.JsonError(f'{path} {error}') from error


def read_json_lines(path: Path) -> Iterator[tuple[int, dict]]:
  """Yields (line number, object) of each line that is not blank; UserError if it has no object."""
  # Not splitlines: JSON strings may hold U+2028.
  for number, line in enumerate(read_text(path).split('\n'), 1):
    if not line.strip():
      continue
    try:
      value = jsons.parse(line)
    except jsons.JsonError as error:
      raise jsons.JsonError(f'{path} line {number} {str(error).removeprefix("line 1 ")}') from error
    if not isinstance(value, dict):
      raise jsons.JsonError(f'{path} line {number} is not a JSON object')
    yield number, value


@contextlib.contextmanager
def atomic(path: Path, needed: float = 0) -> Iterator[pathlib.Path]:
  """Yields a path at which the caller creates a file or a folder, which is then renamed to `path`.

  At any time `path` is what it was before or the whole new content, even if the process is killed.
  The content is flushed to disk before it is renamed: otherwise a power failure might leave the new
  name with empty files. The rename itself is not flushed, so such a failure may undo it.

  The path yielded is hidden, beside `path`, and named after this machine and process. It is deleted
  if an exception is raised; what a killed process left is deleted by the next call for `path`.

  Args:
    path: replaced if it is a file or an empty folder. Its parent folder is created.
    needed: bytes, as far as is known, for the error.

  Raises:
    disk.WriteError: the disk is full, or does not let `path` be written.
    OSError: `path` is a folder that is not empty.
  """
  path = pathlib.Path(path).absolute()
  with disk.writing(path, needed):
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(path)
    partial = path.with_name(f'{_prefix(path)}{os.getpid()}.partial')
    try:
      yield partial
      for file in partial.rglob('*') if partial.is_dir() else [partial]:
        if file.is_file():
          with file.open('rb') as written:
            os.fsync(written.fileno())
      partial.replace(path)
    finally:
      delete(partial)


def delete_partial(folder: pathlib.Path) -> None:
  """Deletes what killed processes left of `atomic` in a folder that no other process writes to."""
  for partial in folder.glob('.*.partial'):
    delete(partial)


def write(path: Path, fill: Callable[[IO[bytes]], Any], needed: float = 0) -> None:
  """Writes a file by calling `fill` with it, open for bytes; whole or not at all (`atomic`)."""
  with atomic(path, needed) as partial, partial.open('wb') as file:
    fill(file)


def write_bytes(path: Path, content: bytes) -> None:
  """Writes a file of bytes, whole or not at all (`atomic`)."""
  write(path, lambda file: file.write(content), len(content))


def write_text(path: Path, text: str) -> None:
  """Writes a file of UTF-8 text, whole or not at all (`atomic`); line ends stay as they are."""
  write_bytes(path, text.encode())


def temporary(name: str, content: bytes) -> pathlib.Path:
  """Writes a file of this name in a folder of its own, which is deleted at exit."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='pixelbert-'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  path = folder / name
  path.write_bytes(content)
  return path


def _prefix(path: pathlib.Path) -> str:
  # With the machine: on a shared disk, a process number tells nothing about other machines.
  return f'.{path.name}.{socket.gethostname()}-'


def _delete_abandoned(path: pathlib.Path) -> None:
  for partial in path.parent.glob(f'{glob.escape(_prefix(path))}*.partial'):
    number = partial.name.removeprefix(_prefix(path)).removesuffix('.partial')
    # In a container each start may have the same process number.
    if number.isdecimal() and (int(number) == os.getpid() or not _is_running(int(number))):
      delete(partial)


def _is_running(process: int) -> bool:
  try:
    os.kill(process, 0)  # Sends nothing.
  except ProcessLookupError:
    return False
  except PermissionError:  # It belongs to another user.
    pass
  return True


def delete(path: pathlib.Path) -> None:
  """Deletes a file or folder, as far as that is possible."""
  if path.is_dir():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)
