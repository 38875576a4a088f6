"""Puts texts beside those with which they have most words in common, by the million."""

import numpy as np

from pixelbert_jax.input.equal import word_hashes
from pixelbert_jax.input.ragged import Ragged

KEYS = 3  # words by which texts are sorted


def beside(text: Ragged, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Permutes texts: in each place comes one that is like the text that was there.

  All words are put into a random order in which rare ones come early, and texts sorted by their
  first words in it; each place gets its text's neighbour. So two texts meet the likelier, the
  greater the share of their words they have in common, rare words counting more (weighted
  min-wise hashing, Broder 1997). The order is another in every epoch.

  Args:
    text: of all texts, UTF-8.
    numbers: [N] int, the texts to permute.
    rng: draws the order of words.
  """
  if len(numbers) < 2:
    return numbers
  hashes, count = word_hashes(text.take(numbers))
  words, word = np.unique(hashes, return_inverse=True)
  rarity = np.log1p(len(numbers) / np.bincount(word, minlength=len(words)))
  turn = np.argsort(np.argsort(rng.exponential(size=len(words)) / rarity))
  row = np.repeat(np.arange(len(numbers)), count)
  order = np.lexsort((turn[word], row))
  place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
  keys = np.full((KEYS, len(numbers)), len(words))
  early = place < KEYS
  keys[place[early], row[early]] = turn[word[order[early]]]
  sorted_ = np.lexsort((rng.random(len(numbers)), *keys[::-1]))
  moved = np.empty_like(numbers)
  moved[sorted_] = np.roll(numbers[sorted_], 1)
  return moved
