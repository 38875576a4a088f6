"""What builders of published corpora share: raw files -> checked images with their texts.

A builder says which files it needs and which entries they make; here the images are read,
decoded once by all cores to see that they can be, counted, and written as they were.
"""

import collections
import concurrent.futures
import dataclasses
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data import images
from data.archive import SourceError, first
from data.entry import TEXTS, Entry, Need, Request, Tally
from pixelbert_jax.input.rows import Caption, Question, Row, Statement
from pixelbert_jax.input.sidecar import Sidecar

# Records of a shard: TFDS holds a shard in memory while it writes it.
SHARD = 512


class CorpusBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
  """Builds a corpus out of the user's files. Records keep the order of the entries.

  (TFDS's other builders sort what they write: beyond a gigabyte, with TensorFlow's files.)

  Subclasses set what follows and give `entries`.

  Attributes:
    NEEDS: the files of each split.
    PUBLISHED: how many images, captions, ... each split has.
    SLOTS: the images of a record.
    TEXTS: which of the texts a record has.
    EXTRA: further features of a record.
    MOST_MISSING: the share of images that may be missing, where some are known to be.
    request: set by data.build before anything is built.
  """

  NEEDS: Mapping[str, Sequence[Need]] = {}
  PUBLISHED: Mapping[str, Mapping[str, int]] = {}
  SLOTS: Sequence[str] = ('image',)
  TEXTS: Sequence[str] = ('captions',)
  EXTRA: Mapping[str, Any] = {}
  HOMEPAGE = ''
  MOST_MISSING = 0.0

  request: Request

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    """The entries of a split, all of them counted in `tally`; SourceError for bad files."""
    raise NotImplementedError

  def fingerprint(self) -> str:
    """What else than its name decides what a dataset holds, if anything does."""
    return ''

  def remarks(self, sidecars: Mapping[str, Sidecar]) -> list[str]:
    """What else to tell of the dataset as built."""
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
    self.tallies = {split: Tally() for split in self._splits_to_build()}
    return {split: self._shards(split) for split in self.tallies}

  def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
    super()._download_and_prepare(*args, **kwargs)
    self._refuse_bad()
    self.info.metadata['fingerprint'] = self.fingerprint()
    self.info.metadata['tally'] = {s: dataclasses.asdict(t) for s, t in self.tallies.items()}

  def _splits_to_build(self) -> list[str]:
    """The splits whose files are there; says on stderr what is missing of the others."""
    archive, wanted = self.request.archive, self.request.splits or tuple(self.NEEDS)
    unknown = [split for split in wanted if split not in self.NEEDS]
    if unknown:
      raise SourceError(f'{self.name} has no split {unknown[0]!r}: it has {", ".join(self.NEEDS)}')
    lacking: dict[Need, list[str]] = {}
    for split in wanted:
      for need in self.NEEDS[split]:
        if first(archive, need.paths) is None:
          lacking.setdefault(need, []).append(split)
    without = set().union(*lacking.values())
    found = [split for split in self.NEEDS if split in wanted and split not in without]
    if lacking:
      print(f'{self.name}: not in {archive.path}, nor in a zip or tar file there:', file=sys.stderr)
      for need, splits in lacking.items():
        size = f' ({need.size})' if need.size else ''
        print(f'  {need.paths[0]}, for {", ".join(splits)}: {need.source}{size}', file=sys.stderr)
      # What cannot be opened may be what is missing: say so, rather than leave it out.
      if archive.broken:
        raise SourceError(f'{"; ".join(archive.broken)}: copy it again, or move it away')
      if self.request.splits or not found:
        raise self._missing(list(lacking))
      left = [split for split in self.NEEDS if split in without]
      print(f'  building without {", ".join(left)}', file=sys.stderr)
    return found

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
      'and name its folder with --manual_dir'
    )

  def _shards(self, split: str) -> list[Callable[[], Iterator]]:
    entries = self.entries(split, self.tallies[split])
    if not entries:
      raise SourceError(
        f'{self.name}: the files of {split} in {self.request.archive.path} are empty'
      )
    bounds = np.linspace(0, len(entries), math.ceil(len(entries) / SHARD) + 1).astype(int)
    records = self._records(split, entries)

    def shard(size: int | None) -> Callable[[], Iterator]:
      return lambda: (item for item in itertools.islice(records, size) if item)

    # The last takes what is left, so that the stream comes to its own end.
    return [shard(size) for size in [*np.diff(bounds)[:-1].tolist(), None]]

  def _records(
    self, split: str, entries: Sequence[Entry]
  ) -> Iterator[tuple[int, dict[str, Any]] | None]:
    """Yields (number, record), or None where an image cannot be used."""
    tally, cores = self.tallies[split], os.cpu_count() or 1
    bar = tqdm(total=len(entries), desc=f'{self.name} {split}', unit=' records', leave=False)
    with concurrent.futures.ThreadPoolExecutor(cores) as pool, bar:
      for number, (entry, found) in enumerate(_ahead(pool, self._load, entries, 8 * cores)):
        bar.update()
        if _usable(entry, found, tally):
          yield number, self._record(entry, found)
        else:
          yield None

  def _load(self, entry: Entry) -> tuple[Entry, list[images.Checked | Exception]]:
    found: list[images.Checked | Exception] = []
    for _, path in entry.images:
      try:
        found.append(images.check(self.request.archive.read(path)))
      except SourceError:
        raise
      except Exception as error:  # the file's or its archive's, of any kind
        found.append(error)
    return entry, found

  def _record(self, entry: Entry, found: Sequence[images.Checked]) -> dict[str, Any]:
    record: dict[str, Any] = dict(entry.extra)
    for slot, (image_id, _), checked in zip(self.SLOTS, entry.images, found, strict=True):
      record[slot] = io.BytesIO(checked.encoded)
      record[f'{slot}_id'] = image_id
      record[f'{slot}_size'] = np.array(checked.size, np.int32)
    for kind in self.TEXTS:
      record[kind] = [_encode(text) for text in getattr(entry, kind)]
    return record

  def _refuse_bad(self) -> None:
    """SourceError where too many images cannot be used."""
    for split, tally in self.tallies.items():
      missing_is_bad = len(tally.missing) > self.MOST_MISSING * tally.read['images']
      bad = {i: 'missing' for i in tally.missing if missing_is_bad} | tally.bad
      total = tally.read['images'] - sum(map(len, tally.left_out.values()))
      if len(bad) > self.request.allow_bad * total:
        some = '; '.join(f'{name} ({why})' for name, why in list(bad.items())[:3])
        enough = math.ceil(1e4 * len(bad) / total) / 1e4
        raise SourceError(
          f'{self.name} {split}: {len(bad)} of {total} images in {self.request.archive.path} '
          f'cannot be read: copy them again, or allow it (--allow_bad={enough:g}'
          f' or more). First: {some}'
        )

  @classmethod
  def sidecar_rows(cls, example: Mapping[str, Any]) -> list[Row]:
    """What the sidecar keeps of a record that was read with its images still encoded."""
    texts = {kind: _decode(example[kind], TEXTS[kind]) for kind in cls.TEXTS}
    rows = []
    for slot in cls.SLOTS:
      height, width = map(int, example[f'{slot}_size'])
      # A pair's texts are kept with its first image.
      rows.append(Row(example[f'{slot}_id'].decode(), height, width, **({} if rows else texts)))
    return rows


