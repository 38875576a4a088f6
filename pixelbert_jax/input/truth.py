"""Which texts are true of which images, as far as a dataset says."""

import dataclasses

import numpy as np

from pixelbert_jax.input.sidecar import Ragged, Sidecar


class Truth:
  """Whether texts are true of images, by their claims; without claims, by being listed there.

  Attributes:
    claim: [N] int, what each text claims.
    claims: ragged int over images, all that are true of each.
    number: of claims; all are below it.
  """

  def __init__(self, sidecar: Sidecar):
    if len(sidecar.claim):
      self.claim, self.claims = sidecar.claim, sidecar.claims
    else:
      # Each text claims itself, and images make true just what is listed with them. Corpora list
      # some texts with several images.
      self.claim = text_numbers(sidecar.text)
      self.claims = dataclasses.replace(sidecar.captions, values=self.claim)
    self.number = int(max(self.claim.max(initial=0), self.claims.values.max(initial=0))) + 1
    rows = np.repeat(np.arange(len(self.claims)), np.diff(self.claims.start))
    self._true = np.sort(rows * self.number + self.claims.values)

  def __call__(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Image numbers [N] and caption numbers [N] to [N] bool."""
    key = images * self.number + self.claim[texts]
    found = np.searchsorted(self._true, key).clip(max=len(self._true) - 1)
    return self._true[found] == key


def text_numbers(text: Ragged) -> np.ndarray:
  """[N] int64 below N: the same number for the same bytes, and (but for chance) for no others.

  Five million texts take seconds: each is hashed to 64 bits, as the sum of its bytes times an odd
  random number for each place. Two of so many collide with a probability of a millionth, and what
  that does is to keep one pair of them from being called untrue.
  """
  lengths = np.diff(text.start)
  factor = np.random.default_rng(0).integers(
    2**64, size=lengths.max(initial=0) + 1, dtype=np.uint64
  ) | np.uint64(1)
  hashes = np.empty(len(text), np.uint64)
  chunk = 2**18
  for first in range(0, len(text), chunk):
    length = lengths[first : first + chunk]
    start = np.cumsum(length) - length
    place = np.arange(length.sum()) - np.repeat(start, length)
    begin = text.start[first]
    values = text.values[begin : begin + len(place)].astype(np.uint64)
    # The end counts too, or texts that end in NUL would be as without.
    running = np.append(np.uint64(0), np.cumsum(values * factor[place]))
    hashes[first : first + chunk] = running[start + length] - running[start] + factor[length]
  return np.unique(hashes, return_inverse=True)[1]
