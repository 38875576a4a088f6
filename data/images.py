"""Checks that an image file can be read by the end."""

import dataclasses
import io

from PIL import Image, UnidentifiedImageError

from pixelbert_jax.input.image import file_size

# What OpenCV decodes as Pillow does. MPO is a JPEG with more of them behind.
FORMATS = ('JPEG', 'MPO', 'PNG', 'WEBP', 'BMP')
SUFFIXES = {'jpg': 'JPEG', 'jpeg': 'JPEG', 'png': 'PNG', 'webp': 'WEBP', 'bmp': 'BMP'}
# Pillow's own bound, of which it only warns.
MOST_PIXELS = 89_478_485


class BadImage(Exception):
  """An image that cannot be used; the message is the reason alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
  """An image file that decodes; `size` is (height, width), `format` what it really is."""

  encoded: bytes
  size: tuple[int, int]
  format: str


def check(encoded: bytes) -> Checked:
  """Decodes every pixel of an image file, and so finds what is cut off or altered.

  Raises:
    BadImage: it does not decode, or had better not.
  """
  if not encoded:
    raise BadImage('zero bytes')
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      if image.width * image.height > MOST_PIXELS:
        raise BadImage(f'{image.width}x{image.height} pixels, more than {MOST_PIXELS:,}')
      if image.format not in FORMATS:
        raise BadImage(f'a {image.format}, which is not read: convert it to JPEG or PNG')
      image.load()
      form = 'JPEG' if image.format == 'MPO' else image.format
    return Checked(encoded, file_size(encoded), form)
  except BadImage:
    raise
  except UnidentifiedImageError as error:
    raise BadImage('not an image') from error
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise BadImage(f'more than {MOST_PIXELS:,} pixels') from error
  except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
    raise BadImage(f'{type(error).__name__}: {error}') from error


def is_mislabelled(path: str, form: str) -> bool:
  """Whether a file's name says that it is of another format."""
  return SUFFIXES.get(path.rpartition('.')[2].lower(), form) != form
