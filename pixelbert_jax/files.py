"""Text files in, gzipped or not, and out so that none is ever half there."""

import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from pixelbert_jax import UserError

Path = str | os.PathLike


def read_text(path: Path) -> str:
  """The text of a UTF-8 file, unpacked if it is gzipped; UserError if it cannot be read."""
  path = pathlib.Path(path)
  try:
    content = path.read_bytes()
    return (gzip.decompress(content) if content[:2] == b'\x1f\x8b' else content).decode()
  except FileNotFoundError as error:
    raise UserError(f'{path} does not exist: name a file that does') from error
  except UnicodeDecodeError as error:
    raise UserError(f'{path} is not UTF-8 text ({error}): write it again as such') from error
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, 'strerror', None) or error
    raise UserError(f'{path} cannot be read ({reason}): copy it again') from error


def read_json(path: Path) -> Any:
  """The value of a JSON file; UserError with the place of an error in it."""
  try:
    return json.loads(read_text(path))
  except json.JSONDecodeError as error:
    raise UserError(
      f'{path} line {error.lineno} column {error.colno} is not JSON ({error.msg}): '
      'is the file whole?'
    ) from error


def read_json_lines(path: Path) -> Iterator[tuple[int, dict]]:
  """(line number, object) of each line that is not blank; UserError for what is no object."""
  # Not splitlines: JSON strings may hold U+2028.
  for number, line in enumerate(read_text(path).split('\n'), 1):
    if not line.strip():
      continue
    try:
      value = json.loads(line)
    except json.JSONDecodeError as error:
      raise UserError(f'{path} line {number} is not JSON ({error.msg})') from error
    if not isinstance(value, dict):
      raise UserError(f'{path} line {number} is not a JSON object')
    yield number, value


def write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
  """Writes a file with `fill`; under its name there is the old file, or the whole new one."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
  try:
    with partial.open('wb') as file:
      fill(file)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)
