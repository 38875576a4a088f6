"""Canvases: the few static shapes that images are resized to and placed on."""

import dataclasses

import numpy as np

from pixelbert_jax.input import image


@dataclasses.dataclass(frozen=True)
class Canvases:
  """How images are resized, and the static shapes they are put on.

  Attributes:
    shorter: pixels of the shorter side after resizing.
    longer: limit of the longer side.
    shapes: (height, width) of each canvas.
  """

  shorter: int
  longer: int
  shapes: tuple[tuple[int, int], ...]

  def target(self, size: np.ndarray) -> np.ndarray:
    """Sizes [..., 2] after resizing."""
    return image.target_size(size, self.shorter, self.longer)

  def choose(self, size: np.ndarray) -> np.ndarray:
    """[I] numbers of the canvases of images of sizes [I, 2], or of pairs that share one, [I, 2, 2].

    Raises:
      UserError: an image, or a pair, fits no canvas.
    """
    target = self.target(size)
    return image.choose_canvas(target.max(1) if target.ndim == 3 else target, self.shapes)

  def fill(self, canvas: np.ndarray, least: int, rng: np.random.Generator) -> np.ndarray:
    """Moves groups [G] so that no canvas has fewer than `least` of them, but has none or enough.

    Those of a canvas with too few go to the next larger one. What then stands alone on a canvas
    that nothing larger holds is joined by others of the fullest that it holds. How many go where is
    the same whatever is drawn.
    """
    shapes, canvas = np.array(self.shapes), canvas.copy()
    area, others = shapes.prod(-1), ~np.eye(len(shapes), dtype=bool)
    holds = (shapes[:, None] <= shapes).all(-1) & others  # [smaller, larger]
    for number in np.argsort(area, kind='stable'):
      members = canvas == number
      if 0 < members.sum() < least and holds[number].any():
        canvas[members] = min(np.flatnonzero(holds[number]), key=lambda larger: area[larger])
    count = np.bincount(canvas, minlength=len(shapes))
    for number in np.flatnonzero((count > 0) & (count < least)):
      fullest = (count * holds[:, number]).argmax()
      if count[fullest] * holds[fullest, number] >= 2 * least - count[number]:
        there = rng.permutation(np.flatnonzero(canvas == fullest))
        canvas[there[: least - count[number]]] = number
    return canvas

  def sources(self, size: np.ndarray) -> list[tuple[int, int]]:
    """For each canvas the smallest that holds what it may get, as it travels; sizes as of `choose`.

    That is its own images and, by `fill`, those of smaller canvases.
    """
    shapes, canvas = np.array(self.shapes), self.choose(size)
    placed = image.placed_size(size, self.target(size))
    members = (placed[(shapes[canvas] <= shape).all(-1)].reshape(-1, 2) for shape in shapes)
    return [tuple(m.max(0, initial=1).tolist()) for m in members]
