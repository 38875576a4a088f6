"""Visual words: what the image, and what the text alone, says about a hidden word.

Only datasets that know what they show (scenes) mark visual words; elsewhere nothing is visual.
"""

import collections

import numpy as np

from pixelbert_jax.input.rows import VISUAL_KINDS
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Masked

KINDS = tuple(VISUAL_KINDS.values())
_NUMBER = {ord(letter): i + 1 for i, letter in enumerate(VISUAL_KINDS)}


def determined(rivals: np.ndarray, hidden: int, word: int) -> bool:
  """Whether an image determines a hidden word of a caption, the other hidden words unknown.

  Args:
    rivals: uint64 masks, see `rows.Caption`.
    hidden: mask of the hidden words.
    word: one of them.
  """
  within = (rivals & ~np.uint64(hidden)) == 0
  return not bool((within & ((rivals >> np.uint64(word)) & np.uint64(1) > 0)).any())


class TextGuess:
  """The best guess of a visual word from its two neighbours, learnt from a split's captions."""

  def __init__(self, sidecar: Sidecar):
    counts: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(
      collections.Counter
    )
    for i in range(len(sidecar.kinds) if len(sidecar.kinds.values) else 0):
      words = sidecar.caption(i).split()
      for j in np.flatnonzero(sidecar.kinds[i] != ord('.')).tolist():
        counts[self._context(words, j)][words[j]] += 1
    self._best = {context: c.most_common(1)[0][0] for context, c in counts.items()}

  @staticmethod
  def _context(words: list[str], j: int) -> tuple[str, str]:
    padded = ['', *words, '']
    return padded[j], padded[j + 2]

  def __call__(self, words: list[str], j: int) -> str:
    """The word that stands most often between the neighbours of `words[j]`."""
    return self._best.get(self._context(words, j), '')


def visual_words(
  sidecar: Sidecar,
  texts: np.ndarray,
  word: np.ndarray,
  masked: Masked,
  mask_id: int,
  guess: TextGuess,
) -> tuple[np.ndarray, np.ndarray]:
  """Which hidden places are visual words that the image determines.

  Only places that show [MASK] count: a word left as it was would give itself away.

  Args:
    sidecar: of the split.
    texts: [N] caption numbers.
    word: [N, T] int, the word of each token.
    masked: the hidden places.
    mask_id: of [MASK].
    guess: what the text alone would say.

  Returns:
    kind [N, M] int32, 0 or 1 + the number of the kind in KINDS, and guessed [N, M] float32,
    1 where the guess from the text alone is right.
  """
  kind = np.zeros(masked.position.shape, np.int32)
  guessed = np.zeros(masked.position.shape, np.float32)
  if not len(sidecar.kinds.values):
    return kind, guessed
  for n, text in enumerate(texts):
    slots = np.flatnonzero(masked.weight[n])
    at = word[n, masked.position[n, slots]]
    hidden = sum(1 << int(w) for w in set(at))
    words = sidecar.caption(text).split()
    for slot, w in zip(slots, at, strict=True):
      # In a mixture, texts of other sources have no kinds.
      number = _NUMBER.get(sidecar.kinds[text][w], 0) if len(sidecar.kinds[text]) else 0
      shown = masked.ids[n, masked.position[n, slot]]
      if number and shown == mask_id and determined(sidecar.rivals[text], hidden, w):
        kind[n, slot] = number
        guessed[n, slot] = guess(words, w) == words[w]
  return kind, guessed
