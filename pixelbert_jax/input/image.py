"""Images: from encoded bytes to a canvas on the host, and to the model's pixels on the device.

The host only decodes and places; the accelerator resizes and normalises. Every size follows from
the image file's own size, so a plan knows the shape of each batch before anything is read.
"""

import io
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from pixelbert_jax import UserError


class ImageError(UserError):
  """An image that cannot be read; the message says which and why."""


def decode(data: bytes, name: str = 'image') -> np.ndarray:
  """Decodes JPEG or PNG to [h, w, 3] uint8 RGB; transparency is dropped, EXIF rotation applied."""
  try:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
  except cv2.error:  # It refuses some headers, such as those of huge images, by raising.
    pixels = None
  if pixels is None:
    raise ImageError(f'{name}: {len(data)} bytes that are not an image OpenCV can decode')
  return pixels


def file_size(data: bytes) -> tuple[int, int]:
  """Height and width of an encoded image, from its header alone."""
  with Image.open(io.BytesIO(data)) as image:
    width, height = image.size
    return (width, height) if image.getexif().get(0x0112, 1) >= 5 else (height, width)


def target_size(size: np.ndarray, shorter: int, longer: int) -> np.ndarray:
  """Sizes after resizing: the shorter side to `shorter`, unless the longer would pass `longer`.

  Args:
    size: [..., 2] int, height and width.
    shorter: pixels (paper section 4.1: 800, or 600 for ResNeXt-152).
    longer: pixels (1333, or 1000).

  Returns:
    [..., 2] int32.
  """
  size = np.asarray(size, np.float64)
  scale = np.minimum(shorter / size.min(-1), longer / size.max(-1))[..., None]
  return np.maximum(np.floor(size * scale + 0.5), 1).astype(np.int32)


def choose_canvas(target: np.ndarray, canvases: Sequence[tuple[int, int]]) -> np.ndarray:
  """The smallest canvas that holds each image.

  Args:
    target: [I, 2] int, sizes after resizing.
    canvases: (height, width) of each canvas.

  Returns:
    [I] numbers of canvases.

  Raises:
    UserError: an image fits no canvas.
  """
  shapes = np.asarray(canvases)
  area = np.where((target[:, None] <= shapes).all(-1), shapes.prod(-1), np.iinfo(np.int64).max)
  if len(area) and area.min(-1).max() == np.iinfo(np.int64).max:
    h, w = target[area.min(-1).argmax()]
    raise UserError(f'image.canvases {canvases} hold no image of {h}x{w}: add a canvas')
  return area.argmin(-1)


def place(pixels: np.ndarray, target: np.ndarray, canvas: tuple[int, int]) -> tuple:
  """Puts an image on a canvas, its edge pixels repeated, so that resizing sees no seam.

  An image that is smaller than its target goes as it is (the device enlarges it); a larger one
  is reduced here, so that no more pixels travel than the model sees.

  Returns:
    The canvas [H, W, 3] uint8 and the height and width of the image on it.
  """
  h, w = int(target[0]), int(target[1])
  if pixels.shape[0] > h or pixels.shape[1] > w:
    pixels = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling.BICUBIC))
  size = pixels.shape[:2]
  if size == tuple(canvas):
    return pixels, size
  padding = [(0, full - real) for full, real in zip(canvas, size, strict=True)]
  return np.pad(pixels, (*padding, (0, 0)), mode='edge'), size


def resize(image: jax.Array, source: jax.Array, target: jax.Array) -> jax.Array:
  """Resizes images within their canvases, bicubic with antialiasing, as Pillow does.

  Args:
    image: [B, H, W, 3] uint8, each image in the top left corner, edges repeated.
    source: [B, 2] int, height and width there.
    target: [B, 2] int, height and width wanted; what lies beyond is undefined.

  Returns:
    [B, H, W, 3] float32 in 0..255.
  """

  def one(image, source, target):
    scale = target / source
    return jax.image.scale_and_translate(
      image.astype(jnp.float32), image.shape, (0, 1), scale, jnp.zeros(2), 'cubic'
    )

  return jnp.clip(jax.vmap(one)(image, source, target), 0, 255)


def normalise(image: jax.Array, mean: Sequence[float], deviation: Sequence[float]) -> jax.Array:
  """[..., 3] in 0..255 to float32 of about unit variance; mean and deviation are of RGB in 0..1."""
  return (image / 255 - jnp.array(mean)) / jnp.array(deviation)
