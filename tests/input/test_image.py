"""Images: sizes by hand, decoding as Pillow does, resizing as Pillow does."""

import functools
import io
import runpy
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from pixelbert_jax import UserError
from pixelbert_jax.input import image as image_lib

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

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


def test_a_palette_with_degrees_of_transparency():
  picture, file = Image.fromarray(waves(20, 30)).convert('P'), io.BytesIO()
  picture.save(file, 'PNG', transparency=bytes(range(200)))
  given, expected = Image.open(file), np.asarray(picture.convert('RGB'))
  # Warnings are errors here.
  np.testing.assert_array_equal(image_lib.decode(file.getvalue()), expected)
  np.testing.assert_array_equal(image_lib.from_picture(given), expected)
  assert (given.mode, given.info['transparency']) == ('P', bytes(range(200)))


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_jpeg_is_decoded_as_by_pillow(mode):
  file = io.BytesIO()
  Image.fromarray(waves(40, 60)).convert(mode).save(file, 'JPEG', quality=90)
  found = image_lib.decode(file.getvalue()).astype(int)
  reference = np.asarray(Image.open(file).convert('RGB')).astype(int)
  assert found.shape == (40, 60, 3)
  assert abs(found - reference).mean() < 1


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_rotation_in_the_exif_is_applied(orientation, kind):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  data = encoded(waves(40, 64), kind, exif=exif)
  reference = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
  found = image_lib.decode(data)
  assert found.shape == reference.shape == (*image_lib.file_size(data), 3)
  assert abs(found.astype(int) - reference).mean() < 0.5


# Type, count and value of the EXIF entry.
STRANGE = {
  'none of 1 to 8': (3, 1, b'\x09\0\0\0'),
  'zero': (3, 1, bytes(4)),
  'the largest': (3, 1, b'\xff\xff\0\0'),
  'text': (2, 2, b'6\0\0\0'),
  'bytes': (1, 1, b'\x06\0\0\0'),
}


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('name', STRANGE)
def test_an_orientation_that_is_none_is_ignored(name, kind):
  entry, count, value = STRANGE[name]
  table = struct.pack('<HHHI', 1, ORIENTATION, entry, count) + value + bytes(4)
  pixels = waves(40, 64)
  data = encoded(pixels, kind, exif=b'Exif\0\0II*\0\x08\0\0\0' + table)
  assert image_lib.file_size(data) == (40, 64)
  plain = image_lib.decode(encoded(pixels, kind))
  np.testing.assert_array_equal(image_lib.decode(data), plain)
  target = np.array([40, 64])
  np.testing.assert_array_equal(image_lib.load(data, target, target), plain)
  np.testing.assert_array_equal(image_lib.from_picture(Image.open(io.BytesIO(data))), plain)


def test_file_size_is_height_and_width():
  for kind in ('JPEG', 'PNG'):
    assert image_lib.file_size(encoded(noise(5, 9), kind)) == (5, 9)


def chunk(name: bytes, content: bytes) -> bytes:
  """A part of a PNG file."""
  check = zlib.crc32(name + content)
  return struct.pack('>I', len(content)) + name + content + struct.pack('>I', check)


def test_the_size_of_a_png_needs_no_pixels():
  assert image_lib.file_size(BAD['png, half']) == (60, 90)


def test_a_png_with_its_rotation_behind_the_pixels():
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  data = encoded(waves(40, 64))
  data = data[:-12] + chunk(b'eXIf', exif.tobytes().removeprefix(b'Exif\0\0')) + data[-12:]
  assert image_lib.file_size(data) == (64, 40)
  np.testing.assert_array_equal(image_lib.decode(data), np.rot90(waves(40, 64), -1))


def huge_png(side: int = 100_000) -> bytes:
  """A small file that says it is so many pixels high and wide."""
  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
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


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_too_many_pixels_are_not_even_decoded():
  with pytest.raises(image_lib.ImageError, match='more than 89 million pixels: reduce it'):
    image_lib.file_size(huge_png(10_000))  # of which Pillow only warns


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_importing_this_changes_nothing_for_images_that_others_open():
  runpy.run_path(image_lib.__file__)
  assert Image.open(io.BytesIO(huge_png(10_000))).size == (10_000, 10_000)


@pytest.mark.parametrize('channels', [1, 3])
def test_png_of_16_bits_keeps_the_upper_8(channels):
  pixels = np.random.default_rng(0).integers(0, 2**16, (7, 9, channels), np.uint16)
  body = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
  header = struct.pack('>IIBBBBB', 9, 7, 16, 2 if channels == 3 else 0, 0, 0, 0)
  chunks = [(b'IHDR', header), (b'IDAT', zlib.compress(body)), (b'IEND', b'')]
  data = b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*c) for c in chunks)
  found = image_lib.decode(data)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, np.broadcast_to(pixels >> 8, (7, 9, 3)))


