"""Defines scenes and draws them from a seed.

All attributes of all things are drawn independently and uniformly, so that no word in a text
predicts another. Lengths are in pixels.
"""

import dataclasses
import math

import numpy as np

COLOURS = {
  'red': (220, 40, 35),
  'green': (40, 170, 60),
  'blue': (45, 85, 235),
  'yellow': (240, 215, 40),
  'purple': (155, 45, 190),
  'white': (240, 240, 240),
  'pink': (255, 145, 190),
  'cyan': (60, 215, 225),
  'black': (14, 14, 14),
}
SIZES = ('small', 'large')
PATTERNS = ('stripes', 'dots')
PLAIN = 'plain'
PLACES = ('left', 'right', 'top', 'bottom')
OPPOSITE = {'left': 'right', 'right': 'left', 'top': 'bottom', 'bottom': 'top'}

# Shares of the image's width or height. Positions that differ by less are never stated.
PLACE_MARGIN = 0.12
RELATION_MARGIN = 0.16


def _ring(points: int, radii: tuple[float, ...] = (1.0,)) -> tuple[tuple[float, float], ...]:
  """Computes points around the unit circle from the top, with `radii` in turn."""
  angles = [2 * math.pi * i / points for i in range(points)]
  radius = [radii[i % len(radii)] for i in range(points)]
  return tuple((r * math.sin(a), -r * math.cos(a)) for a, r in zip(angles, radius, strict=True))


# Polygons around the centre, in radii, y downwards.
OUTLINES = {
  'circle': _ring(48),
  'square': ((-0.76, -0.76), (0.76, -0.76), (0.76, 0.76), (-0.76, 0.76)),
  'triangle': ((0, -1), (0.92, 0.62), (-0.92, 0.62)),
  'cross': (
    *((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)),
    *((0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)),
  ),
  'star': _ring(10, (1.0, 0.42)),
  'ring': _ring(48),
}
HOLES = {'ring': 0.58}


@dataclasses.dataclass(frozen=True)
class Difficulty:
  """The parameters of scenes.

  Attributes:
    name: also of the TFDS configuration.
    canvases: (width, height) of images, drawn uniformly.
    most: a scene has 1 to `most` things, drawn uniformly.
    shapes: keys of OUTLINES.
    colours: keys of COLOURS.
    patterns: elements of PATTERNS; if empty, all things are plain.
    radius: the range of a thing's radius for each of SIZES.
    clutter: number of faint strokes on the background.
  """

  name: str
  canvases: tuple[tuple[int, int], ...]
  most: int
  shapes: tuple[str, ...]
  colours: tuple[str, ...]
  patterns: tuple[str, ...]
  radius: tuple[tuple[float, float], ...]
  clutter: int


DIFFICULTIES = {
  d.name: d
  for d in (
    Difficulty(
      name='easy',
      canvases=((64, 64), (64, 48), (48, 64), (64, 56), (56, 64)),
      most=2,
      shapes=tuple(OUTLINES)[:4],
      colours=tuple(COLOURS)[:6],
      patterns=(),
      radius=((8.5, 9.5), (14.0, 15.5)),
      clutter=0,
    ),
    Difficulty(
      name='medium',
      canvases=((96, 96), (96, 72), (72, 96), (96, 84), (84, 96)),
      most=3,
      shapes=tuple(OUTLINES)[:5],
      colours=tuple(COLOURS)[:8],
      patterns=PATTERNS,
      radius=((8.0, 9.5), (15.0, 17.0)),
      clutter=4,
    ),
    Difficulty(
      name='hard',
      canvases=((128, 128), (128, 112), (112, 128), (128, 120), (120, 128)),
      most=5,
      shapes=tuple(OUTLINES),
      colours=tuple(COLOURS),
      patterns=PATTERNS,
      radius=((8.5, 10.0), (16.0, 18.0)),
      clutter=10,
    ),
  )
}


@dataclasses.dataclass(frozen=True)
class Thing:
  """A coloured shape; (x, y) is its centre, `rgb` its colour as painted."""

  shape: str
  colour: str
  size: str
  pattern: str
  x: float
  y: float
  radius: float
  rgb: tuple[int, int, int]

  @property
  def box(self) -> tuple[int, int, int, int]:
    """Bounding box (x0, y0, x1, y1) in integer pixels; x1 and y1 are exclusive."""
    across, down = zip(*OUTLINES[self.shape], strict=True)
    return (
      math.floor(self.x + self.radius * min(across)),
      math.floor(self.y + self.radius * min(down)),
      math.ceil(self.x + self.radius * max(across)),
      math.ceil(self.y + self.radius * max(down)),
    )


