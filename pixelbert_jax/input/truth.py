"""Truth: which texts are true of which images, as far as a dataset knows."""

import dataclasses

import numpy as np

from pixelbert_jax.input.equal import token_numbers
from pixelbert_jax.input.ragged import Ragged, concatenated
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer

CHUNK = 1 << 18  # pairs at a time: what they need stays in the processor's caches


class Truth:
  """Tells whether texts are true of images: by claims or, without these, as captions are listed.

  Given a tokeniser, a text is also true of an image if a model reads it like one of the image's
  captions (`equal.py`). Numbers from N on are foils: the sidecar's strings.

  Attributes:
    claim: [N] int32, the claim of each text.
    claims: ragged int over images, the claims that are true of each.
    number: upper bound of the claims: all are smaller.
  """

  def __init__(self, sidecar: Sidecar, tokenizer: Tokenizer | None = None):
    texts, foils = len(sidecar.text), len(sidecar.strings) if len(sidecar.foils.values) else 0
    if tokenizer:
      text = concatenated([sidecar.text, sidecar.strings]) if foils else sidecar.text
      read = token_numbers(text, tokenizer)
    else:  # With claims it is not used.
      read = sidecar.claim if len(sidecar.claim) else text_numbers(sidecar.text)
    read = read.astype(np.int32)
    own = dataclasses.replace(sidecar.captions, values=read[:texts])
    if len(sidecar.claim):
      self.claim, self.claims, claimed = sidecar.claim, sidecar.claims, sidecar.claim
    else:
      # Equal texts are one claim, and the claims of an image are its captions. In some corpora a
      # text is a caption of several images.
      self.claim, self.claims, claimed = own.values, own, read
    self.number = int(max(claimed.max(initial=0), self.claims.values.max(initial=0))) + 1
    if len(claimed) < texts + foils:  # What a foil claims is not known; no image has this number.
      claimed = np.append(claimed, np.full(foils, self.number))
    self._true = [(claimed, self.number + 1, _pairs(self.claims, self.number + 1))]
    if tokenizer and len(sidecar.claim) and (foils or _differ(own.values, sidecar.claim)):
      self._true.append((read, len(read), _pairs(own, len(read))))

  def __call__(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Tells, [N] bool, whether texts of numbers [N] are true of images of numbers [N]."""
    found = np.zeros(len(texts), bool)
    for begin in range(0, len(texts), CHUNK):
      rows = slice(begin, begin + CHUNK)
      image, text = images[rows].astype(np.int64), texts[rows]
      for number, most, pairs in self._true:
        key = image * most + number[text]
        place = np.searchsorted(pairs, key).clip(max=len(pairs) - 1)
        found[rows] |= pairs[place] == key
    return found


def _pairs(claims: Ragged, most: int) -> np.ndarray:
  """Returns each image's number times `most` plus each of its claims, sorted."""
  rows = np.repeat(np.arange(len(claims)), np.diff(claims.start))
  rows *= most
  rows += claims.values
  rows.sort()
  return rows


def _differ(read: np.ndarray, claim: np.ndarray) -> bool:
  """Tells whether texts that are read alike have different claims."""
  return len(np.unique(read)) < len(
    np.unique(read.astype(np.int64) * (int(claim.max()) + 1) + claim)
  )


def text_numbers(text: Ragged) -> np.ndarray:
  """Numbers texts, [N] int64 below N: equal texts get equal numbers, different ones different.

  Each text is hashed to 64 bits: the sum of its bytes times an odd random number for each place.
  Five million texts take seconds. The probability that any two of them collide is a millionth; then
  that one pair of texts is never drawn as untrue of each other's images.
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
    # The end counts too; else a text that ends in NUL would equal the one without it.
    running = np.append(np.uint64(0), np.cumsum(values * factor[place]))
    hashes[first : first + chunk] = running[start + length] - running[start] + factor[length]
  return np.unique(hashes, return_inverse=True)[1]
