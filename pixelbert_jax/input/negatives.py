"""Negatives: the untrue texts of an epoch's pairs (image-text matching, paper section 3.3)."""

import dataclasses

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.groups import Groups
from pixelbert_jax.input.nearest import beside
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth

TRIES = 200  # to find another image for a text


@dataclasses.dataclass(frozen=True)
class Negatives:
  """Draws the untrue half of the pairs of an epoch.

  Texts are permuted among the images of untrue pairs, so that true and untrue pairs have the same
  texts and no text alone tells which it is.

  Attributes:
    sidecar: that of the split.
    truth: which texts are true of which images; no pair is untrue of which it says so.
    first: number of the first image of each corpus; texts stay within theirs. (0,) is one corpus.
    hard: share of the untrue texts that are hard: a foil of one of the image's captions (`rows.py`)
      or, where a corpus has none, one with many words in common with that caption.
  """

  sidecar: Sidecar
  truth: Truth
  first: tuple[int, ...] = (0,)
  hard: float = 0.0

  def __call__(self, groups: Groups, rng: np.random.Generator) -> Groups:
    """Makes half of each group's pairs untrue.

    Text numbers from the number of captions on are foils: `sidecar.strings`, counted from there.
    The few texts that are true of so many images that no place is left for them get weight 0.

    Raises:
      UserError: most texts are true of nearly every image.
    """
    k = groups.text.shape[1]
    matched = ~_halves(groups.text.shape, rng)
    place = np.flatnonzero(~matched & (groups.weight > 0))
    images, texts = groups.image[place // k], groups.text.reshape(-1)[place]
    hard, rest = np.zeros(len(place), bool), np.ones(len(place), bool)
    if self.hard:
      hard = rng.random(len(place)) < self.hard
      texts, rest = self._foils(images, texts, hard, rng)
    corpus = np.searchsorted(np.array(self.first, images.dtype), images, side='right')
    parts = [np.zeros(0, int)]
    for number in range(len(self.first) + 1):
      for near in (False, True):
        mine = np.flatnonzero(rest & (corpus == number) & (hard == near))
        if not len(mine):
          continue
        moved = (
          beside(self.sidecar.text, texts[mine], rng) if near else rng.permutation(texts[mine])
        )
        texts[mine], left = self._mended(images[mine], moved, rng)
        parts.append(mine[left])
    wrong = np.concatenate(parts)
    if 2 * len(wrong) > len(texts):
      raise UserError(
        f'{len(wrong)} of {len(texts)} texts are true of nearly every image, for example '
        f'{self.sidecar.caption(int(texts[wrong[0]]))!r}: no image is left to mismatch them with; '
        'if they are longer than text.length, so that what tells them apart is cut, raise it'
      )
    text, weight = groups.text.copy(), groups.weight.copy()
    text.reshape(-1)[place] = texts
    weight.reshape(-1)[place[wrong]] = 0
    return dataclasses.replace(groups, text=text, matched=matched, weight=weight)

  def _foils(
    self, images: np.ndarray, texts: np.ndarray, hard: np.ndarray, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    """Replaces the hard ones of own captions [N] by a foil; returns also where none was found."""
    foils, texts = self.sidecar.foils, texts.copy()
    count = np.diff(foils.start)[texts]
    these = np.flatnonzero(hard & (count > 0))
    drawn = foils.start[texts[these]] + (rng.random(len(these)) * count[these]).astype(int)
    number = len(self.sidecar.text) + foils.values[drawn].astype(int)
    # One that is cut to the words of a true text is none.
    false = ~self.truth(images[these], number)
    texts[these[false]] = number[false]
    rest = np.ones(len(texts), bool)
    rest[these[false]] = False
    return texts, rest

  def _mended(
    self, images: np.ndarray, texts: np.ndarray, rng: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    """Exchanges texts [N] that are true of their images [N]; returns also which of them still are.

    Each swaps with a random one, if both are untrue then.
    """
    texts = texts.copy()
    wrong = np.flatnonzero(self.truth(images, texts))
    for _ in range(TRIES):
      if not len(wrong):
        break
      # Disjoint pairs, so that swaps do not interfere.
      swap = np.stack([wrong, rng.integers(len(texts), size=len(wrong))], axis=1)
      first = np.zeros(swap.size, bool)
      first[np.unique(swap, return_index=True)[1]] = True
      a, b = swap[first.reshape(-1, 2).all(1)].T
      good = ~self.truth(images[a], texts[b]) & ~self.truth(images[b], texts[a])
      a, b = a[good], b[good]
      texts[a], texts[b] = texts[b], texts[a]
      wrong = np.setdiff1d(wrong, np.concatenate([a, b]), assume_unique=True)
    return texts, wrong


def _halves(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
  """Draws half of each group's places, [G, K] bool; for odd K one more in half of the groups."""
  groups, texts = shape
  more = np.arange(groups) % 2 == 1
  rng.shuffle(more)
  if texts == 1:
    return more[:, None]
  # Random numbers with the place in their low bits, so that no two of a group are equal.
  low = (texts - 1).bit_length()
  draw = rng.integers(2**32, size=(groups, texts), dtype=np.uint32)
  draw >>= np.uint32(low)
  draw <<= np.uint32(low)
  draw |= np.arange(texts, dtype=np.uint32)
  ranked = np.sort(draw, axis=1)
  if texts % 2:
    return draw < np.where(more, ranked[:, texts // 2 + 1], ranked[:, texts // 2])[:, None]
  return draw < ranked[:, texts // 2, None]
