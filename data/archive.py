"""The user's raw files, in folders or in zip and tar files, seen alike and never unpacked.

A path such as `train2014/COCO_train2014_000000000009.jpg` is looked for below the folder
and each archive in it, and below each of their top folders: so GitHub's archives, whose
files lie in one leading folder, need no care.
"""

import functools
import io
import json
import os
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

from pixelbert_jax import UserError

# Of macOS's archiver: a shadow of each file, of no use.
SHADOWS = '__MACOSX'
# Two blocks of zeros.
TAR_END = bytes(1024)


class SourceError(UserError):
  """The user's files are not as they should be; one line: what, where, how to mend it."""


class Source(Protocol):
  """A folder or an archive file."""

  name: str

  def top(self) -> list[str]:
    """The names of its top folders."""

  def is_file(self, path: str) -> bool: ...

  def is_dir(self, path: str) -> bool: ...

  def open(self, path: str) -> BinaryIO:
    """A file; FileNotFoundError if it is not there."""


class Folder:
  """A folder of the disk."""

  def __init__(self, path: pathlib.Path):
    self.name, self._path = os.fspath(path), path

  def top(self) -> list[str]:
    return sorted(entry.name for entry in os.scandir(self._path) if entry.is_dir())

  def is_file(self, path: str) -> bool:
    return (self._path / path).is_file()

  def is_dir(self, path: str) -> bool:
    return (self._path / path).is_dir()

  def open(self, path: str) -> BinaryIO:
    return (self._path / path).open('rb')


class _Indexed:
  """An archive file, whose members are known once it is open."""

  def __init__(self, path: pathlib.Path, members: dict[str, Any]):
    self.name, self._members = os.fspath(path), members
    for name in members:
      if not is_inside(name):
        raise SourceError(
          f'{path} holds {name!r}, a path that leaves its folder: it is not as published, '
          'move it away or get it again'
        )
    self._folders = {os.path.dirname(name) for name in members}
    self._folders |= {
      folder[:i] for folder in self._folders for i, c in enumerate(folder) if c == '/'
    }

  def top(self) -> list[str]:
    return sorted({name.partition('/')[0] for name in self._folders} - {''})

  def is_file(self, path: str) -> bool:
    return path in self._members

  def is_dir(self, path: str) -> bool:
    return path in self._folders

  def files(self) -> list[str]:
    """The paths of its files."""
    return list(self._members)


class Zip(_Indexed):
  """A zip file; threads may read from it at once."""

  def __init__(self, path: pathlib.Path):
    self._zip = zipfile.ZipFile(path)
    infos = {i.filename: i for i in self._zip.infolist() if not i.is_dir()}
    super().__init__(path, infos)

  def open(self, path: str) -> BinaryIO:
    if path not in self._members:
      raise FileNotFoundError(path)
    return self._zip.open(self._members[path])


class Tar(_Indexed):
  """An uncompressed tar file; threads may read from it at once."""

  def __init__(self, path: pathlib.Path):
    with tarfile.open(path, 'r:') as tar:
      members = {m.name.removeprefix('./'): m for m in tar if m.isfile()}
    # A file that was cut off is read without complaint, but for the mark at the end.
    with path.open('rb') as file:
      file.seek(-len(TAR_END), os.SEEK_END)
      if file.read() != TAR_END:
        raise tarfile.ReadError('it is cut off')
    super().__init__(path, members)

  def open(self, path: str) -> BinaryIO:
    if path not in self._members:
      raise FileNotFoundError(path)
    member = self._members[path]
    with open(self.name, 'rb') as file:
      file.seek(member.offset_data)
      return io.BytesIO(file.read(member.size))


KINDS = {'.zip': Zip, '.tar': Tar}


def is_inside(path: str) -> bool:
  """Whether a path stays below the folder that it is relative to, on any system."""
  parts = re.split(r'[/\\]', path)
  return '..' not in parts and parts[0] != '' and not re.match(r'[A-Za-z]:', path)


