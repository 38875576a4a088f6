"""Faults of a disk: changes a file or two of a folder and puts them back."""

import contextlib
import pathlib
import random
import shutil
from collections.abc import Callable, Iterator

Fault = Callable[[pathlib.Path, pathlib.Path, random.Random], None]


def _flip(path: pathlib.Path, _: pathlib.Path, chance: random.Random) -> None:
  content = bytearray(path.read_bytes())
  content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
  path.write_bytes(content)


def _cut(path: pathlib.Path, _: pathlib.Path, chance: random.Random) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: chance.randrange(len(content))])


def _lengthen(path: pathlib.Path, _: pathlib.Path, chance: random.Random) -> None:
  path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 100)))


def _zero(path: pathlib.Path, _: pathlib.Path, chance: random.Random) -> None:
  """Writes zeros over a page, as a disk does that lost a block."""
  content = bytearray(path.read_bytes())
  start = chance.randrange(len(content))
  content[start : start + 4096] = bytes(len(content[start : start + 4096]))
  path.write_bytes(content)


def _delete(path: pathlib.Path, _: pathlib.Path, chance: random.Random) -> None:
  path.unlink()


def _exchange(path: pathlib.Path, other: pathlib.Path, chance: random.Random) -> None:
  first, second = path.read_bytes(), other.read_bytes()
  path.write_bytes(second)
  other.write_bytes(first)


def _empty(path: pathlib.Path, _: pathlib.Path, chance: random.Random) -> None:
  path.write_bytes(b'')


FAULTS: dict[str, Fault] = {
  'flipped': _flip,
  'cut': _cut,
  'lengthened': _lengthen,
  'zeroed': _zero,
  'emptied': _empty,
  'deleted': _delete,
  'exchanged': _exchange,
}


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """Lists the files below a folder that hold something, in order."""
  return sorted(p for p in folder.rglob('*') if p.is_file() and p.stat().st_size)


def _are_alike(path: pathlib.Path, other: pathlib.Path) -> bool:
  same_size = path.stat().st_size == other.stat().st_size
  return path.name == other.name or (path.suffix == other.suffix and same_size)


@contextlib.contextmanager
def damaged(folder: pathlib.Path, chance: random.Random, part: str = '') -> Iterator[str]:
  """Does one random fault to a file in a part of a folder; yields which, and restores all files."""
  files = files_of(folder)
  path, (name, fault) = chance.choice(files_of(folder / part)), chance.choice(list(FAULTS.items()))
  # Exchanged with its like if there is one: that is the harder one to notice.
  alike = [p for p in files if p != path and _are_alike(p, path)] or files
  other = chance.choice(alike)
  copy = folder.with_name(f'{folder.name}-before')
  shutil.copytree(folder, copy)
  try:
    fault(path, other, chance)
    said = f' with {other.relative_to(folder)}' if name == 'exchanged' else ''
    yield f'{path.relative_to(folder)} {name}{said}'
  finally:
    shutil.rmtree(folder)
    copy.rename(folder)
