"""Canvases: the few static shapes on which images are placed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pixelbert_jax.input import image


@dataclasses.dataclass(frozen=True)
class Canvases:
  """How images are resized, and the static shapes on which they are placed.

  Attributes:
    shorter: pixels of the shorter side after resizing.
    longer: limit of the longer side, in pixels.
    shapes: (height, width) of each canvas.
  """

  shorter: int
  longer: int
  shapes: tuple[tuple[int, int], ...]

  def target(self, size: np.ndarray) -> np.ndarray:
    """Computes sizes [..., 2] int32 after resizing, from those of the files [..., 2]."""
    return image.target_size(size, self.shorter, self.longer)

  def choose(self, size: np.ndarray) -> np.ndarray:
    """Chooses a canvas [I] for images of sizes [I, 2], or for pairs of images, [I, 2, 2].

    Raises:
      UserError: an image, or a pair, fits no canvas.
    """
    target = self.target(size)
    return image.choose_canvas(target.max(1) if target.ndim == 3 else target, self.shapes)

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
    shapes, canvas, moves = np.array(self.shapes), canvas.copy(), []
    area, others = shapes.prod(-1), ~np.eye(len(shapes), dtype=bool)
    holds = (shapes[:, None] <= shapes).all(-1) & others  # [smaller, larger]
    count = np.bincount(canvas, minlength=len(shapes))

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
    for number in range(len(shapes)):
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
