"""Images that corpora have in common, by the numbers that Flickr gave them.

Both COCO and Flickr30K were collected on Flickr; Visual Genome has images of COCO.
"""

import pathlib
from collections.abc import Iterable

from data import karpathy
from data.archive import Archive, first
from data.entry import Need
from data.listing import objects
from data.sources import SourceError

IN_FLICKR30K = 'in Flickr30K'
FLICKR30K = karpathy.need('flickr30k')
ANNOTATIONS = 'http://images.cocodataset.org/annotations/annotations_trainval2014.zip'
COCO_CAPTIONS = tuple(
  Need((path, pathlib.PurePosixPath(path).name), ANNOTATIONS, '253 MB')
  for path in ('annotations/captions_train2014.json', 'annotations/captions_val2014.json')
)


def missing(archive: Archive, needs: Iterable[Need]) -> list[Need]:
  """Lists the files that do not exist."""
  return [need for need in needs if first(archive, need.paths) is None]


def require(archive: Archive, needs: Iterable[Need], whose: str, instead: str) -> None:
  """Checks that the files exist that list the images of `whose`; `instead` is what keeps them.

  Raises:
    SourceError: one does not.
  """
  for need in missing(archive, needs):
    raise SourceError(
      f'{need.paths[0]} not found in {archive.path}: without it images of {whose} cannot be '
      f'omitted. Get it from {need.source}, or build {instead}, which has all images'
    )


def flickr30k_ids(archive: Archive) -> set[str]:
  """Returns Flickr's numbers of the images of Flickr30K, all splits: their file names."""
  images = karpathy.images(archive, 'flickr30k')
  return {image.text('filename').partition('.')[0] for image in images}


def coco_flickr_ids(archive: Archive) -> dict[int | None, str]:
  """Returns Flickr's number by COCO image id; the file name in `flickr_url` starts with it.

  COCO's captions files list it; the images of one that does not exist are not in the result.
  """
  flickr_ids: dict[int | None, str] = {}
  for need in COCO_CAPTIONS:
    path = first(archive, need.paths)
    if path is not None:
      for image in objects(archive, path, 'images'):
        url = image.text('flickr_url')
        flickr_ids[image.number('id')] = url.rpartition('/')[2].partition('_')[0]
  return flickr_ids
