"""NLVR (Suhr et al. 2017): rendered images, each with a human sentence that is true or false."""

import functools
import os
import re
from collections.abc import Sequence

import tensorflow_datasets as tfds

from data import corpus
from data.archive import Archive, first
from data.entry import Entry, Need, Tally
from data.listing import TWICE, Once, add, lines
from pixelbert_jax.fields import Fields
from pixelbert_jax.input.rows import Caption

SOURCE = 'https://github.com/lil-lab/nlvr'
SPLITS = ('train', 'dev', 'test', 'hidden')
PERMUTATIONS = 6
LABELS = {'true': True, 'false': False}
# The numbered folders of a split hold up to 1,000 images each.
DIRECTORIES = 1000


def annotations(split: str) -> tuple[str, ...]:
  """Returns possible paths of the file of a split: now, when released, in the first release."""
  names = (split, f'{split}_final') if split == 'hidden' else (split,)
  return tuple(f'{folder}{split}/{name}.json' for folder in ('nlvr/', '') for name in names)


class Builder(corpus.CorpusBuilder):
  """NLVR: a record is an image; in the order of the file, the six permutations in sequence.

  The subset of a caption is its directory; hold out whole directories, as `test[6]`, `test[!6]`.
  """

  VERSION = tfds.core.Version('1.3.0')
  HOMEPAGE = SOURCE
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    split: (Need(annotations(split), SOURCE, size),)
    for split, size in zip(SPLITS, ('200 MB', '16 MB', '16 MB', '16 MB'), strict=True)
  }
  PUBLISHED = {  # noqa: RUF012
    'train': {'images': 74_460},
    'dev': {'images': 5_934},
    'test': {'images': 5_940},
    'hidden': {'images': 5_910},
  }
  EXTRA = {  # noqa: RUF012
    'identifier': tfds.features.Text(doc='<sentence number>-<image number>'),
  }

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    archive, path = self.request.archive, first(self.request.archive, annotations(split))
    folders = Folders(archive, f'{os.path.dirname(path)}/images')
    once = Once('identifier')
    entries: list[Entry] = []
    for line in lines(archive, path):
      images = permutations(line, split, folders)
      if once.repeats(line, line.text('identifier'), images):
        for entry in images:
          tally.count(entry)
          tally.leave_out(TWICE, entry.images[0][0])
      else:
        for entry in images:
          add(entries, entry, tally)
    return entries


class Folders:
  """The numbered folders of the images of a split."""

  def __init__(self, archive: Archive, path: str):
    self.path, self._archive = path, archive

  @functools.cached_property
  def _numbers(self) -> list[str]:
    return [str(n) for n in range(DIRECTORIES) if self._archive.find(f'{self.path}/{n}')]

  def holding(self, line: Fields, names: Sequence[str]) -> str:
    """Returns the number of the folder that holds any of these files, or '' if none does."""
    found = [
      n
      for n in self._numbers
      if any(map(self._archive.find, [f'{self.path}/{n}/{name}' for name in names]))
    ]
    if len(found) > 1:
      places = ' and '.join(f'{self.path}/{n}' for n in found[:2])
      raise line.error(f'has no "directory", and its images are in {places}: delete the wrong ones')
    return ''.join(found)


def permutations(line: Fields, split: str, folders: Folders) -> list[Entry]:
  """Makes the six entries of an example; SourceError if it is malformed."""
  identifier, label = line.text('identifier'), line.choice('label', LABELS)
  if not re.fullmatch(r'[0-9]{1,5}-[0-9]{1,2}', identifier):
    raise line.fault('identifier', 'one such as "1572-0"')
  ids = [f'{split}-{identifier}-{k}' for k in range(PERMUTATIONS)]
  sentence = line.text('sentence').strip()
  # Neither `hidden` nor the first release says in which folder the images are.
  directory = (
    line.name('directory')
    if 'directory' in line
    else folders.holding(line, [f'{image_id}.png' for image_id in ids])
  )
  folder = f'{folders.path}/{directory}'.rstrip('/')
  return [
    Entry(
      images=((image_id, f'{folder}/{image_id}.png'),),
      captions=[Caption(sentence, caption_id(image_id), label, subset=directory)],
      extra={'identifier': identifier},
    )
    for image_id in ids
  ]


def caption_id(image_id: str) -> int:
  """Returns an id of an image's sentence, unique over all splits: 'dev-1572-0-3' -> 201572003.

  Its decimal digits are the split (1 train, 2 dev, 3 test, 4 hidden), five for the sentence, two
  for the image and one for the permutation.
  """
  split, sentence, image, permutation = image_id.split('-')
  number = (1 + SPLITS.index(split)) * 10**5 + int(sentence)
  return number * 1000 + int(image) * 10 + int(permutation)
