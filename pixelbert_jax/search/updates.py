"""The update of an index: photos that are new or changed go through the model, once."""

import dataclasses
import functools
import os
import pathlib
import time

import numpy as np
from tqdm import tqdm

from pixelbert_jax import UserError, disk, files, lock
from pixelbert_jax.predict import Model
from pixelbert_jax.predict.runner import check_finite
from pixelbert_jax.search import part as part_lib
from pixelbert_jax.search.folder import Folder, Path, Stamp
from pixelbert_jax.search.part import CURE, Part, Photo, Source

# A part is written once it has so many bytes, or so many seconds after the last one; a process
# that is killed loses what it has not written.
BYTES = 1 << 26
SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Update:
  """What an update did.

  Attributes:
    home: the folder of the index.
    photos: in the index now.
    added: of these, new or changed.
    dropped: photos that are gone from the folder, or changed, or were seen by another model.
    left_out: the reasons for photos that are left out, and for folders that cannot be read.
    others: how many files are no photos, by the ends of their names.
  """

  home: pathlib.Path
  photos: int
  added: int
  dropped: int
  left_out: list[str]
  others: dict[str, int]

  @property
  def bytes(self) -> int:
    """The size of the index on disk."""
    return sum(path.stat().st_size for path in part_lib.parts(self.home))


def update(model: Model, folder: Path, index_dir: Path | None = None) -> Update:
  """Brings the index of a folder up to date, and makes it if there is none.

  Photos whose size and time of modification are as before stay as they are; an index by another
  model is made again. A call that was killed is gone on with by the next one.

  Args:
    model: one that can `match`.
    folder: of photos, which may lie in folders of it.
    index_dir: where the index lies; None is a folder in the user's cache.

  Raises:
    HeadError: the model cannot match.
    UserError: the folder has no photos, or none that can be read; the index is of another folder,
      is being written by another process, or cannot be written.
  """
  model.need('match')
  found, source = Folder.read(folder), Source.of(model, folder)
  home = source.home(index_dir)
  tidy = functools.partial(files.delete_partial, home)
  with lock.held(home / 'lock', f'the index in {home}', CURE, tidy=tidy):
    kept, dropped = _kept(home, source, found.photos)
    new = {path: stamp for path, stamp in found.photos.items() if path not in kept}
    draft = _Draft(source, home)
    unreadable = _add(model, draft, folder, new)
  if not kept and not draft.added:
    raise UserError(
      f'{folder}: none of its {len(unreadable):,} photos can be read, such as {unreadable[0]}'
    )
  photos, left_out = len(kept) + draft.added, [*found.faults, *unreadable]
  return Update(home, photos, draft.added, dropped, left_out=left_out, others=found.others)


def _kept(home: pathlib.Path, source: Source, photos: dict[str, Stamp]) -> tuple[set[str], int]:
  """Deletes what is no longer so from an index; returns the paths that stay, and how many went."""
  kept, dropped = set[str](), 0
  for path in part_lib.parts(home):
    part = Part.open(path, source)
    numbers = [
      number
      for number, photo in enumerate(part.photos)
      if part.source == source and photos.get(photo.path) == photo.stamp and photo.path not in kept
    ]
    part.keep(numbers)
    kept |= {part.photos[number].path for number in numbers}
    dropped += len(part.photos) - len(numbers)
  return kept, dropped


def _add(model: Model, draft: '_Draft', folder: Path, new: dict[str, Stamp]) -> list[str]:
  """Adds photos to an index; returns the reasons for those that cannot be read."""
  runner, paths, unreadable = model.runner, list(new), dict[int, str]()
  first = getattr(model.module, 'first_stage_width', 0)
  names = [os.path.join(folder, path) for path in paths]
  with tqdm(total=len(new), unit='photo', leave=False, disable=not new) as progress:
    for numbers, seen in runner.see(names, unreadable):
      pixels, mask = map(np.asarray, seen)
      vectors = runner.image_vectors(seen) if first else np.zeros((len(pixels), 0), np.float32)
      check_finite([pixels, vectors], model.folder)
      for row, number in enumerate(numbers):
        path, real = paths[number], pixels[row, mask[row]]
        draft.add(Photo(path, *new[path], len(real)), real, vectors[row])
      progress.update(draft.added + len(unreadable) - progress.n)
      draft.write_in_time(len(new) - draft.added)
  draft.write()
  return list(unreadable.values())


class _Draft:
  """Photos on their way into the next parts of an index; `added` counts them all."""

  def __init__(self, source: Source, home: pathlib.Path):
    self._source, self._home, self.added = source, home, 0
    self._empty()

  def _empty(self) -> None:
    self._photos: list[Photo] = []
    self._pixels: list[np.ndarray] = []
    self._vectors: list[np.ndarray] = []
    self._bytes, self._since = 0, time.monotonic()

  def add(self, photo: Photo, pixels: np.ndarray, vector: np.ndarray) -> None:
    """Takes a photo."""
    self._photos.append(photo)
    self._pixels.append(pixels)
    self._vectors.append(vector)
    self._bytes += pixels.nbytes + vector.nbytes
    self.added += 1

  def write_in_time(self, left: int) -> None:
    """Writes a part if it is due; `left` photos are still to come, for which there must be room."""
    if self._bytes >= BYTES or time.monotonic() - self._since >= SECONDS:
      disk.check_room(self._home, self._bytes * (1 + left / len(self._photos)), CURE)
      self.write()

  def write(self) -> None:
    """Writes the photos that wait, if any, as a part."""
    if self._photos:
      last = max(part_lib.parts(self._home), default=pathlib.Path('photos-0'))
      number = 1 + int(last.stem.removeprefix('photos-'))
      path = self._home / f'photos-{number:06d}.safetensors'
      part_lib.write(path, self._source, self._photos, self._pixels, np.stack(self._vectors))
    self._empty()
