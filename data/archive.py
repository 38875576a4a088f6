"""Access to the user's raw files in folders, zip and tar files, without unpacking them.

A path such as `train2014/COCO_train2014_000000000009.jpg` is looked up in the folder, in each
archive file in it, and in each of their top folders. So the leading folder of GitHub's archives
does not matter.
"""

import functools
import io
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from data.sources import (
  DAMAGE,
  KINDS,
  Folder,
  Source,
  SourceError,
  folder_key,
  is_inside,
  key,
)
from pixelbert_jax import jsons

# Limits in bytes, checked by the header before reading and by what is read; MAX_HEADER is of tars.
MAX_IMAGE = 512 << 20  # More pixels than are decoded, uncompressed.
MAX_TEXT = 1 << 30  # A table, or a JSON file that is read whole.
MAX_LIST = 4 << 30  # A JSON file that is read item by item.
MAX_ITEM = 64 << 20  # Such an item, in characters.
MAX_CAPTIONS = 16 << 20  # The .txt or .json file beside an image in a tar file.
MAX_CELL = 1 << 17  # A cell of a CSV table, in characters.
# A zip's member beyond EXPANDED bytes may be at most RATIO times as large as it is stored.
RATIO = 200
EXPANDED = 64 << 20

SAME = 'the same file again, in another place'


class TooLarge(Exception):
  """A file beyond a limit; the message is the reason alone."""


class Archive:
  """All files below a folder, including those in its zip and tar files.

  A file is found by any spelling of its path (`sources.key`). Where two files fit a path they must
  be the same, byte for byte.

  Attributes:
    path: of the folder; it need not exist.
    broken: an error message for each archive file that cannot be opened.
    left_out: the names of files in archives that are not used, by reason.
  """

  def __init__(self, path: pathlib.Path):
    """Opens all archive files; SourceError if one has a member that leaves its folder."""
    self.path, self.broken = path, []
    self.left_out: dict[str, list[str]] = {}
    self.sources: list[Source] = [Folder(path)] if path.is_dir() else []
    for file in sorted(path.glob('*')) if path.is_dir() else ():
      kind = KINDS.get(file.suffix.lower())
      if kind and file.is_file() and not file.name.startswith('._'):
        try:
          source = kind(file)
        except SourceError:
          raise
        except DAMAGE as error:
          self.broken.append(f'{file} cannot be opened ({error})')
        else:
          self.sources.append(source)
          for reason, names in source.left_out.items():
            self.left_out.setdefault(reason, []).extend(names)
    self._roots = [
      (source, prefix)
      for source in self.sources
      for prefix in ('', *(f'{top}/' for top in source.top()))
    ]

  @functools.lru_cache(maxsize=10_000)  # noqa: B019 - one archive per build
  def _having(self, folder: str) -> list[tuple[Source, str]]:
    """Returns the roots that contain a folder; '' is the root itself."""
    return [(s, p) for s, p in self._roots if s.is_dir(f'{p}{folder}'.rstrip('/')) or not folder]

  def find(self, path: str) -> str | None:
    """Returns the full name of a file or folder, for messages; None if it does not exist."""
    for source, name in self.files(path)[:1]:
      return f'{source.name}/{name}'
    folder = folder_key(path)
    return next(
      (f'{source.name}/{prefix}{folder}' for source, prefix in self._having(folder)), None
    )

  def files(self, path: str) -> list[tuple[Source, str]]:
    """Returns all files that fit a path; in top folders only if there is none without one.

    Raises:
      SourceError: the path leaves the folder.
    """
    if not is_inside(path):
      raise SourceError(f'{path!r} leaves {self.path}: the file that names it is not as published')
    wanted = key(path)
    found = [
      (source, name, prefix)
      for source, prefix in self._having(os.path.dirname(wanted))
      for name in source.names(prefix + wanted)
    ]
    exact = [(source, name) for source, name, prefix in found if not prefix]
    return exact or [(source, name) for source, name, _ in found]

  def _file(self, path: str, most: int) -> tuple[Source, str]:
    """Returns the file of a path; raises the errors of `read`."""
    found = self.files(path)
    if not found:
      raise FileNotFoundError(f'{path} is not in {self.path}')
    for source, name in found:
      _check_size(source, name, most)
    (source, name), *others = found
    for other, other_name in others:
      if not _same(source, name, other, other_name):
        raise SourceError(
          f'{path} is both {source.name}/{name} and {other.name}/{other_name}, which differ: '
          'remove or rename one'
        )
      self.left_out.setdefault(SAME, []).append(f'{other.name}/{other_name}')
    return source, name

  def open(self, path: str, most: int = MAX_LIST) -> BinaryIO:
    """Opens a file; raises the errors of `read`."""
    source, name = self._file(path, most)
    return source.open(name)

  def read(self, path: str, most: int = MAX_IMAGE) -> bytes:
    """Reads the bytes of a file.

    Raises:
      SourceError: the path leaves the folder, or two files fit it.
      TooLarge: it has more than `most` bytes, or is packed beyond RATIO.
      FileNotFoundError: it does not exist.
      one of DAMAGE: it cannot be read.
    """
    return read(*self._file(path, most), most)

  def text(self, path: str) -> bytes:
    """Reads the bytes of a required file; SourceError if it cannot be read."""
    try:
      return self.read(path, MAX_TEXT)
    except SourceError:
      raise
    except (*DAMAGE, TooLarge) as error:
      raise self.unreadable(path, error) from error

  def unreadable(self, path: str, error: Exception | str, where: str = '') -> SourceError:
    """Returns the error for a file, or a part `where` of it, that is not as published."""
    location = f'{self.find(path)} {where}'.rstrip()
    cause = f'{error!r}' if isinstance(error, LookupError | TypeError | AttributeError) else error
    cure = 'is it the right file?' if isinstance(error, TooLarge) else 'copy it again'
    return SourceError(f'{location} cannot be read ({cause}): {cure}')

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
    except SourceError:
      raise
    except (*DAMAGE, TooLarge) as error:
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
    if len(text) > MAX_TEXT:
      raise TooLarge(f'more than {MAX_TEXT:,} characters without a list')
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
      if len(text) - at > MAX_ITEM:
        raise TooLarge(f'an item of more than {MAX_ITEM:,} characters') from error
      more = file.read(chunk)
      if not more:
        raise ValueError('it ends within the list, or an item is not JSON') from error
      text, at = text[at:] + more, 0
    else:
      yield value


