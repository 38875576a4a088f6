"""Pictures of three boxes, as items: those of NLVR's sample, and what a change makes of them."""

import dataclasses
import functools
import io
import itertools
import json
import re
import zipfile

import numpy as np
from PIL import Image

from data.boxes import sentences, world
from pixelbert_jax.input.boxes import COLOURS, ORDERS, Change
from tests.support.paths import shared

# The colours as NLVR's files name them.
NAMES = {'Black': 'black', 'Yellow': 'yellow', '#0099ff': 'blue'}
CHANGES = [
  Change(mirrored, order)
  for mirrored, order in zip(itertools.product((False, True), repeat=3), ORDERS * 2, strict=False)
]


@dataclasses.dataclass(frozen=True)
class Example:
  """An example of NLVR: its sentence and label, the picture as items, and its six images."""

  sentence: str
  label: bool
  picture: world.Picture
  images: str

  def pixels(self, split):
    files = archive(split)
    for k in range(6):
      image = Image.open(io.BytesIO(files.read(f'{self.images}-{k}.png')))
      yield np.asarray(image.convert('RGB'))


@functools.cache
def archive(split):
  return zipfile.ZipFile(shared(f'nlvr_{split}.zip'))


@functools.cache
def examples(split):
  """The examples of a split; the test is skipped where its files are not there."""
  lines = archive(split).read(f'nlvr/{split}/{split}.json').splitlines()
  return [example(split, json.loads(line)) for line in lines]


def example(split, line):
  boxes = (
    tuple(
      world.Item(i['type'], NAMES[i['color']], i['x_loc'], i['y_loc'], i['size'])
      for i in sorted(box, key=lambda i: -i['y_loc'])
    )
    for box in line['structured_rep']
  )
  images = f'nlvr/{split}/images/{line["directory"]}/{split}-{line["identifier"]}'
  return Example(line['sentence'], line['label'] == 'true', tuple(boxes), images)


def changed(picture, change):
  """What a change makes of a picture, item by item."""
  names = list(COLOURS)

  def item(it, mirrored):
    colour = names[change.order[names.index(it.colour)]]
    x = world.SIDE - it.x - it.size if mirrored else it.x
    return dataclasses.replace(it, colour=colour, x=x)

  return tuple(
    tuple(item(it, mirrored) for it in box)
    for box, mirrored in zip(picture, change.mirrored, strict=True)
  )


def plain(text):
  """A sentence as `sentences.statements` words it."""
  text = ' '.join(re.sub(r'[.,]', ' ', text.lower()).split())
  for word, other in (('atleast', 'at least'), ('colour', 'color'), ('object', 'item')):
    text = text.replace(word, other)
  for i, word in enumerate(sentences.NUMBERS, 1):
    text = re.sub(rf'\b{i}\b', word, text)
  return text


@functools.cache
def meanings(tower):
  """What is said of towers, or of scattered items, with its test."""
  return {
    wording: statement.test
    for statement in sentences.statements(tower)
    for wording in statement.wordings
  }
