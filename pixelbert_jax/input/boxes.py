"""Changes of NLVR's pictures, three boxes side by side, that leave their sentences true or false.

Each box may be mirrored, and the three colours exchanged in picture and sentence at once. The boxes
are not put in another order: the six images of an example are all orders already. Nothing is turned
upside down, since most sentences say what is on what, or touches the bottom.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np

from pixelbert_jax.input.pipeline import SIDES

COLOURS = {'black': (0, 0, 0), 'yellow': (255, 255, 0), 'blue': (0, 153, 255)}
GROUND = (211, 211, 211)  # of a box
BOXES = ((0, 2), (3, 5), (6, 8))  # eighths of the width at which each begins and ends
ORDERS = tuple(itertools.permutations(range(len(COLOURS))))  # the first changes nothing

# Colours within words too ('blacks', 'ablue'). A sentence that may name one otherwise keeps its
# colours: these are a misspelling in dev, and likely ones of train.
NAMES = re.compile('|'.join(COLOURS), re.IGNORECASE)
MISSPELT = re.compile(
  r'\b(bule|bleu|blu|balck|blak|blcak|blakc|yelow|yello|yellwo|yelllow)s?\b', re.I
)


class Change(NamedTuple):
  """A change of a picture and its sentences.

  Attributes:
    mirrored: whether each box is.
    order: of ORDERS; of COLOURS, number i becomes number order[i].
  """

  mirrored: Sequence[bool]
  order: tuple[int, ...]

  @classmethod
  def of(cls, texts: Iterable[str], mirrored: Sequence[bool], order: tuple[int, ...]) -> Self:
    """Makes a change as drawn, less what might make a sentence of the picture untrue."""
    said = ' '.join(texts)
    return cls(
      (False,) * len(BOXES) if SIDES.search(said) else mirrored,
      ORDERS[0] if MISSPELT.search(said) else order,
    )

  def picture(self, pixels: np.ndarray) -> np.ndarray:
    """Returns a changed picture [h, w, 3] uint8."""
    changed, width = pixels.copy(), pixels.shape[1]
    for (start, end), mirrored in zip(BOXES, self.mirrored, strict=True):
      place = slice(width * start // 8, width * end // 8)
      box = pixels[:, place][:, :: -1 if mirrored else 1]
      changed[:, place] = box if self.order == ORDERS[0] else _recoloured(box, self.order)
    return changed

  def sentence(self, text: str) -> str:
    """Returns a changed sentence."""
    names = list(COLOURS)
    return NAMES.sub(lambda found: names[self.order[names.index(found[0].lower())]], text)


def _recoloured(pixels: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
  # Edges of shapes mix a colour with the ground: an affine map takes these mixtures along.
  homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)
  return np.rint(homogeneous @ _map(order)).clip(0, 255).astype(np.uint8)


@functools.cache
def _map(order: tuple[int, ...]) -> np.ndarray:
  """Computes [4, 3], the affine map that exchanges the colours and keeps the ground."""
  colours = np.array([*COLOURS.values(), GROUND], float)
  exchanged = colours[[*order, len(order)]]
  return np.linalg.solve(np.c_[colours, np.ones(len(colours))], exchanged)
