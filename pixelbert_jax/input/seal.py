"""The seal of a built dataset: digests by which damage, and other data, are noticed.

It is a file beside the records. Nothing else would notice that a bit of a sidecar has changed, or
that a file was exchanged with one of the same shape. Of the files of records, which check their
content whenever it is read, it holds sizes and the digests of both ends: so an exchanged or cut
file is noticed without reading gigabytes.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping

from pixelbert_jax import files, jsons

FILE = 'digests.json'
# Bytes at the beginning and at the end of a file of records that its digest covers.
END = 1 << 16


@dataclasses.dataclass(frozen=True)
class Seal:
  """Digests (SHA-256) of a built dataset.

  Attributes:
    files: of each file by its path in the dataset's folder; of records, of size and ends.
    images: of the bytes of all images of each split, in order.
  """

  files: Mapping[str, str]
  images: Mapping[str, str]

  @classmethod
  def of(cls, folder: pathlib.Path, images: Mapping[str, str]) -> 'Seal':
    """Computes the digests of a dataset as it is now, given those of its images."""
    paths = [path.relative_to(folder) for path in folder.rglob('*') if path.is_file()]
    names = sorted(p.as_posix() for p in paths if not any(x.startswith('.') for x in p.parts))
    return cls({n: _digest(folder / n) for n in names if n != FILE}, dict(images))

  def write(self, folder: pathlib.Path) -> None:
    """Writes the seal with a digest of its own."""
    content = dataclasses.asdict(self)
    sealed = {'seal': content, 'sha256': jsons.digest(content)}
    files.write_text(folder / FILE, jsons.text(sealed, indent=1) + '\n')

  @classmethod
  def read(cls, folder: pathlib.Path) -> 'Seal | None':
    """Reads the seal of a dataset; None if it has none that is whole."""
    try:
      sealed = jsons.parse((folder / FILE).read_bytes())
      return cls(**sealed['seal']) if jsons.digest(sealed['seal']) == sealed['sha256'] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      return None

  def identity(self, split: str) -> dict[str, str]:
    """Returns digests of the texts (with ids, labels and sizes) and of the images of a split.

    They depend on the content alone, not on where, when or by which library it was written.
    """
    sidecar = {name: self.files[name] for name in self.sidecar(split)}
    return {'texts': jsons.digest(sidecar), 'images': self.images[split]}

  def sidecar(self, split: str) -> list[str]:
    """Lists the files of the sidecar of a split."""
    return [name for name in self.files if name.startswith(f'sidecar/{split}/')]

  def metadata(self) -> list[str]:
    """Lists the files beside the records, which are small."""
    return [name for name in self.files if '/' not in name and not _is_records(name)]

  def damaged(self, folder: pathlib.Path, names: Iterable[str]) -> list[str]:
    """Lists those of the named files that are not what was sealed, or cannot be read."""

    def found(name: str) -> str:
      try:
        return _digest(folder / name)
      except OSError:
        return ''

    return [name for name in names if found(name) != self.files[name]]


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    if not _is_records(path.name):
      return hashlib.file_digest(file, 'sha256').hexdigest()
    size = os.fstat(file.fileno()).st_size
    digest = hashlib.sha256(str(size).encode())
    digest.update(file.read(END))
    file.seek(max(size - END, 0))
    digest.update(file.read(END))
  return digest.hexdigest()


def _is_records(name: str) -> bool:
  return '.array_record' in name
