"""Shortlists of retrieval in two stages: a cheap first stage says which pairs are scored exactly.

On the shortlist is a pair whose text is among the best k of its image, or whose image is among the
best k of its text, by the first stage. Ties with the k-th are on it too, so it does not depend on
the order of images and texts. All other pairs rank after it, as the first stage has them.
"""

import math

import numpy as np

from pixelbert_jax.score import recall

KEPT = 0.99  # of the exact recall, which the chosen k keeps
STEP = 1.1  # from one k that is tried to the next
_BLOCK = 1 << 23  # scores sorted at a time: 32 MB of float32


def shortlist(first: np.ndarray, k: int) -> np.ndarray:
  """Chooses the pairs to score exactly, [I, T] bool, by first-stage scores [I, T]; k at least 1."""
  images, texts = first.shape
  listed = first >= _kth_of_rows(first.T, k)  # among the best images of the text
  step = max(1, _BLOCK // texts)
  for start in range(0, images, step):
    rows = slice(start, start + step)
    listed[rows] |= first[rows] >= _kth_of_rows(first[rows], k)[:, None]
  return listed


def _kth_of_rows(scores: np.ndarray, k: int) -> np.ndarray:
  """Returns the k-th highest score [R] of each row of [R, C]; of a shorter row the lowest."""
  rows, columns = scores.shape
  place, step = max(columns - k, 0), max(1, _BLOCK // columns)
  parts = [
    np.partition(scores[start : start + step], place, axis=1)[:, place]
    for start in range(0, rows, step)
  ]
  return np.concatenate(parts)


def composed(exact: np.ndarray, first: np.ndarray, listed: np.ndarray) -> np.ndarray:
  """Returns scores [I, T] that rank the shortlist by exact scores, then the rest by the first.

  Exact scores stay as they are; the others become lower than all of them. Rounding may make ties
  among the others, which count as misses.

  Args:
    exact: [I, T] float; those that are not listed are ignored.
    first: [I, T] float, at most 1.
    listed: [I, T] bool.
  """
  lowest = np.min(exact, where=listed, initial=np.inf)
  return np.where(listed, exact, lowest - 2 + first)


def recall_mean(scores: np.ndarray, text_image: np.ndarray) -> float:
  """Computes the mean of the six recalls of scores [I, T]; the texts are of images [T] int."""
  values = recall.recalls(*recall.ranks(scores, text_image), text_image)
  return float(np.mean(list(values.values())))


def two_stages(
  exact: np.ndarray, first: np.ndarray, text_image: np.ndarray, k: int
) -> tuple[float, int]:
  """Computes what two stages come to: their mean recall, and the number of pairs scored exactly."""
  listed = shortlist(first, k)
  return recall_mean(composed(exact, first, listed), text_image), int(listed.sum())


def smallest_k(exact: np.ndarray, first: np.ndarray, text_image: np.ndarray) -> int:
  """Finds the smallest k whose two stages keep the share KEPT of the exact mean recall.

  Up to 10 every k is tried, above it those that are a tenth apart. The largest lists all pairs.
  """
  wanted, most = KEPT * recall_mean(exact, text_image), max(exact.shape)
  tries = STEP ** np.arange(math.ceil(math.log(most, STEP)) + 1)
  for k in np.unique(tries.round().astype(int)).tolist():
    if k < most and two_stages(exact, first, text_image, k)[0] >= wanted:
      return k
  return most


def image_blind(exact: np.ndarray) -> np.ndarray:
  """Makes the first stage that sees no image, [I, T] float64 from 0 to 1.

  For every image it ranks texts by their mean exact score; images it ranks at random.
  """
  images, texts = exact.shape
  place = np.argsort(np.argsort(exact.mean(axis=0, dtype=np.float64)))
  scores = np.random.default_rng(0).random((images, texts))
  scores += place
  scores /= texts  # In place: of COCO's pairs it takes a gigabyte.
  return scores
