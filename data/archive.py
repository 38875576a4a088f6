"""Access to the user's raw files in folders, zip and tar files, without unpacking them.

A path such as `train2014/COCO_train2014_000000000009.jpg` is looked up in the folder, in each
archive file in it, and in each of their top folders. So the leading folder of GitHub's archives
does not matter.
"""

import functools
import io
import os
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

from pixelbert_jax import UserError, jsons

# Folder of metadata that macOS adds to zip files.
MACOS_METADATA = '__MACOSX'
# Two blocks of zeros mark the end of a tar file.
TAR_END = bytes(1024)


class SourceError(UserError):
  """An error in the user's raw files; one line with the file, the cause and the cure."""


class Source(Protocol):
  """A folder or an archive file."""

  name: str

  def top(self) -> list[str]:
    """Returns the names of its top folders."""

  def is_file(self, path: str) -> bool: ...

  def is_dir(self, path: str) -> bool: ...

  def open(self, path: str) -> BinaryIO:
    """Opens a file; FileNotFoundError if it does not exist."""


class Folder:
  """A folder on disk."""

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
  """An archive file, with an index of its members."""

  def __init__(self, path: pathlib.Path, members: dict[str, Any]):
    self.name, self._members = os.fspath(path), members
    for name in members:
      if not is_inside(name):
        raise SourceError(
          f'{path} holds {name!r}, a path that leaves its folder: the file is not as published, '
          'move it away or download it again'
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
    """Returns the paths of its files."""
    return list(self._members)


class Zip(_Indexed):
  """A zip file; thread-safe."""

  def __init__(self, path: pathlib.Path):
    self._zip = zipfile.ZipFile(path)
    infos = {i.filename: i for i in self._zip.infolist() if not i.is_dir()}
    super().__init__(path, infos)

  def open(self, path: str) -> BinaryIO:
    if path not in self._members:
      raise FileNotFoundError(path)
    return self._zip.open(self._members[path])


class Tar(_Indexed):
  """An uncompressed tar file; thread-safe."""

  def __init__(self, path: pathlib.Path):
    with tarfile.open(path, 'r:') as tar:
      members = {m.name.removeprefix('./'): m for m in tar if m.isfile()}
    # `tarfile` does not detect truncation; only the mark at the end shows it.
    with path.open('rb') as file:
      file.seek(-len(TAR_END), os.SEEK_END)
      if file.read() != TAR_END:
        raise tarfile.ReadError('it is truncated')
    super().__init__(path, members)

  def open(self, path: str) -> BinaryIO:
    if path not in self._members:
      raise FileNotFoundError(path)
    member = self._members[path]
    with open(self.name, 'rb') as file:
      file.seek(member.offset_data)
      return io.BytesIO(file.read(member.size))


KINDS = {'.zip': Zip, '.whl': Zip, '.tar': Tar}


def is_inside(path: str) -> bool:
  """Returns whether a relative path stays below its folder, on any operating system."""
  parts = re.split(r'[/\\]', path)
  return '..' not in parts and parts[0] != '' and not re.match(r'[A-Za-z]:', path)


class Archive:
  """All files below a folder, including those in its zip and tar files.

  Attributes:
    path: of the folder; it need not exist.
    broken: an error message for each archive file that cannot be opened.
  """

  def __init__(self, path: pathlib.Path):
    """Opens all archive files; SourceError if one has a member that leaves its folder."""
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
      for prefix in ('', *(f'{top}/' for top in source.top() if top != MACOS_METADATA))
    ]

  @functools.lru_cache(maxsize=10_000)  # noqa: B019 - one archive per build
  def _having(self, folder: str) -> list[tuple[Source, str]]:
    """Returns the roots that contain a folder; '' is the root itself."""
    return [(s, p) for s, p in self._roots if s.is_dir(f'{p}{folder}'.rstrip('/')) or not folder]

  def find(self, path: str) -> str | None:
    """Returns the full name of a file or folder, for messages; None if it does not exist."""
    located = self._find(path)
    return located and f'{located[0].name}/{located[1]}'

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
      OSError, zipfile.BadZipFile: the file does not exist, or cannot be read.
    """
    located = self._find(path)
    if located is None:
      raise FileNotFoundError(f'{path} is not in {self.path}')
    return located[0].open(located[1])

  def read(self, path: str) -> bytes:
    """Reads the bytes of a file; raises the errors of `open`."""
    with self.open(path) as file:
      return file.read()

  def text(self, path: str) -> bytes:
    """Reads the bytes of a required file; SourceError if it cannot be read."""
    try:
      return self.read(path)
    except (OSError, zipfile.BadZipFile, EOFError) as error:
      raise self.unreadable(path, error) from error

  def unreadable(self, path: str, error: Exception | str, where: str = '') -> SourceError:
    """Returns the error for a file, or a part `where` of it, that is not as published."""
    location = f'{self.find(path)} {where}'.rstrip()
    cause = f'{error!r}' if isinstance(error, LookupError | TypeError | AttributeError) else error
    return SourceError(f'{location} cannot be read ({cause}): copy it again')

  def json(self, path: str, kind: type = dict) -> Any:
    """Reads a JSON file whose value has type `kind`; SourceError otherwise."""
    try:
      value = jsons.parse(self.text(path))
    except ValueError as error:
      raise self.unreadable(path, error) from error
    if not isinstance(value, kind):
      raise self.unreadable(path, f'expected a {kind.__name__}, got {type(value).__name__}')
    return value

  def json_lines(self, path: str) -> Iterator[tuple[int, dict]]:
    """Yields the line number and object of each line of a JSON lines file."""
    for number, line in enumerate(self.text(path).splitlines(), 1):
      if line.strip():
        try:
          value = jsons.parse(line)
        except ValueError as error:
          raise self.unreadable(path, error, f'line {number}') from error
        yield number, value

  def json_items(self, path: str, key: str | None = None) -> Iterator[Any]:
    """Yields the objects of a JSON list one by one, for files too large for memory.

    Args:
      path: of the file.
      key: key of the list in the file's object; None if the file is the list itself.
    """
    try:
      with self.open(path) as file, io.TextIOWrapper(file, 'utf-8-sig') as text:
        yield from _items(text, key)
    except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
      raise self.unreadable(path, error) from error


def _items(file: io.TextIOBase, key: str | None, chunk: int = 1 << 20) -> Iterator[Any]:
  """Yields the objects of a list in a JSON stream; ValueError if it is malformed or truncated."""
  start = re.compile(r'\s*\[' if key is None else rf'"{re.escape(key)}"\s*:\s*\[')
  text, at = file.read(chunk), 0
  # `start` matches no part of a JSON string: quotes inside strings follow backslashes.
  while not (opening := start.match(text) if key is None else start.search(text)):
    more = file.read(chunk)
    if not more:
      raise ValueError(f'it has no list{(key and f" {key!r}") or ""}')
    text += more
  at = opening.end()
  while True:
    at = re.compile(r'[\s,]*').match(text, at).end()
    if text[at : at + 1] == ']':
      return
    if text[at : at + 1] not in ('', '{'):
      raise ValueError(f'expected an object, got {text[at : at + 20]!r}')
    try:
      value, at = jsons.parse_part(text, at)
    except jsons.JsonError:
      raise
    except ValueError as error:
      more = file.read(chunk)
      if not more:
        raise ValueError('it ends within the list, or an item is not JSON') from error
      text, at = text[at:] + more, 0
    else:
      yield value


def first(archive: Archive, paths: Sequence[str]) -> str | None:
  """Returns the first of several paths that exists, or None."""
  return next((path for path in paths if archive.find(path)), None)
