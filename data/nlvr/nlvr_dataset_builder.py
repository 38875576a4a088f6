"""NLVR (Suhr et al. 2017): rendered images, a human sentence each, true or false of it."""

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from data.nlvr import corpus
from pixelbert_jax.input.rows import Caption, Row

# A few bad files are a bad copy's noise; more would move the scores.
MOST_UNREADABLE = 0.005


class Builder(tfds.core.GeneratorBasedBuilder):
  """One record an image, shuffled by TFDS in an order that depends on the image ids alone."""

  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES: Mapping[str, str] = {'1.1.0': 'train, dev and test (public).'}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    f'put nlvr/<split>/ or zips that hold it (nlvr_dev.zip, ...) there, from {corpus.SOURCE}'
  )

  # Set by data.build: the splits that must be there. With none, those that are.
  wanted_splits: Sequence[str] = ()

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(None, None, 4), encoding_format='png'),
          'image_id': tfds.features.Text(doc='<split>-<identifier>-<permutation>'),
          'identifier': tfds.features.Text(doc='<sentence number>-<image number>'),
          'directory': tfds.features.Text(doc='hold out whole ones, never single images'),
          'sentence': tfds.features.Text(),
          'label': tfds.features.Text(doc='true or false'),
        }
      ),
      homepage=corpus.SOURCE,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    folders = corpus.find_splits(dl_manager.manual_dir, self.wanted_splits)
    return {split: self._generate_examples(folder, split) for split, folder in folders.items()}

  def _generate_examples(
    self, folder: corpus.Folder, split: str
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (image_id, record); CorpusError at the end if too many images were unreadable."""
    examples = corpus.read_examples(folder, split)
    unreadable: dict[str, str] = {}
    for example in examples:
      for permutation in range(corpus.PERMUTATIONS):
        image_id = f'{split}-{example.identifier}-{permutation}'
        path = folder / 'images' / example.directory / f'{image_id}.png'
        try:
          encoded = corpus.read_image(path)
        except corpus.CorpusError as error:
          unreadable[image_id] = str(error)
          continue
        yield (
          image_id,
          {
            'image': io.BytesIO(encoded),
            'image_id': image_id,
            'identifier': example.identifier,
            'directory': example.directory,
            'sentence': example.sentence,
            'label': example.label,
          },
        )
    _report_unreadable(unreadable, len(examples) * corpus.PERMUTATIONS, folder)

  @staticmethod
  def sidecar_rows(example: Mapping[str, Any]) -> list[Row]:
    """What the sidecar keeps of a record that was read with its image still encoded."""
    image_id = example['image_id'].decode()
    with Image.open(io.BytesIO(example['image'])) as image:
      width, height = image.size
    caption = Caption(
      text=example['sentence'].decode(),
      id=caption_id(image_id),
      label=example['label'] == b'true',
    )
    return [Row(image_id=image_id, height=height, width=width, captions=[caption])]


def caption_id(image_id: str) -> int:
  """A number for an image's sentence, distinct over all splits: 'dev-1572-0-3' -> 201572003.

  Its decimal digits: the split (1 train, 2 dev, 3 test), five of the sentence, two of
  the image, one of the permutation.
  """
  split, sentence, image, permutation = image_id.split('-')
  number = (1 + corpus.SPLITS.index(split)) * 10**5 + int(sentence)
  return number * 1000 + int(image) * 10 + int(permutation)


def _report_unreadable(unreadable: Mapping[str, str], total: int, folder: corpus.Folder) -> None:
  """Names the images left out on stderr; CorpusError if they are more than MOST_UNREADABLE."""
  if not unreadable:
    return
  count = f'{len(unreadable)} of {total} images in {folder} cannot be read'
  if len(unreadable) > MOST_UNREADABLE * total:
    first = '; '.join(f'{name} ({why})' for name, why in list(unreadable.items())[:3])
    raise corpus.CorpusError(f'{count}: copy them again from {corpus.SOURCE}. First: {first}')
  tqdm.write(f'{count} and are left out:', file=sys.stderr)
  for name, why in unreadable.items():
    tqdm.write(f'  {name} ({why})', file=sys.stderr)
