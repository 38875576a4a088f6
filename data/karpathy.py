"""Reads Karpathy's files of captions and splits, `dataset_coco.json`, `dataset_flickr30k.json`."""

from collections.abc import Callable, Mapping
from typing import Any

from data.archive import Archive, SourceError
from data.entry import Entry, Need, Tally
from pixelbert_jax.input.rows import Caption

SOURCE = 'https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip'
# restval: images of COCO's val2014 in neither val nor test, used for training by convention.
SPLITS = {'train': ('train', 'restval'), 'val': ('val',), 'test': ('test',)}


def need(dataset: str) -> Need:
  """Returns the file of a dataset, 'coco' or 'flickr30k'."""
  return Need((f'dataset_{dataset}.json',), SOURCE, '37 MB for all of them')


def images(archive: Archive, dataset: str) -> list[dict[str, Any]]:
  """Reads the images of a dataset in the order of its file; SourceError if it is another file."""
  (path,) = need(dataset).paths
  file = archive.json(path)
  if file.get('dataset') != dataset or not isinstance(file.get('images'), list):
    raise archive.unreadable(path, f"it says 'dataset': {file.get('dataset')!r}")
  known = {name for names in SPLITS.values() for name in names}
  for number, image in enumerate(file['images']):
    if not isinstance(image, dict) or image.get('split') not in known:
      raise archive.unreadable(
        path, f'its split is not one of {", ".join(sorted(known))}', f'image {number}'
      )
  return file['images']


def entries(
  archive: Archive,
  dataset: str,
  split: str,
  tally: Tally,
  place: Callable[[Mapping[str, Any]], tuple[str, str]],
) -> list[Entry]:
  """Reads the entries of a split; `place` returns an image's id and path.

  White space around captions is removed.
  """
  split_entries = []
  for number, image in enumerate(images(archive, dataset)):
    if image['split'] not in SPLITS[split]:
      continue
    try:
      captions = [Caption(s['raw'].strip(), int(s['sentid'])) for s in image['sentences']]
      entry = Entry((place(image),), captions)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise archive.unreadable(need(dataset).paths[0], error, f'image {number}') from error
    tally.count(entry)
    split_entries.append(entry)
  _refuse_repeated(archive, dataset, split_entries)
  return split_entries


def _refuse_repeated(archive: Archive, dataset: str, split_entries: list[Entry]) -> None:
  ids = [entry.images[0][0] for entry in split_entries]
  if len(set(ids)) < len(ids):
    repeated = next(i for i in ids if ids.count(i) > 1)
    raise SourceError(f'{archive.find(need(dataset).paths[0])} repeats image {repeated}')