@dataclasses.dataclass(frozen=True)
class Background:
  """A gradient of two muted colours along `angle` (radians), with noise and strokes.

  `noise` is a standard deviation (of 255), `clutter` the number of strokes, `seed` that of both.
  """

  start: tuple[int, int, int]
  end: tuple[int, int, int]
  angle: float
  noise: float
  clutter: int
  seed: int


@dataclasses.dataclass(frozen=True)
class Scene:
  """The content of an image.

  Positions are continuous, and colours nearly so; therefore scenes of different seeds differ.
  """

  width: int
  height: int
  background: Background
  things: tuple[Thing, ...]

  def places(self, thing: Thing) -> tuple[str, ...]:
    """Returns the elements of PLACES where the thing clearly is."""
    across, down = thing.x / self.width - 0.5, thing.y / self.height - 0.5
    values = {'left': -across, 'right': across, 'top': -down, 'bottom': down}
    return tuple(place for place, value in values.items() if value > PLACE_MARGIN)

  def left_of(self, a: Thing, b: Thing) -> bool:
    """Returns whether a is clearly left of b."""
    return b.x - a.x > RELATION_MARGIN * self.width

  def above(self, a: Thing, b: Thing) -> bool:
    """Returns whether a is clearly above b."""
    return b.y - a.y > RELATION_MARGIN * self.height


def sample(rng: np.random.Generator, difficulty: Difficulty) -> Scene:
  """Draws a scene."""
  width, height = difficulty.canvases[rng.integers(len(difficulty.canvases))]
  looks = _looks(rng, difficulty)
  radii = np.array([rng.uniform(*difficulty.radius[SIZES.index(size)]) for _, _, size, _ in looks])
  centres = _layout(rng, radii, width, height)
  things = tuple(
    Thing(*look, x=float(x), y=float(y), radius=float(radius), rgb=_paint(rng, look[1]))
    for look, (x, y), radius in zip(looks, centres, radii, strict=True)
  )
  return Scene(width, height, _background(rng, difficulty), things)


def _looks(rng: np.random.Generator, difficulty: Difficulty) -> list[tuple[str, ...]]:
  """Draws (shape, colour, size, pattern) of each thing; all differ."""
  number = rng.integers(1, difficulty.most + 1)
  # With two patterns, three in five things are plain, independently of other attributes.
  patterns = (PLAIN,) * 6 + difficulty.patterns * 2
  attributes = (difficulty.shapes, difficulty.colours, SIZES, patterns)
  while True:
    looks = [tuple(a[rng.integers(len(a))] for a in attributes) for _ in range(number)]
    if len(set(looks)) == number:
      return looks


def _layout(rng: np.random.Generator, radii: np.ndarray, width: int, height: int) -> np.ndarray:
  """Draws [K, 2], centres of disjoint discs inside the image, uniformly over all such layouts."""
  low = radii[:, None] + 1
  high = np.array([width, height]) - low
  apart = radii[:, None] + radii + 3
  np.fill_diagonal(apart, 0)
  # Only positions are redrawn: redrawing sizes would favour small things.
  while True:
    centres = rng.uniform(low, high, (16, len(radii), 2))
    distance = np.hypot(*np.moveaxis(centres[:, :, None] - centres[:, None], -1, 0))
    fits = (distance >= apart).all((1, 2))
    if fits.any():
      return centres[fits.argmax()]


def _paint(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
  """Draws the RGB of a colour, with slight variation of brightness and hue."""
  rgb = np.array(COLOURS[colour]) * rng.uniform(0.92, 1.05) + rng.uniform(-10, 10, 3)
  return tuple(int(v) for v in rgb.clip(0, 255))


def _background(rng: np.random.Generator, difficulty: Difficulty) -> Background:
  """Draws a background, grey to brown and of middle brightness, unlike any thing's colour."""

  def muted() -> tuple[int, int, int]:
    brownness = rng.uniform(0, 0.22)
    rgb = rng.uniform(65, 115) * np.array([1 + brownness, 1, 1 - brownness])
    return tuple(int(v) for v in rgb)

  start = muted()
  return Background(
    start=start,
    end=muted() if rng.random() < 0.5 else start,
    angle=float(rng.uniform(0, 2 * math.pi)),
    noise=float(rng.uniform(0, 6)),
    clutter=difficulty.clutter,
    seed=int(rng.integers(2**32)),
  )
