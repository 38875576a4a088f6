"""Images: from encoded bytes to a canvas on the host, and to the model's pixels on the device.

The host decodes images and places them on canvases; the accelerator mirrors, resizes and normalises
them. All sizes follow from those of the image files, so a plan knows the shape of each batch before
any image is read.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from pixelbert_jax import UserError
from pixelbert_jax.input import pairs

GREY = (124, 116, 104)  # the mean of ImageNet: about 0 after normalisation

# An image of up to WHOLE times its target size goes to the device as it is, and is resized there; a
# larger one is resized on the host, which is slow, but then fewer bytes are transferred.
WHOLE = 2
# Larger ones are decoded at 1/2, 1/4 or 1/8 if that leaves at least SPARE times the target size. On
# ten photographs and two generated pictures the mean difference from Pillow's bicubic at full size
# was 1.6 to 2.1 of 255 with 1 here, 0.9 to 1.3 with 1.5, 0.6 to 0.9 with 2, 0.4 to 0.5 with 3;
# decoded at full size it is 0.3, which is rounding.
SPARE = 3
# Pixels by which edges are repeated: the reach of a cubic filter that reduces by WHOLE.
REACH = 4 * WHOLE

FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF')
ORIENTATION = 0x0112  # EXIF tag, 1 to 8; values 5 to 8 exchange height and width
SUBFILE = 0x00FE  # TIFF tag; 1 is a smaller version of another image in the file


class ImageError(UserError):
  """An unreadable image; the message says which and why."""


def decode(data: bytes, name: str = 'image') -> np.ndarray:
  """Decodes an image to [h, w, 3] uint8 RGB; transparency is dropped, EXIF rotation applied."""
  picture, orientation = _open(data, name)
  return _upright(_pixels(picture, data, 1, name)[0], orientation)


def load(data: bytes, size: np.ndarray, target: np.ndarray, name: str = 'image') -> np.ndarray:
  """Decodes an image to the size at which it goes to the device, `placed_size`.

  Args:
    data: the encoded image.
    size, target: [2] int, height and width of the file, and for the model (`target_size`).
    name: for messages.

  Returns:
    [h, w, 3] uint8 RGB.

  Raises:
    ImageError: it cannot be decoded, or is not of that size.
  """
  picture, orientation = _open(data, name)
  turn = slice(None, None, -1 if orientation >= 5 else 1)
  stored, target = picture.size[::-1], np.asarray(target)
  if stored[turn] != tuple(size):
    actual, known = ('{}x{}'.format(*s) for s in (np.array(stored)[turn], size))
    raise ImageError(
      f'{name}: {actual} pixels, but its dataset has {known}: build the dataset again'
    )
  if (size <= WHOLE * target).all():
    return _upright(_pixels(picture, data, 1, name)[0], orientation)
  enough = [n for n in (8, 4, 2) if (size >= SPARE * n * target).all()]
  pixels, shrink = _pixels(picture, data, enough[0] if enough else 1, name)
  # Decoding rounds sizes up: the last row may be half of one, and must be weighted so.
  box = (0, 0, stored[1] / shrink, stored[0] / shrink)
  height, width = target[turn].tolist()
  reduced = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box)
  return _upright(np.asarray(reduced), orientation)


def reduce(pixels: np.ndarray, target: np.ndarray) -> np.ndarray:
  """Resizes decoded pixels [h, w, 3] uint8 to their `placed_size`, as `load` does."""
  target = np.asarray(target)
  if (np.array(pixels.shape[:2]) <= WHOLE * target).all():
    return pixels
  return np.asarray(Image.fromarray(pixels).resize(target[::-1].tolist(), Image.Resampling.BICUBIC))


def from_picture(picture: Image.Image, name: str = 'image') -> np.ndarray:
  """Converts a Pillow image to the result of `decode`: [h, w, 3] uint8 RGB."""
  _refuse(picture, name)
  try:
    # Pixels first: when Pillow reads those of a TIFF, it rotates them and drops the orientation.
    return _upright(_rgb(picture), _orientation(picture))
  except Exception as error:  # Pillow may read the file only now, and raises many types.
    raise ImageError(f'{name}: its pixels cannot be read') from error


def _open(data: bytes, name: str) -> tuple[Image.Image, int]:
  """Reads an image's header; returns the image and the EXIF orientation still to be applied."""
  try:
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    # Up to twice this limit Pillow only warns.
    if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):
      raise Image.DecompressionBombError
    orientation = _orientation(picture, data)
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    limit = f'more than {(Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} million pixels'
    raise ImageError(f'{name}: {len(data)} bytes that claim {limit}: reduce it first') from error
  except UnidentifiedImageError as error:
    raise ImageError(
      f'{name}: {len(data)} bytes that are not a whole image of a format that is read '
      f'({", ".join(FORMATS)}): save it as JPEG or PNG'
    ) from error
  except Exception as error:  # For a damaged header Pillow raises many types.
    raise _bad(data, name) from error
  _refuse(picture, name)
  return picture, orientation