class Archive:
  """All files below a folder, whether they lie there or in a zip or tar file.

  Attributes:
    path: of the folder; it need not exist.
    broken: for each archive file there that cannot be opened, what is wrong.
  """

  def __init__(self, path: pathlib.Path):
    """Opens every archive file; SourceError if one has a member that leaves its folder."""
    self.path, self.broken = path, []
    self.sources: list[Source] = [Folder(path)] if path.is_dir() else []
    for file in sorted(path.glob('*')) if path.is_dir() else ():
      kind = KINDS.get(file.suffix.lower())
      if kind and file.is_file():
        try:
          self.sources.append(kind(file))
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
          self.broken.append(f'{file} cannot be opened ({error})')
    self._roots = [
      (source, prefix)
      for source in self.sources
      for prefix in ('', *(f'{top}/' for top in source.top() if top != SHADOWS))
    ]

  @functools.lru_cache(maxsize=10_000)  # noqa: B019 - one archive a build
  def _having(self, folder: str) -> list[tuple[Source, str]]:
    """The roots below which there is such a folder; '' is the root itself."""
    return [(s, p) for s, p in self._roots if s.is_dir(f'{p}{folder}'.rstrip('/')) or not folder]

  def find(self, path: str) -> str | None:
    """Where a file or folder lies, by its full name for people; None if it is nowhere."""
    found = self._find(path)
    return found and f'{found[0].name}/{found[1]}'

  def _find(self, path: str) -> tuple[Source, str] | None:
    if not is_inside(path):
      raise SourceError(f'{path!r} leaves {self.path}: the file that names it is not as published')
    for source, prefix in self._having(os.path.dirname(path)):
      if source.is_file(prefix + path) or source.is_dir(prefix + path):
        return source, prefix + path
    return None

  def open(self, path: str) -> BinaryIO:
    """Opens a file.

    Raises:
      SourceError: the path leaves the folder.
      OSError, zipfile.BadZipFile: it is not there, or cannot be read.
    """
    found = self._find(path)
    if found is None:
      raise FileNotFoundError(f'{path} is not in {self.path}')
    return found[0].open(found[1])

  def read(self, path: str) -> bytes:
    """The bytes of a file; raises as `open` does."""
    with self.open(path) as file:
      return file.read()

  def text(self, path: str) -> bytes:
    """The bytes of a file that must be there; SourceError if it cannot be read."""
    try:
      return self.read(path)
    except (OSError, zipfile.BadZipFile, EOFError) as error:
      raise self.unreadable(path, error) from error

  def unreadable(self, path: str, error: Exception | str, where: str = '') -> SourceError:
    """The error that a file, or a place in it, is not as published."""
    place = f'{self.find(path)} {where}'.rstrip()
    what = f'{error!r}' if isinstance(error, LookupError | TypeError | AttributeError) else error
    return SourceError(f'{place} cannot be read ({what}): copy it again')

  def json(self, path: str, kind: type = dict) -> Any:
    """A JSON file, of an object or a list; SourceError if it is none."""
    try:
      value = json.loads(self.text(path))
    except ValueError as error:
      raise self.unreadable(path, error) from error
    if not isinstance(value, kind):
      raise self.unreadable(path, f'it holds no {kind.__name__}')
    return value

  def json_lines(self, path: str) -> Iterator[tuple[int, dict]]:
    """The objects of a file of JSON lines, with the numbers of their lines."""
    for number, line in enumerate(self.text(path).splitlines(), 1):
      if line.strip():
        try:
          value = json.loads(line)
        except ValueError as error:
          raise self.unreadable(path, error, f'line {number}') from error
        yield number, value

  def json_items(self, path: str, key: str | None = None) -> Iterator[Any]:
    """The objects of a JSON list, one by one, for files that would fill the memory.

    Args:
      path: of the file.
      key: of the object whose value is the list; None where the file is the list.
    """
    try:
      with self.open(path) as file, io.TextIOWrapper(file, 'utf-8') as text:
        yield from _items(text, key)
    except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
      raise self.unreadable(path, error) from error


def _items(file: io.TextIOBase, key: str | None, chunk: int = 1 << 20) -> Iterator[Any]:
  """The objects of a list in a stream of JSON; ValueError where it is none or ends early."""
  start = re.compile(r'\s*\[' if key is None else rf'"{re.escape(key)}"\s*:\s*\[')
  decode = json.JSONDecoder().raw_decode
  text, at = file.read(chunk), 0
  # Within a string of JSON the quotes of `start` would stand behind backslashes.
  while not (found := start.match(text) if key is None else start.search(text)):
    more = file.read(chunk)
    if not more:
      raise ValueError(f'it has no list{(key and f" {key!r}") or ""}')
    text += more
  at = found.end()
  while True:
    at = re.compile(r'[\s,]*').match(text, at).end()
    if text[at : at + 1] == ']':
      return
    if text[at : at + 1] not in ('', '{'):
      raise ValueError(f'no object, but {text[at : at + 20]!r}')
    try:
      value, at = decode(text, at)
    except ValueError as error:
      more = file.read(chunk)
      if not more:
        raise ValueError('it ends within the list, or an item of it is no JSON') from error
      text, at = text[at:] + more, 0
    else:
      yield value


def first(archive: Archive, paths: Sequence[str]) -> str | None:
  """The first of several paths that is there."""
  return next((path for path in paths if archive.find(path)), None)
