"""Fuzzes the readers of strangers' files: a mutated file is read, or refused in one line.

Each target has whole files, as seeds, and a function that reads a folder with one of them changed.
"""

import contextlib
import dataclasses
import functools
import io
import json
import pathlib
import pickle
import random
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import safetensors.numpy
from PIL import Image

from data import images
from data.archive import Archive, TooLarge
from data.entry import Tally
from data.folder import tables
from data.sources import DAMAGE
from pixelbert_jax.convert import tensors
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.vocabulary import SPECIAL
from pixelbert_jax.predict.photos import Reader
from pixelbert_jax.score import annotations, matrix, predictions
from tests.reliability.mutation import PIECES, mutate
from tests.reliability.outcome import Outcomes

SLOW = 10  # seconds for a file of some kilobytes
READ = 'read'


@dataclasses.dataclass(frozen=True)
class Target:
  """What is fuzzed.

  Attributes:
    pieces: the kind of pieces that are put in.
    seeds: whole files by name.
    read: reads a file, given its path.
  """

  pieces: str
  seeds: dict[str, bytes]
  read: Callable[[pathlib.Path], object]


def run(name: str, seconds: float, seed: int, folder: pathlib.Path) -> Outcomes:
  """Reads mutated files of a target for this time.

  A file that ends in a wrong outcome stays in the folder.
  """
  work = folder / 'work'  # Readers of archives look at all files beside one.
  work.mkdir(parents=True, exist_ok=True)
  target, chance, outcomes = TARGETS[name](), random.Random(seed), Outcomes()
  end, number = time.monotonic() + seconds, 0
  while time.monotonic() < end:
    number += 1
    seed_name, content = chance.choice(list(target.seeds.items()))
    path = work / seed_name
    path.write_bytes(mutate(content, PIECES[target.pieces], chance))
    began, known = time.monotonic(), len(outcomes.wrong)
    outcomes.observe(f'{name} {number} {seed_name}', functools.partial(_read, target, path))
    if time.monotonic() - began > SLOW:
      outcomes.add('slow', f'{name} {number} {seed_name}')
    if len(outcomes.wrong) > known:
      path.replace(folder / f'wrong-{number}-{seed_name}')
    else:
      path.unlink()
  return outcomes


def _read(target: Target, path: pathlib.Path) -> str:
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    target.read(path)
  return READ


def _csv() -> Target:
  """Tables of one's own images."""
  seeds = {
    'captions.csv': 'image,caption,split\na.jpg,"a red, round dot",train\nb/c.png,größer,val\n',
    'questions.csv': 'image,question,answers\na.jpg,what is it,dot|dot|cat\nb.jpg,how many,2\n',
    'pairs.csv': 'left,right,sentence,label\na.jpg,b.jpg,one is red,true\na.jpg,c.jpg,two,no\n',
  }

  def read(path: pathlib.Path) -> None:
    tables.read({path.stem: str(path)}, Archive(path.parent), Tally())

  return Target('csv', {name: text.encode() for name, text in seeds.items()}, read)


def _json() -> Target:
  """Annotations and predictions in the forms of VQA, NLVR2, Karpathy and retrieval."""
  answers = [{'answer': 'red', 'answer_id': n} for n in range(10)]
  question = {'question_id': 1, 'image_id': 2, 'question_type': 'what', 'answer_type': 'other'}
  question |= {'multiple_choice_answer': 'red', 'answers': answers}
  sentences = [{'raw': 'A red dot.', 'sentid': 7}]
  image = {'split': 'test', 'imgid': 0, 'filename': 'a.jpg', 'sentids': [7]}
  statement = {'identifier': 'dev-1-0-0', 'sentence': 'one', 'label': 'True', 'synset': 's'}
  seeds = {
    'vqa.json': json.dumps({'annotations': [question], 'info': {}}),
    'answers.json': json.dumps([{'question_id': 1, 'answer': 'red'}]),
    'karpathy.json': json.dumps({'images': [image | {'sentences': sentences}], 'dataset': 'x'}),
    'nlvr2.json': json.dumps(statement) + '\n' + json.dumps(statement | {'label': 'False'}),
    'nlvr2.csv': 'dev-1-0-0,True\ndev-1-0-1,False\n',
  }
  readers = {
    'vqa.json': annotations.read_vqa,
    'answers.json': lambda path: predictions.read_vqa(path, [1]),
    'karpathy.json': annotations.read_captions,
    'nlvr2.json': annotations.read_nlvr2,
    'nlvr2.csv': lambda path: predictions.read_nlvr2(path, ['dev-1-0-0', 'dev-1-0-1']),
  }
  content = {name: text.encode() for name, text in seeds.items()}
  return Target('json', content, lambda path: readers[path.name](path))


