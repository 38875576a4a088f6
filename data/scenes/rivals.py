"""Which words of a caption the image leaves in doubt when some words are hidden."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

# Longer sentences than the grammar's would need more; bit masks hold up to 64.
_LONGEST = 16


def rivals(captions: Sequence[str], sentences: Iterable[str]) -> list[tuple[int, ...]]:
  """For each caption, bit masks of the words in which true sentences differ from it.

  Args:
    captions: K texts, each true of a scene.
    sentences: all texts of the grammar that are true of that scene.

  Returns:
    K ascending tuples. If the words of a set M are hidden, word p of it is undetermined
    iff some mask holds p and lies within M. Masks not needed for that are left out.
  """
  ids, lengths = zip(*map(_words, sentences), strict=True)
  own_ids, own_lengths = zip(*map(_words, captions), strict=True)
  differs = np.stack(own_ids)[:, None] != np.stack(ids)
  masks = differs @ (1 << np.arange(_LONGEST))
  comparable = np.array(own_lengths)[:, None] == np.array(lengths)
  return [
    prune(np.unique(row[fits & (row > 0)]).tolist())
    for row, fits in zip(masks, comparable, strict=True)
  ]


def prune(masks: Sequence[int]) -> tuple[int, ...]:
  """Drops every mask that the union of its strict subsets covers.

  Whoever holds a word of a dropped mask then holds it by one of the smaller ones, so the
  verdicts stay. Masks come ascending, so subsets come first.
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
  """([_LONGEST] numbers of the words, 0 behind the last; number of words)."""
  words = sentence.split()
  ids = np.zeros(_LONGEST, np.int64)
  ids[: len(words)] = [_number(word) for word in words]
  return ids, len(words)


_numbers: dict[str, int] = {}


def _number(word: str) -> int:
  """A number for each different word, from 1."""
  return _numbers.setdefault(word, len(_numbers) + 1)