def test_stray_bytes_in_a_jpeg_are_overlooked():
  data = encoded(waves(40, 60), 'JPEG', quality=90)
  stray = data[:-2] + b'\1\2\3\4' + data[-2:]
  np.testing.assert_array_equal(image_lib.decode(stray), image_lib.decode(data))


def test_a_jpeg_with_a_preview_inside():
  file = io.BytesIO()
  first, second = Image.fromarray(waves(40, 60)), Image.fromarray(waves(20, 30))
  first.save(file, 'MPO', save_all=True, append_images=[second], quality=90)
  assert Image.open(file).format == 'MPO'
  found = image_lib.decode(file.getvalue()).astype(int)
  assert abs(found - as_by_pillow(file.getvalue(), 40, 60)).mean() < 0.5


# --- Loading -----------------------------------------------------------------------------


def as_by_pillow(data: bytes, height: int, width: int) -> np.ndarray:
  """The reference: all on the host, from the full size."""
  picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB')
  return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).astype(int)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('size', [(20, 30), (40, 60), (60, 61), (80, 120)])
def test_an_image_up_to_twice_its_target_is_loaded_whole(kind, size):
  data = encoded(waves(*size), kind)
  target = np.array((40, 60))
  found = image_lib.load(data, np.array(size), target)
  np.testing.assert_array_equal(found, image_lib.decode(data))
  assert found.shape[:2] == tuple(image_lib.placed_size(np.array(size), target)) == size


@pytest.mark.parametrize('size', [(200, 300), (81, 60), (40, 121), (30, 500)])
def test_a_larger_image_is_reduced_to_its_target(size):
  data, target = encoded(noise(*size)), np.array((40, 60))
  found = image_lib.load(data, np.array(size), target)
  np.testing.assert_array_equal(found, as_by_pillow(data, 40, 60))
  assert tuple(image_lib.placed_size(np.array(size), target)) == (40, 60)


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
  """A picture with the spectrum of photographs: amplitudes fall as frequency ** -1.2."""
  rng = np.random.default_rng(seed)
  frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
  spectrum = rng.normal(size=(4, *frequency.shape, 2)) @ (1, 1j)
  pixels = np.fft.irfft2(spectrum / np.maximum(frequency, 1e-3) ** 1.2, (height, width))
  pixels = pixels[0] + 0.3 * pixels[1:]  # Much the same in all colours.
  return (128 + 45 * np.moveaxis(pixels, 0, -1) / pixels.std()).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('orientation', [1, 3, 6])
