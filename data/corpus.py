"""Base class of the builders of published corpora: raw files -> checked images with their texts.

A builder lists the files it needs and makes entries from them. This module reads the images,
checks on all cores that they decode, counts them, and writes their original bytes.
"""

import collections
import concurrent.futures
import dataclasses
import io
import itertools
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data import images, origin
from data.archive import TooLarge, first
from data.entry import ALL, TEXTS, Entry, Need, Request, Tally
from data.listing import without_alike
from data.sources import SourceError
from pixelbert_jax.input.rows import Caption, Question, Row, Statement
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.score.vqa import OFFICIAL

AGAIN = 'images have the bytes of another image of the split'
LEAK = 'images are in two splits (a leak), by their bytes'
# The split in which captions of an image that read alike are one: scores are counted by published
# protocols, on all that the other splits list.
TRAINED = 'train'
# Records per shard; TFDS keeps a shard in memory while writing it.
SHARD = 512


class CorpusBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
  """A TFDS builder of a corpus from the user's files; records keep the order of the entries.

  TFDS's other builders sort records, and need TensorFlow to do so beyond a gigabyte.

  Subclasses set the attributes below and implement `entries`.

  Attributes:
    NEEDS: the files of each split.
    PUBLISHED: the published number of images, captions, ... of each split.
    SLOTS: the names of the images of a record.
    TEXTS: the kinds of text of a record.
    EXTRA: further features of a record.
    MOST_MISSING: the share of images that may be missing, for corpora that are known to lack some.
    SCORING: how answers are scored; the built dataset keeps its name.
    request: set by data.build before building.
    tallies: the counts of each split, from the start of building.
    rest: counts what is left out and belongs to no split.
    wanted: the number of images of the entries of each split.
    seen: the first image with each digest, as SPLIT/ID; small beside its entry, also in memory.
  """

  NEEDS: Mapping[str, Sequence[Need]] = {}
  PUBLISHED: Mapping[str, Mapping[str, int]] = {}
  SLOTS: Sequence[str] = ('image',)
  TEXTS: Sequence[str] = ('captions',)
  EXTRA: Mapping[str, Any] = {}
  HOMEPAGE = ''
  MOST_MISSING = 0.0
  SCORING = OFFICIAL
  # Any name after 'NAME/' is a dataset of its own.
  ANY_CONFIG = False

  request: Request
  tallies: dict[str, Tally]
  rest: Tally
  wanted: collections.Counter[str]
  seen: dict[bytes, str]

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    """Returns the entries of a split and counts all in `tally`; SourceError for bad files."""
    raise NotImplementedError

  def fingerprint(self) -> str:
    """Returns a digest of the inputs beside the raw files: of tables and shares."""
    return ''

  def whole(self) -> list[str]:
    """Lists the archive files all of whose content the dataset is built from."""
    return []

  def changes(self, given: bool) -> list[str]:
    """Lists how the request differs from what the built dataset was made of.

    Raw files of a corpus may be gone once it is built, which is said. Unless the user has `given`
    files, only those in the default folder are compared, if any of them are there.
    """
    folder, archive = pathlib.Path(self.data_dir), self.request.archive
    if not origin.is_listed(folder):
      if given:
        print(f'{folder} does not list what it was built from: not compared', file=sys.stderr)
      return []
    found = origin.changes(folder, archive, self.whole())
    gone = [path for path, how in found.items() if how == 'gone']
    if gone and not self.ANY_CONFIG:
      if given:
        print(
          f'{self.name}: {len(gone):,} of the raw files are not in {archive.path}, such as '
          f'{gone[0]}: not compared',
          file=sys.stderr,
        )
      found = {path: how for path, how in found.items() if how != 'gone'}
    elif not given and gone:
      return []
    changed = [f'{path} is {how}' for path, how in found.items()]
    if given and self.info.metadata['fingerprint'] != self.fingerprint():
      changed.insert(0, 'the tables or shares differ')
    return changed

  def remarks(self, sidecars: Mapping[str, Sidecar]) -> list[str]:
    """Returns further lines for the report on the built dataset."""
    return []

  def _info(self) -> tfds.core.DatasetInfo:
    features: dict[str, Any] = {}
    for slot in self.SLOTS:
      features[slot] = tfds.features.Image()
      features[f'{slot}_id'] = tfds.features.Text()
      features[f'{slot}_size'] = tfds.features.Tensor(shape=(2,), dtype=np.int32)
    features |= {kind: tfds.features.Sequence(_features(TEXTS[kind])) for kind in self.TEXTS}
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features | dict(self.EXTRA)),
      homepage=self.HOMEPAGE,
      metadata=tfds.core.MetadataDict(),
    )

  def _shard_iterators_per_split(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, list[Callable[[], Iterator]]]:
    del dl_manager  # Nothing is downloaded.
    self.rest, self.wanted, self.seen = Tally(), collections.Counter(), {}
    self.tallies = {split: Tally() for split in self._splits_to_build()}
    return {split: self._shards(split) for split in self.tallies}

  def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
    super()._download_and_prepare(*args, **kwargs)
    self._refuse_bad()
    archive = self.request.archive
    optional = {path for needs in self.NEEDS.values() for need in needs for path in need.paths}
    archive.write(self.data_path, self.whole(), optional)
    for reason, names in archive.left_out.items():
      for name in sorted(set(names)):
        self.rest.leave_out(reason, os.path.relpath(name, archive.path), 'files')
    for message in archive.broken:
      self.rest.leave_out('an archive that cannot be opened', message, 'files')
    self.info.metadata['fingerprint'] = self.fingerprint()
    tallies = self.tallies | ({ALL: self.rest} if self.rest != Tally() else {})
    self.info.metadata['scoring'] = self.SCORING.name
    self.info.metadata['tally'] = {s: dataclasses.asdict(t) for s, t in tallies.items()}

  def _splits_to_build(self) -> list[str]:
    """Returns the splits whose files exist; prints missing files of the others to stderr."""
    archive, wanted = self.request.archive, self.request.splits or tuple(self.NEEDS)
    unknown = [split for split in wanted if split not in self.NEEDS]
    if unknown:
      raise SourceError(f'{self.name} has no split {unknown[0]!r}: it has {", ".join(self.NEEDS)}')
    missing: dict[Need, list[str]] = {}
    for split in wanted:
      for need in self.NEEDS[split]:
        if first(archive, need.paths) is None:
          missing.setdefault(need, []).append(split)
    incomplete = set().union(*missing.values())
    complete = [split for split in self.NEEDS if split in wanted and split not in incomplete]
    if missing:
      print(f'{self.name}: not in {archive.path}, nor in a zip or tar file there:', file=sys.stderr)
      for need, splits in missing.items():
        size = f' ({need.size})' if need.size else ''
        print(f'  {need.paths[0]}, for {", ".join(splits)}: {need.source}{size}', file=sys.stderr)
      # An archive that cannot be opened may contain the missing files: an error, not an omission.
      if archive.broken:
        raise SourceError(f'{"; ".join(archive.broken)}: copy it again, or move it away')
      if self.request.splits or not complete:
        raise self._missing(list(missing))
      omitted = [split for split in self.NEEDS if split in incomplete]
      print(f'  building without {", ".join(omitted)}', file=sys.stderr)
    return complete

  def _missing(self, needs: Sequence[Need]) -> SourceError:
    archive = self.request.archive
    files = ', '.join(need.paths[0] for need in needs)
    sources = ', '.join(dict.fromkeys(need.source for need in needs))
    if not archive.sources or not any(archive.path.iterdir()):
      return SourceError(
        f'{self.name}: {archive.path} (--manual_dir) is missing or empty: '
        f'put {files} there, unpacked or as zips, from {sources}'
      )
    return SourceError(
      f'{files} not found in {archive.path} or in a zip there: get it from {sources} '
      'and give its folder with --manual_dir'
    )

  def _shards(self, split: str) -> list[Callable[[], Iterator]]:
    entries, tally = self.entries(split, self.tallies[split]), self.tallies[split]
    if split == TRAINED:
      entries = [without_alike(entry, tally) for entry in entries]
    if not entries:
      raise SourceError(
        f'{self.name}: the files of {split} in {self.request.archive.path} are empty'
      )
    self.wanted[split] = sum(len(entry.images) for entry in entries)
    bounds = np.linspace(0, len(entries), math.ceil(len(entries) / SHARD) + 1).astype(int)
    records = self._records(split, entries)

    def shard(size: int | None) -> Callable[[], Iterator]:
      return lambda: (item for item in itertools.islice(records, size) if item)

    # The last shard takes all that is left, so that the generator runs to its end.
    return [shard(size) for size in [*np.diff(bounds)[:-1].tolist(), None]]

  def _records(
    self, split: str, entries: Sequence[Entry]
  ) -> Iterator[tuple[int, dict[str, Any]] | None]:
    """Yields (number, record), or None if an image of the entry cannot be used."""
    tally, cores, written = self.tallies[split], os.cpu_count() or 1, 0
    bar = tqdm(total=len(entries), desc=f'{self.name} {split}', unit=' records', leave=False)
    with concurrent.futures.ThreadPoolExecutor(cores) as pool, bar:
      for number, (entry, loaded) in enumerate(_ahead(pool, self._load, entries, 8 * cores)):
        bar.update()
        if _usable(entry, loaded, tally):
          self._compare(split, entry, loaded)
          written += 1
          yield number, self._record(entry, loaded)
        else:
          yield None
    if not written:  # TFDS would fail on files without records.
      self._refuse_bad()
      raise SourceError(
        f'{self.name} {split}: none of its {self.wanted[split]:,} images in '
        f'{self.request.archive.path} can be used ({_examples(self._bad(tally))}): copy them '
        'again, or leave the split out (--splits)'
      )

  def _compare(self, split: str, entry: Entry, loaded: Sequence[images.Checked]) -> None:
    """Counts the images of an entry that have the bytes of an earlier one."""
    for (image_id, _), image in zip(entry.images, loaded, strict=True):
      earlier = self.seen.setdefault(image.digest, name := f'{split}/{image_id}')
      if earlier != name and earlier.startswith(f'{split}/'):
        self.tallies[split].keep(AGAIN, f'{image_id} = {earlier.removeprefix(f"{split}/")}')
      elif earlier != name:
        self.rest.keep(LEAK, f'{name} = {earlier}')

  def _load(self, entry: Entry) -> tuple[Entry, list[images.Checked | Exception]]:
    loaded: list[images.Checked | Exception] = []
    for _, path in entry.images:
      try:
        loaded.append(images.check(self.request.archive.read(path)))
      except SourceError:
        raise
      except Exception as error:  # Bad files and archives raise almost anything.
        loaded.append(error)
    return entry, loaded

  def _record(self, entry: Entry, loaded: Sequence[images.Checked]) -> dict[str, Any]:
    record: dict[str, Any] = dict(entry.extra)
    for slot, (image_id, _), image in zip(self.SLOTS, entry.images, loaded, strict=True):
      record[slot] = io.BytesIO(image.encoded)
      record[f'{slot}_id'] = image_id
      record[f'{slot}_size'] = np.array(image.size, np.int32)
    for kind in self.TEXTS:
      record[kind] = [_encode(text) for text in getattr(entry, kind)]
    return record

  def _bad(self, tally: Tally) -> dict[str, str]:
    """Returns the reason of each image that cannot be used."""
    missing_is_bad = len(tally.missing) > self.MOST_MISSING * tally.read.get('images', 0)
    return {i: 'missing' for i in tally.missing if missing_is_bad} | tally.bad

  def _refuse_bad(self) -> None:
    """Raises SourceError if too many images cannot be used."""
    for split, tally in self.tallies.items():
      bad, total = self._bad(tally), self.wanted[split]
      if len(bad) > self.request.allow_bad * total:
        share = math.ceil(1e4 * len(bad) / total) / 1e4
        raise SourceError(
          f'{self.name} {split}: {len(bad)} of {total} images in {self.request.archive.path} '
          f'cannot be read: copy them again, or allow it (--allow_bad={share:g}'
          f' or more). First: {_examples(bad)}'
        )

  @classmethod
  def sidecar_rows(cls, example: Mapping[str, Any]) -> list[Row]:
    """Returns the sidecar's rows of a record that was read with encoded images."""
    texts = {kind: _decode(example[kind], TEXTS[kind]) for kind in cls.TEXTS}
    rows = []
    for slot in cls.SLOTS:
      height, width = map(int, example[f'{slot}_size'])
      # The texts of a pair belong to its first image.
      rows.append(Row(example[f'{slot}_id'].decode(), height, width, **({} if rows else texts)))
    return rows