def _usable(entry: Entry, found: Sequence[images.Checked | Exception], tally: Tally) -> bool:
  """Whether all images of an entry can be used; counts those that cannot."""
  for (image_id, path), result in zip(entry.images, found, strict=True):
    if isinstance(result, images.Checked):
      tally.mislabelled += images.is_mislabelled(path, result.format)
    elif isinstance(result, FileNotFoundError):
      tally.missing.append(image_id)
    else:
      known = isinstance(result, images.BadImage)
      tally.bad[image_id] = str(result) if known else f'{type(result).__name__}: {result}'
  return all(isinstance(result, images.Checked) for result in found)


def _ahead(
  pool: concurrent.futures.Executor, function: Callable, items: Iterable, most: int
) -> Iterator:
  """`map` in order, at most so many results ahead."""
  waiting: collections.deque[concurrent.futures.Future] = collections.deque()
  for item in items:
    waiting.append(pool.submit(function, item))
    if len(waiting) >= most:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


# Records hold numbers, booleans and texts; lists of them as JSON.
_TYPES = {int: np.int64, bool: np.bool_, str: tfds.features.Text()}
_UNKEPT = ('claim', 'kinds', 'rivals')  # only scenes know them


def _fields(cls: type) -> list[dataclasses.Field]:
  return [field for field in dataclasses.fields(cls) if field.name not in _UNKEPT]


def _features(cls: type) -> dict[str, Any]:
  return {field.name: _TYPES.get(field.type, _TYPES[str]) for field in _fields(cls)}


def _encode(text: Caption | Question | Statement) -> dict[str, Any]:
  values = {field.name: getattr(text, field.name) for field in _fields(type(text))}
  return {
    name: json.dumps(list(value)) if isinstance(value, list | tuple) else value
    for name, value in values.items()
  }


def _decode(columns: Mapping[str, Sequence], cls: type) -> list:
  """The texts of a record as read back, where each field is a column."""
  fields = _fields(cls)
  how = {int: int, bool: bool, str: bytes.decode}
  readers = [how.get(field.type, json.loads) for field in fields]
  rows = zip(*(columns[field.name] for field in fields), strict=True)
  return [
    cls(**{f.name: read(v) for f, read, v in zip(fields, readers, row, strict=True)})
    for row in rows
  ]
