"""A part of an index: a file with what a model saw in some photos.

It is a safetensors file, and so is mapped into memory: `pixels` has the real pixels [n, D] float32
of one photo after the other, as the Transformer takes them, and `vectors` [N, W] those of the first
stage (W is 0 for a model without one). Its metadata is a JSON object that says of which photos.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from pixelbert_jax import UserError, files, first_line, jsons
from pixelbert_jax.checkpoints.checksum import checksums
from pixelbert_jax.predict import Model
from pixelbert_jax.search.folder import Path, Stamp

PATTERN = 'photos-*.safetensors'
FORMAT = 1
CURE = 'give another --index_dir'


class Photo(NamedTuple):
  """A photo in a part.

  Attributes:
    path: relative to the folder.
    size, modified: those of its `Stamp`.
    pixels: number of its real pixels.
  """

  path: str
  size: int
  modified: int
  pixels: int

  @property
  def stamp(self) -> Stamp:
    """What tells whether the file was changed since."""
    return Stamp(self.size, self.modified)


@dataclasses.dataclass(frozen=True)
class Source:
  """What an index is of.

  Attributes:
    folder: the absolute path of the folder.
    model: a digest of the model's arrays and configuration.
  """

  folder: str
  model: str

  @classmethod
  def of(cls, model: Model, folder: Path) -> 'Source':
    """Computes the digest of a model, beside the path of a folder."""
    about = {'config': model.config.to_dict(), 'arrays': checksums(model.variables)}
    return cls(os.path.abspath(folder), jsons.digest(about))

  def home(self, index_dir: Path | None) -> pathlib.Path:
    """Returns the folder of the index: `index_dir` or, if that is None, one in the user's cache."""
    if index_dir is not None:
      return pathlib.Path(index_dir)
    cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    digest = hashlib.sha256(self.folder.encode()).hexdigest()[:12]
    return pathlib.Path(cache, 'pixelbert_jax/search', f'{pathlib.Path(self.folder).name}-{digest}')


@dataclasses.dataclass(frozen=True)
class Part:
  """A part as it lies on disk, mapped into memory."""

  path: pathlib.Path
  source: Source
  photos: list[Photo]
  vectors: np.ndarray
  _pixels: Any  # a slice of safetensors
  _start: np.ndarray

  @classmethod
  def open(cls, path: pathlib.Path, source: Source) -> 'Part':
    """Opens a part of an index of `source`, or of the same folder by another model.

    Raises:
      UserError: it is damaged, no part of an index, or of another folder.
    """
    try:
      file = safetensors.safe_open(path, 'numpy')
      about = jsons.parse((file.metadata() or {})['index'], dict)
      if about['format'] != FORMAT:
        raise ValueError(f'format {about["format"]}')
      photos = [Photo(*fields) for fields in about['photos']]
      start = np.cumsum([0, *(photo.pixels for photo in photos)])
      pixels, vectors = file.get_slice('pixels'), file.get_tensor('vectors')
      if (pixels.get_shape()[0], len(vectors)) != (start[-1], len(photos)):
        raise ValueError('it has another number of photos')
      made_of = Source(about['folder'], about['model'])
      part = cls(path, made_of, photos, vectors, _pixels=pixels, _start=start)
    except FileNotFoundError as error:
      raise UserError(f'{path.parent} is being changed by another process: try again') from error
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, OSError) as error:
      raise UserError(
        f'{path} is damaged, or no part of an index ({first_line(error)}): delete it, and add '
        '--index'
      ) from error
    if part.source.folder != source.folder:
      raise UserError(f'{path.parent} is the index of {part.source.folder}: {CURE}')
    return part

  def pixels(self, number: int) -> np.ndarray:
    """Reads the real pixels [n, D] of a photo."""
    return self._pixels[int(self._start[number]) : int(self._start[number + 1])]

  def keep(self, numbers: Sequence[int]) -> None:
    """Writes the file again with these photos alone; deletes it if there are none."""
    if not numbers:
      self.path.unlink()
    elif len(numbers) < len(self.photos):
      photos, pixels = [self.photos[i] for i in numbers], [self.pixels(i) for i in numbers]
      write(self.path, self.source, photos, pixels, self.vectors[list(numbers)])


def parts(home: pathlib.Path) -> list[pathlib.Path]:
  """Lists the files of an index."""
  return sorted(home.glob(PATTERN))


def write(
  path: pathlib.Path,
  source: Source,
  photos: Sequence[Photo],
  pixels: Sequence[np.ndarray],
  vectors: np.ndarray,
) -> None:
  """Writes a part, whole or not at all; disk.WriteError if it cannot be written."""
  about = {'format': FORMAT, **dataclasses.asdict(source), 'photos': photos}
  tensors = {'pixels': np.concatenate(pixels), 'vectors': vectors}
  files.write_bytes(path, safetensors.numpy.save(tensors, {'index': jsons.text(about)}))
