"""Built datasets, opened: records with images still encoded, and sidecars.

TFDS is imported by what opens records alone: it takes seconds, and a trained model needs none.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import logging

from pixelbert_jax import UserError
from pixelbert_jax.input.sidecar import Sidecar

if TYPE_CHECKING:
  from tensorflow_datasets.core import DatasetBuilder


class DatasetError(UserError):
  """A dataset that cannot be built or opened; one line: what, where, how to mend it."""


@dataclasses.dataclass(frozen=True)
class Split:
  """A split: its records with images still encoded, and the sidecar.

  A record holds one image or, where the texts are about pairs, two; images are numbered in
  the order of the records, as in the sidecar. `scoring` names how its answers are scored, one of
  those in `score/vqa.py`.
  """

  source: Sequence[Mapping[str, Any]]
  sidecar: Sidecar
  slots: Sequence[str] = ('image',)
  scoring: str = 'official'

  def encoded(self, image: int) -> bytes:
    """Returns the original bytes of an image, by its number."""
    record, slot = divmod(int(image), len(self.slots))
    return self.source[record][self.slots[slot]]


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A built dataset; `name` is as on the command line, `path` its own folder."""

  name: str
  path: pathlib.Path
  splits: Mapping[str, Split]

  def __getitem__(self, split: str) -> Split:
    if split not in self.splits:
      raise DatasetError(
        f'{self.name} in {self.path} has no split {split!r}, only {", ".join(self.splits)}: '
        'to add it, delete that folder and build again with all the splits you need'
      )
    return self.splits[split]


def is_embedded(name: str) -> bool:
  """Tells whether a dataset is rendered by its builder, which then needs no files."""
  return name.split('/')[0] == 'scenes'


def open_built(name: str, builder: 'DatasetBuilder') -> Dataset:
  """Opens the dataset of a TFDS builder, for which `is_built` holds.

  Raises:
    DatasetError: the records are damaged.
  """
  slots = slots_of(builder)
  # Only datasets whose answers are not scored by VQA's protocol say how.
  scoring = (builder.info.metadata or {}).get('scoring', Split.scoring)
  splits = {
    split: Split(open_source(builder, split), _whole_sidecar(builder, split), slots, scoring)
    for split in builder.info.splits
  }
  return Dataset(name, pathlib.Path(builder.data_dir), splits)


def is_built(builder: 'DatasetBuilder') -> bool:
  """Tells whether a dataset is on disk with the sidecars of all its splits."""
  splits = builder.info.splits
  return bool(splits) and all(open_sidecar(builder, split) is not None for split in splits)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Suppresses what TFDS logs and prints; its progress bars go to stderr."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


@quiet()
def open_source(builder: 'DatasetBuilder', split: str) -> Sequence[Mapping[str, Any]]:
  """Opens the records of a split, images left encoded.

  Raises:
    DatasetError: the files cannot be read, or lack records.
  """
  from array_record.python.array_record_data_source import ArrayRecordDataSource
  from tensorflow_datasets.core.decode import SkipDecoding

  info = builder.info.splits[split]
  # TFDS takes the count from its own info: only the files know what is in them.
  try:
    count = len(ArrayRecordDataSource([os.fspath(path) for path in info.filepaths]))
  except Exception as error:  # array_record raises whatever its C++ side met
    raise damaged(builder, f'the records of {split} cannot be read') from error
  if count != info.num_examples:
    raise damaged(builder, f'{split} has {count} records of {info.num_examples}')
  return builder.as_data_source(split, decoders={s: SkipDecoding() for s in slots_of(builder)})


def slots_of(builder: 'DatasetBuilder') -> Sequence[str]:
  """Lists the features of a record that are images, in order."""
  from tensorflow_datasets.core.features import Image

  return [name for name, feature in builder.info.features.items() if isinstance(feature, Image)]


def damaged(builder: 'DatasetBuilder', what: str) -> DatasetError:
  """Makes the error that what is on disk is not what was built."""
  return DatasetError(f'{builder.data_dir} is damaged ({what}): delete that folder and build again')


def open_sidecar(builder: 'DatasetBuilder', split: str) -> Sidecar | None:
  """Opens the sidecar of a split; None if it is missing, incomplete or of other records."""
  try:
    sidecar = Sidecar.open(pathlib.Path(builder.data_dir, 'sidecar', split))
  except (OSError, ValueError, EOFError):
    return None
  images = builder.info.splits[split].num_examples * len(slots_of(builder))
  whole = len(sidecar.image_id) == len(sidecar.captions) == images
  return sidecar if whole else None


def _whole_sidecar(builder: 'DatasetBuilder', split: str) -> Sidecar:
  sidecar = open_sidecar(builder, split)
  if sidecar is None:
    raise damaged(builder, f'the sidecar of {split} cannot be read')
  return sidecar
