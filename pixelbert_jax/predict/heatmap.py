"""Heat maps of how much each word of a text attends to each part of an image, and their drawing."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelbert_jax import UserError, files

# Dark to bright in even steps, from blue to yellow: also readable without telling red from green.
COLOURS = np.array([(0, 28, 84), (66, 78, 108), (124, 123, 120), (188, 175, 108), (255, 234, 70)])
SIDE = 224  # pixels of the longer side of a panel
GAP, LINE = 12, 22
# Attention, in multiples of an even share, that the brightest colour stands for at least. So a
# picture of nearly even attention looks even.
FULL = 3.0
INK, PAPER = (30, 30, 30), (255, 255, 255)


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """The attention of T words to an image of H x W pixels.

  Attributes:
    tokens: the T words.
    cells: [T, h, w] float32, the attention to each cell of the feature map in multiples of an even
      share; the mean over the cells of a word is 1.
    image: [H, W, 3] uint8.
    rows, columns: [H] and [W] float, the position of each pixel in cells; 0 is the centre of the
      first cell.
    note: a line below the picture.
    title: a line above the picture.
  """

  tokens: Sequence[str]
  cells: np.ndarray
  image: np.ndarray
  rows: np.ndarray
  columns: np.ndarray
  note: str = ''
  title: str = ''

  @functools.cached_property
  def values(self) -> np.ndarray:
    """The attention [T, H, W] float32 to each pixel, smoothly interpolated between the cells."""
    return self.at(self.rows, self.columns)

  def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Interpolates the attention at positions in cells.

    Beyond the centres of the outermost cells it is constant.

    Args:
      rows: [n] float.
      columns: [m] float.

    Returns:
      [T, n, m] float32.
    """
    _, h, w = self.cells.shape
    return np.einsum(
      'yi,tij,xj->tyx', between(rows, h), self.cells, between(columns, w), optimize=True
    )

  def save(self, path: str | os.PathLike) -> None:
    """Draws the image and one panel per word; the extension of `path` gives the format.

    Raises:
      UserError: the extension is not that of a picture, or the file cannot be written.
    """
    path = check_path(path)
    kind = Image.registered_extensions()[path.suffix.lower()]
    try:
      files.write(path, lambda file: self.picture().save(file, kind))
    except OSError as error:
      raise UserError(f'{path}: cannot be written ({error.strerror or error})') from error

  def picture(self) -> Image.Image:
    """Draws the picture that `save` writes."""
    height, width = self.image.shape[:2]
    scale = SIDE / max(height, width)
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    photo = Image.fromarray(self.image).resize((width, height), Image.Resampling.BICUBIC)
    brightest = max(float(self.cells.max(initial=0)), FULL)
    # The centres of the panel's pixels, in cells.
    positions = (
      np.interp((np.arange(n) + 0.5) * len(cells) / n - 0.5, np.arange(len(cells)), cells)
      for n, cells in ((height, self.rows), (width, self.columns))
    )
    heat = self.at(*positions) / brightest
    panels = [('image', photo), *zip(self.tokens, (overlay(photo, h) for h in heat), strict=True)]
    return sheet(panels, brightest, self.title, self.note)


