"""MS-COCO captions (Lin et al. 2014, Chen et al. 2015) in Karpathy's split."""

import tensorflow_datasets as tfds

from data import corpus, karpathy
from data.entry import Entry, Need, Tally
from pixelbert_jax.fields import Fields

TRAIN = Need(('train2014',), 'http://images.cocodataset.org/zips/train2014.zip', '13.5 GB')
VAL = Need(('val2014',), 'http://images.cocodataset.org/zips/val2014.zip', '6.6 GB')


class Builder(corpus.CorpusBuilder):
  """COCO captions: a record is an image with five to seven captions; in Karpathy's order."""

  VERSION = tfds.core.Version('1.1.0')
  HOMEPAGE = 'https://cocodataset.org'
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    'train': (karpathy.need('coco'), TRAIN, VAL),
    'val': (karpathy.need('coco'), VAL),
    'test': (karpathy.need('coco'), VAL),
  }
  PUBLISHED = {  # noqa: RUF012
    'train': {'images': 113_287, 'captions': 566_747},
    'val': {'images': 5_000, 'captions': 25_010},
    'test': {'images': 5_000, 'captions': 25_010},
  }

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    return karpathy.entries(self.request.archive, 'coco', split, tally, place)


def place(image: Fields) -> tuple[str, str]:
  """Returns the id and path of an image of Karpathy's file."""
  return str(image.number('cocoid')), f'{image.text("filepath")}/{image.text("filename")}'
