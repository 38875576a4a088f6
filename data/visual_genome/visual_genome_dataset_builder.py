"""Visual Genome (Krishna et al. 2017): photographs with descriptions of their regions."""

import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from data import corpus, karpathy, overlap
from data.archive import Archive
from data.entry import Entry, Need, Tally
from data.listing import TWICE, Once, add, leave_out_repeated, objects
from pixelbert_jax.fields import Fields
from pixelbert_jax.input.rows import Caption

HOMEPAGE = 'https://homes.cs.washington.edu/~ranjay/visualgenome/api.html'
ZIPS = 'https://cs.stanford.edu/people/rak248/VG_100K_2'
REGIONS = 'region_descriptions.json'
IMAGES = 'image_data.json'
FOLDERS = {'VG_100K': 64_345, 'VG_100K_2': 43_732}


class Builder(corpus.CorpusBuilder):
  """Visual Genome: a record is an image with about fifty descriptions; in the order of the file.

  Images of test splits of other datasets are omitted, except in the configuration `all`.
  """

  VERSION = tfds.core.Version('1.2.0')
  HOMEPAGE = HOMEPAGE
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(
      name='clean',
      description="Without images of COCO's val and test (Karpathy) and of Flickr30K.",
    ),
    tfds.core.BuilderConfig(
      name='all', description='All images, as in the paper and ViLT: test images leak.'
    ),
  )
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    'train': (
      Need((REGIONS,), f'{HOMEPAGE} (version 1.2)', '121 MB zipped'),
      Need((IMAGES,), f'{HOMEPAGE} (version 1.2)', '2 MB zipped'),
      Need(('VG_100K_2',), f'{ZIPS}/images.zip or images2.zip', '15.2 GB for both'),
      Need(('VG_100K',), f'{ZIPS}/images.zip or images2.zip', '15.2 GB for both'),
    )
  }
  PUBLISHED = {'train': {'images': sum(FOLDERS.values())}}  # noqa: RUF012

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    archive = self.request.archive
    excluded = {} if self.builder_config.name == 'all' else reasons(archive, tally)
    paths = image_paths(archive, tally)
    once, entries = Once('image'), list[Entry]()
    described = set()
    for listed, image_id in descriptions(archive):
      if image_id not in paths:
        raise listed.error(
          f'describes image {image_id}, which {archive.find(IMAGES)} '
          f'does not list: they are not of the same version, get both from {HOMEPAGE}'
        )
      captions, repeated = regions(listed)
      entry = Entry(((str(image_id), paths[image_id]),), captions)
      if once.repeats(listed, image_id, captions):
        tally.count(entry)
        tally.leave_out(TWICE, str(image_id))
      elif image_id in excluded:
        tally.count(entry)
        tally.leave_out(excluded[image_id], str(image_id))
      else:
        for caption in repeated:
          leave_out_repeated('captions', caption, tally)
        add(entries, entry, tally)
      described.add(image_id)
    for image_id, path in paths.items():
      if image_id not in described:
        add(entries, Entry(((str(image_id), path),)), tally)
    return entries


def number(fields: Fields, name: str, other: str) -> int:
  """Reads an id that has two names in the releases and their readme."""
  return fields.number(name if name in fields else other)


def image_data(archive: Archive) -> Iterator[tuple[Fields, int]]:
  """Yields the images of image_data.json and their ids, `id` in version 1.0."""
  for image in objects(archive, IMAGES):
    yield image, number(image, 'image_id', 'id')


def image_paths(archive: Archive, tally: Tally) -> dict[int, str]:
  """Returns the path of each image; its url gives the folder, its id the file name."""
  once, paths = Once('image'), {}
  for image, image_id in image_data(archive):
    folder = pathlib.PurePosixPath(image.text('url')).parent.name
    if folder not in FOLDERS:
      raise image.fault('url', f'one in {" or ".join(FOLDERS)}')
    paths[image_id] = f'{folder}/{image_id}.jpg'
    if once.repeats(image, image_id, folder):
      tally.leave_out(TWICE, f'{IMAGES} {image.at}', 'entries')
  return paths


def descriptions(archive: Archive) -> Iterator[tuple[Fields, int]]:
  """Yields the images of region_descriptions.json and their ids."""
  # The readme documents `image_id`, the file has `id`.
  for image in objects(archive, REGIONS):
    yield image, number(image, 'id', 'image_id')


def regions(image: Fields) -> tuple[list[Caption], list[Caption]]:
  """Returns the descriptions of an image, and those that are listed twice; texts are stripped."""
  once = Once('region')
  captions, repeated = [], []
  for region in image.objects('regions'):
    caption = Caption(region.text('phrase').strip(), number(region, 'region_id', 'id'))
    (repeated if once.repeats(region, caption.id, caption) else captions).append(caption)
  return captions, repeated


def reasons(archive: Archive, tally: Tally) -> dict[int, str]:
  """Returns the reasons for omitting images, by image id.

  Raises:
    SourceError: a file that lists test images is missing.
  """
  for dataset in ('coco', 'flickr30k'):
    whose = f'the test splits of {dataset}'
    overlap.require(archive, [karpathy.need(dataset)], whose, 'visual_genome/all')
  for need in overlap.missing(archive, overlap.COCO_CAPTIONS):
    tally.notes.append(
      f'{need.paths[0]} does not exist: images of Flickr30K among its images are only found by '
      'flickr_id'
    )
  coco = karpathy.images(archive, 'coco')
  tested = {image.number('cocoid') for image in coco if image.text('split') in ('val', 'test')}
  flickr30k = overlap.flickr30k_ids(archive)
  flickr_of = overlap.coco_flickr_ids(archive)
  omitted = {}
  for image, image_id in image_data(archive):
    coco_id, flickr_id = image.number_or_null('coco_id'), image.number_or_null('flickr_id')
    if coco_id in tested:
      omitted[image_id] = 'in val or test of COCO (Karpathy)'
    elif {str(flickr_id), flickr_of.get(coco_id)} & flickr30k:
      omitted[image_id] = overlap.IN_FLICKR30K
  return omitted
