"""Builds datasets: raw files -> ArrayRecords and a sidecar for each split, once.

    python -m data.build scenes
    python -m data.build nlvr coco_karpathy --manual_dir=~/corpora

DATA.md says where the raw files come from.
"""

import contextlib
import errno
import functools
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data.builders import BUILDERS, Path, TfdsBuilder, find_builder, open_dataset
from data.corpus import CorpusBuilder
from data.entry import MOST_BAD, Request
from data.origin import Origin
from data.report import report
from data.sidecars import complete, is_whole
from data.sources import SourceError
from pixelbert_jax import commandline, disk, files, lock
from pixelbert_jax.input.dataset import (
  Dataset,
  DatasetError,
  damaged,
  is_built,
  is_embedded,
  open_seal,
  open_sidecar,
  quiet,
)

Names = Sequence[str]
Tables = Mapping[str, Any] | None


def build(
  name: str,
  data_dir: Path | None = None,
  manual_dir: Path | None = None,
  splits: Names = (),
  allow_bad: float = MOST_BAD,
  tables: Tables = None,
) -> TfdsBuilder:
  """Builds a dataset unless it exists already, and returns its builder.

  A damaged sidecar is written again. A dataset that exists is compared with the raw files, where
  these are given or in the default folder.

  Several processes may call this concurrently on one disk: the first builds, the others wait.

  Args:
    name: a key of BUILDERS, with `/config` if it has configurations ('scenes/hard').
    data_dir: TFDS's folder of datasets; defaults to $TFDS_DATA_DIR, ~/tensorflow_datasets.
    manual_dir: the user's folder of raw files; defaults to `<data_dir>/downloads/manual`.
    splits: the splits that must be built; by default, those that the raw files contain.
    allow_bad: the share of images that may be unreadable.
    tables: CSV files and shares of the dataset 'folder', see `data/folder`.

  Raises:
    DatasetError: the dataset cannot be built, or was built from other files; existing files are
      unchanged.
  """
  builder = find_builder(name, data_dir)
  if tables and name.partition('/')[0] != 'folder':
    raise DatasetError(f'--{next(iter(tables))} is for the dataset `folder`, not for {name}')
  try:
    existed = isinstance(builder, CorpusBuilder) and is_built(builder)
    if not is_whole(builder):
      with _lock(builder):
        builder = find_builder(name, data_dir)  # Another process may have built it meanwhile.
        if isinstance(builder, CorpusBuilder):
          builder.request = _request(builder, manual_dir, splits, allow_bad, tables)
        _prepare(builder)
        complete(builder)
    if existed:
      builder.request = _request(builder, manual_dir, splits, allow_bad, tables)
      _refuse_other(builder, name, given=bool(manual_dir or tables))
  except SourceError as error:
    raise DatasetError(str(error)) from error
  except disk.WriteError as error:
    raise DatasetError(f'{name} cannot be built: {error}') from error
  except OSError as error:
    raise _unwritable(builder, error) from error
  dataset = open_dataset(name, data_dir)
  for split in splits:
    dataset[split]  # Raises if an earlier build omitted it.
  return builder


def open_sealed(name: str, data_dir: Path | None = None) -> Dataset:
  """Opens a dataset whose files are compared with their digests when it is used.

  The embedded dataset is built first if necessary; one that was built before datasets had digests
  gets them now.

  Raises:
    DatasetError: it is not built, or damaged.
  """
  if is_embedded(name):
    builder = find_builder(name, data_dir)
    if not is_built(builder):
      print(f'rendering   {name} to {builder.data_dir}, once', flush=True)
    build(name, data_dir)
    return open_dataset(name, data_dir)
  builder = find_builder(name, data_dir)
  if is_built(builder) and open_seal(builder) is None:
    if os.access(builder.data_dir, os.W_OK):
      build(name, data_dir)
    else:
      print(
        f'{builder.data_dir} has no digests and cannot be written: damage, and other data, will '
        f'not be noticed; build {name} again, or run `python -m data.build {name}` on a copy',
        file=sys.stderr,
        flush=True,
      )
  return open_dataset(name, data_dir)


def _request(
  builder: CorpusBuilder, manual_dir: Path | None, splits: Names, allow_bad: float, tables: Tables
) -> Request:
  """Returns the request for building a corpus."""
  manual = manual_dir or pathlib.Path(builder.data_dir_root, 'downloads/manual')
  archive = Origin(pathlib.Path(manual).expanduser().absolute())
  return Request(archive, tuple(splits), allow_bad, tables or {})


