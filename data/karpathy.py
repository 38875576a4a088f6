"""Reads Karpathy's files of captions and splits, `dataset_coco.json`, `dataset_flickr30k.json`."""

import dataclasses
from collections.abc import Callable, Iterator

from data.archive import Archive
from data.entry import Entry, Need, Tally
from data.listing import TWICE, Once, add, leave_out_repeated
from data.sources import SourceError
from pixelbert_jax.fields import Fields
from pixelbert_jax.input.rows import Caption

SOURCE = 'https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip'
# restval: images of COCO's val2014 in neither val nor test, used for training by convention.
SPLIT_OF = {'train': 'train', 'restval': 'train', 'val': 'val', 'test': 'test'}
SPLITS = tuple(dict.fromkeys(SPLIT_OF.values()))


def need(dataset: str) -> Need:
  """Returns the file of a dataset, 'coco' or 'flickr30k'."""
  return Need((f'dataset_{dataset}.json',), SOURCE, '37 MB for all of them')


def images(archive: Archive, dataset: str) -> Iterator[Fields]:
  """Yields the images of a dataset in the order of its file; SourceError if it is another file."""
  (path,) = need(dataset).paths
  file = archive.json(path)
  if file.get('dataset') != dataset or not isinstance(file.get('images'), list):
    raise archive.unreadable(path, f"it says 'dataset': {file.get('dataset')!r}")
  for image in Fields(file, archive.find(path), '', SourceError).objects('images'):
    image.choice('split', SPLIT_OF)
    yield image


def entries(
  archive: Archive,
  dataset: str,
  split: str,
  tally: Tally,
  place: Callable[[Fields], tuple[str, str]],
) -> list[Entry]:
  """Reads the entries of a split; `place` returns an image's id and path.

  White space around captions is removed. All splits are searched for what is listed twice.
  """
  split_entries: list[Entry] = []
  once, once_caption = Once('image'), Once('sentid')
  for image in images(archive, dataset):
    image_id, path = place(image)
    is_wanted = image.choice('split', SPLIT_OF) == split
    listed = [
      (s, Caption(s.text('raw').strip(), s.number('sentid'))) for s in image.objects('sentences')
    ]
    everything = Entry(((image_id, path),), [caption for _, caption in listed])
    if once.repeats(image, image_id, (image.text('split'), everything)):
      if is_wanted:
        tally.count(everything)
        tally.leave_out(TWICE, image_id)
      continue
    captions = []
    for sentence, caption in listed:
      if not once_caption.repeats(sentence, caption.id, (image_id, caption)):
        captions.append(caption)
      elif is_wanted:
        leave_out_repeated('captions', caption, tally)
    if is_wanted:
      add(split_entries, dataclasses.replace(everything, captions=captions), tally)
  return split_entries
