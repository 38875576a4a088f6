"""The user's own images: files, Pillow images or arrays, read ahead and grouped by shape."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import grain
import numpy as np
from PIL import Image

from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.image import ImageError
from pixelbert_jax.input.pipeline import Batch

Photo = str | os.PathLike | Image.Image | np.ndarray

THREADS = min(8, os.cpu_count() or 1)
AHEAD = 32  # images that are decoded before they are needed


@dataclasses.dataclass(frozen=True)
class Placed:
  """An image as it goes to the device.

  Attributes:
    number: its index in the caller's list.
    pixels: [h, w, 3] uint8 RGB, upright, at the size sent to the device (`image.placed_size`).
    size: (height, width) at which the model sees it.
    canvas: (height, width) of the canvas that the model sees it on.
  """

  number: int
  pixels: np.ndarray
  size: tuple[int, int]
  canvas: tuple[int, int]

  @property
  def source(self) -> tuple[int, int]:
    """The canvas (height, width) on which it is sent to the device.

    It is one of two per canvas of the model, which bounds the number of compiled shapes.
    """
    if (np.array(self.pixels.shape[:2]) <= self.canvas).all():
      return self.canvas
    return image_lib.WHOLE * self.canvas[0], image_lib.WHOLE * self.canvas[1]


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader that places images as training does.

  Attributes:
    canvases: those of the model.
    stride: the side of a cell of its feature map, in pixels.
  """

  canvases: Canvases
  stride: int

  def __call__(self, photo: Photo, number: int = 0) -> Placed:
    """Reads one image.

    Raises:
      ImageError: it cannot be read as an image, or is too narrow for the model.
    """
    name = _name(photo, number)
    if isinstance(photo, (Image.Image, np.ndarray)):
      whole = pixels_of(photo, number)
      target, canvas = self._fit(np.array(whole.shape[:2]), name)
      pixels = image_lib.reduce(whole, target)
    else:
      data = _data(photo, number)
      size = np.array(image_lib.file_size(data, name))
      target, canvas = self._fit(size, name)
      pixels = image_lib.load(data, size, target, name)
    return Placed(number, pixels, tuple(target.tolist()), canvas)

  def _fit(self, size: np.ndarray, name: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Chooses size and canvas of an image for the model, as in training.

    An image that would then fit no canvas (an upright one where all are wide, for example) is
    reduced further, to fit the canvas on which it stays largest.
    """
    shapes, target = self.canvases.shapes, self.canvases.target(size)
    if not (target <= shapes).all(-1).any():
      scale = (np.array(shapes) / size).min(-1).max()
      target = np.maximum(np.floor(size * scale + 1e-6), 1).astype(np.int32)
    if target.min() < self.stride:
      sizes = 'x'.join(map(str, size)), 'x'.join(map(str, target))
      raise ImageError(
        f'{name}: {sizes[0]} pixels (height x width) become {sizes[1]}, which is too narrow for '
        f'the cells of {self.stride}x{self.stride} pixels of this model: cut it into parts'
      )
    height, width = shapes[image_lib.choose_canvas(target[None], shapes)[0]]
    return target, (height, width)

  def stream(
    self, photos: Sequence[Photo], unreadable: dict[int, str] | None = None
  ) -> Iterator[Placed]:
    """Yields images in order; threads decode them ahead.

    With `unreadable`, the reason for each image that cannot be read is put there by its index;
    without it, ImageError is raised.
    """

    def read(number: int, photo: Photo) -> Placed | ImageError:
      try:
        return self(photo, number)
      except ImageError as error:
        if unreadable is None:
          raise
        return error

    placed = grain.MapDataset.source(photos).map_with_index(read)
    for number, image in enumerate(placed.to_iter_dataset(grain.ReadOptions(THREADS, AHEAD))):
      if isinstance(image, ImageError):
        assert unreadable is not None
        unreadable[number] = str(image)
      else:
        yield image


def gathered(placed: Iterable[Placed], size: int) -> Iterator[list[Placed]]:
  """Groups images by shape, `size` at a time; only the last group of a shape may be smaller."""
  waiting: dict[tuple, list[Placed]] = collections.defaultdict(list)
  for image in placed:
    shape = image.canvas, image.source
    waiting[shape].append(image)
    if len(waiting[shape]) == size:
      yield waiting.pop(shape)
  yield from waiting.values()


def batch_of(group: Sequence[Placed], rows: int) -> Batch:
  """Makes the batch that `image.model_input` takes, and `size`, from images of one shape.

  The first image of the group pads the batch to `rows`.
  """
  group = [*group, *[group[0]] * (rows - len(group))]
  pixels = np.zeros((rows, *group[0].source, 3), np.uint8)
  for image, canvas in zip(group, pixels, strict=True):
    image_lib.place(image.pixels, canvas)
  return {
    'image': pixels,
    'source_size': np.array([image.pixels.shape[:2] for image in group], np.int32),
    'size': np.array([image.size for image in group], np.int32),
    'canvas': np.zeros((rows, *group[0].canvas, 0), np.uint8),
  }


def pixels_of(photo: Photo, number: int = 0) -> np.ndarray:
  """Returns all pixels of an image [H, W, 3] uint8 RGB, upright.

  Raises:
    ImageError: it cannot be read as an image.
  """
  if isinstance(photo, Image.Image):
    return image_lib.from_picture(photo, _name(photo, number))
  if not isinstance(photo, np.ndarray):
    return image_lib.decode(_data(photo, number), _name(photo, number))
  pixels = photo[..., None] if photo.ndim == 2 else photo
  if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4):
    raise ImageError(
      f'{_name(photo, number)}: expected uint8 [height, width, 3], got an array '
      f'{list(photo.shape)} of {photo.dtype}'
    )
  if not pixels.size:
    raise ImageError(f'{_name(photo, number)}: an array {list(photo.shape)} has no pixels')
  channels = [0, 0, 0] if pixels.shape[-1] == 1 else [0, 1, 2]
  return np.ascontiguousarray(pixels[..., channels])


def listed(photos: Photo | Iterable[Photo]) -> list[Photo]:
  """Returns one image or several as a list; an array of four axes is several images."""
  if isinstance(photos, (str, os.PathLike, Image.Image)):
    return [photos]
  if isinstance(photos, np.ndarray) and photos.ndim < 4:
    return [photos]
  if not isinstance(photos, Iterable):
    raise ImageError(
      f'expected images: a path, a Pillow image, an array, or several of these, got '
      f'{type(photos).__name__}'
    )
  return list(photos)


def distinct(photos: Sequence[Photo]) -> tuple[list[Photo], list[int]]:
  """Returns the distinct images, and for each photo the index of its image among them."""
  number: dict[object, int] = {}
  which = [number.setdefault(_key(photo), len(number)) for photo in photos]
  first = dict(zip(reversed(which), reversed(photos), strict=True))
  return [first[i] for i in range(len(number))], which


def _key(photo: Photo) -> object:
  return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else id(photo)


def _name(photo: Photo, number: int) -> str:
  return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else f'image {number}'


def _data(photo: Photo, number: int) -> bytes:
  """Reads the bytes of a file; ImageError if it cannot be read, or is no path."""
  if not isinstance(photo, (str, os.PathLike)):
    raise ImageError(
      f'image {number}: expected a path, a Pillow image or an array, got {type(photo).__name__}'
    )
  try:
    return pathlib.Path(photo).read_bytes()
  except OSError as error:
    raise ImageError(f'{photo}: {error.strerror}: give the path of an image') from error
