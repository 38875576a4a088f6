"""Folders, zip and tar files: the files they hold, found in any spelling, and their bytes."""

import io
import lzma
import os
import pathlib
import re
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Protocol

from pixelbert_jax import UserError

# Bytes that are read at once.
CHUNK = 1 << 20
# Two blocks of zeros mark the end of a tar file.
TAR_END = bytes(1024)
# Bytes of a tar file's header, with long names: one that claims more is damaged or hostile.
MAX_HEADER = 1 << 20

# Reasons why a file in an archive is not used.
MACOS = 'metadata of macOS'
REPLACED = 'its name comes again in the same archive, the last is used'
LINK = 'a link in a tar file'


class SourceError(UserError):
  """An error in the user's raw files; one line with the file, the cause and the cure."""


def is_inside(path: str) -> bool:
  """Returns whether a relative path stays below its folder, on any operating system."""
  parts = re.split(r'[/\\]', path)
  return '..' not in parts and parts[0] != '' and not re.match(r'[A-Za-z]:', path)


def folder_key(path: str) -> str:
  """Returns one spelling for all of a folder's path: separators, `.`, Unicode normalisation."""
  if '\\' in path or '//' in path or f'/{path}/'.find('/./') >= 0 or path.endswith('/'):
    path = '/'.join(part for part in re.split(r'[/\\]', path) if part not in ('', '.'))
  return path if path.isascii() else unicodedata.normalize('NFC', path)


def key(path: str) -> str:
  """Returns one spelling for all of a file's path: as `folder_key`, the ending in lower case.

  `a/00.jpg`, `./a//00.JPG` and `a\\00.jpg` are the same file.
  """
  path = folder_key(path)
  stem, dot, ending = path.rpartition('.')
  return f'{stem}.{ending.lower()}' if dot and '/' not in ending else path


def is_macos(path: str) -> bool:
  """Returns whether macOS added a file: it wrote nothing of the user's into it."""
  *folders, name = re.split(r'[/\\]', path)
  return name.startswith('._') or name == '.DS_Store' or '__MACOSX' in folders


class Source(Protocol):
  """A folder or an archive file. Files of macOS's own are not found in it."""

  name: str

  def top(self) -> list[str]:
    """Returns the keys of its top folders."""

  def names(self, key: str) -> list[str]:
    """Returns the names of all files that a key stands for."""

  def is_dir(self, key: str) -> bool: ...

  def files(self) -> Iterator[str]:
    """Yields the names of all files in it, macOS's among them."""

  def sizes(self, name: str) -> tuple[int, int]:
    """Returns the bytes of a file as its header claims them, and those that are stored of it."""

  def chunks(self, name: str) -> Iterator[bytes]:
    """Yields the bytes of a file; no chunk is much larger than CHUNK, whatever the header says."""

  def open(self, name: str) -> BinaryIO: ...


