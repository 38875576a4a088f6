"""Builds datasets: raw files -> ArrayRecords and a sidecar for each split, once.

    python -m data.build scenes nlvr --manual_dir=~/corpora --splits=dev,test

A training program calls `build` for an embedded dataset and `open_dataset` for any.
"""

import contextlib
import dataclasses
import fcntl
import io
import itertools
import os
import pathlib
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import app, flags, logging
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tqdm import tqdm

from data.archive import Archive, SourceError
from data.coco_karpathy import coco_karpathy_dataset_builder
from data.corpus import CorpusBuilder
from data.entry import MOST_BAD, Request
from data.flickr30k import flickr30k_dataset_builder
from data.folder import folder_dataset_builder
from data.nlvr import nlvr_dataset_builder
from data.nlvr2 import nlvr2_dataset_builder
from data.report import report
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
Tables = Mapping[str, Any] | None
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


def build(
  name: str,
  data_dir: Path | None = None,
  manual_dir: Path | None = None,
  splits: Names = (),
  allow_bad: float = MOST_BAD,
  tables: Tables = None,
) -> TfdsBuilder:
  """Prepares a dataset unless it is there already, and returns its builder.

  Several processes may call it at once on one disk: the first builds, the others wait.

  Args:
    name: a key of BUILDERS, with `/config` where it has any ('scenes/hard').
    data_dir: TFDS's folder of datasets; defaults to $TFDS_DATA_DIR, ~/tensorflow_datasets.
    manual_dir: where the user put the raw files; defaults to `<data_dir>/downloads/manual`.
    splits: the splits that must be in it; with none, those that the raw files hold.
    allow_bad: the share of the images that may be unreadable.
    tables: what 'folder' is made of, see `data/folder`.

  Raises:
    BuildError: nothing that was there before is changed.
  """
  builder = _builder(name, data_dir)
  if tables and name.partition('/')[0] != 'folder':
    raise BuildError(f'--{next(iter(tables))} is for the dataset `folder`, not for {name}')
  try:
    if not _is_built(builder):
      with _lock(builder):
        builder = _builder(name, data_dir)  # Another process may have built it meanwhile.
        if isinstance(builder, CorpusBuilder):
          builder.request = _request(builder, manual_dir, splits, allow_bad, tables)
        _prepare(builder)
        _write_sidecars(builder)
    elif tables:
      builder.request = _request(builder, manual_dir, splits, allow_bad, tables)
      _refuse_other(builder, name)
  except (SourceError, OSError) as error:
    raise BuildError(str(error)) from error
  dataset = open_dataset(name, data_dir)
  for split in splits:
    dataset[split]  # Raises where an earlier build left it out.
  return builder


def open_dataset(name: str, data_dir: Path | None = None) -> Dataset:
  """Opens a built dataset; BuildError with the command to build it if it is not whole."""
  builder = _builder(name, data_dir)
  if not _is_built(builder):
    manual = ' --manual_dir=M' if isinstance(builder, CorpusBuilder) else ''
    root = shlex.quote(str(builder.data_dir_root))
    raise BuildError(
      f'{name} is not built, or not wholly, in {builder.data_dir}: '
      f'run `python -m data.build {name} --data_dir={root}{manual}`'
    )
  splits = {
    s: Split(_source(builder, s), _sidecar(builder, s), _slots(builder))
    for s in builder.info.splits
  }
  return Dataset(name, pathlib.Path(builder.data_dir), splits)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps back TFDS's notes on its own workings; its progress bars go to stderr."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


@_quiet()
def _builder(name: str, data_dir: Path | None) -> TfdsBuilder:
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
  root = pathlib.Path(root).expanduser().absolute()
  return cls(data_dir=root, config=config or None, file_format='array_record')


def _request(
  builder: CorpusBuilder, manual_dir: Path | None, splits: Names, allow_bad: float, tables: Tables
) -> Request:
  """What to build a corpus from."""
  manual = manual_dir or pathlib.Path(builder.data_dir_root, 'downloads/manual')
  archive = Archive(pathlib.Path(manual).expanduser().absolute())
  return Request(archive, tuple(splits), allow_bad, tables or {})


def _refuse_other(builder: CorpusBuilder, name: str) -> None:
  """BuildError if a dataset was built from other files than it is now asked to."""
  if builder.info.metadata['fingerprint'] != builder.fingerprint():
    raise BuildError(
      f'{name} in {builder.data_dir} was built from other tables, shares or tar files: delete '
      f'that folder, or give this one a name: {builder.name}/NAME'
    )


def _prepare(builder: TfdsBuilder) -> None:
  """Writes the records. TFDS does so in an `incomplete.` folder that it renames at the end."""
  path = pathlib.Path(builder.data_dir)
  if path.exists():
    if not builder.info.splits:
      raise _damaged(builder, 'it names no splits')
    return
  for leftover in path.parent.glob(f'incomplete.*_{path.name}'):
    shutil.rmtree(leftover)  # Of a killed build: the lock says that none is running.
  config = tfds.download.DownloadConfig(try_download_gcs=False)
  with _quiet():
    builder.download_and_prepare(download_config=config)


