"""Checks that an image file can be read by the end."""

import dataclasses
import io

from PIL import Image

from pixelbert_jax.input.image import FORMATS, ImageError, file_size

SUFFIXES = {name.lower(): name for name in FORMATS} | {'jpg': 'JPEG', 'tif': 'TIFF'}


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
    size = file_size(encoded)  # first: what is refused is not decoded
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
      image.load()
      # MPO is a JPEG with more of them behind.
      form = 'JPEG' if image.format == 'MPO' else image.format
    return Checked(encoded, size, form)
  except ImageError as error:
    raise BadImage(str(error).removeprefix('image: ')) from error
  except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
    raise BadImage(f'{type(error).__name__}: {error}') from error


def is_mislabelled(path: str, form: str) -> bool:
  """Whether a file's name says that it is of another format."""
  return SUFFIXES.get(path.rpartition('.')[2].lower(), form) != form
