"""Images: from encoded bytes to a canvas on the host, and to the model's pixels on the device.

The host only decodes and places; the accelerator resizes, mirrors and normalises. Every size
follows from the image file's own size, so a plan knows the shape of each batch before anything is
read.
"""

import io
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from pixelbert_jax import UserError

GREY = (124, 116, 104)  # the mean of ImageNet: near 0 for the model

# An image of up to so many times its target travels whole, and the device reduces it; a larger one
# is reduced on the host, where the filter is slow, but then less travels.
WHOLE = 2
# Those larger ones are decoded at 1/2, 1/4 or 1/8 where that leaves so many times the target. On
# ten photographs and two generated pictures the mean difference to Pillow's bicubic from the full
# size was 1.6 to 2.1 of 255 with 1 here, 0.9 to 1.3 with 1.5, 0.6 to 0.9 with 2, 0.4 to 0.5 with 3;
# from the full size it is 0.3, which is rounding.
SPARE = 3
# Pixels by which edges are repeated: what a cubic filter that reduces by WHOLE can reach.
REACH = 4 * WHOLE

FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF')
ORIENTATION = 0x0112  # in EXIF; 5 to 8 exchange height and width
SUBFILE = 0x00FE  # in TIFF; 1 is a smaller version of another image in the file


class ImageError(UserError):
  """An image that cannot be read; the message says which and why."""


def decode(data: bytes, name: str = 'image') -> np.ndarray:
  """Decodes an image to [h, w, 3] uint8 RGB; transparency is dropped, EXIF rotation applied."""
  picture, orientation = _open(data, name)
  return _upright(_pixels(picture, data, 1, name)[0], orientation)


def load(data: bytes, size: np.ndarray, target: np.ndarray, name: str = 'image') -> np.ndarray:
  """Decodes an image that the model is to see at `target`, both height and width.

  Args:
    data: the encoded image.
    size: [2] int, of the file.
    target: [2] int, as `target_size` gives it.
    name: for messages.

  Returns:
    [h, w, 3] uint8 RGB of `placed_size`.

  Raises:
    ImageError: it cannot be decoded, or is not of that size.
  """
  picture, orientation = _open(data, name)
  turn = slice(None, None, -1 if orientation >= 5 else 1)
  stored, target = picture.size[::-1], np.asarray(target)
  upright = stored[::-1] if orientation >= 5 else stored
  if upright != tuple(size):
    found, known = ('{}x{}'.format(*s) for s in (upright, size))
    raise ImageError(f'{name}: {found} pixels, where its dataset has {known}: build that again')
  if (size <= WHOLE * target).all():
    return _upright(_pixels(picture, data, 1, name)[0], orientation)
  enough = [n for n in (8, 4, 2) if (size >= SPARE * n * target).all()]
  pixels, shrink = _pixels(picture, data, enough[0] if enough else 1, name)
  # Decoding rounds sizes up: a last row may be half an image row, and must count as that.
  box = (0, 0, stored[1] / shrink, stored[0] / shrink)
  height, width = target[turn].tolist()
  reduced = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box)
  return _upright(np.asarray(reduced), orientation)


