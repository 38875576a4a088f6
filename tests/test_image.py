"""Images: sizes by hand, decoding as Pillow does, resizing as Pillow does."""

import functools
import io
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from pixelbert_jax import UserError
from pixelbert_jax.input import image as image_lib

CANVAS = (64, 96)
ORIENTATION = 0x0112


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
  return np.random.default_rng([height, width]).integers(
    0, 256, (height, width, channels), np.uint8
  )


def waves(height: int, width: int) -> np.ndarray:
  """A picture with slopes, edges and black and white."""
  y, x = np.mgrid[:height, :width]
  channels = [127 + 140 * np.sin(x / 7 + y / 5), y * 255 / height, (x // 8 + y // 8) % 2 * 255]
  return np.stack(channels, -1).clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = 'PNG', **options) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


# --- Sizes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('size', 'limits', 'target'),
  [
    ((480, 640), (800, 1333), (800, 1067)),
    ((640, 480), (800, 1333), (1067, 800)),
    ((333, 500), (800, 1333), (800, 1201)),  # 1201.2
    ((400, 1000), (800, 1333), (533, 1333)),  # 533.2
    ((1000, 400), (800, 1333), (1333, 533)),
    ((300, 500), (800, 1333), (800, 1333)),  # 1333.3
    ((1600, 2000), (800, 1333), (800, 1000)),
    ((800, 800), (800, 1333), (800, 800)),
    ((480, 640), (600, 1000), (600, 800)),
    ((427, 640), (600, 1000), (600, 899)),  # 899.3
    ((375, 1000), (600, 1000), (375, 1000)),
    ((500, 2000), (600, 1000), (250, 1000)),
    ((64, 64), (64, 64), (64, 64)),
    ((50, 100), (64, 64), (32, 64)),
    ((3, 200), (64, 100), (2, 100)),  # 1.5, up
    ((1, 4000), (64, 128), (1, 128)),  # never 0
  ],
)
def test_target_sizes(size, limits, target):
  found = image_lib.target_size(np.array(size), *limits)
  assert found.tolist() == list(target)
  assert found.dtype == np.int32


def test_target_sizes_of_many():
  sizes = np.array([[480, 640], [400, 1000]])
  expected = [[800, 1067], [533, 1333]]
  assert image_lib.target_size(sizes, 800, 1333).tolist() == expected
  assert image_lib.target_size(sizes[None], 800, 1333).tolist() == [expected]


def test_smallest_canvas_that_holds():
  canvases = ((832, 1344), (832, 832), (1344, 832), (832, 1088), (640, 832))
  target = np.array([(800, 800), (800, 1067), (800, 1333), (1067, 800), (640, 832), (641, 832)])
  assert image_lib.choose_canvas(target, canvases).tolist() == [1, 3, 0, 2, 4, 1]
  assert image_lib.choose_canvas(np.zeros((0, 2), int), canvases).tolist() == []


def test_no_canvas_holds():
  with pytest.raises(UserError, match=r'\(64, 96\).* hold no image of 65x10: add a canvas'):
    image_lib.choose_canvas(np.array([(64, 96), (65, 10)]), (CANVAS, (32, 128)))


# --- Decoding ----------------------------------------------------------------------------


def test_png_is_decoded_exactly():
  pixels = noise(7, 11)
  found = image_lib.decode(encoded(pixels))
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'L', 'P', '1'])
def test_png_of_another_mode_becomes_rgb(mode):
  picture = Image.fromarray(waves(20, 30)).convert(mode)
  if 'A' in mode:
    picture.putalpha(Image.fromarray(noise(20, 30, 1)[..., 0]))
  file = io.BytesIO()
  picture.save(file, 'PNG')
  # Pillow drops transparency too.
  np.testing.assert_array_equal(
    image_lib.decode(file.getvalue()), np.asarray(picture.convert('RGB'))
  )


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_jpeg_is_decoded_as_by_pillow(mode):
  file = io.BytesIO()
  Image.fromarray(waves(40, 60)).convert(mode).save(file, 'JPEG', quality=90)
  found = image_lib.decode(file.getvalue()).astype(int)
  reference = np.asarray(Image.open(file).convert('RGB')).astype(int)
  assert found.shape == (40, 60, 3)
  assert abs(found - reference).mean() < 1


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_rotation_in_the_exif_is_applied(orientation, kind):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  data = encoded(waves(40, 64), kind, exif=exif)
  reference = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
  found = image_lib.decode(data)
  assert found.shape == reference.shape == (*image_lib.file_size(data), 3)
  assert abs(found.astype(int) - reference).mean() < 0.5


