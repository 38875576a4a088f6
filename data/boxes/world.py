"""Draws pictures as NLVR's: three boxes, each with a tower of blocks or with scattered items."""

import dataclasses

import numpy as np

from pixelbert_jax.input.boxes import COLOURS

SIDE = 100  # of a box, in pixels
SHAPES = ('circle', 'square', 'triangle')
SIZES = (10, 20, 30)
MOST_BLOCKS, MOST_ITEMS = 4, 7
GAP = 1  # between items
# Of scattered items, those that touch the right edge, and the bottom; others stay away from all.
TOUCHING, CLEAR = 0.2, 4
TRIES = 200


@dataclasses.dataclass(frozen=True)
class Item:
  """A coloured shape; (x, y) is the top left corner in its box, in pixels, y downwards."""

  shape: str
  colour: str
  x: int
  y: int
  size: int

  @property
  def edges(self) -> int:
    """The number of edges of the box that it touches."""
    ends = self.x, self.y, SIDE - self.x - self.size, SIDE - self.y - self.size
    return sum(end == 0 for end in ends)

  @property
  def on_bottom(self) -> bool:
    return self.y + self.size == SIDE


Box = tuple[Item, ...]  # of a tower from the base up
Picture = tuple[Box, Box, Box]


def is_tower(picture: Picture) -> bool:
  """Tells whether the boxes hold towers."""
  size = SIZES[1]
  return all(i.shape == 'square' and (i.x, i.size) == (40, size) for box in picture for i in box)


def sample(rng: np.random.Generator) -> Picture:
  """Draws a picture."""
  box = _tower if rng.random() < 0.6 else _scattered
  return box(rng), box(rng), box(rng)


def _tower(rng: np.random.Generator) -> Box:
  size = SIZES[1]
  colours = _some(rng, tuple(COLOURS), int(rng.integers(1, MOST_BLOCKS + 1)))
  return tuple(
    Item('square', colour, 40, SIDE - size - i * (size + GAP), size)
    for i, colour in enumerate(colours)
  )


def _scattered(rng: np.random.Generator) -> Box:
  items: list[Item] = []
  wanted = rng.integers(1, MOST_ITEMS + 1)
  for _ in range(TRIES):
    size = int(rng.choice(SIZES))
    x, y = rng.integers(CLEAR, SIDE - size - CLEAR, 2).tolist()
    right, bottom = (rng.random(2) < TOUCHING).tolist()
    x, y = SIDE - size if right else x, SIDE - size if bottom else y
    shape, colour = _some(rng, SHAPES, 1)[0], _some(rng, tuple(COLOURS), 1)[0]
    item = Item(shape, colour, x, y, size)
    if all(_apart(item, other) for other in items):
      items.append(item)
    if len(items) == wanted:
      break
  return tuple(items)


def _apart(a: Item, b: Item) -> bool:
  across = max(a.x, b.x) - min(a.x + a.size, b.x + b.size)
  down = max(a.y, b.y) - min(a.y + a.size, b.y + b.size)
  return max(across, down) >= GAP


def _some(rng: np.random.Generator, values: tuple[str, ...], number: int) -> list[str]:
  return [values[i] for i in rng.integers(len(values), size=number)]
