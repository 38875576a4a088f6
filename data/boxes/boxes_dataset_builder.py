"""TFDS builder of pictures of three boxes, with true and false sentences, in the manner of NLVR."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data.boxes import render, sentences, world
from pixelbert_jax.input import rows

SEED = 20170730
SPLITS = {'train': 8_000, 'val': 500, 'test': 1_000}


class Builder(tfds.core.GeneratorBasedBuilder):
  """Pictures of three boxes; a record is a function of its split and number alone."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    features = {
      'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
      'image_id': text,
      'captions': tfds.features.Sequence({'text': text, 'id': np.int64, 'label': np.bool_}),
    }
    # Pictures are drawn independently, so shuffling is unnecessary.
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    del dl_manager  # Nothing is downloaded.
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number in range(SPLITS[split]):
      found = example(split, number)
      yield number, found | {'image': io.BytesIO(found['image'])}

  @staticmethod
  def sidecar_rows(example: dict[str, Any]) -> list[rows.Row]:
    """Returns the sidecar's rows of a record as read, with texts as bytes."""
    said = example['captions']
    captions = [
      rows.Caption(text.decode(), int(number), label=bool(label))
      for text, number, label in zip(said['text'], said['id'], said['label'], strict=True)
    ]
    name = example['image_id'].decode()
    return [rows.Row(name, height=world.SIDE, width=render.WIDTH, captions=captions)]


def example(split: str, number: int) -> dict[str, Any]:
  """Makes a record; the image is PNG bytes."""
  place = list(SPLITS).index(split)
  rng = np.random.default_rng([SEED, place, number])
  picture = world.sample(rng)
  first = (place * 1_000_000 + number) * 100
  return {
    'image': render.png(picture),
    'image_id': f'{split}-{number:05d}',
    'captions': [
      {'text': text, 'id': first + i, 'label': true}
      for i, (text, true) in enumerate(sentences.drawn(rng, picture))
    ],
  }
