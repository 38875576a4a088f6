"""Finds the words of a caption that the image does not determine when some words are masked."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

# At least the words of the longest sentence of the grammar; bit masks hold up to 64.
_LONGEST = 16


def rivals(captions: Sequence[str], sentences: Iterable[str]) -> list[tuple[int, ...]]:
  """Computes for each caption bit masks of the words in which other true sentences differ.

  Args:
    captions: K texts, each true of a scene.
    sentences: all texts of the grammar that are true of that scene.

  Returns:
    K ascending tuples. If a set M of words is masked, word p of M is undetermined iff some bit
    mask contains p and is a subset of M. Redundant bit masks are omitted.
  """
  ids, lengths = zip(*map(_words, sentences), strict=True)
  caption_ids, caption_lengths = zip(*map(_words, captions), strict=True)
  differs = np.stack(caption_ids)[:, None] != np.stack(ids)
  masks = differs @ (1 << np.arange(_LONGEST))
  comparable = np.array(caption_lengths)[:, None] == np.array(lengths)
  return [
    prune(np.unique(row[fits & (row > 0)]).tolist())
    for row, fits in zip(masks, comparable, strict=True)
  ]


def prune(masks: Sequence[int]) -> tuple[int, ...]:
  """Drops every mask that is the union of its strict subsets.

  Each word of a dropped mask is in one of these subsets, so no word becomes determined. Masks are
  ascending, so subsets come first.
  """
  kept: list[int] = []
  for mask in masks:
    covered = 0
    for smaller in kept:
      if smaller & mask == smaller:
        covered |= smaller
    if covered != mask:
      kept.append(mask)
  return tuple(kept)


@functools.cache
def _words(sentence: str) -> tuple[np.ndarray, int]:
  """Returns the ids of the words [_LONGEST], 0 after the last, and the number of words."""
  words = sentence.split()
  ids = np.zeros(_LONGEST, np.int64)
  ids[: len(words)] = [_number(word) for word in words]
  return ids, len(words)


_numbers: dict[str, int] = {}


def _number(word: str) -> int:
  """Returns the id of a word, from 1."""
  return _numbers.setdefault(word, len(_numbers) + 1)
