"""Groups: a table of images with K texts each, and what is drawn from it for an epoch."""

import dataclasses

import numpy as np


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
  # Images are few beside their groups.
  first = np.array(shares.first)
  images = np.arange(groups.image.max(initial=-1) + 1)
  source = (np.searchsorted(first, images, side='right') - 1)[groups.image]
  pairs = np.bincount(source, groups.weight.sum(1), minlength=len(first))
  share = np.array(shares.share)
  kept = share * (pairs / share).min() / np.maximum(pairs, 1)
  canvases = int(groups.canvas.max(initial=0)) + 1
  cell = source * canvases + groups.canvas
  taken = np.zeros(len(cell), bool)
  for number, count in enumerate(np.bincount(cell)):
    members = np.flatnonzero(cell == number)
    rng.shuffle(members)
    taken[members[: int(count * kept[number // canvases] + 0.5)]] = True
  return groups.take(np.flatnonzero(taken))
