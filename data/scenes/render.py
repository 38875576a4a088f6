"""Renders a scene as a JPEG."""

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from data.scenes import world

# Factor by which shapes are drawn larger and then averaged down, for smooth edges.
SUPERSAMPLING = 4


def jpeg(scene: world.Scene) -> bytes:
  """Renders a scene as a JPEG without chroma subsampling, so that small things keep colour."""
  picture = Image.fromarray(background(scene))
  for thing in scene.things:
    _draw(picture, thing)
  encoded = io.BytesIO()
  picture.save(encoded, 'JPEG', quality=95, subsampling=0)
  return encoded.getvalue()


def background(scene: world.Scene) -> np.ndarray:
  """Renders [H, W, 3] uint8, the scene without its things."""
  b, width, height = scene.background, scene.width, scene.height
  rng = np.random.default_rng(b.seed)
  x = np.linspace(-0.5, 0.5, width, dtype=np.float32)
  y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
  share = 0.5 + (x * math.cos(b.angle) + y * math.sin(b.angle)) / math.sqrt(2)
  brightness = b.noise * rng.standard_normal((height, width), np.float32)
  if b.clutter:
    brightness += _strokes(rng, b.clutter, width, height)
  start, end = np.array((b.start, b.end), np.float32)
  rgb = start + share[..., None] * (end - start) + brightness[..., None]
  return rgb.clip(0, 255).astype(np.uint8)


def _strokes(rng: np.random.Generator, number: int, width: int, height: int) -> np.ndarray:
  """Draws [H, W] float32, faint straight strokes to add to the brightness."""
  layer = Image.new('L', (width, height), 128)
  draw = ImageDraw.Draw(layer)
  for _ in range(number):
    ends = rng.uniform(0, [width, height], (2, 2))
    draw.line([tuple(p) for p in ends], fill=128 + int(rng.integers(-22, 23)), width=2)
  return np.asarray(layer, np.float32) - 128


def _draw(picture: Image.Image, thing: world.Thing) -> None:
  """Paints a thing, then its pattern in another shade."""
  x0, y0, x1, y1 = thing.box
  frame = ((x1 - x0) * SUPERSAMPLING, (y1 - y0) * SUPERSAMPLING)
  centre = (SUPERSAMPLING * (thing.x - x0), SUPERSAMPLING * (thing.y - y0))
  radius = SUPERSAMPLING * thing.radius
  shape = _shape(thing.shape, frame, centre, radius)
  picture.paste(thing.rgb, (x0, y0), Image.fromarray(shape).reduce(SUPERSAMPLING))
  if thing.pattern != world.PLAIN:
    pattern = shape * _pattern(thing.pattern, frame, centre, radius)
    picture.paste(_shade(thing), (x0, y0), Image.fromarray(pattern).reduce(SUPERSAMPLING))


def _shape(
  shape: str, frame: tuple[int, int], centre: tuple[float, float], radius: float
) -> np.ndarray:
  """Draws [h, w] uint8, 255 inside the outline."""
  mask = Image.new('L', frame)
  draw = ImageDraw.Draw(mask)

  def polygon(outline: tuple[tuple[float, float], ...], scale: float, fill: int) -> None:
    draw.polygon([(centre[0] + scale * x, centre[1] + scale * y) for x, y in outline], fill=fill)

  polygon(world.OUTLINES[shape], radius, 255)
  if shape in world.HOLES:
    polygon(world.OUTLINES['circle'], world.HOLES[shape] * radius, 0)
  return np.array(mask)


def _pattern(
  pattern: str, frame: tuple[int, int], centre: tuple[float, float], radius: float
) -> np.ndarray:
  """Computes [h, w] bool: diagonal stripes, or a grid of dots, that scale with the thing."""
  x = (np.arange(frame[0]) - centre[0]) / radius
  y = ((np.arange(frame[1]) - centre[1]) / radius)[:, None]
  if pattern == 'stripes':
    return (x + y) % 0.84 < 0.36
  period = 0.62
  return (
    np.hypot((x + period / 2) % period - period / 2, (y + period / 2) % period - period / 2) < 0.2
  )


def _shade(thing: world.Thing) -> tuple[int, int, int]:
  """Returns the same hue, clearly darker (for black: lighter) and unlike any background."""
  if thing.colour == 'black':
    return tuple(v + 70 for v in thing.rgb)
  share = 0.62 if thing.colour == 'white' else 0.42
  return tuple(int(share * v) for v in thing.rgb)
