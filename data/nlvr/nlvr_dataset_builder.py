"""NLVR (Suhr et al. 2017): rendered images, each with a human sentence that is true or false."""

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
  """NLVR: a record is an image; in the order of the file, the six permutations in sequence.

  The subset of a caption is its directory; hold out whole directories, as `test[6]`, `test[!6]`.
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
    entries, seen = [], set()
    for number, line in archive.json_lines(path):
      try:
        images = permutations(line, split)
      except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise archive.unreadable(path, error, f'line {number}') from error
      identifier = images[0].extra['identifier']
      if identifier in seen:
        raise archive.unreadable(path, f'it repeats {identifier}', f'line {number}')
      seen.add(identifier)
      for entry in images:
        tally.count(entry)
      entries += images
    return entries


def permutations(line: dict[str, Any], split: str) -> list[Entry]:
  """Makes the six entries of an example; KeyError, TypeError or ValueError if it is malformed."""
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
  """Returns an id of an image's sentence, unique over all splits: 'dev-1572-0-3' -> 201572003.

  Its decimal digits are the split (1 train, 2 dev, 3 test, 4 hidden), five for the sentence, two
  for the image and one for the permutation.
  """
  split, sentence, image, permutation = image_id.split('-')
  number = (1 + SPLITS.index(split)) * 10**5 + int(sentence)
  return number * 1000 + int(image) * 10 + int(permutation)