class Folder:
  """A folder on disk."""

  def __init__(self, path: pathlib.Path):
    self.name, self._path = os.fspath(path), path
    self._listed: dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}

  def top(self) -> list[str]:
    return sorted(name for name in self._list('')[1] if name != '__MACOSX')

  def names(self, key: str) -> list[str]:
    found = self._list(os.path.dirname(key))[0].get(key, [])
    # Those whose names hold `\` are listed where they lie.
    return found + self._list('')[0].get(key, []) if '/' in key else found

  def is_dir(self, key: str) -> bool:
    return not key or key in self._list(os.path.dirname(key))[1] or key in self._list('')[1]

  def _list(self, folder: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Lists a folder by its key: the names of its files, and of its folders, by their keys."""
    if folder not in self._listed:
      files: dict[str, list[str]] = {}
      folders: dict[str, list[str]] = {}
      for real in self._list(os.path.dirname(folder))[1].get(folder, []) if folder else ['']:
        for entry in _scan(self._path / real):
          name = f'{real}/{entry.name}' if real else entry.name
          if entry.is_dir():
            folders.setdefault(folder_key(name), []).append(name)
          elif entry.is_file() and not is_macos(name):
            files.setdefault(key(name), []).append(name)
            if '\\' in name:  # A zip of Windows, unpacked elsewhere, gives such names.
              folders.setdefault(os.path.dirname(key(name)), [])
      self._listed[folder] = files, folders
    return self._listed[folder]

  def files(self) -> Iterator[str]:
    waiting, seen = [''], set()
    while waiting:
      folder = waiting.pop()
      status = os.stat(self._path / folder)
      if (status.st_dev, status.st_ino) in seen:
        continue  # A link to a folder may lead back to one above it.
      seen.add((status.st_dev, status.st_ino))
      for entry in sorted(_scan(self._path / folder), key=lambda entry: entry.name):
        name = f'{folder}/{entry.name}' if folder else entry.name
        if entry.is_dir():
          waiting.append(name)
        elif entry.is_file():
          yield name

  def sizes(self, name: str) -> tuple[int, int]:
    size = (self._path / name).stat().st_size
    return size, size

  def chunks(self, name: str) -> Iterator[bytes]:
    with self.open(name) as file:
      while chunk := file.read(CHUNK):
        yield chunk

  def open(self, name: str) -> BinaryIO:
    return (self._path / name).open('rb')


def _scan(path: pathlib.Path) -> list[os.DirEntry]:
  try:
    return list(os.scandir(path))
  except PermissionError:  # Such as `lost+found`.
    return []


class _Indexed:
  """An archive file, with an index of its members.

  Attributes:
    left_out: the names of members that are not used, by reason.
  """

  def __init__(self, path: pathlib.Path, members: Iterable[tuple[str, Any]]):
    self.name = os.fspath(path)
    self.left_out: dict[str, list[str]] = {}
    self._members: dict[str, Any] = {}
    self._keys: dict[str, list[str]] = {}
    for name, member in members:
      if not is_inside(name):
        raise SourceError(
          f'{path} holds {name!r}, a path that leaves its folder: the file is not as published, '
          'move it away or download it again'
        )
      if is_macos(name):
        self._leave_out(MACOS, name)
      elif name in self._members:
        self._leave_out(REPLACED, name)
        self._members[name] = member
      else:
        self._members[name] = member
        self._keys.setdefault(key(name), []).append(name)
    self._folders = {os.path.dirname(name) for name in self._keys}
    self._folders |= {
      folder[:i] for folder in self._folders for i, c in enumerate(folder) if c == '/'
    }

  def _leave_out(self, reason: str, name: str) -> None:
    self.left_out.setdefault(reason, []).append(f'{self.name}/{name}')

  def top(self) -> list[str]:
    return sorted({name.partition('/')[0] for name in self._folders} - {''})

  def names(self, key: str) -> list[str]:
    return self._keys.get(key, [])

  def is_dir(self, key: str) -> bool:
    return not key or key in self._folders

  def files(self) -> Iterator[str]:
    yield from self._members


class Zip(_Indexed):
  """A zip file; thread-safe."""

  def __init__(self, path: pathlib.Path):
    self._zip = zipfile.ZipFile(path)
    # `ZipInfo.is_dir` fails for an empty name.
    files = (i for i in self._zip.infolist() if not i.filename.endswith('/'))
    super().__init__(path, ((info.filename, info) for info in files))

  def sizes(self, name: str) -> tuple[int, int]:
    return self._members[name].file_size, self._members[name].compress_size

  def chunks(self, name: str) -> Iterator[bytes]:
    # `zipfile` bounds what comes out by what is asked for; of other methods, what goes in.
    bounded = self._members[name].compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    with self.open(name) as file:
      while chunk := file.read(CHUNK if bounded else 4096):
        yield chunk

  def open(self, name: str) -> BinaryIO:
    return self._zip.open(self._members[name])


class Tar(_Indexed):
  """An uncompressed tar file; thread-safe."""

  def __init__(self, path: pathlib.Path):
    with path.open('rb') as file:
      members, links = _tar_members(file)
    super().__init__(path, ((member.name.removeprefix('./'), member) for member in members))
    for name in links:
      self._leave_out(LINK, name)

  def sizes(self, name: str) -> tuple[int, int]:
    return self._members[name].size, self._members[name].size

  def chunks(self, name: str) -> Iterator[bytes]:
    member = self._members[name]
    if member.issparse():
      raise tarfile.ReadError('stored with holes: pack it again, without --sparse')
    with open(self.name, 'rb') as file:
      file.seek(member.offset_data)
      left = member.size
      while left:
        chunk = file.read(min(left, CHUNK))
        if not chunk:
          raise EOFError('the tar file ends within it')
        left -= len(chunk)
        yield chunk

  def open(self, name: str) -> BinaryIO:
    return io.BytesIO(b''.join(self.chunks(name)))


class _Headers:
  """A file that tarfile reads headers from: it would read one of any size."""

  def __init__(self, file: BinaryIO):
    self._file, self.seek, self.tell = file, file.seek, file.tell

  def read(self, size: int = -1) -> bytes:
    if not 0 <= size <= MAX_HEADER:
      raise tarfile.ReadError(f'one of its headers claims {size:,} bytes')
    return self._file.read(size)


def _tar_members(file: BinaryIO) -> tuple[list[tarfile.TarInfo], list[str]]:
  """Reads the files of a tar file, and the names of its links; tarfile.ReadError if damaged."""
  members, links = [], []
  with tarfile.open(fileobj=_Headers(file), mode='r:') as tar:
    for member in tar:
      if member.size < 0:
        raise tarfile.ReadError(f'{member.name!r} claims {member.size:,} bytes')
      if member.isfile():
        members.append(member)
      elif member.islnk() or member.issym():
        links.append(member.name)
    end = tar.offset
  # `tarfile` detects neither truncation, nor a damaged header, nor what follows the end.
  size = file.seek(0, os.SEEK_END)
  file.seek(max(size - len(TAR_END), 0))
  if file.read() != TAR_END:
    raise tarfile.ReadError('it is truncated')
  file.seek(end)
  while chunk := file.read(CHUNK):
    if chunk.strip(b'\0'):
      raise tarfile.ReadError(
        f'a header behind byte {end:,} is damaged, or several tar files were joined by `cat`'
      )
  return members, links


KINDS = {'.zip': Zip, '.whl': Zip, '.tar': Tar}
# What opening or reading a damaged archive raises; RuntimeError is for one with a password.
DAMAGE = (OSError, EOFError, RuntimeError, ValueError)
DAMAGE += (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