def _examples(bad: Mapping[str, str]) -> str:
  return '; '.join(f'{name} ({reason})' for name, reason in list(bad.items())[:3])


def _usable(entry: Entry, loaded: Sequence[images.Checked | Exception], tally: Tally) -> bool:
  """Returns whether all images of an entry can be used; counts those that cannot."""
  for (image_id, path), result in zip(entry.images, loaded, strict=True):
    if isinstance(result, images.Checked):
      tally.mislabelled += images.is_mislabelled(path, result.format)
    elif isinstance(result, FileNotFoundError):
      tally.missing.append(image_id)
    else:
      known = isinstance(result, images.BadImage | TooLarge)
      tally.bad[image_id] = str(result) if known else f'{type(result).__name__}: {result}'
  return all(isinstance(result, images.Checked) for result in loaded)


def _ahead(
  pool: concurrent.futures.Executor, function: Callable, items: Iterable, limit: int
) -> Iterator:
  """Maps `function` in a pool, in order; computes at most `limit` results ahead."""
  waiting: collections.deque[concurrent.futures.Future] = collections.deque()
  for item in items:
    waiting.append(pool.submit(function, item))
    if len(waiting) >= limit:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


# Records contain numbers, booleans and texts; lists are stored as JSON.
_TYPES = {int: np.int64, bool: np.bool_, str: tfds.features.Text()}
_SCENES_ONLY = ('claim', 'kinds', 'rivals')


def _fields(cls: type) -> list[dataclasses.Field]:
  return [field for field in dataclasses.fields(cls) if field.name not in _SCENES_ONLY]


def _features(cls: type) -> dict[str, Any]:
  return {field.name: _TYPES.get(field.type, _TYPES[str]) for field in _fields(cls)}


def _encode(text: Caption | Question | Statement) -> dict[str, Any]:
  values = {field.name: getattr(text, field.name) for field in _fields(type(text))}
  return {
    name: json.dumps(list(value)) if isinstance(value, list | tuple) else value
    for name, value in values.items()
  }


def _decode(columns: Mapping[str, Sequence], cls: type) -> list:
  """Returns the texts of a record as read, where each field is a column."""
  fields = _fields(cls)
  by_type = {int: int, bool: bool, str: bytes.decode}
  readers = [by_type.get(field.type, json.loads) for field in fields]
  rows = zip(*(columns[field.name] for field in fields), strict=True)
  return [
    cls(**{f.name: read(v) for f, read, v in zip(fields, readers, row, strict=True)})
    for row in rows
  ]
