"""Base class of the builders of Visual Genome, which differ in the texts that they read.

The images, and the reasons to omit some of them, are the same for all.
"""

import abc
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from data import corpus, karpathy, overlap
from data.archive import Archive
from data.entry import Entry, Need, Tally
from data.listing import TWICE, Once, add, leave_out_text, objects
from pixelbert_jax.fields import Fields

HOMEPAGE = 'https://homes.cs.washington.edu/~ranjay/visualgenome/api.html'
ZIPS = 'https://cs.stanford.edu/people/rak248/VG_100K_2'
IMAGES = 'image_data.json'
FOLDERS = {'VG_100K': 64_345, 'VG_100K_2': 43_732}

# What an image lists: the texts that are used, and the others, each with the reason.
Listed = tuple[list[Any], list[tuple[str, Any]]]


def needs(texts: Need) -> dict[str, tuple[Need, ...]]:
  """Returns the needs of a builder, given the file of its texts."""
  return {
    'train': (
      texts,
      Need((IMAGES,), f'{HOMEPAGE} (version 1.2)', '2 MB zipped'),
      Need(('VG_100K_2',), f'{ZIPS}/images.zip or images2.zip', '15.2 GB for both'),
      Need(('VG_100K',), f'{ZIPS}/images.zip or images2.zip', '15.2 GB for both'),
    )
  }


class GenomeBuilder(corpus.CorpusBuilder, skip_registration=True):
  """Visual Genome: a record is an image with its texts; in the order of the file of the texts.

  Images of test splits of other datasets are omitted, except in the configuration `all`.

  Attributes:
    LISTS: the file of the texts, a list of images.
  """

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
  LISTS: ClassVar[str]

  @abc.abstractmethod
  def listed(self, image: Fields) -> Listed:
    """Reads the texts that an image lists, of the kind in TEXTS; SourceError for a bad field."""

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    archive, (kind,) = self.request.archive, self.TEXTS
    excluded = {} if self.builder_config.name == 'all' else reasons(archive, self.name, tally)
    paths = image_paths(archive, tally)
    once, entries = Once('image'), list[Entry]()
    described = set()
    for image in objects(archive, self.LISTS):
      # The readme documents `image_id`, the files have `id`.
      image_id = number(image, 'id', 'image_id')
      if image_id not in paths:
        raise image.error(
          f'describes image {image_id}, which {archive.find(IMAGES)} '
          f'does not list: they are not of the same version, get both from {HOMEPAGE}'
        )
      texts, others = self.listed(image)
      is_repeated = once.repeats(image, image_id, (texts, others))
      if is_repeated or image_id in excluded:
        everything = [*texts, *(text for _, text in others)]
        tally.count(_entry(image_id, paths, kind, everything))
        tally.leave_out(TWICE if is_repeated else excluded[image_id], str(image_id))
      else:
        for reason, text in others:
          leave_out_text(kind, text, reason, tally)
        add(entries, _entry(image_id, paths, kind, texts), tally)
      described.add(image_id)
    for image_id in paths:
      if image_id not in described:
        add(entries, _entry(image_id, paths, kind, ()), tally)
    return entries


def _entry(image_id: int, paths: dict[int, str], kind: str, texts: Sequence[Any]) -> Entry:
  of_kind: dict[str, Any] = {kind: texts}
  return Entry(((str(image_id), paths[image_id]),), **of_kind)


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


def reasons(archive: Archive, name: str, tally: Tally) -> dict[int, str]:
  """Returns the reasons for omitting images from the dataset of this name, by image id.

  Raises:
    SourceError: a file that lists test images is missing.
  """
  for dataset in ('coco', 'flickr30k'):
    whose = f'the test splits of {dataset}'
    overlap.require(archive, [karpathy.need(dataset)], whose, f'{name}/all')
  for need in overlap.missing(archive, overlap.COCO_CAPTIONS):
    tally.notes.append(
      f'{need.paths[0]} does not exist: images of Flickr30K among its images are only found by '
      'flickr_id'
    )
  split_of: dict[int | None, str] = {
    image.number('cocoid'): image.text('split') for image in karpathy.images(archive, 'coco')
  }
  flickr30k, flickr_of = overlap.flickr30k_ids(archive), overlap.coco_flickr_ids(archive)
  omitted = {}
  for image, image_id in image_data(archive):
    coco_id, flickr_id = image.number_or_null('coco_id'), image.number_or_null('flickr_id')
    if split_of.get(coco_id, '') in ('val', 'test'):
      omitted[image_id] = 'in val or test of COCO (Karpathy)'
    elif coco_id is not None and coco_id not in split_of:
      # VQA v2 tests on COCO's test2015. Visual Genome's images of COCO are of train2014 and
      # val2014, which are all that Karpathy's file lists, so this should leave out none.
      omitted[image_id] = "of COCO, but neither of train2014 nor of val2014 in Karpathy's file"
    elif {str(flickr_id), flickr_of.get(coco_id)} & flickr30k:
      omitted[image_id] = overlap.IN_FLICKR30K
  return omitted
