"""Score matrices of retrieval: an npz file of `scores` [I, T], `image_ids` and `text_ids`."""

import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from pixelbert_jax import UserError, files
from pixelbert_jax.score.predictions import PredictionError, Reader

FIVE = 5  # captions per image in the convention that omits the sixth and seventh


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
    with np.load(path, allow_pickle=False) as archive:
      ids = [archive[name] for name in ('image_ids', 'text_ids')]
      scores = _map_scores(path)
      scores = archive['scores'] if scores is None else scores
  except KeyError as error:
    needed = 'scores, image_ids and text_ids'
    raise UserError(f'{path} lacks an array ({error.args[0]}): it needs {needed}') from error
  except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
    raise UserError(
      f'{path} is not an npz file of plain arrays ({error}): write it again'
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


def _map_scores(path: pathlib.Path) -> np.ndarray | None:
  """Maps `scores.npy` of an npz file into memory; None if that is impossible (compressed)."""
  with zipfile.ZipFile(path) as archive, path.open('rb') as file:
    info = archive.getinfo('scores.npy')
    if info.compress_type != zipfile.ZIP_STORED:
      return None
    # The local header has 30 bytes; at 26 and 28 it holds the lengths of the name and of the
    # extra field that follow it. Then comes the data.
    file.seek(info.header_offset + 26)
    lengths = file.read(4)
    file.seek(int.from_bytes(lengths[:2], 'little') + int.from_bytes(lengths[2:], 'little'), 1)
    if np.lib.format.read_magic(file) != (1, 0):
      return None
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or 0 in shape:
      return None
    return np.memmap(
      path, dtype, mode='r', offset=file.tell(), shape=shape, order='F' if fortran else 'C'
    )


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
