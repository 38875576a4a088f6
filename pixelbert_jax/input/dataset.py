"""Built datasets, opened: records with images still encoded, and sidecars.

TFDS is imported by what opens records alone: it takes seconds, and a trained model needs none.
"""

import concurrent.futures
import contextlib
import dataclasses
import io
import os
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import logging

from pixelbert_jax import UserError, first_line
from pixelbert_jax.input.seal import Seal
from pixelbert_jax.input.sidecar import Sidecar

if TYPE_CHECKING:
  from tensorflow_datasets.core import DatasetBuilder


class DatasetError(UserError):
  """A dataset that cannot be built or opened; one line: what, where, how to mend it."""


class RecordError(DatasetError):
  """A record that cannot be read; the message starts with the image's name."""


@dataclasses.dataclass(frozen=True)
class Split:
  """A split: its records with images still encoded, and the sidecar.

  A record holds one image or, where the texts are about pairs, two; images are numbered in
  the order of the records, as in the sidecar. `path` is the folder of the dataset, for messages;
  `scoring` names how its answers are scored, one of those in `score/vqa.py`; `sources` are the
  splits that it was joined from, of the datasets of a mixture in their order. `expected` says how
  many images, captions, ... it would have if none were left out, and how many texts each subset,
  as far as that is known.
  """

  source: Sequence[Mapping[str, Any]]
  sidecar: Sidecar
  slots: Sequence[str] = ('image',)
  path: pathlib.Path = pathlib.Path()
  scoring: str = 'official'
  sources: Sequence['Split'] = ()
  expected: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @property
  def first(self) -> 'Split':
    """The part of the first dataset of a mixture; without a mixture, all of the split."""
    return self.sources[0] if self.sources else self

  def encoded(self, image: int) -> bytes:
    """Returns the original bytes of an image, by its number.

    Raises:
      RecordError: its record is damaged.
      DatasetError: it is the record of another image.
    """
    number, slot = divmod(int(image), len(self.slots))
    name = self.slots[slot]
    try:
      record = self.source[number]
    except (DatasetError, MemoryError):
      raise
    except Exception as error:  # array_record raises whatever its C++ side met
      raise RecordError(
        f'{self._id(image)}: record {number} cannot be read ({first_line(error, 100)}): delete '
        f'{self.path} and build again'
      ) from error
    found = record.get(f'{name}_id')
    if found is not None and found != self.sidecar.image_id[image]:
      raise _damaged(
        self.path, f'record {number} is of image {found.decode()}, not of {self._id(image)}'
      )
    return record[name]

  def _id(self, image: int) -> str:
    return self.sidecar.image_id[image].decode()


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A built dataset, or a mixture of several.

  Attributes:
    name: as on the command line.
    path: its own folder.
    splits: by name.
    identity: digests of the content of each split, by dataset and split (`Seal.identity`).
    checks: comparisons of its files with their digests, which run in the background; each gives
      the error to raise, or None.
  """

  name: str
  path: pathlib.Path
  splits: Mapping[str, Split]
  identity: Mapping[str, Mapping[str, Mapping[str, str]]] = dataclasses.field(default_factory=dict)
  checks: Sequence[concurrent.futures.Future] = ()

  def __getitem__(self, split: str) -> Split:
    if split not in self.splits:
      raise DatasetError(
        f'{self.name} in {self.path} has no split {split!r}, only {", ".join(self.splits)}: '
        'to add it, delete that folder and build again with all the splits you need'
      )
    return self.splits[split]

  @contextlib.contextmanager
  def verified(self) -> Iterator[None]:
    """Waits at the end for the checks of its files; they also come before any error within.

    Nothing that was computed from the dataset may be printed or written before.

    Raises:
      DatasetError: a file is not what was built.
    """
    cause: Exception | None = None
    try:
      yield
    except Exception as error:  # Damaged arrays raise almost anything.
      cause = error
      raise
    finally:
      for check in self.checks:
        if damage := check.result():
          raise damage from cause


def is_embedded(name: str) -> bool:
  """Tells whether a dataset is rendered by its builder, which then needs no files."""
  return name.split('/')[0] == 'scenes'


def open_built(
  name: str, builder: 'DatasetBuilder', expected: Mapping[str, Mapping[str, int]]
) -> Dataset:
  """Opens the dataset of a TFDS builder, for which `is_built` holds.

  `expected` is `Split.expected`, by split.

  Raises:
    DatasetError: the records, or the files beside them, are damaged.
  """
  path, slots, seal = pathlib.Path(builder.data_dir), slots_of(builder), open_seal(builder)
  # Only datasets whose answers are not scored by VQA's protocol say how.
  scoring = (builder.info.metadata or {}).get('scoring', Split.scoring)
  splits = {
    split: Split(
      open_source(builder, split),
      _whole_sidecar(builder, split),
      slots,
      path,
      scoring,
      expected=expected.get(split, {}),
    )
    for split in builder.info.splits
  }
  if seal is None:
    return Dataset(name, path, splits)
  pool = concurrent.futures.ThreadPoolExecutor(1)
  check = pool.submit(_damage, name, builder, seal)
  pool.shutdown(wait=False)
  return Dataset(name, path, splits, {name: {s: seal.identity(s) for s in splits}}, [check])


def is_built(builder: 'DatasetBuilder') -> bool:
  """Tells whether a dataset is on disk with the sidecars of all its splits."""
  splits = builder.info.splits
  return bool(splits) and all(open_sidecar(builder, split) is not None for split in splits)


def open_seal(builder: 'DatasetBuilder') -> Seal | None:
  """Reads the seal of a dataset; None if it has none that is whole and of all splits.

  Raises:
    DatasetError: a file beside the records is not what was sealed.
  """
  path = pathlib.Path(builder.data_dir)
  seal = Seal.read(path)
  if seal is None:
    return None
  for name in seal.damaged(path, seal.metadata()):
    raise damaged(builder, f'{name} is not what was built')
  return seal if all(split in seal.images for split in builder.info.splits) else None


def _damage(name: str, builder: 'DatasetBuilder', seal: Seal) -> DatasetError | None:
  """Compares the files of a dataset with its seal; returns the error that names the first."""
  path = pathlib.Path(builder.data_dir)
  for file in seal.damaged(path, seal.files):
    if file.startswith('sidecar/'):
      root = shlex.quote(str(builder.data_dir_root))
      return DatasetError(
        f'{path} is damaged ({file} is not what was built): run `python -m data.build {name} '
        f'--data_dir={root}`, which writes it again from the records'
      )
    return damaged(builder, f'{file} is not what was built')
  return None


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
  return _damaged(builder.data_dir, what)


def _damaged(path: str | os.PathLike, what: str) -> DatasetError:
  return DatasetError(f'{path} is damaged ({what}): delete that folder and build again')


def open_sidecar(builder: 'DatasetBuilder', split: str) -> Sidecar | None:
  """Opens the sidecar of a split; None if it is missing, incomplete or of other records."""
  try:
    sidecar = Sidecar.open(pathlib.Path(builder.data_dir, 'sidecar', split))
  except Exception:  # NumPy raises almost anything for a damaged header.
    return None
  images = builder.info.splits[split].num_examples * len(slots_of(builder))
  whole = len(sidecar.image_id) == len(sidecar.captions) == images
  return sidecar if whole else None


def _whole_sidecar(builder: 'DatasetBuilder', split: str) -> Sidecar:
  sidecar = open_sidecar(builder, split)
  if sidecar is None:
    raise damaged(builder, f'the sidecar of {split} cannot be read')
  return sidecar