def check_path(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a picture to write.

  Raises:
    UserError: its ending is not that of a supported format, or its folder does not exist.
  """
  path = pathlib.Path(path)
  if Image.registered_extensions().get(path.suffix.lower()) not in ('PNG', 'JPEG', 'WEBP'):
    raise UserError(f'{path}: a heat map has to be a .png, .jpg or .webp file')
  if not path.parent.is_dir():
    raise UserError(f'{path}: the folder {path.parent} does not exist; create it first')
  return path


def between(positions: np.ndarray, cells: int) -> np.ndarray:
  """Computes the weights [n, cells] float32 that interpolate positions [n] from cells.

  A smooth step from one cell to the next keeps the extremes at the centres of cells.
  """
  positions = np.clip(positions, 0, cells - 1)[:, None]
  near = np.maximum(1 - np.abs(positions - np.arange(cells)), 0)
  return (near**2 * (3 - 2 * near)).astype(np.float32)


def cell_places(pixels: int, seen: int, stride: int, first: float) -> np.ndarray:
  """Computes the positions [pixels] float, in cells, of the centres of an image's pixels.

  Args:
    pixels: the image's height, or width.
    seen: the length of the same side as the model sees it.
    stride: the distance between cells, in pixels as the model sees them.
    first: the distance from the edge to the centre of the first cell, in the same pixels.
  """
  return ((np.arange(pixels) + 0.5) * seen / pixels - first) / stride


# --- Attention -----------------------------------------------------------------------------


def mean_of_last(weights: np.ndarray, layers: int | None) -> np.ndarray:
  """Averages weights [L, S, S] over the last `layers` (None: all) to [S, S]."""
  return weights[len(weights) - (len(weights) if layers is None else layers) :].mean(0)


def rollout(weights: np.ndarray) -> np.ndarray:
  """Computes attention rollout [S, S] through layers [L, S, S] (Abnar and Zuidema 2020).

  Half of a layer's output counts as its input, which the residual connection passes on.
  """
  half = 0.5 * (weights + np.eye(weights.shape[-1], dtype=weights.dtype))
  return functools.reduce(lambda below, layer: layer @ below, half)


def of_words(
  attention: np.ndarray, places: Sequence[Sequence[int]], mask: np.ndarray
) -> np.ndarray:
  """Computes `Heatmap.cells`: each word's attention to the cells, averaged over its tokens.

  Args:
    attention: [S, S], from each position of the sequence to each; pixels are the last ones.
    places: the positions of the tokens of each of T words.
    mask: [h, w] bool, False for padding; the real cells lie in the top left corner.

  Returns:
    [T, real height, real width] float32, in multiples of an even share.
  """
  pixels = attention[:, -mask.size :].reshape(-1, *mask.shape)
  words = np.stack([pixels[list(tokens)].mean(0) for tokens in places])
  real = words[:, : mask.any(1).sum(), : mask.any(0).sum()]
  return (real / np.maximum(real.mean((1, 2), keepdims=True), 1e-12)).astype(np.float32)


# --- The picture ---------------------------------------------------------------------------


def colour(heat: np.ndarray) -> np.ndarray:
  """Maps heat [...] in 0..1 to RGB colours [..., 3] in 0..255."""
  stops = np.linspace(0, 1, len(COLOURS))
  return np.stack([np.interp(heat, stops, channel) for channel in COLOURS.T], axis=-1)


def overlay(photo: Image.Image, heat: np.ndarray) -> Image.Image:
  """Draws heat [H, W] in 0..1 over the photo, which turns grey so that all colour is heat.

  The grey is the brightest channel, so colours of equal luminance remain distinguishable.
  """
  grey = np.asarray(photo, np.float32).max(-1, keepdims=True)
  share = 0.45 + 0.35 * heat[..., None]
  return Image.fromarray(((1 - share) * grey + share * colour(heat)).round().astype(np.uint8))


def sheet(
  panels: Sequence[tuple[str, Image.Image]], brightest: float, title: str, note: str
) -> Image.Image:
  """Draws panels with their words in rows, a title above, a colour scale and a note below.

  `brightest` is the attention at the bright end of the scale, in multiples of an even share.
  """
  width, height = panels[0][1].size
  across = min(len(panels), max(2, round(math.sqrt(len(panels) * 1.6 * height / width))))
  down = -(-len(panels) // across)
  step = width + GAP, height + LINE + GAP
  top, footer = GAP + (LINE + GAP if title else 0), 2 * LINE if note else LINE
  size = max(across * step[0] + GAP, 3 * SIDE), top + down * step[1] + footer + GAP
  page, font = Image.new('RGB', size, PAPER), ImageFont.load_default(15)
  draw = ImageDraw.Draw(page)
  draw.text((GAP, GAP), shortened(title, size[0] - 2 * GAP, font), fill=INK, font=font)
  for i, (word, panel) in enumerate(panels):
    x, y = GAP + i % across * step[0], top + i // across * step[1]
    draw.text((x, y), shortened(word, width, font), fill=INK, font=font)
    page.paste(panel, (x, y + LINE))
  y = top + down * step[1]
  ramp = np.tile(colour(np.linspace(0, 1, SIDE // 2)), (LINE - 8, 1, 1)).round().astype(np.uint8)
  left = 'attention: 0'
  end = GAP + draw.textlength(left, font=font) + 8
  draw.text((GAP, y), left, fill=INK, font=font)
  page.paste(Image.fromarray(ramp), (round(end), y + 3))
  right = f'{brightest:.1f} times an even share'
  draw.text((end + SIDE // 2 + 8, y), right, fill=INK, font=font)
  draw.text((GAP, y + LINE), shortened(note, size[0] - 2 * GAP, font), fill=INK, font=font)
  return page


def shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
  """Shortens a text, with an ellipsis, until it is at most `width` pixels wide."""
  while text and font.getlength(text) > width:
    text = text.rstrip('…')[:-1] + '…' if len(text) > 1 else ''
  return text
