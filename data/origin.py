"""Which raw files a dataset was built from, and whether they are still the same.

Each file that a build reads is listed with its size and CRC-32, which zip files list too: so a zip
is compared by its directory alone. Of a loose file or a tar the build also lists modification time
and inode; only if one of these has changed, and the size has not, its content is read again.
"""

import concurrent.futures
import functools
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any, BinaryIO

from tqdm import tqdm

from data.archive import Archive
from data.sources import CHUNK, Folder, Source, SourceError, Zip
from pixelbert_jax import files

FILE = 'sources.json'
# What is listed of a file: size, CRC-32, and modification time and inode ('' in a zip).
Listed = list[Any]
ABSENT: Listed = [-1, 0, '']
UNREADABLE: Listed = [-2, 0, '']


class Origin(Archive):
  """The user's raw files, which remembers what is read."""

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    self._listed: dict[str, Listed | None] = {}  # None for a file that is read in parts
    self._stamps: dict[str, str] = {}
    self._archives: dict[str, str] = {}
    archives = [source.name for source in self.sources if not isinstance(source, Folder)]
    self._opened = {name: _stamp_of(name) for name in archives}

  def find(self, path: str) -> str | None:
    located = super().find(path)
    if located is None:
      self._listed.setdefault(path, ABSENT)
    return located

  def open(self, path: str, *options: Any) -> BinaryIO:
    self._note(path)
    return super().open(path, *options)

  def read(self, path: str, *options: Any) -> bytes:
    self._note(path)
    try:
      content = super().read(path, *options)
    except Exception:
      if self._listed[path] is not ABSENT:
        self._listed[path] = UNREADABLE
      raise
    self._listed[path] = [len(content), zlib.crc32(content), self._stamps[path]]
    return content

  def _note(self, path: str) -> None:
    """Lists a file before it is read: a change while it is read must not go unnoticed later."""
    located = self._located(path)
    if located is None:
      self._listed[path] = ABSENT
    else:
      self._stamps[path], self._archives[path] = _stamp(*located), located[0].name
      self._listed[path] = None

  def _located(self, path: str) -> tuple[Source, str] | None:
    """Finds the file of a path: where it is, and its name there."""
    return next(iter(self.files(path)), None)

  def write(
    self, folder: pathlib.Path, whole: Collection[str] = (), optional: Collection[str] = ()
  ) -> None:
    """Writes the list of what was read to the folder of a dataset.

    Args:
      folder: of the dataset.
      whole: names of archive files that are listed as one file, whatever was read of them.
      optional: paths that may appear later, since the dataset was built without them.

    Raises:
      SourceError: a file has changed while it was read.
    """
    listed = {}
    for name in whole:
      listed[os.path.basename(name)] = [*_content_of(name), self._opened[name]]
      if _stamp_of(name) != self._opened[name]:
        raise SourceError(f'{name} has changed while it was read: build again')
    for path, known in self._listed.items():
      if self._archives.get(path) in whole or (known is ABSENT and path in optional):
        continue
      now = known
      if known is None:
        now = self.content(path)
        if now[2] != self._stamps[path]:
          raise SourceError(f'{self.find(path)} has changed while it was read: build again')
      listed[path] = now
    content = {'archives': sorted(map(os.path.basename, whole)), 'files': listed}
    files.write_text(folder / FILE, json.dumps(content))

  def content(self, path: str) -> Listed:
    """Returns what is to be listed of a file as it is now."""
    try:
      located = self._located(path)
      if located is None:
        return ABSENT
      source, member = located
      if isinstance(source, Zip):
        return [*_directory(source.name, _stamp_of(source.name))[member], '']
      return [*_content(source.chunks(member)), _stamp(source, member)]
    except OSError:
      return UNREADABLE

  def differs(self, path: str, listed: Listed) -> str:
    """Tells how a file differs from what was listed of it; '' if it does not."""
    located = self._located(path)
    if located is None:
      return '' if listed == ABSENT else 'gone'
    if listed == ABSENT:
      return 'new'
    if listed == UNREADABLE:
      try:
        Archive.read(self, path)
      except Exception:  # Bad files and archives raise almost anything.
        return ''
      return 'mended'
    return '' if _unchanged(*located, listed) or self.content(path)[:2] == listed[:2] else 'changed'


def is_listed(folder: pathlib.Path) -> bool:
  """Tells whether a dataset lists what it was built from; those of earlier versions do not."""
  return (folder / FILE).exists()


def changes(folder: pathlib.Path, archive: Origin, whole: Sequence[str]) -> dict[str, str]:
  """Compares the raw files with those that a dataset was built from.

  Args:
    folder: of the dataset.
    archive: the raw files.
    whole: names of archive files that are compared as one file.

  Returns:
    By path: 'changed', 'new', 'mended' (it could not be read), or 'gone'.
  """
  recorded = json.loads((folder / FILE).read_bytes())
  archives = {os.path.basename(name): name for name in whole}

  def differs(path: str) -> str:
    listed = recorded['files'][path]
    if path not in recorded['archives']:
      return archive.differs(path, listed)
    if path not in archives:
      return 'gone'
    name = archives[path]
    same = _stamp_of(name) == listed[2] or [*_content_of(name)] == listed[:2]
    return '' if same else 'changed'

  paths = list(recorded['files'])
  found = dict.fromkeys(sorted(archives.keys() - set(recorded['archives'])), 'new')
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    results = tqdm(pool.map(differs, paths), 'raw files', len(paths), leave=False, delay=1)
    return found | {path: how for path, how in zip(paths, results, strict=True) if how}


@functools.lru_cache(maxsize=16)
def _directory(path: str, stamp: str) -> dict[str, tuple[int, int]]:
  """Reads size and CRC-32 of the files in a zip, as it lists them; once for each `stamp`."""
  del stamp
  with zipfile.ZipFile(path) as opened:
    return {info.filename: (info.file_size, info.CRC) for info in opened.infolist()}


def _unchanged(source: Source, member: str, listed: Listed) -> bool:
  return not isinstance(source, Zip) and _stamp(source, member) == listed[2]


def _stamp(source: Source, member: str) -> str:
  if isinstance(source, Zip):
    return ''
  return _stamp_of(os.path.join(source.name, member) if isinstance(source, Folder) else source.name)


def _stamp_of(path: str) -> str:
  status = os.stat(path)
  return f'{status.st_size} {status.st_mtime_ns} {status.st_ino}'


def _content_of(path: str) -> tuple[int, int]:
  with open(path, 'rb') as file:
    return _content(iter(lambda: file.read(CHUNK), b''))


def _content(chunks: Iterable[bytes]) -> tuple[int, int]:
  """Computes size and CRC-32 of a file."""
  size = crc = 0
  for chunk in chunks:
    size, crc = size + len(chunk), zlib.crc32(chunk, crc)
  return size, crc
