"""Visual words: hidden words that the image determines, and guesses of them from text alone.

Only a dataset that knows the content of its images (scenes) marks visual words.
"""

import collections
import functools

import numpy as np

from pixelbert_jax.input.rows import VISUAL_KINDS
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Masked

KINDS = tuple(VISUAL_KINDS.values())
_NUMBER = {ord(letter): i + 1 for i, letter in enumerate(VISUAL_KINDS)}


def determined(rivals: np.ndarray, hidden: int, word: int) -> bool:
  """Tells whether an image determines a hidden word of a caption, other hidden words unknown.

  Args:
    rivals: uint64 masks, see `rows.Caption`.
    hidden: bit mask of the hidden words.
    word: number of one of them.
  """
  within = (rivals & ~np.uint64(hidden)) == 0
  return not bool((within & ((rivals >> np.uint64(word)) & np.uint64(1) > 0)).any())


class TextGuess:
  """Guesses a visual word from its two neighbours: the text-only baseline, fitted on captions."""

  def __init__(self, sidecar: Sidecar):
    self._sidecar = sidecar

  @functools.cached_property
  def _best(self) -> dict[tuple[str, str], str]:
    """The most frequent word between two neighbours; counted when an evaluation first asks."""
    sidecar = self._sidecar
    counts: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(
      collections.Counter
    )
    for i in range(len(sidecar.kinds) if len(sidecar.kinds.values) else 0):
      words = sidecar.caption(i).split()
      for j in np.flatnonzero(sidecar.kinds[i] != ord('.')).tolist():
        counts[self._context(words, j)][words[j]] += 1
    return {context: c.most_common(1)[0][0] for context, c in counts.items()}

  @staticmethod
  def _context(words: list[str], j: int) -> tuple[str, str]:
    padded = ['', *words, '']
    return padded[j], padded[j + 2]

  def __call__(self, words: list[str], j: int) -> str:
    """Returns the most frequent word between the neighbours of `words[j]`; '' if there is none."""
    return self._best.get(self._context(words, j), '')


def visual_words(
  sidecar: Sidecar,
  texts: np.ndarray,
  word: np.ndarray,
  *,
  masked: Masked,
  mask_id: int,
  guess: TextGuess,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the hidden tokens that are visual words which the image determines.

  Only tokens replaced by [MASK] count: an unchanged word would give itself away.

  Args:
    sidecar: that of the split.
    texts: [N] caption numbers.
    word: [N, T] int, number of the word of each token.
    masked: the texts with tokens hidden.
    mask_id: token id of [MASK].
    guess: the text-only baseline.

  Returns:
    kind [N, M] int32, 0 or 1 + the number of the kind in KINDS, and guessed [N, M] float32,
    1 where the text-only baseline is right.
  """
  kind = np.zeros(masked.position.shape, np.int32)
  guessed = np.zeros(masked.position.shape, np.float32)
  if not len(sidecar.kinds.values):
    return kind, guessed
  for n, text in enumerate(texts):
    if text >= len(sidecar.kinds):  # a foil, which is not true of its image
      continue
    slots = np.flatnonzero(masked.weight[n])
    at = word[n, masked.position[n, slots]]
    hidden = sum(1 << int(w) for w in set(at))
    words = sidecar.caption(text).split()
    for slot, w in zip(slots, at, strict=True):
      # In a mixture, the texts of some sources have no kinds.
      number = _NUMBER.get(sidecar.kinds[text][w], 0) if len(sidecar.kinds[text]) else 0
      shown = masked.ids[n, masked.position[n, slot]]
      if number and shown == mask_id and determined(sidecar.rivals[text], hidden, w):
        kind[n, slot] = number
        guessed[n, slot] = guess(words, w) == words[w]
  return kind, guessed
