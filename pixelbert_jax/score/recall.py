"""Recall at K of retrieval in both directions, from the scores of every image with every text.

There is no official program. As everywhere, an image's search for texts succeeds if *any* of its
texts is among the first K. Where scores tie, the wrong ones come first: a model that scores all
alike has a recall of 0, not 1.
"""

import math

import numpy as np

from pixelbert_jax import UserError

CUTOFFS = (1, 5, 10)
COCO_IMAGES, FOLD = 5000, 1000  # of the 5K protocol; the 1K one is the mean of five folds
_BLOCK = 1 << 23  # scores compared at a time: 32 MB of float32


def ranks(
  scores: np.ndarray, text_image: np.ndarray, fold: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """The ranks of what is right, from 1, among all candidates or among those of the same fold.

  Args:
    scores: float [I, T], higher is better; may be mapped from a file, is read in blocks of rows.
    text_image: int [T], the row of the image of which text t is true; each image has a text.
    fold: int [I], the fold of an image and its texts; by default there is one of all.

  Returns:
    int [I], for each image the rank of the best of its texts; int [T], for each text that of its
    image.

  Raises:
    UserError: an image has no text, or a score is not a number.
  """
  images, texts = scores.shape
  fold = np.zeros(images, int) if fold is None else np.asarray(fold)
  if not (has_text := np.bincount(text_image, minlength=images) > 0).all():
    raise UserError(f'the image of row {np.argmin(has_text)} has no text: leave it out')
  own = np.asarray(scores[text_image, np.arange(texts)])
  if (bad := np.isnan(own)).any():
    raise _not_a_number(text_image[np.argmax(bad)], np.argmax(bad))
  _, first = np.unique(text_image, return_index=True)
  best = own[first]  # The dtype stays, so that nothing is rounded into a tie.
  np.maximum.at(best, text_image, own)

  # Of every candidate that is not beaten, the right ones included.
  of_image, of_text = np.zeros(images, int), np.zeros(texts, int)
  for rows in _blocks(images, texts):
    block = np.asarray(scores[rows])
    if (bad := np.isnan(block)).any():
      row, column = np.argwhere(bad)[0]
      raise _not_a_number(rows[row], column)
    for f in np.unique(fold[rows]):
      row = rows[fold[rows] == f]
      columns = np.flatnonzero(fold[text_image] == f)
      part = block[row - rows[0]]
      part = part if len(columns) == texts else part[:, columns]
      of_image[row] = np.count_nonzero(part >= best[row, None], axis=1)
      of_text[columns] += np.count_nonzero(part >= own[columns], axis=0)
  right = np.bincount(text_image[own >= best[text_image]], minlength=images)
  return of_image - right + 1, of_text


def _blocks(images: int, texts: int) -> list[np.ndarray]:
  """Row numbers, as many at a time as make a block."""
  rows = max(1, _BLOCK // max(1, texts))
  return [np.arange(start, min(start + rows, images)) for start in range(0, images, rows)]


def _not_a_number(row: np.integer, column: np.integer) -> UserError:
  return UserError(f'the score of row {row}, column {column} is not a number')


def recalls(
  image_ranks: np.ndarray,
  text_ranks: np.ndarray,
  text_image: np.ndarray,
  fold: np.ndarray | None = None,
) -> dict[str, float]:
  """`text_recall_at_1` ... `image_recall_at_10` in 0..1; with folds, their mean.

  Text retrieval has an image for its query and counts images; image retrieval counts texts.

  Args:
    image_ranks: int [I], of the best text of each image; from `ranks` with the same folds.
    text_ranks: int [T], of the image of each text.
    text_image: int [T], the row of each text's image.
    fold: int [I]. Folds count the same, whatever their number of texts.
  """
  fold = np.zeros(len(image_ranks), int) if fold is None else np.asarray(fold)
  found = {}
  for name, rank, of in (('text', image_ranks, fold), ('image', text_ranks, fold[text_image])):
    for k in CUTOFFS:
      means = [np.mean(rank[of == f] <= k) for f in np.unique(fold)]
      found[f'{name}_recall_at_{k}'] = float(np.mean(means))
  return found


def consecutive_folds(images: int, size: int) -> np.ndarray:
  """int [I]: the first `size` images are fold 0, the next fold 1, ...; all must be full."""
  if images % size:
    raise UserError(f'{images} images do not make folds of {size}')
  return np.arange(images) // size


def convention(used: int, existing: int) -> str:
  """Which captions a number stands for: all that there are, or at most five an image."""
  if used == existing:
    return f'all {existing:,}'
  return f'five an image, {used:,} of {existing:,}'


def expected_image_recall(true: np.ndarray, k: int) -> float:
  """Computes the expected recall@k of ranking first the images that a caption is true of.

  Nothing tells the caption's own image among these n, so it is in the top k with min(1, k / n).

  Args:
    true: [T, I] bool, whether a caption is true of an image.
    k: cutoff.
  """
  return float(np.minimum(1, k / true.sum(1)).mean())


def expected_text_recall(true: np.ndarray, own: np.ndarray, k: int) -> float:
  """Computes the expected recall@k of ranking first the captions that are true of an image.

  A hit is one of the image's own captions among k of these, drawn at random.

  Args:
    true: [T, I] bool, whether a caption is true of an image.
    own: [I] int, how many captions each image has.
    k: cutoff.
  """
  missed = [
    math.comb(n - o, k) / math.comb(n, k) if n >= k else 0.0
    for n, o in zip(true.sum(0).tolist(), own.tolist(), strict=True)
  ]
  return 1 - float(np.mean(missed))
