"""Faults in the files of a built dataset, and what comes of each.

A fault is one file with a bit flipped, cut, emptied, exchanged with another of its name or size,
deleted, or with a page of zeros. Then the dataset is read as a run reads it, and built again as a
user does who is told to.
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import pathlib
import random
import shutil
from collections.abc import Iterator

from PIL import Image

from data.build import build, open_sealed
from pixelbert_jax.input import sidecar
from pixelbert_jax.input.dataset import quiet
from tests.reliability.outcome import SILENT, Outcomes

PAGE = 4096
KINDS = ('flip', 'cut', 'empty', 'exchange', 'delete', 'zero')
SPLITS = ('train', 'val', 'test')
COLOURS = ('red', 'green', 'blue', 'black')
AS_BEFORE, MENDED = 'as before', 'mended'


@dataclasses.dataclass(frozen=True)
class Fault:
  """A fault of a kind in a file, given by its path in the folder of datasets."""

  kind: str
  file: pathlib.PurePath

  def inject(self, root: pathlib.Path, chance: random.Random) -> str:
    """Damages the file, and describes where."""
    path = root / self.file
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content)) if content else 0
    if self.kind == 'delete':
      path.unlink()
    elif self.kind == 'empty':
      path.write_bytes(b'')
    elif self.kind == 'cut':
      path.write_bytes(content[:at])
    elif self.kind == 'exchange':
      other = chance.choice(_siblings(path, root))
      path.write_bytes(other.read_bytes())
      other.write_bytes(content)
      return f'{self.kind} {self.file} with {other.relative_to(root)}'
    elif content:
      if self.kind == 'flip':
        content[at] ^= 1 << chance.randrange(8)
      else:
        first = at // PAGE * PAGE
        content[first : first + PAGE] = bytes(len(content[first : first + PAGE]))
      path.write_bytes(content)
    return f'{self.kind} {self.file} at {at}'


def run(count: int, seed: int, folder: pathlib.Path) -> Outcomes:
  """Injects faults into small datasets one at a time: each is read, then built again and read."""
  chance, outcomes = random.Random(seed), Outcomes()
  folder.mkdir(parents=True, exist_ok=True)
  good, root = folder / 'good', folder / 'damaged'
  with contextlib.redirect_stderr(io.StringIO()):
    make(good, folder)
    expected = read(good)
    faults = list(every(good))
    chance.shuffle(faults)

    def attempt(builds: bool) -> str:
      if builds:
        build('folder/one', root)
      if read(root) != expected:
        return SILENT
      return MENDED if builds else AS_BEFORE

    for number in range(count):
      shutil.rmtree(root, ignore_errors=True)
      shutil.copytree(good, root)
      where = faults[number % len(faults)].inject(root, chance)
      for builds in (False, True):
        name = f'{where}, {"built again" if builds else "read"}'
        outcomes.observe(name, functools.partial(attempt, builds))
  return outcomes


def make(root: pathlib.Path, work: pathlib.Path) -> None:
  """Builds two datasets of the same shape with texts of all kinds."""
  photos = work / 'photos'
  photos.mkdir()
  for number, name in enumerate(('one', 'two')):
    files = []
    for i in range(12):
      files.append(f'{i:02}.png')
      colour = (20 * i, 99 * number, (37 * i) % 256)
      Image.new('RGB', (16 + i % 3, 16), colour).save(photos / files[-1])
    tables = {
      'captions': _table(work / 'c.csv', 'image,caption,split', _captions(files, number)),
      'questions': _table(work / 'q.csv', 'image,question,answers,split', _questions(files)),
      'pairs': _table(work / 'p.csv', 'left,right,sentence,label,split', _pairs(files)),
    }
    with quiet():
      build(f'folder/{name}', root, photos, tables=tables)


def every(root: pathlib.Path) -> Iterator[Fault]:
  """Yields all faults of the first dataset."""
  for path in sorted(root.rglob('*')):
    other = '/two/' in path.as_posix() or path.name.startswith('.folder')
    if path.is_file() and not other:
      for kind in KINDS:
        if kind != 'exchange' or _siblings(path, root):
          yield Fault(kind, path.relative_to(root))


def read(root: pathlib.Path) -> str:
  """Computes a digest of all that a run could read of the first dataset."""
  digest = hashlib.sha256()
  dataset = open_sealed('folder/one', root)
  with dataset.verified():
    for name in SPLITS:
      split = dataset[name]
      for part, array in sidecar.arrays(split.sidecar).items():
        digest.update(f'{part} {array.dtype} {array.shape} '.encode() + array.tobytes())
      for number in range(len(split.sidecar.image_id)):
        digest.update(split.encoded(number))
  return digest.hexdigest()


def _siblings(path: pathlib.Path, root: pathlib.Path) -> list[pathlib.Path]:
  """Lists files of another content with the name or the size of a file."""
  content = path.read_bytes()
  return [
    other
    for other in sorted(root.rglob('*'))
    if other.is_file() and (other.name == path.name or other.stat().st_size == len(content))
    if other.suffix == path.suffix and other.read_bytes() != content
  ]


def _table(path: pathlib.Path, header: str, rows: Iterator[list]) -> pathlib.Path:
  with path.open('w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows([header.split(','), *rows])
  return path


def _captions(files: list[str], number: int) -> Iterator[list]:
  for i, file in enumerate(files):
    for word in ('circle', 'square'):
      yield [file, f'a {COLOURS[(i + number) % 4]} {word} {i}', SPLITS[i % 3]]


def _questions(files: list[str]) -> Iterator[list]:
  for i, file in enumerate(files):
    yield [file, f'what colour is it {i}?', COLOURS[i % 4], SPLITS[i % 3]]


def _pairs(files: list[str]) -> Iterator[list]:
  for i in range(len(files) - 3):
    yield [files[i], files[i + 3], f'both are {i}', ('true', 'false')[i % 2], SPLITS[i % 3]]
