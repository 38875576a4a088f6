"""Score matrices of retrieval: an npz file of `scores` [I, T], `image_ids` and `text_ids`."""

import math
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from pixelbert_jax import UserError, files, first_line
from pixelbert_jax.score.predictions import PredictionError, Reader

FIVE = 5  # captions per image in the convention that omits the sixth and seventh
UNPACKED = 1 << 32  # bytes of a compressed array


def write(path: files.Path, scores: np.ndarray, image_ids: Sequence, text_ids: Sequence) -> None:
  """Writes an npz file of `scores` [I, T] (higher is better), `image_ids` and `text_ids`.

  The file is not compressed, so that `read` can map it into memory.
  """
  images, texts = np.asarray(image_ids), np.asarray(text_ids)
  files.write(path, lambda file: np.savez(file, scores=scores, image_ids=images, text_ids=texts))


def read(path: files.Path) -> tuple[np.ndarray, list[str], list[str]]:
  """Reads `scores` [I, T], image ids and text ids (as strings) from an npz file.

  Scores are mapped from the file unless it is compressed.

  Raises:
    UserError: the file does not exist, is damaged or lacks an array.
    PredictionError: an array has the wrong dtype or shape.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UserError(f'{path} does not exist: name a file that does')
  if not zipfile.is_zipfile(path):
    raise UserError(f'{path} is not a whole npz file: write it again')
  try:
    with zipfile.ZipFile(path) as archive:
      *ids, scores = (_array(archive, path, name) for name in ('image_ids', 'text_ids', 'scores'))
  except KeyError as error:
    needed = 'scores, image_ids and text_ids'
    raise UserError(f'{path} lacks an array ({error.args[0]}): it needs {needed}') from error
  except Exception as error:  # For damaged files zipfile and NumPy raise many types.
    raise UserError(
      f'{path} is not an npz file of plain arrays ({first_line(error)}): write it again'
    ) from error
  faults = []
  if scores.dtype.kind not in 'fiu':
    faults.append(f'{path}: scores are {scores.dtype}: save numbers')
  for name, values in zip(('image_ids', 'text_ids'), ids, strict=True):
    if values.dtype.kind not in 'iuU' or values.ndim != 1:
      faults.append(f'{path}: {name} is not a list of integers or strings')
  shape = tuple(len(np.atleast_1d(values)) for values in ids)
  if scores.shape != shape:
    faults.append(f'{path}: scores are {scores.shape} for {shape} images and texts: they differ')
  if faults:
    raise PredictionError(faults)
  image_ids, text_ids = ([str(x) for x in values.tolist()] for values in ids)
  return scores, image_ids, text_ids


def _array(archive: zipfile.ZipFile, path: pathlib.Path, name: str) -> np.ndarray:
  """Reads an array of an npz file, or maps it into memory if it is stored there as it is.

  Raises:
    KeyError: there is no such array.
    ValueError, BadZipFile: it is damaged, holds objects, or is longer than what is read.
  """
  info = archive.getinfo(f'{name}.npy')
  with archive.open(info) as member:
    version = np.lib.format.read_magic(member)
    header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
      version, np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = header(member)
    start = member.tell()
    if dtype.hasobject:
      raise ValueError(f'{name} holds Python objects')
    # What a header claims is allocated before anything is read.
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or start + size != info.file_size:
      raise ValueError(f'{name} has {info.file_size - start:,} bytes, its header says {size:,}')
    if info.compress_type != zipfile.ZIP_STORED:
      if size > UNPACKED:
        raise ValueError(f'{name} unpacks to {size:,} bytes: save it uncompressed')
      return _shaped(np.frombuffer(member.read(), dtype), shape, fortran)
  mapped = np.memmap(path, np.uint8, 'r', _start(path, info), (info.file_size,))
  if zlib.crc32(mapped.data) != info.CRC:
    raise zipfile.BadZipFile(f'Bad CRC-32 for file {info.filename!r}')  # as zipfile says it
  return _shaped(mapped[start:].view(dtype), shape, fortran) if size else np.zeros(shape, dtype)


def _shaped(values: np.ndarray, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
  return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _start(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
  """Finds where the content of a member begins in a zip file."""
  with path.open('rb') as file:
    # The local header has 30 bytes; at 26 and 28 it holds the lengths of the name and of the
    # extra field that follow it.
    file.seek(info.header_offset + 26)
    lengths = file.read(4)
  name, extra = (int.from_bytes(x, 'little') for x in (lengths[:2], lengths[2:]))
  return info.header_offset + 30 + name + extra


def match(
  path: files.Path,
  image_ids: Sequence[str],
  text_ids: Sequence[str],
  captions: Mapping[str, Sequence[str]],
) -> tuple[np.ndarray, np.ndarray]:
  """Matches rows and columns of a matrix, in any order, with the annotated captions.

  The texts must be all captions, or the first five of each image.

  Args:
    path: of the matrix, for messages.
    image_ids: of its rows.
    text_ids: of its columns.
    captions: text ids by image id, in the order of the dataset.

  Returns:
    int [T], the row of each text's image; and int [I], the index of each row in `captions`.

  Raises:
    PredictionError: an id is missing, unknown or repeated.
  """
  # The number of texts tells which of the two conventions the file follows.
  if len(text_ids) == sum(len(texts[:FIVE]) for texts in captions.values()):
    captions = {image: texts[:FIVE] for image, texts in captions.items()}
  image_of = {text: image for image, texts in captions.items() for text in texts}
  rows = _index(Reader(path, 'image', captions), image_ids)
  _index(Reader(path, 'text', image_of), text_ids)
  index = {image: i for i, image in enumerate(captions)}
  return (
    np.array([rows[image_of[text]] for text in text_ids]),
    np.array([index[image] for image in image_ids]),
  )


def _index(reader: Reader, ids: Sequence[str]) -> dict[str, int]:
  for number, name in enumerate(ids):
    reader.add(name, number)
  return reader.finish()