def _refuse_other(builder: CorpusBuilder, name: str, given: bool) -> None:
  """Raises DatasetError if a dataset was built from other files than now requested.

  `given` tells whether the user named any; otherwise those in the default folder are compared, if
  it has any of them.
  """
  changes = builder.changes(given)
  if not changes:
    return
  more = f' and {len(changes) - 1:,} more' if changes[1:] else ''
  cure = 'delete that folder and build again'
  if builder.ANY_CONFIG:
    cure = f'delete that folder, or give this one a name: {builder.name}/NAME'
  raise DatasetError(
    f'{name} in {builder.data_dir} was built from other tables, shares or files '
    f'({changes[0]}{more}): {cure}'
  )


def _prepare(builder: TfdsBuilder) -> None:
  """Writes the records; TFDS uses an `incomplete.` folder that it renames at the end."""
  path = pathlib.Path(builder.data_dir)
  if path.exists():
    if not builder.info.splits:
      raise damaged(builder, 'it lists no splits')
    return
  config = tfds.download.DownloadConfig(try_download_gcs=False)
  with quiet():
    try:
      builder.download_and_prepare(download_config=config)
    except RuntimeError as error:
      if 'writing' not in str(error):
        raise
      raise _unwritable(builder, error) from error  # array_record's, where the disk is full


def _unwritable(builder: TfdsBuilder, error: Exception) -> DatasetError:
  number = disk.fault_of_disk(error) or errno.ENOSPC
  said = disk.write_error(builder.data_dir, number, cure='give another --data_dir')
  return DatasetError(f'{builder.name} cannot be built: {said}')


def _lock(builder: TfdsBuilder) -> contextlib.AbstractContextManager[None]:
  """Holds the lock of a dataset in its data folder; where another process does, waits for it."""
  name = builder.info.full_name
  path = pathlib.Path(builder.data_dir_root, f'.{name.replace("/", "-")}.lock')
  tidy = functools.partial(_delete_unfinished, pathlib.Path(builder.data_dir))
  return lock.held(path, name, 'give another --data_dir', waits=True, tidy=tidy)


def _delete_unfinished(path: pathlib.Path) -> None:
  """Deletes what killed builds left: with the lock held, none is running."""
  for leftover in path.parent.glob(f'incomplete.*_{path.name}'):
    files.delete(leftover)
  files.delete_partial(path / 'sidecar')


def command(
  names: Names,
  data_dir: Path | None = None,
  manual_dir: Path | None = None,
  splits: Names = (),
  **options: Any,
) -> int:
  """Builds the named datasets, prints a table of each, and returns the exit code.

  `options` are those of `build`, and `debug`: raise errors instead of printing one line.
  """
  debug = options.pop('debug', False)

  def work(_: Sequence[str]) -> None:
    if not names:
      raise DatasetError(f'name a dataset to build: {", ".join(sorted(BUILDERS))}')
    for name in names:
      was_built = is_built(find_builder(name, data_dir))
      start = time.perf_counter()
      builder = build(name, data_dir, manual_dir, splits, **options)
      seconds = time.perf_counter() - start
      print(f'{name}: {"already built" if was_built else "built"} in {builder.data_dir}')
      sidecars = {split: open_sidecar(builder, split) for split in builder.info.splits}
      print(report(builder, sidecars, 0 if was_built else seconds))

  return commandline.answer(work, ['--debug'] if debug else [])


def flagged(argv: Sequence[str]) -> int:
  """Parses flags and runs `command`."""
  parser = commandline.Parser('data.build', __doc__)
  known = ', '.join(sorted(BUILDERS))
  parser.add_argument('names', nargs='*', metavar='NAME', help=f'{known}; some have NAME/CONFIG')
  parser.add_argument('--data_dir', type=commandline.path, help="TFDS's folder of datasets")
  parser.add_argument(
    '--manual_dir', type=commandline.path, help='the folder with the raw files, unpacked or as zips'
  )
  parser.add_argument('--splits', type=_names, default=(), help='only these, as a,b; default: all')
  parser.add_argument(
    '--allow_bad', type=float, default=MOST_BAD, help='share of images that may be bad'
  )
  for table, columns in TABLES.items():
    words = f'of `folder`: CSV file with the columns {columns}'
    parser.add_argument(f'--{table}', type=commandline.path, help=words)
  for name in SHARES:
    parser.add_argument(f'--{name}', type=float, help='of `folder`: share of images to hold out')
  flags = parser.parse_intermixed_args(argv)
  tables = {name: x for name in (*TABLES, *SHARES) if (x := getattr(flags, name))}
  return command(
    flags.names,
    flags.data_dir,
    flags.manual_dir,
    flags.splits,
    allow_bad=flags.allow_bad,
    tables=tables,
    debug=flags.debug,
  )


def _names(text: str) -> list[str]:
  return text.split(',')


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns the exit code. Errors are printed in one line."""
  return commandline.answer(flagged, argv)


# Flags of the dataset `folder`.
TABLES = {
  'captions': 'image, caption',
  'questions': 'image, question, answers',
  'pairs': 'left, right, sentence, label',
}
SHARES = ('val_share', 'test_share')

if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
