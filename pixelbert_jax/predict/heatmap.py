"""Heat maps: how much each word of a text attends to each place of an image, and their picture."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelbert_jax import UserError

# Dark to bright in even steps, from blue to yellow: also for those who do not tell red from green.
COLOURS = np.array([(0, 28, 84), (66, 78, 108), (124, 123, 120), (188, 175, 108), (255, 234, 70)])
SIDE = 224  # pixels of the longer side of a panel
GAP, LINE = 12, 22
# What has the full colour: so many times an even share of the attention, or more. A picture of
# nearly even attention looks even.
FULL = 3.0
INK, PAPER = (30, 30, 30), (255, 255, 255)


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """The attention of T words to an image of H x W pixels.

  Attributes:
    tokens: the T words.
    cells: [T, h, w] float32, the attention to each cell of the feature map, relative to that which
      all would get if it were even: the mean of a word's is 1.
    image: [H, W, 3] uint8.
    rows, columns: [H] and [W] float, where each pixel lies among the cells; 0 is the middle of the
      first.
    note: a line below the picture.
    title: a line above it.
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
    """[T, H, W] float32: the cells' attention, smoothly interpolated in between."""
    return self.at(self.rows, self.columns)

  def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[T, n, m] float32 at places among the cells; beyond the outermost it stays as it is."""
    _, h, w = self.cells.shape
    return np.einsum(
      'yi,tij,xj->tyx', between(rows, h), self.cells, between(columns, w), optimize=True
    )

  def save(self, path: str | os.PathLike) -> None:
    """Draws the image and a panel a word; the format is that of the name.

    Raises:
      UserError: it is none that holds pictures, or the file cannot be written.
    """
    path = check_path(path)
    partial = path.with_name(f'.{path.stem}.partial{path.suffix}')
    try:
      self.picture().save(partial)
      os.replace(partial, path)
    except OSError as error:
      partial.unlink(missing_ok=True)
      raise UserError(f'{path}: cannot be written ({error.strerror or error})') from error

  def picture(self) -> Image.Image:
    """What `save` writes."""
    height, width = self.image.shape[:2]
    scale = SIDE / max(height, width)
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    photo = Image.fromarray(self.image).resize((width, height), Image.Resampling.BICUBIC)
    most = max(float(self.cells.max(initial=0)), FULL)
    # Where the middles of the panel's pixels lie among the image's own.
    places = (
      np.interp((np.arange(n) + 0.5) * len(own) / n - 0.5, np.arange(len(own)), own)
      for n, own in ((height, self.rows), (width, self.columns))
    )
    heat = self.at(*places) / most
    panels = [('image', photo), *zip(self.tokens, (overlay(photo, h) for h in heat), strict=True)]
    return sheet(panels, most, self.title, self.note)


def check_path(path: str | os.PathLike) -> pathlib.Path:
  """The path of a picture to be; UserError if its ending is not one's, or its folder is missing."""
  path = pathlib.Path(path)
  if Image.registered_extensions().get(path.suffix.lower()) not in ('PNG', 'JPEG', 'WEBP'):
    raise UserError(f'{path}: a heat map is a .png, .jpg or .webp file')
  if not path.parent.is_dir():
    raise UserError(f'{path}: cannot be written, there is no folder {path.parent}')
  return path


def between(places: np.ndarray, cells: int) -> np.ndarray:
  """[n, cells] float32: the weights by which values at places are interpolated from cells.

  From one cell to the next along a smooth step: highest and lowest are still the cells' middles.
  """
  places = np.clip(places, 0, cells - 1)[:, None]
  near = np.maximum(1 - np.abs(places - np.arange(cells)), 0)
  return (near**2 * (3 - 2 * near)).astype(np.float32)


def cell_places(pixels: int, seen: int, stride: int, first: float) -> np.ndarray:
  """[pixels] float: where the middles of an image's pixels lie among the cells.

  Args:
    pixels: of the image's height, or width.
    seen: of the same side when the model sees it.
    stride: from cell to cell, in pixels that the model sees.
    first: from the edge to the middle of the first cell.
  """
  return ((np.arange(pixels) + 0.5) * seen / pixels - first) / stride


# --- Attention -----------------------------------------------------------------------------


def mean_of_last(weights: np.ndarray, layers: int | None) -> np.ndarray:
  """[L, S, S] weights, those of a row adding up to 1, to the mean [S, S] over the last (or all)."""
  return weights[-(layers or len(weights)) :].mean(0)


def rollout(weights: np.ndarray) -> np.ndarray:
  """[L, S, S] weights to [S, S]: how what goes in reaches what comes out (Abnar, Zuidema 2020).

  Half of a layer's output is its input: the residual.
  """
  half = 0.5 * (weights + np.eye(weights.shape[-1], dtype=weights.dtype))
  return functools.reduce(lambda below, layer: layer @ below, half)


def of_words(
  attention: np.ndarray, places: Sequence[Sequence[int]], mask: np.ndarray
) -> np.ndarray:
  """What words see, for `Heatmap.cells`: the mean over their tokens, relative to an even share.

  Args:
    attention: [S, S], from places of the sequence to places; pixels are the last ones.
    places: of the tokens of each of T words.
    mask: [h, w] bool, the cells that are real; they lie in the top left corner.
  """
  pixels = attention[:, -mask.size :].reshape(-1, *mask.shape)
  words = np.stack([pixels[list(tokens)].mean(0) for tokens in places])
  real = words[:, : mask.any(1).sum(), : mask.any(0).sum()]
  return (real / np.maximum(real.mean((1, 2), keepdims=True), 1e-12)).astype(np.float32)


# --- The picture ---------------------------------------------------------------------------


def colour(heat: np.ndarray) -> np.ndarray:
  """[...] in 0..1 to RGB [..., 3] in 0..255."""
  stops = np.linspace(0, 1, len(COLOURS))
  return np.stack([np.interp(heat, stops, channel) for channel in COLOURS.T], axis=-1)


def overlay(photo: Image.Image, heat: np.ndarray) -> Image.Image:
  """Heat [H, W] in 0..1 over the photo, which is grey so that no colour is its own.

  Its grey is the brightest channel: things of one luminance but other colours stay apart.
  """
  grey = np.asarray(photo, np.float32).max(-1, keepdims=True)
  share = 0.45 + 0.35 * heat[..., None]
  return Image.fromarray(((1 - share) * grey + share * colour(heat)).round().astype(np.uint8))


def sheet(
  panels: Sequence[tuple[str, Image.Image]], most: float, title: str, note: str
) -> Image.Image:
  """Panels with their words in rows, a title above, a scale and a note below."""
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
  beside = GAP + draw.textlength(left, font=font) + 8
  draw.text((GAP, y), left, fill=INK, font=font)
  page.paste(Image.fromarray(ramp), (round(beside), y + 3))
  right = f'{most:.1f} times an even share'
  draw.text((beside + SIDE // 2 + 8, y), right, fill=INK, font=font)
  if note:
    draw.text((GAP, y + LINE), shortened(note, size[0] - 2 * GAP, font), fill=INK, font=font)
  return page


def shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
  """The text, or as much of it as is no wider than so many pixels."""
  while text and font.getlength(text) > width:
    text = text.rstrip('…')[:-1] + '…' if len(text) > 1 else ''
  return text