def _orientation(picture: Image.Image, data: bytes = b'eXIf') -> int:
  if picture.format == 'TIFF':
    return 1  # Pillow applies the orientation to its size and pixels itself.
  # PNG's own `getexif` would decode all pixels, to look for that chunk after them.
  quick = picture.format == 'PNG' and b'eXIf' not in data
  value = (Image.Image.getexif(picture) if quick else picture.getexif()).get(ORIENTATION)
  return value if type(value) is int and 1 <= value <= 8 else 1  # Others are ignored by viewers.


def _refuse(picture: Image.Image, name: str) -> None:
  """Raises ImageError for an image that Pillow would silently read as something else."""
  if picture.mode in ('I', 'F'):
    raise ImageError(f'{name}: 32 bits a channel: save it with 8 or 16')
  if getattr(picture, 'tag_v2', {}).get(SUBFILE) == 1:
    raise ImageError(f'{name}: begins with a preview, like a RAW file: save it as JPEG or PNG')


def _pixels(picture: Image.Image, data: bytes, shrink: int, name: str) -> tuple[np.ndarray, int]:
  """Decodes pixels [h, w, 3] uint8 as stored; returns them and the factor by which they shrank.

  Only JPEG can be decoded at 1 / `shrink` of its size, rounded up.
  """
  try:
    # Pillow calls a JPEG that holds a preview MPO.
    if picture.format in ('JPEG', 'MPO') and picture.mode in ('RGB', 'L'):
      width, height = (-(-side // shrink) if shrink > 1 else 0 for side in picture.size)
      try:
        return simplejpeg.decode_jpeg(data, 'RGB', min_height=height, min_width=width), shrink
      except ValueError:
        pass  # Pillow is less strict: it accepts stray bytes, but not missing ones.
    return _rgb(picture), 1
  except Exception as error:  # Again, Pillow raises many types.
    raise _bad(data, name) from error


def _rgb(picture: Image.Image) -> np.ndarray:
  if picture.mode.startswith('I;16'):
    grey = (np.asarray(picture) >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
  if picture.mode == 'P':
    picture = picture.convert('RGBA')  # Else Pillow warns if transparency is given as bytes.
  return np.asarray(picture.convert('RGB'))


def _bad(data: bytes, name: str) -> ImageError:
  return ImageError(f'{name}: {len(data)} bytes that are not a whole image')


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """Applies an EXIF orientation to stored pixels."""
  if orientation >= 5:
    pixels = pixels.swapaxes(0, 1)
  if orientation in (2, 3, 6, 7):
    pixels = pixels[:, ::-1]
  if orientation in (3, 4, 7, 8):
    pixels = pixels[::-1]
  return np.ascontiguousarray(pixels)


def file_size(data: bytes, name: str = 'image') -> tuple[int, int]:
  """Reads height and width from an image's header; raises ImageError if it is not an image."""
  picture, orientation = _open(data, name)
  width, height = picture.size
  return (width, height) if orientation >= 5 else (height, width)


def target_size(size: np.ndarray, shorter: int, longer: int) -> np.ndarray:
  """Computes sizes after resizing: the shorter side `shorter`, the longer at most `longer`.

  Args:
    size: [..., 2] int, height and width.
    shorter, longer: pixels (paper section 4.1: 800 and 1333, or for ResNeXt-152 600 and 1000).

  Returns:
    [..., 2] int32.
  """
  size = np.asarray(size, np.float64)
  scale = np.minimum(shorter / size.min(-1), longer / size.max(-1))[..., None]
  return np.maximum(np.floor(size * scale + 0.5), 1).astype(np.int32)


def choose_canvas(target: np.ndarray, canvases: Sequence[Sequence[int]]) -> np.ndarray:
  """Chooses the number of the smallest canvas that holds each image, [I].

  Args:
    target: [I, 2] int, sizes after resizing.
    canvases: (height, width) of each canvas.

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
  """Computes sizes [..., 2] on the host canvas: `size`, or `target` if that is much smaller."""
  return np.where((size <= WHOLE * target).all(-1, keepdims=True), size, target)


def place(pixels: np.ndarray, canvas: np.ndarray) -> None:
  """Writes an image [h, w, 3] to the top left of a canvas [H, W, 3].

  Its edge pixels are repeated for REACH pixels, so that resizing does not blur its edges.
  """
  h, w = pixels.shape[:2]
  canvas[:h, :w] = pixels
  canvas[:h, w : w + REACH] = pixels[:, -1:]
  canvas[h : h + REACH] = canvas[h - 1]


def model_input(
  batch: Mapping[str, jax.Array], mean: Sequence[float], deviation: Sequence[float]
) -> Any:
  """Mirrors, resizes and normalises the images of a batch, on the device.

  Args:
    batch: image [B, H, W, 3] uint8, each in the top left corner of its canvas; source_size and
      size [B, 2], its height and width there and for the model; canvas [B, H', W', 0], which holds
      no data: its shape is that of the model's canvas (default: that of image); flip [B] bool,
      which images to mirror (default: none).
    mean, deviation: [3] each, see `normalise`.

  Returns:
    [B, H', W', 3] float32 of about unit variance; pixels beyond `size` are undefined. Of pairs with
    two canvases (`pairs.halves`), two such arrays.
  """
  if len(model_canvas(batch)) == 4:
    return tuple(model_input(half, mean, deviation) for half in pairs.halves(batch))
  image, source = batch['image'], batch['source_size']
  if 'flip' in batch:
    image = mirror(image, source[:, 1], batch['flip'])
  image = resize(image, source, batch['size'], model_canvas(batch))
  return normalise(image, mean, deviation)


def model_canvas(batch: Mapping) -> tuple[int, ...]:
  """Returns height and width of the model's canvas, or those of two, see `model_input`."""
  return batch.get('canvas', batch['image']).shape[1:-1]


def mirror(image: jax.Array, width: jax.Array, flip: jax.Array) -> jax.Array:
  """Mirrors the images [B, H, W, 3] for which `flip` [B] is true; `width` [B] is in pixels."""
  column = jnp.arange(image.shape[2])
  # Beyond the image, its new edge is repeated.
  other = jnp.clip(width[:, None] - 1 - column, 0)
  column = jnp.where(flip[:, None], other, column)
  return jnp.take_along_axis(image, column[:, None, :, None], axis=2)


def resize(
  image: jax.Array, source: jax.Array, target: jax.Array, canvas: tuple[int, ...]
) -> jax.Array:
  """Resizes images from one canvas to another: bicubic with antialiasing, as Pillow does.

  Args:
    image: [B, H, W, 3] uint8, each image in the top left corner, edges repeated.
    source, target: [B, 2] int, old and new height and width; pixels beyond are undefined.
    canvas: height and width of the new canvas.

  Returns:
    [B, *canvas, 3] float32 in 0..255.
  """

  def one(image, source, target):
    image, shape, scale = image.astype(jnp.float32), (*canvas, 3), target / source
    return jax.image.scale_and_translate(image, shape, (0, 1), scale, jnp.zeros(2), method='cubic')

  return jnp.clip(jax.vmap(one)(image, source, target), 0, 255)


def normalise(image: jax.Array, mean: Sequence[float], deviation: Sequence[float]) -> jax.Array:
  """Scales [..., 3] in 0..255 to about unit variance; mean and deviation are of RGB in 0..1."""
  return (image / 255 - jnp.array(mean)) / jnp.array(deviation)
