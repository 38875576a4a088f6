"""Canvases: the few static shapes on which images are placed."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.input import image


@dataclasses.dataclass(frozen=True)
class Canvases:
  """How images are resized, and the static shapes on which they are placed.

  Attributes:
    shorter: pixels of the shorter side after resizing.
    longer: limit of the longer side, in pixels.
    shapes: (height, width) of each canvas; of pairs of images also (height, width, height, width),
      one canvas for the left image and one for the right.
  """

  shorter: int
  longer: int
  shapes: tuple[tuple[int, ...], ...]

  @functools.cached_property
  def sides(self) -> np.ndarray:
    """The shapes as [K, n, 2], where n is 2 if any is for a pair of images, else 1."""
    images = max(map(len, self.shapes)) // 2
    return np.array([np.resize(shape, (images, 2)) for shape in self.shapes])

  def target(self, size: np.ndarray) -> np.ndarray:
    """Computes sizes [..., 2] int32 after resizing, from those of the files [..., 2]."""
    return image.target_size(size, self.shorter, self.longer)

  def choose(self, size: np.ndarray) -> np.ndarray:
    """Chooses a canvas [I] for images of sizes [I, 2], or for pairs of images, [I, 2, 2].

    Raises:
      UserError: an image, or a pair, fits no canvas.
    """
    target, sides = self.target(size), self.sides
    if sides.shape[1] == 1:
      return image.choose_canvas(target.max(1) if target.ndim == 3 else target, self.shapes)
    if target.ndim == 2:
      raise UserError(
        f'image.canvases {self.shapes}: those of four numbers are for pairs of images, and this '
        'task reads single ones: leave them out'
      )
    fits = (target[:, None] <= sides).all((-2, -1))
    if not fits.any(-1).all():
      left, right = ('{}x{}'.format(*x) for x in target[~fits.any(-1)][0])
      raise UserError(
        f'image.canvases {self.shapes} hold no pair of images of {left} and {right}: add a canvas'
      )
    return np.where(fits, self.area, np.iinfo(np.int64).max).argmin(-1)

  @functools.cached_property
  def area(self) -> np.ndarray:
    """The pixels [K] of each shape."""
    return self.sides.prod(-1).sum(-1)

  def fill(
    self, canvas: np.ndarray, least: int, rng: np.random.Generator
  ) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Moves groups so that each canvas has none or at least `least`, as far as canvases allow.

    The groups of a canvas with too few move to the smallest larger canvas that then has enough, or
    else to the smallest larger one. A canvas that still has too few gets groups of the fullest
    canvas that it holds. How many move where does not depend on the random draws.

    Args:
      canvas: [G] int, number of the canvas of each group.
      least: groups in a batch.
      rng: draws which groups move.

    Returns:
      The new canvases [G], and the moves: pairs of canvases (from, to), in order.
    """
    sides, area, canvas, moves = self.sides, self.area, canvas.copy(), []
    others = ~np.eye(len(sides), dtype=bool)
    holds = (sides[:, None] <= sides).all((-2, -1)) & others  # [smaller, larger]
    count = np.bincount(canvas, minlength=len(sides))

    def move(groups: np.ndarray, source: int, target: int) -> None:
      canvas[groups] = target
      count[source], count[target] = count[source] - len(groups), count[target] + len(groups)
      moves.append((int(source), int(target)))

    for number in np.argsort(area, kind='stable').tolist():
      larger = np.flatnonzero(holds[number])
      if 0 < count[number] < least and len(larger):
        enough = count[larger] + count[number] >= least
        target = larger[np.lexsort((area[larger], ~enough))[0]]
        move(np.flatnonzero(canvas == number), number, target)
    for number in range(len(sides)):
      short, fullest = least - count[number], int((count * holds[:, number]).argmax())
      if 0 < short < least and holds[fullest, number] and count[fullest] >= least + short:
        move(rng.permutation(np.flatnonzero(canvas == fullest))[:short], fullest, number)
    return canvas, moves

  def sources(
    self, size: np.ndarray, moves: Sequence[tuple[int, int]] = ()
  ) -> list[tuple[int, int]]:
    """Computes the shape of the host canvas for each canvas of the model.

    It is the smallest shape that holds all images of that canvas at their `placed_size`.

    Args:
      size: of images or pairs of images, as for `choose`.
      moves: those of `fill`.
    """
    placed, canvas = image.placed_size(size, self.target(size)), self.choose(size)
    gets = [{number} for number in range(len(self.shapes))]
    for source, target in moves:
      gets[target] |= gets[source]
    members = (placed[np.isin(canvas, list(numbers))].reshape(-1, 2) for numbers in gets)
    return [tuple(m.max(0, initial=1).tolist()) for m in members]