def read(source: Source, name: str, most: int) -> bytes:
  """Reads the bytes of a file of a source; TooLarge if there are more than `most`."""
  _check_size(source, name, most)
  chunks, size = [], 0
  for chunk in source.chunks(name):
    size += len(chunk)
    if size > most:
      raise TooLarge(f'more than the {most:,} bytes that are read')
    chunks.append(chunk)
  return b''.join(chunks)


def _check_size(source: Source, name: str, most: int) -> None:
  """Raises TooLarge by what the header of a file claims."""
  size, stored = source.sizes(name)
  if size > most:
    raise TooLarge(f'{size:,} bytes, more than the {most:,} that are read')
  if size > EXPANDED and size > RATIO * stored:
    raise TooLarge(f'{size:,} bytes, packed into {stored:,}: more than {RATIO} times as large')


def _same(source: Source, name: str, other: Source, other_name: str) -> bool:
  """Returns whether two files have the same bytes."""
  if source.sizes(name)[0] != other.sizes(other_name)[0]:
    return False
  # Chunks of two archives may end at different bytes.
  ours, theirs = b'', b''
  for chunk, more in itertools.zip_longest(
    source.chunks(name), other.chunks(other_name), fillvalue=b''
  ):
    ours, theirs = ours + chunk, theirs + more
    common = min(len(ours), len(theirs))
    if ours[:common] != theirs[:common]:
      return False
    ours, theirs = ours[common:], theirs[common:]
  return ours == theirs


def first(archive: Archive, paths: Sequence[str]) -> str | None:
  """Returns the first of several paths that exists, or None."""
  return next((path for path in paths if archive.find(path)), None)