@pytest.mark.parametrize('divisor', [6.05, 12.2, 24.5])
def test_a_much_larger_jpeg_is_decoded_in_part(monkeypatch, divisor, orientation):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  data = encoded(scene(1201, 1607), 'JPEG', quality=92, exif=exif)
  size = np.array(image_lib.file_size(data))
  target = np.round(size / divisor).astype(int)
  seen, decode_jpeg = [], simplejpeg.decode_jpeg

  def spy(*arguments, **options) -> np.ndarray:
    seen.append(decode_jpeg(*arguments, **options))
    return seen[0]

  monkeypatch.setattr(simplejpeg, 'decode_jpeg', spy)
  found = image_lib.load(data, size, target)
  shrink = int(divisor / 3)
  assert seen[0].shape == (-(-1201 // shrink), -(-1607 // shrink), 3)
  assert found.shape == (*target, 3)
  # Wherever it is: a last row or column that is partly there would show as a shift.
  assert abs(found - as_by_pillow(data, *target)).mean() < 0.5


def test_an_image_of_another_size_than_its_dataset_says():
  for size in ((30, 40), (40, 31)):
    with pytest.raises(
      image_lib.ImageError, match=r'^image 3: 40x30 pixels, .* has (30x40|40x31):'
    ):
      image_lib.load(encoded(noise(40, 30)), np.array(size), np.array(size), 'image 3')


# --- Placing -----------------------------------------------------------------------------


def placed(pixels: np.ndarray, canvas=CANVAS) -> np.ndarray:
  out = np.zeros((*canvas, 3), np.uint8)
  image_lib.place(pixels, out)
  return out


@pytest.mark.parametrize('size', [(40, 60), (60, 96), (64, 90), (62, 95)])
def test_an_image_is_placed_with_its_edges_repeated(size):
  pixels, (h, w) = noise(*size), size
  canvas = placed(pixels)
  reach = image_lib.REACH
  right, below = min(reach, 96 - w), min(reach, 64 - h)
  np.testing.assert_array_equal(canvas[:h, :w], pixels)
  np.testing.assert_array_equal(canvas[:h, w : w + reach], np.repeat(pixels[:, -1:], right, axis=1))
  repeated = np.repeat(canvas[h - 1 : h], below, axis=0)
  np.testing.assert_array_equal(canvas[h : h + reach], repeated)


def test_an_image_of_the_canvas_fills_it():
  np.testing.assert_array_equal(placed(noise(*CANVAS)), noise(*CANVAS))


# --- Resizing ----------------------------------------------------------------------------

# Source and target: enlarged, reduced as far as the host leaves to the device, both, up to edges.
RESIZED = [
  ((30, 45), (60, 90)),
  ((33, 50), (64, 96)),
  ((20, 20), (64, 64)),
  ((64, 96), (32, 48)),
  ((60, 90), (40, 60)),
  ((64, 96), (63, 95)),
  ((17, 96), (20, 50)),
  ((63, 90), (32, 46)),
]
# From canvas to canvas: of one shape, to a larger and to a smaller one.
BETWEEN = [((64, 96), (64, 96)), ((64, 96), (70, 130)), ((80, 100), (64, 96))]
resize_to = jax.jit(image_lib.resize, static_argnums=3)


@functools.cache
def resized(picture, between=BETWEEN[0]) -> np.ndarray:
  """All of RESIZED as one batch."""
  canvases = np.stack([placed(picture(*source), between[0]) for source, _ in RESIZED])
  sizes = jnp.array(RESIZED)
  return np.asarray(resize_to(canvases, sizes[:, 0], sizes[:, 1], between[1]))


@pytest.mark.parametrize('case', range(len(RESIZED)), ids=map(str, RESIZED))
@pytest.mark.parametrize('picture', [waves, noise])
@pytest.mark.parametrize('between', BETWEEN)
def test_resized_as_by_pillow(picture, case, between):
  source, (height, width) = RESIZED[case]
  found = resized(picture, between)[case]
  assert found.shape == (*between[1], 3)
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
  canvases = np.stack([placed(noise(*size)) for size in sizes])
  found = resize_to(canvases, jnp.array(sizes), jnp.array(sizes), CANVAS)
  for (height, width), before, after in zip(sizes, canvases, np.asarray(found), strict=True):
    np.testing.assert_array_equal(after[:height, :width], before[:height, :width])


def test_resized_values_stay_within_bytes():
  # Cubic weights overshoot at an edge of black and white.
  found = resized(waves)
  assert found.min() == 0
  assert found.max() == 255


def test_normalised_values():
  mean, deviation = np.array(MEAN), np.array(DEVIATION)
  pixels = np.stack([np.zeros(3), mean * 255, np.full(3, 255), (mean + deviation) * 255])
  found = image_lib.normalise(jnp.asarray(pixels, jnp.float32), mean, deviation)
  assert found.dtype == jnp.float32
  expected = [-mean / deviation, np.zeros(3), (1 - mean) / deviation, np.ones(3)]
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize('quality', [92, 60])
@pytest.mark.parametrize(
  ('size', 'target'), [((121, 160), (200, 264)), ((121, 160), (96, 127)), ((600, 800), (96, 128))]
)
def test_jpeg_to_normalised_pixels_is_pillows_path(size, target, quality):
  # Up, down on the device, and down on the host from a scaled decoding.
  data = encoded(scene(*size), 'JPEG', quality=quality)
  batch = {
    'image': placed(image_lib.load(data, np.array(size), np.array(target)), (128, 192))[None],
    'source_size': image_lib.placed_size(np.array([size]), np.array([target])),
    'size': np.array([target]),
    'canvas': np.zeros((1, 256, 320, 0), np.uint8),
  }
  found = np.asarray(jax.jit(image_lib.model_input, static_argnums=(1, 2))(batch, MEAN, DEVIATION))
  assert found.shape == (1, 256, 320, 3)
  bytes_ = (found * DEVIATION + MEAN)[0, : target[0], : target[1]] * 255
  assert abs(bytes_ - as_by_pillow(data, *target)).mean() < 0.5


def test_mirrored_images():
  sizes = [(40, 60), (64, 96), (30, 90), (40, 60)]
  canvases = np.stack([placed(noise(*size)) for size in sizes])
  flip = np.array([True, True, True, False])
  found = np.asarray(image_lib.mirror(canvases, jnp.array(sizes)[:, 1], flip))
  for size, after in zip(sizes[:3], found, strict=False):
    # Also its new edges, as if the host had placed it mirrored.
    expected = placed(noise(*size)[:, ::-1])
    width = min(96, size[1] + image_lib.REACH)
    np.testing.assert_array_equal(after[: size[0], :width], expected[: size[0], :width])
  np.testing.assert_array_equal(found[3], canvases[3])
  batch = {
    'image': canvases,
    'source_size': np.array(sizes),
    'size': np.array(sizes),
  }
  flipped = image_lib.model_input({**batch, 'flip': jnp.array(flip)}, MEAN, DEVIATION)
  plain = image_lib.model_input(batch, MEAN, DEVIATION)
  for i, (h, w) in enumerate(sizes):
    expected = plain[i, :h, :w][:, :: -1 if flip[i] else 1]
    np.testing.assert_allclose(flipped[i, :h, :w], expected, atol=1e-5)
