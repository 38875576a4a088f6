"""Heat maps of where the words of a text look and where a score comes from, and their drawing."""

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
# Heat, in multiples of an even share, that the brightest colour stands for at least. So a picture
# of nearly even heat looks even.
FULL = 3.0
INK, PAPER = (30, 30, 30), (255, 255, 255)
METHODS = ('attention', 'rollout', 'gradient')  # of the maps of words, the best first


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """The maps of T words over an image of H x W pixels; with a score, also where that comes from.

  Attributes:
    tokens: the T words.
    cells: [T, h, w] float32, the heat of each cell of the feature map in multiples of an even
      share; the mean over the cells of a word is 1, or 0 where a score depends on none.
    image: [H, W, 3] uint8.
    rows, columns: [H] and [W] float, the position of each pixel in cells; 0 is the centre of the
      first cell.
    note: a line below the picture.
    title: a line above the picture.
    score: what the score is of, such as `answer "red"`; '' for maps without a score.
    score_cells: [h, w] float32 as in `cells`, where the score comes from; None without a score.
  """

  tokens: Sequence[str]
  cells: np.ndarray
  image: np.ndarray
  rows: np.ndarray
  columns: np.ndarray
  note: str = ''
  title: str = ''
  score: str = ''
  score_cells: np.ndarray | None = None

  @functools.cached_property
  def values(self) -> np.ndarray:
    """The heat [T, H, W] float32 of each pixel, smoothly interpolated between the cells."""
    return interpolated(self.cells, self.rows, self.columns)

  @functools.cached_property
  def score_values(self) -> np.ndarray | None:
    """Where the score comes from, by pixel [H, W] float32; None without a score."""
    if self.score_cells is None:
      return None
    return interpolated(self.score_cells[None], self.rows, self.columns)[0]

  def save(self, path: str | os.PathLike) -> None:
    """Draws the image, a panel of the score and one a word; `path` ends as the format is called.

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
    names, cells = list(self.tokens), self.cells
    if self.score_cells is not None:
      names, cells = [self.score, *names], np.concatenate([self.score_cells[None], cells])
    brightest = max(float(cells.max(initial=0)), FULL)
    # The centres of the panel's pixels, in cells.
    positions = (
      np.interp((np.arange(n) + 0.5) * len(side) / n - 0.5, np.arange(len(side)), side)
      for n, side in ((height, self.rows), (width, self.columns))
    )
    heat = interpolated(cells, *positions) / brightest
    panels = [('image', photo), *zip(names, (overlay(photo, h) for h in heat), strict=True)]
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


def interpolated(cells: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
  """Interpolates heat [T, h, w] at rows [n] and columns [m], in cells, as [T, n, m] float32.

  Beyond the centres of the outermost cells it is constant.
  """
  _, h, w = cells.shape
  return np.einsum('yi,tij,xj->tyx', between(rows, h), cells, between(columns, w), optimize=True)


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


# --- Where words look and a score comes from -----------------------------------------------


def check_method(method: object, scores: bool) -> None:
  """Raises UserError unless `method` is one of METHODS for a model that `scores` single images."""
  if not isinstance(method, str) or method not in METHODS:
    raise UserError(f'method={method!r}: give one of {", ".join(METHODS)}')
  if method == 'gradient' and not scores:
    raise UserError(f'method={method!r}: this model scores no single image: give another method')


def heat(
  method: str, weights: np.ndarray, gradients: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns where each position looks by a method [S, S], and the `relevance` if it has gradients.

  `weights` and `gradients` are those of `relevance`.
  """
  found = None if gradients is None else relevance(weights, gradients)
  if found is not None and method == 'gradient':
    return found, found
  return rollout(weights) if method == 'rollout' else weights.mean((0, 1)), found


def rollout(weights: np.ndarray) -> np.ndarray:
  """Computes attention rollout [S, S] of weights [L, H, S, S] (Abnar and Zuidema 2020).

  Half of a layer's output counts as its input, which the residual connection passes on.
  """
  half = 0.5 * (weights.mean(1) + np.eye(weights.shape[-1], dtype=weights.dtype))
  return functools.reduce(lambda below, layer: layer @ below, half)


def relevance(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
  """Computes how much a score comes to each position from each [S, S] (after Chefer et al. 2021).

  Their R starts as the identity; each layer adds to it the mean over heads of weights times
  gradients, multiplied by R. They take the positive part of these, here it is the magnitude: what
  lowers a score counts too, and the object of a word is found more often.

  Args:
    weights: [L, H, S, S].
    gradients: [L, H, S, S], of the score with respect to the weights.
  """
  start = np.eye(weights.shape[-1], dtype=weights.dtype)
  layers = np.abs(weights * gradients).mean(1)
  return functools.reduce(lambda below, layer: below + layer @ below, layers, start)


def of_words(
  attention: np.ndarray, places: Sequence[Sequence[int]], mask: np.ndarray
) -> np.ndarray:
  """Computes `Heatmap.cells`: the heat of the cells for each word, averaged over its tokens.

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

  `brightest` is the heat at the bright end of the scale, in multiples of an even share.
  """
  width, height = panels[0][1].size
  across = min(len(panels), max(4, round(math.sqrt(len(panels) * 1.6 * height / width))))
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
  left = 'heat: 0'
  end = GAP + draw.textlength(left, font=font) + 8
  draw.text((GAP, y), left, fill=INK, font=font)
  page.paste(Image.fromarray(ramp), (round(end), y + 3))
  right = f'{brightest:.1f} times an even share'
  draw.text((end + SIDE // 2 + 8, y), right, fill=INK, font=font)
  draw.text((GAP, y + LINE), shortened(note, size[0] - 2 * GAP, font), fill=INK, font=font)
  return page


def shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
  """Shortens a text, with an ellipsis, until it is at most `width` pixels wide."""
  text = text[:width]  # A letter has a pixel at least; measuring all of a long one takes long.
  while text and font.getlength(text) > width:
    text = text.rstrip('…')[:-1] + '…' if len(text) > 1 else ''
  return text