def _archives() -> Target:
  """Zip and tar files of images and texts."""
  members = {'a.jpg': _picture('JPEG'), 'a.txt': b'a red dot', 'b/c.png': _picture('PNG')}
  members |= {'b/c.json': b'{"captions": ["a dot", "a cat"], "split": "val"}'}
  zipped, tarred = io.BytesIO(), io.BytesIO()
  with zipfile.ZipFile(zipped, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  with tarfile.open(fileobj=tarred, mode='w') as archive:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))

  def read(path: pathlib.Path) -> None:
    archive = Archive(path.parent)
    for name in members:
      with contextlib.suppress(images.BadImage, TooLarge, *DAMAGE):  # as a build counts them
        images.check(archive.read(name))
    if path.suffix == '.tar':
      tables.read({}, archive, Tally())

  return Target('archive', {'s.zip': zipped.getvalue(), 's.tar': tarred.getvalue()}, read)


def _images() -> Target:
  """Photographs, as `predict` and a build read them."""
  seeds = {
    f'a.{form.lower()}': _picture(form) for form in ('JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP')
  }
  exif = Image.Exif()
  exif[0x0112] = 6
  seeds['turned.jpeg'] = _picture('JPEG', exif=exif)
  place = Reader(Canvases(64, 96, ((64, 96), (96, 64), (64, 64))), 16)

  def read(path: pathlib.Path) -> None:
    with contextlib.suppress(images.BadImage):
      images.check(path.read_bytes())
    place(path)

  return Target('image', seeds, read)


def _vocabularies() -> Target:
  """Vocabularies of BERT."""
  words = [*SPECIAL, 'a', 'red', 'green', 'circle', '##s', 'grosse']
  expected = ['[CLS]', 'a', 'red', 'circle', '[MASK]', '[SEP]']

  def read(path: pathlib.Path) -> None:
    tokenizer = Tokenizer(path, 12)
    ids, _ = tokenizer(['a red circle [MASK]'])
    entries = [tokenizer.words[i] for i in ids[0][:6]]
    if set(expected) <= set(tokenizer.words):
      assert entries == expected

  return Target('text', {'vocab.txt': ('\n'.join(words) + '\n').encode()}, read)


def _weights() -> Target:
  """Files of weights, and matrices of scores."""
  import torch

  arrays = {'a.weight': np.ones((3, 4), np.float32), 'a.bias': np.zeros(3, np.float32)}
  saved, table = io.BytesIO(), io.BytesIO()
  torch.save({name: torch.tensor(x) for name, x in arrays.items()}, saved)
  np.savez(table, scores=np.eye(3, dtype=np.float32), image_ids=np.arange(3), text_ids=np.arange(3))
  seeds = {
    'a.safetensors': safetensors.numpy.save(arrays),
    'a.pth': saved.getvalue(),
    'a.pkl': pickle.dumps({'blobs': arrays}, protocol=2),
    'scores.npz': table.getvalue(),
  }

  def read(path: pathlib.Path) -> None:
    matrix.read(path) if path.suffix == '.npz' else tensors.read_file(path)

  return Target('weights', seeds, read)


def _picture(form: str, **options: object) -> bytes:
  """Encodes a small picture."""
  file = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
  Image.fromarray(pixels).save(file, form, **options)
  return file.getvalue()


TARGETS: dict[str, Callable[[], Target]] = {
  'csv': _csv,
  'json': _json,
  'archives': _archives,
  'images': _images,
  'vocabularies': _vocabularies,
  'weights': _weights,
}
