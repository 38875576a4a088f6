"""Visual Genome (Krishna et al. 2017): photographs with descriptions of their regions."""

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from data import corpus, karpathy
from data.archive import Archive, SourceError, first
from data.entry import Entry, Need, Tally
from pixelbert_jax.input.rows import Caption

HOMEPAGE = 'https://homes.cs.washington.edu/~ranjay/visualgenome/api.html'
ZIPS = 'https://cs.stanford.edu/people/rak248/VG_100K_2'
REGIONS = 'region_descriptions.json'
IMAGES = 'image_data.json'
FOLDERS = {'VG_100K': 64_345, 'VG_100K_2': 43_732}
COCO_CAPTIONS = tuple(f'annotations/captions_{year}.json' for year in ('train2014', 'val2014'))


class Builder(corpus.CorpusBuilder):
  """Visual Genome: a record is an image with about fifty descriptions; in the order of the file.

  Images of test splits of other datasets are omitted, except in the configuration `all`.
  """

  VERSION = tfds.core.Version('1.1.0')
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
    paths = image_paths(archive)
    entries, empty = [], 0
    for image_id, phrases in descriptions(archive):
      if image_id not in paths:
        raise SourceError(
          f'{archive.find(REGIONS)} describes image {image_id}, which {archive.find(IMAGES)} '
          f'does not list: they are not of the same version, get both from {HOMEPAGE}'
        )
      captions = [Caption(text, number) for number, text in phrases if text]
      entry = Entry(((str(image_id), paths.pop(image_id)),), captions)
      empty += len(phrases) - len(captions)
      tally.count(entry)
      if image_id in excluded:
        tally.leave_out(excluded[image_id], str(image_id))
      else:
        entries.append(entry)
    if empty:
      tally.notes.append(f'{empty:,} empty descriptions are omitted')
    if paths:
      tally.notes.append(f'{len(paths):,} images of {IMAGES} without descriptions are omitted')
    return entries


def image_data(archive: Archive) -> list[dict[str, Any]]:
  """Reads the images of image_data.json, each with `image_id` (`id` in version 1.0)."""
  images = archive.json(IMAGES, list)
  try:
    return [
      {'image_id': image['image_id' if 'image_id' in image else 'id']} | image for image in images
    ]
  except (KeyError, TypeError) as error:
    raise archive.unreadable(IMAGES, f'an image without image_id: {error!r}') from error


def image_paths(archive: Archive) -> dict[int, str]:
  """Returns the path of each image; its url gives the folder, its id the file name."""
  paths = {}
  for image in image_data(archive):
    folder = pathlib.PurePosixPath(str(image.get('url'))).parent.name
    if folder not in FOLDERS:
      raise archive.unreadable(
        IMAGES, f'its url is {image.get("url")!r}', f'image {image["image_id"]}'
      )
    paths[image['image_id']] = f'{folder}/{image["image_id"]}.jpg'
  return paths


def descriptions(archive: Archive) -> Iterator[tuple[int, list[tuple[int, str]]]]:
  """Yields each image's id with the ids and texts of its regions; texts are stripped."""
  for number, image in enumerate(archive.json_items(REGIONS)):
    try:
      # The readme documents `image_id`, the file has `id`; likewise for regions in version 1.0.
      image_id = image['id' if 'id' in image else 'image_id']
      yield (
        int(image_id),
        [
          (int(r['region_id' if 'region_id' in r else 'id']), r['phrase'].strip())
          for r in image['regions']
        ],
      )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise archive.unreadable(REGIONS, error, f'image number {number}') from error


def reasons(archive: Archive, tally: Tally) -> dict[int, str]:
  """Returns the reasons for omitting images, by image id.

  Raises:
    SourceError: a file that lists test images is missing.
  """
  for dataset in ('coco', 'flickr30k'):
    need = karpathy.need(dataset)
    if first(archive, need.paths) is None:
      raise SourceError(
        f'{need.paths[0]} not found in {archive.path}: without it images of the test splits of '
        f'{dataset} cannot be omitted. Get it from {need.source}, or build visual_genome/all, '
        'which has all images'
      )
  coco = karpathy.images(archive, 'coco')
  tested = {int(image['cocoid']) for image in coco if image['split'] in ('val', 'test')}
  flickr30k = {
    image['filename'].partition('.')[0] for image in karpathy.images(archive, 'flickr30k')
  }
  flickr_of = coco_flickr_ids(archive, tally)
  omitted = {}
  for image in image_data(archive):
    coco_id = image.get('coco_id')
    flickr_ids = {str(image.get('flickr_id')), flickr_of.get(coco_id)}
    if coco_id is not None and int(coco_id) in tested:
      omitted[image['image_id']] = 'in val or test of COCO (Karpathy)'
    elif flickr_ids & flickr30k:
      omitted[image['image_id']] = 'in Flickr30K'
  return omitted


def coco_flickr_ids(archive: Archive, tally: Tally) -> dict[int, str]:
  """Returns the Flickr id by COCO image id; the file name in `flickr_url` starts with it."""
  flickr_ids = {}
  for path in COCO_CAPTIONS:
    name = first(archive, (path, pathlib.PurePosixPath(path).name))
    if name is None:
      tally.notes.append(
        f'{path} does not exist: images of Flickr30K among its images are only found by flickr_id'
      )
      continue
    for image in archive.json_items(name, 'images'):
      flickr_ids[image['id']] = image['flickr_url'].rpartition('/')[2].partition('_')[0]
  return flickr_ids
