"""Visual Genome (Krishna et al. 2017): images with descriptions of their regions."""

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
  """One record an image with its descriptions, about fifty, in the order of their file.

  Images that others test on are left out, but for the configuration `all`.
  """

  VERSION = tfds.core.Version('1.1.0')
  HOMEPAGE = HOMEPAGE
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(
      name='clean',
      description="Without images of COCO's val and test (Karpathy) and of Flickr30K.",
    ),
    tfds.core.BuilderConfig(
      name='all', description='All images, as the paper and ViLT take them: tests leak.'
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
    places = image_places(archive)
    found, empty = [], 0
    for image_id, phrases in descriptions(archive):
      if image_id not in places:
        raise SourceError(
          f'{archive.find(REGIONS)} describes image {image_id}, which {archive.find(IMAGES)} '
          f'does not list: they are not of the same version, get both from {HOMEPAGE}'
        )
      captions = [Caption(text, number) for number, text in phrases if text]
      entry = Entry(((str(image_id), places.pop(image_id)),), captions)
      empty += len(phrases) - len(captions)
      tally.count(entry)
      if image_id in excluded:
        tally.leave_out(excluded[image_id], str(image_id))
      else:
        found.append(entry)
    if empty:
      tally.notes.append(f'{empty:,} empty descriptions are left out')
    if places:
      tally.notes.append(f'{len(places):,} images of {IMAGES} are not described, and left out')
    return found


def image_data(archive: Archive) -> list[dict[str, Any]]:
  """The images of image_data.json, each with `image_id`, which version 1.0 called `id`."""
  images = archive.json(IMAGES, list)
  try:
    return [
      {'image_id': image['image_id' if 'image_id' in image else 'id']} | image for image in images
    ]
  except (KeyError, TypeError) as error:
    raise archive.unreadable(IMAGES, f'an image without image_id: {error!r}') from error


def image_places(archive: Archive) -> dict[int, str]:
  """The path of each image: its url names the folder, its id the file."""
  places = {}
  for image in image_data(archive):
    folder = pathlib.PurePosixPath(str(image.get('url'))).parent.name
    if folder not in FOLDERS:
      raise archive.unreadable(
        IMAGES, f'its url is {image.get("url")!r}', f'image {image["image_id"]}'
      )
    places[image['image_id']] = f'{folder}/{image["image_id"]}.jpg'
  return places


def descriptions(archive: Archive) -> Iterator[tuple[int, list[tuple[int, str]]]]:
  """Each image's id, and the ids and texts of its regions, stripped of blanks around them."""
  for number, image in enumerate(archive.json_items(REGIONS)):
    try:
      # The readme says `image_id`, the file `id`; likewise the regions of version 1.0.
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
  """Why images are left out, by image id.

  Raises:
    SourceError: a file that tells which they are is missing.
  """
  for dataset in ('coco', 'flickr30k'):
    need = karpathy.need(dataset)
    if first(archive, need.paths) is None:
      raise SourceError(
        f'{need.paths[0]} not found in {archive.path}: without it images of the test splits of '
        f'{dataset} cannot be left out. Get it from {need.source}, or take all images as they '
        'are by the name visual_genome/all'
      )
  coco = karpathy.images(archive, 'coco')
  tested = {int(image['cocoid']) for image in coco if image['split'] in ('val', 'test')}
  flickr30k = {
    image['filename'].partition('.')[0] for image in karpathy.images(archive, 'flickr30k')
  }
  flickr_of = coco_flickr_ids(archive, tally)
  found = {}
  for image in image_data(archive):
    coco_id = image.get('coco_id')
    flickr_ids = {str(image.get('flickr_id')), flickr_of.get(coco_id)}
    if coco_id is not None and int(coco_id) in tested:
      found[image['image_id']] = 'in val or test of COCO (Karpathy)'
    elif flickr_ids & flickr30k:
      found[image['image_id']] = 'in Flickr30K'
  return found


def coco_flickr_ids(archive: Archive, tally: Tally) -> dict[int, str]:
  """COCO image id -> Flickr id, which is what the basename of `flickr_url` begins with."""
  found = {}
  for path in COCO_CAPTIONS:
    name = first(archive, (path, pathlib.PurePosixPath(path).name))
    if name is None:
      tally.notes.append(f'{path} is not there: of its images only flickr_id tells Flickr30K')
      continue
    for image in archive.json_items(name, 'images'):
      found[image['id']] = image['flickr_url'].rpartition('/')[2].partition('_')[0]
  return found
