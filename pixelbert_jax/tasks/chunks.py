"""Chunks of captions, padded to few lengths: the shapes that an evaluation's programs take."""

import numpy as np

# Captions are padded to one of these quantiles of their lengths; each costs a compiled program.
QUANTILES = (0.5, 0.95, 1.0)


def lengths(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the lengths [N] int of texts of this mask [N, T], and those that they are padded to."""
  length = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
  return length, np.unique(np.quantile(length, QUANTILES, method='higher'))


def chunk_captions(
  ids: np.ndarray, mask: np.ndarray, size: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
  """Groups captions by length into chunks, padded only to the next of a few lengths.

  Args:
    ids: [N, T] int, token ids.
    mask: [N, T] bool, False for padding.
    size: captions per chunk; the last chunk of a length is padded with that length's first caption.

  Returns:
    The chunks, each ids and mask [size, t], and the place [N] int of each caption in the
    concatenation of all chunks.
  """
  length, limits = lengths(mask)
  bucket = np.searchsorted(limits, length)
  chunks, place = list[tuple[np.ndarray, np.ndarray]](), np.empty(len(ids), int)
  for number, limit in enumerate(limits):
    members = np.flatnonzero(bucket == number)
    members = members[np.argsort(length[members], kind='stable')]
    place[members] = len(chunks) * size + np.arange(len(members))
    filled = np.append(members, np.repeat(members[:1], -len(members) % size))
    for part in filled.reshape(-1, size):
      chunks.append((ids[part, :limit], mask[part, :limit]))
  return chunks, place


def packed(
  listed: np.ndarray, length: np.ndarray, size: int, rows: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Packs the pairs of a block into calls of one shape, with texts of similar length together.

  Args:
    listed: [R, T] bool, the pairs of the block's R images.
    length: [T] int, tokens of each text.
    size: texts that a row of a call has; all are scored with the same image.
    rows: of a call.

  Returns:
    For each call the place of each row's image in the block, [rows] int, its texts, [rows, size]
    int, and which of these count, [rows, size] bool; the others only fill up.
  """
  order = np.argsort(length, kind='stable')
  images, texts, real = list[int](), list[np.ndarray](), list[np.ndarray]()
  for image, row in enumerate(listed):
    members = order[row[order]]
    for start in range(0, len(members), size):
      part = members[start : start + size]
      images.append(image)
      texts.append(np.append(part, np.repeat(part[-1:], size - len(part))))
      real.append(np.arange(size) < len(part))
  if not images:
    return []
  # A row that only fills up repeats the shortest.
  by_length = np.argsort([length[x[-1]] for x in texts], kind='stable')
  spare = -len(images) % rows
  number = np.append(np.repeat(by_length[:1], spare), by_length)
  counts = np.stack(real)[number]
  counts[:spare] = False
  parts = np.array(images)[number], np.stack(texts)[number], counts
  calls = len(number) // rows
  return list(zip(*(np.split(x, calls) for x in parts), strict=True))
