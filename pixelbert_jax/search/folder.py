"""The photos of a folder and of all folders in it."""

import collections
import dataclasses
import os
from typing import NamedTuple

from PIL import Image

from pixelbert_jax import UserError
from pixelbert_jax.input.image import FORMATS

Path = str | os.PathLike


class Stamp(NamedTuple):
  """What tells a changed file: its size in bytes, and when it was modified, in ns."""

  size: int
  modified: int

  @classmethod
  def of(cls, file: Path) -> 'Stamp':
    """Reads that of a file; OSError if it cannot be."""
    found = os.stat(file)
    return cls(found.st_size, found.st_mtime_ns)


@dataclasses.dataclass(frozen=True)
class Folder:
  """What a folder holds; names that begin with a dot are not looked at.

  Attributes:
    photos: stamps by the paths of photos, relative to the folder and in alphabetical order. Which
      files are photos is told by the ends of their names.
    others: how many other files there are, by the ends of their names.
    faults: the reasons for what cannot be looked at.
  """

  photos: dict[str, Stamp]
  others: dict[str, int]
  faults: list[str]

  @classmethod
  def read(cls, path: Path) -> 'Folder':
    """Lists a folder.

    Raises:
      UserError: there is no such folder, or it holds no photos.
    """
    if not os.path.isdir(path):
      raise UserError(f'{path}: no such folder: give --folder, a folder of photos')
    ends = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}
    photos, others = dict[str, Stamp](), collections.Counter[str]()
    errors: list[OSError] = []
    for at, folders, names in os.walk(os.fspath(path), onerror=errors.append):
      folders[:] = sorted(name for name in folders if not name.startswith('.'))
      for name in sorted(name for name in names if not name.startswith('.')):
        end, file = os.path.splitext(name)[1].lower(), os.path.join(at, name)
        if end not in ends:
          others[end or 'no ending'] += 1
          continue
        try:
          stamp = Stamp.of(file)
          file.encode()
        except OSError as error:
          errors.append(error)
        except UnicodeEncodeError:
          errors.append(OSError(0, 'its name is not UTF-8: rename it', os.fsencode(file)))
        else:
          photos[os.path.relpath(file, path)] = stamp
    faults = [f'{error.filename}: {error.strerror}' for error in errors]
    if not photos:
      held = f'{sum(others.values()):,} other files' if others else 'nothing'
      said = '; '.join([f'it holds {held}', *faults[:1]])
      raise UserError(f'{path}: no photos ({", ".join(FORMATS)}) in this folder: {said}')
    return cls(dict(sorted(photos.items())), dict(others), faults)
