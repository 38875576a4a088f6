"""TFDS builder of the embedded dataset: rendered scenes, captions, questions and statements."""

import contextlib
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data.scenes import record, world
from pixelbert_jax.input import rows

# For fewer images, starting worker processes takes longer than making the images.
WORTH_WORKERS = 1_000
# More workers would wait for this process, which writes the records.
MOST_WORKERS = 4


class Builder(tfds.core.GeneratorBasedBuilder):
  """Scenes of coloured shapes at three difficulties; see README.md."""

  VERSION = tfds.core.Version('1.6.0')
  BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's own form)
    tfds.core.BuilderConfig(name=name, description=f'{name.capitalize()} scenes.')
    for name in world.DIFFICULTIES
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    looks = dict.fromkeys(('shape', 'colour', 'size', 'pattern'), text)
    box = tfds.features.Tensor(shape=(4,), dtype=np.int32)
    answered = ('question', 'question_type', 'answer_type', 'multiple_choice_answer', 'answers')
    stated = ('identifier', 'sentence', 'label', 'left', 'right')
    features = {
      'image': tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg'),
      'image_id': text,
      'height': np.int32,
      'width': np.int32,
      'objects': tfds.features.Sequence(looks | {'bbox': box}),
      'captions': tfds.features.Sequence(
        dict.fromkeys(('text', 'claim', 'kinds', 'rivals', 'foils'), text) | {'id': np.int64}
      ),
      'claims': tfds.features.Sequence(text),
      'questions': tfds.features.Sequence(
        dict.fromkeys(answered, text) | {'question_id': np.int64}
      ),
      'statements': tfds.features.Sequence(dict.fromkeys(stated, text)),
    }
    # Scenes are drawn independently, so shuffling is unnecessary.
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), disable_shuffling=True
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    del dl_manager  # Nothing is downloaded.
    return {split: self._generate_examples(split) for split in record.SPLITS}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    difficulty, images = self.builder_config.name, record.SPLITS[split]
    places = [record.Place(difficulty, split, i) for i in range(images)]
    with workers(images) as ordered_map:
      examples = ordered_map(record.example, places)
      statements = record.pairs(difficulty, split, images)
      for i, example in enumerate(examples):
        image = io.BytesIO(example['image'])
        yield i, example | {'image': image, 'statements': statements[i]}

  @staticmethod
  def sidecar_rows(example: dict[str, Any]) -> list[rows.Row]:
    """Returns the sidecar's rows of a record as read, with texts as bytes."""
    return [
      rows.Row(
        image_id=example['image_id'].decode(),
        height=int(example['height']),
        width=int(example['width']),
        captions=_captions(example['captions']),
        claims=[claim.decode() for claim in example['claims']],
        questions=_questions(example['questions']),
        statements=_statements(example['statements']),
      )
    ]


def _columns(columns: dict[str, Sequence], *names: str) -> Iterator[tuple]:
  """Yields the rows of columns, with texts decoded."""
  for values in zip(*(columns[name] for name in names), strict=True):
    yield tuple(v.decode() if isinstance(v, bytes) else v for v in values)


def _captions(columns: dict[str, Sequence]) -> list[rows.Caption]:
  names = ('text', 'id', 'claim', 'kinds', 'rivals', 'foils')
  return [
    rows.Caption(
      text,
      int(number),
      claim=claim,
      kinds=kinds,
      rivals=tuple(map(int, rivals.split(',') if rivals else ())),
      foils=tuple(json.loads(foils)),
    )
    for text, number, claim, kinds, rivals, foils in _columns(columns, *names)
  ]


def _questions(columns: dict[str, Sequence]) -> list[rows.Question]:
  names = ('question', 'question_id', 'answers', 'multiple_choice_answer')
  return [
    rows.Question(text, int(number), json.loads(answers), *rest)
    for text, number, answers, *rest in _columns(columns, *names, 'question_type', 'answer_type')
  ]


def _statements(columns: dict[str, Sequence]) -> list[rows.Statement]:
  names = ('sentence', 'identifier', 'label', 'left', 'right')
  return [
    rows.Statement(text, identifier, label == 'True', left, right)
    for text, identifier, label, left, right in _columns(columns, *names)
  ]


@contextlib.contextmanager
def workers(images: int) -> Iterator[Callable]:
  """Gives an ordered map(), in worker processes if there are enough images."""
  if images < WORTH_WORKERS:
    yield map
    return
  # A fork of a process with JAX's threads may hang.
  context = multiprocessing.get_context('spawn')
  count = min(os.cpu_count() or 1, MOST_WORKERS)
  # Workers ignore Ctrl-C, which the waiting process handles.
  with context.Pool(count, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
    yield lambda function, items: pool.imap(function, items, chunksize=50)
