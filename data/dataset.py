"""Built datasets, opened: records with images still encoded, and sidecars."""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_data_source import ArrayRecordDataSource

from data.coco_karpathy import coco_karpathy_dataset_builder
from data.corpus import CorpusBuilder
from data.flickr30k import flickr30k_dataset_builder
from data.folder import folder_dataset_builder
from data.nlvr import nlvr_dataset_builder
from data.nlvr2 import nlvr2_dataset_builder
from data.scenes import scenes_dataset_builder
from data.visual_genome import visual_genome_dataset_builder
from data.vqa_v2 import vqa_v2_dataset_builder
from pixelbert_jax import UserError
from pixelbert_jax.input.sidecar import Sidecar

BUILDERS = {
  'coco_karpathy': coco_karpathy_dataset_builder.Builder,
  'folder': folder_dataset_builder.Builder,
  'flickr30k': flickr30k_dataset_builder.Builder,
  'nlvr': nlvr_dataset_builder.Builder,
  'nlvr2': nlvr2_dataset_builder.Builder,
  'scenes': scenes_dataset_builder.Builder,
  'visual_genome': visual_genome_dataset_builder.Builder,
  'vqa_v2': vqa_v2_dataset_builder.Builder,
}

Path = str | os.PathLike
Names = Sequence[str]
TfdsBuilder = tfds.core.DatasetBuilder


class BuildError(UserError):
  """A dataset cannot be built or opened; one line: what, where, how to mend it."""


@dataclasses.dataclass(frozen=True)
class Split:
  """A split: its records with images still encoded, and the sidecar.

  A record holds one image or, where the texts are about pairs, two; images are numbered in
  the order of the records, as in the sidecar.
  """

  source: Sequence[Mapping[str, Any]]
  sidecar: Sidecar
  slots: Names = ('image',)

  def encoded(self, image: int) -> bytes:
    """The original bytes of an image, by its number."""
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
      raise BuildError(
        f'{self.name} in {self.path} has no split {split!r}, only {", ".join(self.splits)}: '
        'to add it, delete that folder and build again with all the splits you need'
      )
    return self.splits[split]


def open_dataset(name: str, data_dir: Path | None = None) -> Dataset:
  """Opens a built dataset; BuildError with the command to build it if it is not whole."""
  builder = find_builder(name, data_dir)
  if not is_built(builder):
    manual = ' --manual_dir=M' if isinstance(builder, CorpusBuilder) else ''
    root = shlex.quote(str(builder.data_dir_root))
    raise BuildError(
      f'{name} is not built, or not wholly, in {builder.data_dir}: '
      f'run `python -m data.build {name} --data_dir={root}{manual}`'
    )
  splits = {
    s: Split(open_source(builder, s), open_sidecar(builder, s), slots_of(builder))
    for s in builder.info.splits
  }
  return Dataset(name, pathlib.Path(builder.data_dir), splits)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps back TFDS's notes on its own workings; its progress bars go to stderr."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


@quiet()
def find_builder(name: str, data_dir: Path | None) -> TfdsBuilder:
  """The builder of a dataset by its name, built or not; BuildError if there is none."""
  base, _, config = name.partition('/')
  if base not in BUILDERS:
    raise BuildError(f'no dataset {name!r}: there are {", ".join(sorted(BUILDERS))}')
  cls = BUILDERS[base]
  if getattr(cls, 'ANY_CONFIG', False) and re.fullmatch('[A-Za-z0-9_-]+', config):
    config = tfds.core.BuilderConfig(name=config)
  elif '/' in name and config not in cls.builder_configs:
    known = ', '.join(f'{base}/{c}' for c in cls.builder_configs) or base
    raise BuildError(f'no dataset {name!r}: there is {known}')
  root = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  if '://' in os.fspath(root):
    # ArrayRecord would find no records there, without a word.
    raise BuildError(f'{root} is a bucket: mount it (gcsfuse) or copy it to a disk, see DATA.md')
  root = pathlib.Path(root).expanduser().absolute()
  return cls(data_dir=root, config=config or None, file_format='array_record')


def is_built(builder: TfdsBuilder) -> bool:
  """Whether a dataset is there with all its sidecars."""
  splits = builder.info.splits
  return bool(splits) and all(open_sidecar(builder, split) is not None for split in splits)


@quiet()
def open_source(builder: TfdsBuilder, split: str) -> Sequence[Mapping[str, Any]]:
  """The records of a split with images left encoded; BuildError if files lack any."""
  info = builder.info.splits[split]
  # TFDS takes the count from its own info: only the files know what is in them.
  try:
    found = len(ArrayRecordDataSource([os.fspath(path) for path in info.filepaths]))
  except Exception as error:  # array_record raises whatever its C++ side met
    raise damaged(builder, f'the records of {split} cannot be read') from error
  if found != info.num_examples:
    raise damaged(builder, f'{split} has {found} records of {info.num_examples}')
  decoders = {slot: tfds.decode.SkipDecoding() for slot in slots_of(builder)}
  return builder.as_data_source(split, decoders=decoders)


def slots_of(builder: TfdsBuilder) -> Names:
  """The images of a record, in order."""
  return [name for name, f in builder.info.features.items() if isinstance(f, tfds.features.Image)]


def damaged(builder: TfdsBuilder, what: str) -> BuildError:
  """The error that what is there is not what was built."""
  return BuildError(f'{builder.data_dir} is damaged ({what}): delete that folder and build again')


def open_sidecar(builder: TfdsBuilder, split: str) -> Sidecar | None:
  """The sidecar of a split, or None if it is not there, not whole, or not of these records."""
  try:
    sidecar = Sidecar.open(pathlib.Path(builder.data_dir, 'sidecar', split))
  except (OSError, ValueError, EOFError):
    return None
  images = builder.info.splits[split].num_examples * len(slots_of(builder))
  whole = len(sidecar.image_id) == len(sidecar.captions) == images
  return sidecar if whole else None
