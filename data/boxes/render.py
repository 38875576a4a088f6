"""Renders a picture as NLVR's are, in 400 x 100 pixels: light boxes with dark between them."""

import io

import numpy as np
from PIL import Image, ImageDraw

from data.boxes.world import SIDE, Item, Picture
from pixelbert_jax.input.boxes import BOXES, COLOURS, GROUND

WIDTH = 4 * SIDE
BETWEEN = (128, 128, 128)
SUPERSAMPLING = 4  # by which shapes are drawn larger, and then averaged down


def png(picture: Picture) -> bytes:
  """Renders a picture as a PNG."""
  encoded = io.BytesIO()
  Image.fromarray(pixels(picture)).save(encoded, 'PNG')
  return encoded.getvalue()


def pixels(picture: Picture) -> np.ndarray:
  """Renders a picture, [100, 400, 3] uint8."""
  image = Image.new('RGB', (WIDTH, SIDE), BETWEEN)
  for (start, end), box in zip(BOXES, picture, strict=True):
    left = WIDTH * start // 8
    image.paste(GROUND, (left, 0, WIDTH * end // 8, SIDE))
    for item in box:
      image.paste(COLOURS[item.colour], (left + item.x, item.y), _shape(item))
  return np.asarray(image)


def _shape(item: Item) -> Image.Image:
  end = item.size * SUPERSAMPLING - 1
  mask = Image.new('L', (end + 1, end + 1))
  draw = ImageDraw.Draw(mask)
  if item.shape == 'circle':
    draw.ellipse((0, 0, end, end), fill=255)
  else:
    top = (end / 2, 0), (end / 2, 0)
    draw.polygon(
      (*(top if item.shape == 'triangle' else ((0, 0), (end, 0))), (end, end), (0, end)), fill=255
    )
  return mask.reduce(SUPERSAMPLING)
