"""Flickr30K (Young et al. 2014) in Karpathy's split."""

import tensorflow_datasets as tfds

from data import corpus, karpathy
from data.entry import Entry, Need, Tally
from pixelbert_jax.fields import Fields

SOURCE = 'https://shannon.cs.illinois.edu/DenotationGraph/ (a form)'
IMAGES = 'flickr30k-images'


class Builder(corpus.CorpusBuilder):
  """Flickr30K captions: a record is an image with five captions; in Karpathy's order."""

  VERSION = tfds.core.Version('1.2.0')
  HOMEPAGE = 'https://shannon.cs.illinois.edu/DenotationGraph/'
  NEEDS = dict.fromkeys(
    karpathy.SPLITS, (karpathy.need('flickr30k'), Need((IMAGES,), SOURCE, '4.4 GB'))
  )
  PUBLISHED = {  # noqa: RUF012 - as TFDS's own attributes
    'train': {'images': 29_000, 'captions': 145_000},
    'val': {'images': 1_014, 'captions': 5_070},
    'test': {'images': 1_000, 'captions': 5_000},
  }

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    def place(image: Fields) -> tuple[str, str]:
      name = image.text('filename')
      return name.removesuffix('.jpg'), f'{IMAGES}/{name}'

    return karpathy.entries(self.request.archive, 'flickr30k', split, tally, place)