def reduce(pixels: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Pixels [h, w, 3] uint8 that are decoded already as `load` gives them: of `placed_size`."""
  target = np.asarray(target)
  if (np.array(pixels.shape[:2]) <= WHOLE * target).all():
    return pixels
  return np.asarray(Image.fromarray(pixels).resize(target[::-1].tolist(), Image.Resampling.BICUBIC))


def from_picture(picture: Image.Image, name: str = 'image') -> np.ndarray:
  """A Pillow image as `decode` gives it: [h, w, 3] uint8."""
  _refuse(picture, name)
  try:
    # Pixels first: with those of a TIFF Pillow turns it, and forgets its orientation.
    return _upright(_rgb(picture), picture.getexif().get(ORIENTATION, 1))
  except Exception as error:  # It may be read only now, with whatever Pillow meets.
    raise ImageError(f'{name}: its pixels cannot be read') from error


def _open(data: bytes, name: str) -> tuple[Image.Image, int]:
  """The image with its header alone read, and how it is still to be turned, as in EXIF."""
  try:
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    # Pillow only warns of up to twice as many.
    if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):
      raise Image.DecompressionBombError
    orientation = _orientation(picture, data)
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise _too_large(data, name) from error
  except UnidentifiedImageError as error:
    raise ImageError(
      f'{name}: {len(data)} bytes that are not a whole image of a format that is read '
      f'({", ".join(FORMATS)}): save it as JPEG or PNG'
    ) from error
  except Exception as error:  # Pillow raises whatever it met in a damaged header.
    raise _bad(data, name) from error
  _refuse(picture, name)
  return picture, orientation


def _orientation(picture: Image.Image, data: bytes) -> int:
  if picture.format == 'TIFF':
    return 1  # Pillow gives its size turned, and turns its pixels.
  if picture.format == 'PNG' and b'eXIf' not in data:
    # PNG's own `getexif` would decode all pixels, to look for that chunk behind them.
    return Image.Image.getexif(picture).get(ORIENTATION, 1)
  return picture.getexif().get(ORIENTATION, 1)


def _refuse(picture: Image.Image, name: str) -> None:
  """ImageError for what Pillow would silently read as something else."""
  if picture.mode in ('I', 'F'):
    raise ImageError(f'{name}: 32 bits a channel: save it with 8 or 16')
  if getattr(picture, 'tag_v2', {}).get(SUBFILE) == 1:
    raise ImageError(f'{name}: begins with a preview, as RAW does: save it as JPEG or PNG')


def _pixels(picture: Image.Image, data: bytes, shrink: int, name: str) -> tuple[np.ndarray, int]:
  """Pixels [h, w, 3] uint8 as stored, and by how much they are smaller than the image.

  Only JPEG can be decoded at 1 / `shrink` of its size, rounded up; other formats come whole.
  """
  try:
    # Pillow calls a JPEG with a preview inside MPO.
    if picture.format in ('JPEG', 'MPO') and picture.mode in ('RGB', 'L'):
      width, height = (-(-side // shrink) if shrink > 1 else 0 for side in picture.size)
      try:
        pixels = simplejpeg.decode_jpeg(data, 'RGB', min_height=height, min_width=width)
        return pixels, shrink
      except ValueError:
        pass  # It is strict: Pillow overlooks stray bytes, but no missing ones.
    return _rgb(picture), 1
  except Exception as error:  # Again, whatever Pillow met.
    raise _bad(data, name) from error


def _rgb(picture: Image.Image) -> np.ndarray:
  if picture.mode.startswith('I;16'):
    grey = (np.asarray(picture) >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
  if picture.mode == 'P':
    picture = picture.convert('RGBA')  # Else Pillow warns of transparency by degrees.
  return np.asarray(picture.convert('RGB'))


def _bad(data: bytes, name: str) -> ImageError:
  return ImageError(f'{name}: {len(data)} bytes that are not a whole image')


def _too_large(data: bytes, name: str) -> ImageError:
  millions = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
  return ImageError(
    f'{name}: {len(data)} bytes that say to be more than {millions} million pixels: reduce it first'
  )


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """Turns stored pixels as the EXIF orientation says."""
  if orientation >= 5:
    pixels = pixels.swapaxes(0, 1)
  if orientation in (2, 3, 6, 7):
    pixels = pixels[:, ::-1]
  if orientation in (3, 4, 7, 8):
    pixels = pixels[::-1]
  return np.ascontiguousarray(pixels)


def file_size(data: bytes, name: str = 'image') -> tuple[int, int]:
  """Height and width of an encoded image, from its header alone; ImageError if it is none."""
  picture, orientation = _open(data, name)
  width, height = picture.size
  return (width, height) if orientation >= 5 else (height, width)


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


def placed_size(size: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Sizes [..., 2] at which images travel: their own, or their target if they are much larger."""
  return np.where((size <= WHOLE * target).all(-1, keepdims=True), size, target)


def place(pixels: np.ndarray, canvas: np.ndarray) -> None:
  """Writes an image [h, w, 3] to the top left of a canvas [H, W, 3].

  Its edge pixels are repeated for REACH pixels, so that resizing sees no seam.
  """
  h, w = pixels.shape[:2]
  canvas[:h, :w] = pixels
  canvas[:h, w : w + REACH] = pixels[:, -1:]
  canvas[h : h + REACH] = canvas[h - 1]


def model_input(
  batch: Mapping[str, jax.Array], mean: Sequence[float], deviation: Sequence[float]
) -> jax.Array:
  """A batch's images as the model sees them, on its canvas.

  Args:
    batch: image [B, H, W, 3] uint8, each placed in the top left corner; source_size and size
      [B, 2], there and on the model's canvas; canvas [B, H', W', 0], which holds nothing, but
      whose shape says how large that canvas is (without it, as the images); flip [B] bool, which
      images to mirror (without it, none).
    mean: as of `normalise`.
    deviation: as of `normalise`.

  Returns:
    [B, H', W', 3] float32 of about unit variance; what lies beyond `size` is undefined.
  """
  image, source = batch['image'], batch['source_size']
  if 'flip' in batch:
    image = mirror(image, source[:, 1], batch['flip'])
  image = resize(image, source, batch['size'], model_canvas(batch))
  return normalise(image, mean, deviation)


def model_canvas(batch: Mapping[str, jax.Array | np.ndarray]) -> tuple[int, int]:
  """Height and width of a batch's canvas, as `model_input` has it."""
  _, height, width, _ = batch.get('canvas', batch['image']).shape
  return height, width


def mirror(image: jax.Array, width: jax.Array, flip: jax.Array) -> jax.Array:
  """Mirrors those images [B, H, W, 3] of so many columns [B] for which `flip` [B] is true."""
  column = jnp.arange(image.shape[2])
  # Beyond the image its new edge is repeated.
  other = jnp.clip(width[:, None] - 1 - column, 0)
  column = jnp.where(flip[:, None], other, column)
  return jnp.take_along_axis(image, column[:, None, :, None], axis=2)


def resize(
  image: jax.Array, source: jax.Array, target: jax.Array, canvas: tuple[int, int]
) -> jax.Array:
  """Resizes images from one canvas to another, bicubic with antialiasing, as Pillow does.

  Args:
    image: [B, H, W, 3] uint8, each image in the top left corner, edges repeated.
    source: [B, 2] int, height and width there.
    target: [B, 2] int, height and width wanted; what lies beyond is undefined.
    canvas: height and width of the canvas wanted.

  Returns:
    [B, *canvas, 3] float32 in 0..255.
  """

  def one(image, source, target):
    scale = target / source
    return jax.image.scale_and_translate(
      image.astype(jnp.float32), (*canvas, 3), (0, 1), scale, jnp.zeros(2), 'cubic'
    )

  return jnp.clip(jax.vmap(one)(image, source, target), 0, 255)


def normalise(image: jax.Array, mean: Sequence[float], deviation: Sequence[float]) -> jax.Array:
  """[..., 3] in 0..255 to float32 of about unit variance; mean and deviation are of RGB in 0..1."""
  return (image / 255 - jnp.array(mean)) / jnp.array(deviation)
