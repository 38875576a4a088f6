"""Groups: a table of images with K texts each, and what is drawn from it for an epoch."""

import dataclasses

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth


@dataclasses.dataclass(frozen=True)
class Groups:
  """A table of G groups: an image, or a pair of images, with K texts.

  Attributes:
    canvas: [G] int, number of the canvas.
    image: [G] int, image number; [G, 2] where texts are about two images.
    text: [G, K] int, text numbers.
    matched: [G, K] bool, whether the text is true of the image.
    weight: [G, K] float32, 0 for places that only fill up a group.
  """

  canvas: np.ndarray
  image: np.ndarray
  text: np.ndarray
  matched: np.ndarray
  weight: np.ndarray

  def __len__(self) -> int:
    return len(self.canvas)

  def take(self, rows: np.ndarray) -> 'Groups':
    """Returns the groups of numbers [...], as a table of shape [...]."""
    columns = (field.name for field in dataclasses.fields(Groups))
    return Groups(**{name: getattr(self, name)[rows] for name in columns})


@dataclasses.dataclass(frozen=True)
class Shares:
  """The declared shares of a mixture's sources in an epoch.

  Attributes:
    first: [S] number of the first image of each source.
    share: [S] of the pairs of an epoch, adding up to 1.
  """

  first: tuple[int, ...]
  share: tuple[float, ...]


def keep_shares(shares: Shares, groups: Groups, rng: np.random.Generator) -> Groups:
  """Draws the groups that make up an epoch of the declared shares; their order stays.

  The number of groups of each source and canvas is the same in every epoch, so that all epochs have
  as many batches.
  """
  source = np.searchsorted(shares.first, groups.image, side='right') - 1
  pairs = np.bincount(source, groups.weight.sum(1), minlength=len(shares.first))
  share = np.array(shares.share)
  kept = share * (pairs / share).min() / np.maximum(pairs, 1)
  canvases = groups.canvas.max(initial=0) + 1
  cell = source * canvases + groups.canvas
  # A random order within each cell, of which the first are taken.
  order = np.lexsort((rng.random(len(cell)), cell))
  number, first, count = np.unique(cell[order], return_index=True, return_counts=True)
  taken = np.floor(count * kept[number // canvases] + 0.5).astype(int)
  rank = np.arange(len(cell)) - np.repeat(first, count)
  return groups.take(np.sort(order[rank < np.repeat(taken, count)]))


def mismatch_half(
  sidecar: Sidecar, groups: Groups, rng: np.random.Generator, truth: Truth | None = None
) -> Groups:
  """Makes half of each group's pairs untrue, by permuting the texts of these pairs.

  `truth` says which pairs are true; by default the sidecar's own claims or captions do.

  The few texts that are true of so many images that no place is left for them get weight 0.

  Raises:
    UserError: most texts are true of nearly every image.
  """
  g, k = groups.text.shape
  # Half of each group; where K is odd, half of the groups have one more.
  rank = np.argsort(np.argsort(rng.random((g, k)), axis=1), axis=1)
  matched = rank >= (k + (rng.permutation(g) % 2)[:, None]) // 2
  i, j = np.nonzero(~matched & (groups.weight > 0))
  images, texts = groups.image[i], rng.permutation(groups.text[i, j])
  truth = truth or Truth(sidecar)
  wrong = np.flatnonzero(truth(images, texts))
  for _ in range(200):
    if not len(wrong):
      break
    # Swap each with a random partner; disjoint pairs, so that swaps do not interfere.
    swap = np.stack([wrong, rng.integers(len(texts), size=len(wrong))], axis=1)
    first = np.zeros(swap.size, bool)
    first[np.unique(swap, return_index=True)[1]] = True
    a, b = swap[first.reshape(-1, 2).all(1)].T
    good = ~truth(images[a], texts[b]) & ~truth(images[b], texts[a])
    a, b = a[good], b[good]
    texts[a], texts[b] = texts[b], texts[a]
    wrong = np.setdiff1d(wrong, np.concatenate([a, b]), assume_unique=True)
  if 2 * len(wrong) > len(texts):
    raise UserError(
      f'{len(wrong)} of {len(texts)} texts are true of nearly every image, for example '
      f'{sidecar.caption(texts[wrong[0]])!r}: no image is left to mismatch them with; '
      'if they are longer than text.length, so that what tells them apart is cut, raise it'
    )
  text, weight = groups.text.copy(), groups.weight.copy()
  text[i, j] = texts
  weight[i[wrong], j[wrong]] = 0
  return dataclasses.replace(groups, text=text, matched=matched, weight=weight)