def _write_sidecars(builder: TfdsBuilder) -> None:
  """Reads the records back, in their order, for every split without a whole sidecar."""
  for split in builder.info.splits:
    if _sidecar(builder, split) is None:
      records = tqdm(_source(builder, split), f'{split} sidecar', unit=' images', leave=False)
      rows = itertools.chain.from_iterable(map(builder.sidecar_rows, records))
      Sidecar.of(rows).write(pathlib.Path(builder.data_dir, 'sidecar', split))


def _is_built(builder: TfdsBuilder) -> bool:
  splits = builder.info.splits
  return bool(splits) and all(_sidecar(builder, split) is not None for split in splits)


@_quiet()
def _source(builder: TfdsBuilder, split: str) -> Sequence[Mapping[str, Any]]:
  """The records of a split with images left encoded; BuildError if files lack any."""
  info = builder.info.splits[split]
  # TFDS takes the count from its own info: only the files know what is in them.
  try:
    found = len(ArrayRecordDataSource([os.fspath(path) for path in info.filepaths]))
  except Exception as error:  # array_record raises whatever its C++ side met
    raise _damaged(builder, f'the records of {split} cannot be read') from error
  if found != info.num_examples:
    raise _damaged(builder, f'{split} has {found} records of {info.num_examples}')
  decoders = {slot: tfds.decode.SkipDecoding() for slot in _slots(builder)}
  return builder.as_data_source(split, decoders=decoders)


def _slots(builder: TfdsBuilder) -> Names:
  """The images of a record, in order."""
  return [name for name, f in builder.info.features.items() if isinstance(f, tfds.features.Image)]


def _damaged(builder: TfdsBuilder, what: str) -> BuildError:
  return BuildError(f'{builder.data_dir} is damaged ({what}): delete that folder and build again')


def _sidecar(builder: TfdsBuilder, split: str) -> Sidecar | None:
  """The sidecar of a split, or None if it is not there, not whole, or not of these records."""
  try:
    sidecar = Sidecar.open(pathlib.Path(builder.data_dir, 'sidecar', split))
  except (OSError, ValueError, EOFError):
    return None
  images = builder.info.splits[split].num_examples * len(_slots(builder))
  whole = len(sidecar.image_id) == len(sidecar.captions) == images
  return sidecar if whole else None


@contextlib.contextmanager
def _lock(builder: TfdsBuilder) -> Iterator[None]:
  """Holds the dataset's lock file, which the system frees if the process dies."""
  name = builder.info.full_name
  root = pathlib.Path(builder.data_dir_root)
  root.mkdir(parents=True, exist_ok=True)
  with (root / f'.{name.replace("/", "-")}.lock').open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print(f'{name}: another process is building it, waiting', file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def command(
  names: Names,
  data_dir: Path | None = None,
  manual_dir: Path | None = None,
  splits: Names = (),
  **options: Any,
) -> int:
  """Builds the named datasets, prints a table of each, and returns the exit code.

  `options` are those of `build`.
  """
  try:
    if not names:
      raise BuildError(f'name a dataset to build: {", ".join(sorted(BUILDERS))}')
    for name in names:
      was_built = _is_built(_builder(name, data_dir))
      start = time.perf_counter()
      builder = build(name, data_dir, manual_dir, splits, **options)
      seconds = time.perf_counter() - start
      print(f'{name}: {"already built" if was_built else "built"} in {builder.data_dir}')
      sidecars = {split: _sidecar(builder, split) for split in builder.info.splits}
      print(report(builder, sidecars, 0 if was_built else seconds))
  except BuildError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def main(argv: Sequence[str]) -> int:
  """The command: names of datasets, and flags."""
  values = flags.FLAGS
  tables = {name: values[name].value for name in (*TABLES, *SHARES) if values[name].value}
  return command(
    argv[1:],
    values.data_dir,
    values.manual_dir,
    values.splits,
    allow_bad=values.allow_bad,
    tables=tables,
  )


# Flags of the dataset `folder`.
TABLES = {
  'captions': 'CSV file with the columns image, caption.',
  'questions': 'CSV file with the columns image, question, answers.',
  'pairs': 'CSV file with the columns left, right, sentence, label.',
}
SHARES = ('val_share', 'test_share')

if __name__ == '__main__':
  # Not on import: a training program has flags of its own.
  flags.DEFINE_string('data_dir', None, "TFDS's folder of datasets.")
  flags.DEFINE_string('manual_dir', None, 'The folder with the raw files, unpacked or as zips.')
  flags.DEFINE_list('splits', [], 'Only these splits; by default all that are there.')
  flags.DEFINE_float('allow_bad', MOST_BAD, 'The share of images that may be unreadable.')
  for table, columns in TABLES.items():
    flags.DEFINE_string(table, None, f'Of `folder`: {columns}')
  for held_out in SHARES:
    flags.DEFINE_float(held_out, None, 'Of `folder`: the share of images to hold out.')
  app.run(main)
