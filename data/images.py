"""Checks that an image file decodes completely."""

import dataclasses
import hashlib
import io

from PIL import Image

from pixelbert_jax.input.image import FORMATS, ImageError, file_size

SUFFIXES = {name.lower(): name for name in FORMATS} | {'jpg': 'JPEG', 'tif': 'TIFF'}


class BadImage(Exception):
  """An image that cannot be used; the message is the reason alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
  """An image file that decodes.

  Attributes:
    encoded: its bytes.
    size: height and width.
    format: the one of its content.
    digest: of its bytes.
  """

  encoded: bytes
  size: tuple[int, int]
  format: str
  digest: bytes


def check(encoded: bytes) -> Checked:
  """Decodes all of an image file, which detects truncated and damaged files.

  Raises:
    BadImage: the file does not decode, or must not be decoded (size, format).
  """
  if not encoded:
    raise BadImage('zero bytes')
  try:
    size = file_size(encoded)  # Refuses files that must not be decoded.
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
      image.load()
      # MPO is a JPEG followed by further ones.
      form = 'JPEG' if image.format == 'MPO' else image.format
    return Checked(encoded, size, form, hashlib.blake2b(encoded, digest_size=16).digest())
  except ImageError as error:
    raise BadImage(str(error).removeprefix('image: ')) from error
  except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, struct.error, ...
    raise BadImage(f'{type(error).__name__}: {error}') from error


def is_mislabelled(path: str, form: str) -> bool:
  """Returns whether the extension of a file's name is that of another format."""
  return SUFFIXES.get(path.rpartition('.')[2].lower(), form) != form
