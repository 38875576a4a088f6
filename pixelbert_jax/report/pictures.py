"""Pictures in a page: small JPEGs as data URIs, of images and of heat maps."""

import base64
import io
import time
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

from pixelbert_jax import UserError
from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.dataset import Split

SIDE = 192  # pixels of the longer side of an image
QUALITY = 80
SECONDS = 60  # after which no further heat map is begun


def of_image(split: Split | None, number: int | None) -> str:
  """Returns an image of a split as a data URI; '' if it is not there or cannot be read."""
  if split is None or number is None:
    return ''
  try:
    pixels = _pixels(split, number)
  except UserError:
    return ''
  picture = Image.fromarray(pixels)
  picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
  return _uri(picture)


def heat_maps(
  checkpoint: str, split: Split, pairs: Sequence[tuple[int, str]]
) -> tuple[list[str], str]:
  """Draws where the words of texts look, as far as a minute allows.

  Args:
    checkpoint: what `predict.load` takes.
    split: that of the images.
    pairs: an image's number and a text, of each heat map.

  Returns:
    Data URIs, of the first pairs; and why there are not more, '' if there are.
  """
  from pixelbert_jax.predict import model as model_lib  # after JAX's settings

  start, drawn = time.perf_counter(), list[str]()
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # The page says it at its top.
      model = model_lib.load(checkpoint, batch_size=1)
    for image, text in pairs:
      if time.perf_counter() - start > SECONDS:
        return drawn, f'no heat map is begun after {SECONDS} seconds'
      drawn.append(_uri(model.heatmap(_pixels(split, image), text).picture()))
  except (UserError, OSError, RuntimeError) as error:  # RuntimeError: memory of a device
    return drawn, str(error).splitlines()[0]
  return drawn, ''


def _pixels(split: Split, number: int) -> np.ndarray:
  name = split.sidecar.image_id[number].decode(errors='replace')
  return image_lib.decode(split.encoded(number), name)


def _uri(picture: Image.Image) -> str:
  """Encodes a picture as a data URI."""
  written = io.BytesIO()
  picture.save(written, 'JPEG', quality=QUALITY, optimize=True)
  return 'data:image/jpeg;base64,' + base64.b64encode(written.getvalue()).decode()
