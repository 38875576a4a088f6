"""Faults in the files of a built dataset, and what comes of each.

A fault is one file with a bit flipped, cut, emptied, exchanged with another of its name or size,
deleted, or with a page of zeros. Then the dataset is read as a run reads it, and built again as a
user does who is told to.
"""

import contextlib
import csv
import functools
import hashlib
import io
import pathlib
import random
from collections.abc import Iterator

from PIL import Image

from data.build import build, open_sealed
from pixelbert_jax.input import sidecar
from pixelbert_jax.input.dataset import quiet
from tests.reliability.damage import damaged
from tests.reliability.outcome import SILENT, Outcomes

SPLITS = ('train', 'val', 'test')
COLOURS = ('red', 'green', 'blue', 'black')
AS_BEFORE, MENDED = 'as before', 'mended'


def run(count: int, seed: int, folder: pathlib.Path) -> Outcomes:
  """Injects faults into small datasets one at a time: each is read, then built again and read."""
  chance, outcomes = random.Random(seed), Outcomes()
  folder.mkdir(parents=True, exist_ok=True)
  root = folder / 'built'
  with contextlib.redirect_stderr(io.StringIO()):
    make(root, folder)
    expected = read(root)

    def attempt(builds: bool) -> str:
      if builds:
        build('folder/one', root)
      if read(root) != expected:
        return SILENT
      return MENDED if builds else AS_BEFORE

    for _ in range(count):
      with damaged(root, chance, 'folder/one') as what:
        for builds in (False, True):
          name = f'{what}, {"built again" if builds else "read"}'
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
