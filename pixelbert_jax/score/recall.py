"""Recall@K of retrieval in both directions, from the scores of every image with every text.

No official program exists. By the usual convention, text retrieval is a hit if *any* text of the
image is among the first K. Ties count as misses: a constant score gives a recall of 0, not 1.
"""

import math

import numpy as np

from pixelbert_jax import UserError

CUTOFFS = (1, 5, 10)
COCO_IMAGES, FOLD = 5000, 1000  # 5K protocol; the 1K protocol is the mean of five folds
_BLOCK = 1 << 23  # scores compared at a time: 32 MB of float32


def ranks(
  scores: np.ndarray, text_image: np.ndarray, fold: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Computes the ranks, from 1, of the ground truth among all candidates of the same fold.

  Args:
    scores: float [I, T], higher is better; read in blocks of rows, so it may be memory-mapped.
    text_image: int [T], the row of each text's image; every image has a text.
    fold: int [I], the fold of an image and its texts; one fold by default.

  Returns:
    int [I], for each image the rank of its best text; int [T], for each text the rank of its
    image.

  Raises:
    UserError: an image has no text, or a score is NaN.
  """
  images, texts = scores.shape
  fold = np.zeros(images, int) if fold is None else np.asarray(fold)
  if not (has_text := np.bincount(text_image, minlength=images) > 0).all():
    raise UserError(f'the image of row {np.argmin(has_text)} has no text: omit it')
  matched = np.asarray(scores[text_image, np.arange(texts)])  # each text with its image
  _, first = np.unique(text_image, return_index=True)
  best = matched[first]  # Keeps the dtype, so that rounding makes no ties.
  np.fmax.at(best, text_image, matched)  # NaN raises below.

  # Counts of candidates that score at least as high, the ground truth included.
  of_image, of_text = np.zeros(images, int), np.zeros(texts, int)
  step = max(1, _BLOCK // max(1, texts))
  for start in range(0, images, step):
    rows = np.arange(start, min(start + step, images))
    block = np.asarray(scores[rows])
    if (nan := np.isnan(block)).any():
      row, column = np.argwhere(nan)[0]
      raise UserError(f'the score of row {rows[row]}, column {column} is not a number')
    for f in np.unique(fold[rows]):
      row = rows[fold[rows] == f]
      columns = np.flatnonzero(fold[text_image] == f)
      part = block[row - start]
      part = part if len(columns) == texts else part[:, columns]
      of_image[row] = np.count_nonzero(part >= best[row, None], axis=1)
      of_text[columns] += np.count_nonzero(part >= matched[columns], axis=0)
  # Texts of the image itself that tie for the best are not misses.
  tied = np.bincount(text_image[matched >= best[text_image]], minlength=images)
  return of_image - tied + 1, of_text


def recalls(
  image_ranks: np.ndarray,
  text_ranks: np.ndarray,
  text_image: np.ndarray,
  fold: np.ndarray | None = None,
) -> dict[str, float]:
  """Computes `text_recall_at_1` ... `image_recall_at_10` in 0..1, as means over folds.

  The queries of text retrieval are images, those of image retrieval texts.

  Args:
    image_ranks: int [I], rank of the best text of each image; from `ranks` with the same folds.
    text_ranks: int [T], rank of the image of each text.
    text_image: int [T], the row of each text's image.
    fold: int [I]; one fold by default. All folds weigh the same, whatever their number of texts.
  """
  fold = np.zeros(len(image_ranks), int) if fold is None else np.asarray(fold)
  scores = {}
  for name, rank, folds in (('text', image_ranks, fold), ('image', text_ranks, fold[text_image])):
    for k in CUTOFFS:
      means = [np.mean(rank[folds == f] <= k) for f in np.unique(fold)]
      scores[f'{name}_recall_at_{k}'] = float(np.mean(means))
  return scores


def five_folds(scores: np.ndarray, text_image: np.ndarray, place: np.ndarray) -> dict[str, float]:
  """Computes recalls by the 1K protocol of COCO, `text_recall_at_1_1k` and so on.

  Args:
    scores, text_image: as for `ranks`.
    place: int [I], the index of each image in the split, which gives its fold.

  Returns:
    The means over five folds of 1,000 images; nothing unless there are 5,000.
  """
  if len(scores) != COCO_IMAGES:
    return {}
  fold = consecutive_folds(len(scores), FOLD)[place]
  found = recalls(*ranks(scores, text_image, fold), text_image, fold)
  return {f'{name}_1k': value for name, value in found.items()}


def consecutive_folds(images: int, size: int) -> np.ndarray:
  """Returns int [I]: the first `size` images are fold 0, the next fold 1, ...; all are full."""
  if images % size:
    raise UserError(f'{images} images cannot be split into folds of {size}')
  return np.arange(images) // size


def convention(used: int, existing: int) -> str:
  """Describes the captions that were scored: all, or at most five per image."""
  if used == existing:
    return f'all {existing:,}'
  return f'five an image, {used:,} of {existing:,}'


def expected_image_recall(true: np.ndarray, k: int) -> float:
  """Computes the expected recall@k of a perfect ranking: images the caption is true of come first.

  These n images cannot be told apart, so the right one is in the top k with min(1, k / n).

  Args:
    true: [T, I] bool, whether a caption is true of an image.
    k: cutoff.
  """
  return float(np.minimum(1, k / true.sum(1)).mean())


def expected_text_recall(true: np.ndarray, own: np.ndarray, k: int) -> float:
  """Computes the expected recall@k of a perfect ranking: captions true of the image come first.

  These captions cannot be told apart: a hit is one of the image's own among k drawn at random.

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
