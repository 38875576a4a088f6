"""MS-COCO captions (Lin et al. 2014, Chen et al. 2015) in Karpathy's split."""

import dataclasses

import tensorflow_datasets as tfds

from data import corpus, karpathy, overlap
from data.entry import Entry, Need, Tally
from pixelbert_jax.fields import Fields

TRAIN = Need(('train2014',), 'http://images.cocodataset.org/zips/train2014.zip', '13.5 GB')
VAL = Need(('val2014',), 'http://images.cocodataset.org/zips/val2014.zip', '6.6 GB')
SUBSET = 'flickr30k'
LISTS = (overlap.FLICKR30K, *overlap.COCO_CAPTIONS)


class Builder(corpus.CorpusBuilder):
  """COCO captions: a record is an image with five to seven captions; in Karpathy's order.

  Images of `train` that are in Flickr30K are omitted, or in the configuration `all` the subset
  `flickr30k`. `val` and `test` are whole in both.
  """

  VERSION = tfds.core.Version('1.2.0')
  HOMEPAGE = 'https://cocodataset.org'
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(
      name='clean', description='Without the images of train that are in Flickr30K.'
    ),
    tfds.core.BuilderConfig(name='all', description='All images, as published.'),
  )
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
    shared = self._in_flickr30k(tally) if split == 'train' else set()
    entries = []
    for entry in karpathy.entries(self.request.archive, 'coco', split, tally, place):
      image_id, _ = entry.images[0]
      if image_id not in shared:
        entries.append(entry)
      elif self.builder_config.name == 'all':
        tally.keep(f'images {overlap.IN_FLICKR30K}, kept as subset {SUBSET}', image_id)
        entries.append(_marked(entry))
      else:
        tally.leave_out(overlap.IN_FLICKR30K, image_id)
    return entries

  def _in_flickr30k(self, tally: Tally) -> set[str]:
    """Returns the ids of images in Flickr30K; SourceError if they must be known and are not."""
    archive = self.request.archive
    if self.builder_config.name != 'all':
      overlap.require(archive, LISTS, 'Flickr30K', f'{self.name}/all')
    elif lacking := overlap.missing(archive, LISTS):
      tally.notes.append(f'{lacking[0].paths[0]} does not exist: no caption is marked {SUBSET}')
      return set()
    flickr30k = overlap.flickr30k_ids(archive)
    flickr_ids = overlap.coco_flickr_ids(archive)
    return {str(coco_id) for coco_id, number in flickr_ids.items() if number in flickr30k}


def _marked(entry: Entry) -> Entry:
  captions = [dataclasses.replace(caption, subset=SUBSET) for caption in entry.captions]
  return dataclasses.replace(entry, captions=captions)


def place(image: Fields) -> tuple[str, str]:
  """Returns the id and path of an image of Karpathy's file."""
  return str(image.number('cocoid')), f'{image.text("filepath")}/{image.text("filename")}'