def test_file_size_is_height_and_width():
  for kind in ('JPEG', 'PNG'):
    assert image_lib.file_size(encoded(noise(5, 9), kind)) == (5, 9)


def huge_png() -> bytes:
  """A small file that says it is 100,000 pixels high and wide."""

  def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', check)

  header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
  chunks = [chunk(b'IHDR', header), chunk(b'IDAT', zlib.compress(b'')), chunk(b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


BAD = {
  'nothing': b'',
  'text': b'<html>404 Not Found</html>',
  'huge': huge_png(),
  'header': encoded(noise(60, 90), 'JPEG')[:100],
  'jpeg, half': encoded(noise(60, 90), 'JPEG')[:2000],
  'jpeg, all but the end': encoded(noise(60, 90), 'JPEG')[:-10],
  'png, half': encoded(noise(60, 90))[:8000],
}


@pytest.mark.parametrize('data', BAD.values(), ids=BAD)
def test_what_cannot_be_decoded_is_named(data):
  with pytest.raises(image_lib.ImageError) as error:
    image_lib.decode(data, 'COCO_val2014_42')
  assert str(error.value).startswith(f'COCO_val2014_42: {len(data)} bytes')
  assert '\n' not in str(error.value)
  assert isinstance(error.value, UserError)


# --- Placing -----------------------------------------------------------------------------


@pytest.mark.parametrize('target', [(40, 60), (64, 96)])
def test_an_image_up_to_its_target_is_placed_as_it_is_with_edges_repeated(target):
  pixels = noise(40, 60)
  canvas, size = image_lib.place(pixels, np.array(target), CANVAS)
  assert canvas.shape == (*CANVAS, 3)
  assert canvas.dtype == np.uint8
  assert tuple(size) == (40, 60)
  np.testing.assert_array_equal(canvas[:40, :60], pixels)
  np.testing.assert_array_equal(canvas[:40, 60:], np.repeat(pixels[:, -1:], 36, axis=1))
  np.testing.assert_array_equal(canvas[40:], np.repeat(canvas[39:40], 24, axis=0))


@pytest.mark.parametrize('source', [(200, 300), (41, 60), (40, 61), (30, 500)])
def test_a_larger_image_is_reduced_to_its_target(source):
  pixels = noise(*source)
  canvas, size = image_lib.place(pixels, np.array((40, 60)), CANVAS)
  assert tuple(size) == (40, 60)
  assert canvas.shape == (*CANVAS, 3)
  reference = Image.fromarray(pixels).resize((60, 40), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(canvas[:40, :60], np.asarray(reference))
  np.testing.assert_array_equal(canvas[39, 60:], np.repeat(canvas[39, 59:60], 36, axis=0))


def test_an_image_of_the_canvas_fills_it():
  canvas, size = image_lib.place(noise(*CANVAS), np.array(CANVAS), CANVAS)
  assert tuple(size) == CANVAS
  np.testing.assert_array_equal(canvas, noise(*CANVAS))


# --- Resizing ----------------------------------------------------------------------------

# Source and target on one canvas: enlarged, reduced, both, to and from its edges.
RESIZED = [
  ((30, 45), (60, 90)),
  ((33, 50), (64, 96)),
  ((20, 20), (64, 64)),
  ((64, 96), (32, 48)),
  ((60, 90), (40, 60)),
  ((64, 96), (63, 95)),
  ((64, 96), (5, 7)),
  ((17, 96), (20, 50)),
]


@functools.cache
def resized(picture) -> np.ndarray:
  """All of RESIZED as one batch."""
  canvases = [image_lib.place(picture(*source), source, CANVAS)[0] for source, _ in RESIZED]
  sizes = jnp.array(RESIZED)
  return np.asarray(jax.jit(image_lib.resize)(np.stack(canvases), sizes[:, 0], sizes[:, 1]))


@pytest.mark.parametrize('case', range(len(RESIZED)), ids=map(str, RESIZED))
@pytest.mark.parametrize('picture', [waves, noise])
def test_resized_as_by_pillow(picture, case):
  source, (height, width) = RESIZED[case]
  found = resized(picture)[case]
  assert found.shape == (*CANVAS, 3)
  assert found.dtype == np.float32
  found = found[:height, :width]
  # A channel at a time in float32: Pillow rounds bytes between its two passes.
  reference = np.stack(
    [
      np.asarray(
        Image.fromarray(channel.astype(np.float32)).resize(
          (width, height), Image.Resampling.BICUBIC
        )
      )
      for channel in np.moveaxis(picture(*source), -1, 0)
    ],
    axis=-1,
  ).clip(0, 255)
  assert abs(found - reference).mean() < 0.5
  # Pillow weighs pixels by the image's edge anew, where here the edge is repeated.
  inner = np.s_[: -max(2, -(-2 * height // source[0])), : -max(2, -(-2 * width // source[1]))]
  assert abs(found - reference)[inner].max() < 0.01
  as_bytes = Image.fromarray(picture(*source)).resize((width, height), Image.Resampling.BICUBIC)
  if picture is waves:
    assert abs(found - np.asarray(as_bytes)).mean() < 0.5


def test_resizing_to_the_same_size_changes_nothing():
  sizes = [(40, 60), (64, 96), (1, 1), (64, 7)]
  canvases = np.stack([image_lib.place(noise(*size), size, CANVAS)[0] for size in sizes])
  found = jax.jit(image_lib.resize)(canvases, jnp.array(sizes), jnp.array(sizes))
  for (height, width), before, after in zip(sizes, canvases, np.asarray(found), strict=True):
    np.testing.assert_array_equal(after[:height, :width], before[:height, :width])


def test_resized_values_stay_within_bytes():
  # Cubic weights overshoot at an edge of black and white.
  found = resized(waves)
  assert found.min() == 0
  assert found.max() == 255


def test_normalised_values():
  mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  pixels = np.stack([np.zeros(3), mean * 255, np.full(3, 255), (mean + deviation) * 255])
  found = image_lib.normalise(jnp.asarray(pixels, jnp.float32), mean, deviation)
  assert found.dtype == jnp.float32
  expected = [-mean / deviation, np.zeros(3), (1 - mean) / deviation, np.ones(3)]
  np.testing.assert_allclose(found, expected, atol=1e-5)


# --- The whole path ----------------------------------------------------------------------


@pytest.mark.parametrize(
  ('size', 'quality'),
  [((150, 233), 92), ((233, 150), 60), ((70, 41), 92), ((30, 45), 60), ((64, 250), 92)],
)
def test_jpeg_to_normalised_pixels_is_pillows_path(size, quality):
  # Up, down, and both limits; with grain, as photographs have.
  grain = np.random.default_rng(size).normal(0, 12, (*size, 3))
  data = encoded((waves(*size) + grain).clip(0, 255).astype(np.uint8), 'JPEG', quality=quality)
  mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  target = image_lib.target_size(np.array(size), 64, 96)
  canvas = (96, 96)
  placed, source = image_lib.place(image_lib.decode(data), target, canvas)
  found = jax.jit(
    lambda *x: image_lib.normalise(image_lib.resize(*x), tuple(mean), tuple(deviation))
  )(placed[None], np.array([source]), target[None])
  h, w = target
  picture = Image.open(io.BytesIO(data)).convert('RGB').resize((w, h), Image.Resampling.BICUBIC)
  expected = (np.asarray(picture) / 255 - mean) / deviation
  difference = np.abs(found[0, :h, :w] - expected) * deviation
  assert difference.mean() < 0.5 / 255
