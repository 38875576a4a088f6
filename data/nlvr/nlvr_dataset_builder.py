"""NLVR (Suhr et al. 2017): rendered images, a human sentence each, true or false of it."""

import re
from typing import Any

import tensorflow_datasets as tfds

from data import corpus
from data.entry import Entry, Need, Tally
from pixelbert_jax.input.rows import Caption

SOURCE = 'https://github.com/lil-lab/nlvr'
SPLITS = ('train', 'dev', 'test', 'hidden')
PERMUTATIONS = 6


class Builder(corpus.CorpusBuilder):
  """One record an image, in the order of the file: six permutations of one after the other.

  The subset of a caption is its directory: hold out whole ones, as `test[6]` and `test[!6]`.
  """

  VERSION = tfds.core.Version('1.3.0')
  HOMEPAGE = SOURCE
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    split: (Need((f'nlvr/{split}/{split}.json',), SOURCE, size),)
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
    archive, path = self.request.archive, f'nlvr/{split}/{split}.json'
    found, seen = [], set()
    for number, line in archive.json_lines(path):
      try:
        entries = permutations(line, split)
      except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise archive.unreadable(path, error, f'line {number}') from error
      identifier = entries[0].extra['identifier']
      if identifier in seen:
        raise archive.unreadable(path, f'it repeats {identifier}', f'line {number}')
      seen.add(identifier)
      for entry in entries:
        tally.count(entry)
      found += entries
    return found


def permutations(line: dict[str, Any], split: str) -> list[Entry]:
  """The six entries of an example; KeyError, TypeError or ValueError if it is none."""
  identifier, directory, label = (str(line[k]) for k in ('identifier', 'directory', 'label'))
  if label not in ('true', 'false'):
    raise ValueError(f'label {label!r}')
  if not re.fullmatch(r'[0-9]{1,5}-[0-9]{1,2}', identifier):
    raise ValueError(f'identifier {identifier!r}')
  sentence, folder = line['sentence'].strip(), f'nlvr/{split}/images/{directory}'
  ids = [f'{split}-{identifier}-{k}' for k in range(PERMUTATIONS)]
  return [
    Entry(
      images=((image_id, f'{folder}/{image_id}.png'),),
      captions=[Caption(sentence, caption_id(image_id), label == 'true', subset=directory)],
      extra={'identifier': identifier},
    )
    for image_id in ids
  ]


def caption_id(image_id: str) -> int:
  """A number for an image's sentence, distinct over all splits: 'dev-1572-0-3' -> 201572003.

  Its decimal digits: the split (1 train, 2 dev, 3 test, 4 hidden), five of the sentence, two of
  the image, one of the permutation.
  """
  split, sentence, image, permutation = image_id.split('-')
  number = (1 + SPLITS.index(split)) * 10**5 + int(sentence)
  return number * 1000 + int(image) * 10 + int(permutation)
