"""One's own images: whatever they come as, they are read as training reads them."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.image import ImageError
from pixelbert_jax.predict import photos

CANVASES = ((64, 64), (64, 96), (96, 64))
READER = photos.Reader(Canvases(64, 96, CANVASES), stride=16)


def noise(*shape: int) -> np.ndarray:
  return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def saved(picture, path, **options):
  picture.save(path, **options)
  return path


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'LA', 'P', '1', 'CMYK', 'I;16'])
@pytest.mark.parametrize('size', [(40, 60), (300, 400)])
def test_a_pillow_image_is_what_its_file_is(mode, size, tmp_path):
  if mode == 'I;16':
    picture = Image.fromarray(noise(*size).astype(np.uint16) * 257)
  else:
    picture = Image.fromarray(noise(*size, 3)).convert(mode)
  path = saved(picture, tmp_path / ('x.tif' if mode == 'CMYK' else 'x.png'))
  by_file, by_picture = READER(path), READER(picture)
  np.testing.assert_array_equal(by_picture.pixels, by_file.pixels)
  assert (by_picture.size, by_picture.canvas) == (by_file.size, by_file.canvas)
  np.testing.assert_array_equal(photos.pixels_of(picture), photos.pixels_of(path))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('size', [(40, 64), (300, 400)])
@pytest.mark.parametrize('kind', ['png', 'tif'])
def test_rotation_is_applied_however_it_comes(orientation, size, kind, tmp_path):
  exif = Image.Exif()
  exif[image_lib.ORIENTATION] = orientation
  path = saved(Image.fromarray(noise(*size, 3)), tmp_path / f'x.{kind}', exif=exif)
  by_file, by_picture = READER(str(path)), READER(Image.open(path))
  upright = image_lib.decode(path.read_bytes())
  assert by_file.canvas == ((64, 96) if orientation < 5 else (96, 64))
  assert abs(by_picture.pixels.astype(int) - by_file.pixels).max() <= 1
  np.testing.assert_array_equal(photos.pixels_of(path), upright)


def test_arrays_are_grey_rgb_or_have_transparency_which_is_dropped():
  rgb = noise(40, 60, 3)
  np.testing.assert_array_equal(READER(rgb).pixels, rgb)
  rgba = np.concatenate([rgb, noise(40, 60, 1)], axis=-1)
  np.testing.assert_array_equal(READER(rgba).pixels, rgb)
  for grey in (rgb[..., 0], rgb[..., :1]):
    np.testing.assert_array_equal(READER(grey).pixels, np.repeat(rgb[..., :1], 3, axis=-1))


def test_size_and_canvas_are_those_of_training():
  for height, width in ((64, 64), (20, 25), (50, 200), (96, 64), (500, 400), (48, 64)):
    placed = READER(noise(height, width, 3))
    size = np.array([[height, width]])
    assert placed.size == tuple(READER.canvases.target(size)[0])
    assert placed.canvas == CANVASES[READER.canvases.choose(size)[0]]
    assert placed.pixels.shape[:2] == tuple(image_lib.placed_size(size, np.array([placed.size]))[0])
    assert (np.array(placed.pixels.shape[:2]) <= placed.source).all()


def test_what_fits_no_canvas_is_reduced_until_it_does():
  wide = photos.Reader(Canvases(64, 256, ((64, 256), (96, 128))), stride=16)
  assert wide(noise(60, 200, 3)).size == (64, 213)
  upright = wide(noise(200, 100, 3))
  assert (upright.size, upright.canvas) == ((96, 48), (96, 128))


def encoded(picture, kind='PNG', **options):
  file = io.BytesIO()
  picture.save(file, kind, **options)
  return file.getvalue()


UNREAD = ['(JPEG, PNG, WEBP, BMP, GIF, TIFF)', 'save it as JPEG or PNG']
DNG = {'tiffinfo': {254: 1, 50706: b'\1\4\0\0'}}
BAD_FILES = {
  'x.png': (b'<html>', ['6 bytes that are not a whole image']),
  'half.png': (encoded(Image.fromarray(noise(60, 90, 3)))[:5000], ['not a whole image']),
  'huge.png': (
    encoded(Image.new('1', (20_000, 10_000))),
    ['more than 89 million pixels', 'reduce'],
  ),
  'panorama.png': (
    encoded(Image.new('RGB', (20_000, 600))),
    ['600x20000', 'become 3x96', 'cells of 16x16', 'cut it'],
  ),
  'phone.heic': (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(99), UNREAD),
  'phone.avif': (b'\0\0\0\x18ftypavif\0\0\0\0mif1avif' + bytes(99), UNREAD),
  'scan.pdf': (b'%PDF-1.7\n', UNREAD),
  'raw.dng': (encoded(Image.new('RGB', (64, 64)), 'TIFF', **DNG), ['preview', UNREAD[1]]),
  'whole.tif': (encoded(Image.new('I', (64, 64), 40_000), 'TIFF'), ['32 bits a channel: save it']),
  'float.tif': (encoded(Image.new('F', (64, 64), 0.5), 'TIFF'), ['32 bits a channel: save it']),
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_a_bad_file_is_named(name, tmp_path):
  content, words = BAD_FILES[name]
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ImageError) as error:
    READER(tmp_path / name)
  assert str(error.value).startswith(f'{tmp_path / name}: ')
  assert '\n' not in str(error.value)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  ('photo', 'words'),
  [
    ('nowhere.jpg', ['nowhere.jpg: No such file']),
    ('.', ['.: Is a directory']),
    (np.zeros((4, 4, 3)), ['image 7: expected uint8', 'got an array [4, 4, 3] of float64']),
    (np.zeros((4, 4, 5), np.uint8), ['image 7', '[4, 4, 5]']),
    (np.zeros((0, 4, 3), np.uint8), ['image 7', 'no pixels']),
    (b'GIF89a', ['image 7: expected a path', 'got bytes']),
    (None, ['image 7: expected a path', 'got NoneType']),
    (Image.new('I', (64, 64), 40_000), ['image 7: 32 bits a channel: save it']),
  ],
)
def test_what_is_no_image_is_told(photo, words):
  with pytest.raises(ImageError) as error:
    READER(photo, 7)
  for word in words:
    assert word in str(error.value)


def test_a_broken_pillow_image_is_told(tmp_path):
  path = tmp_path / 'half.png'
  path.write_bytes(BAD_FILES['half.png'][0])
  with Image.open(path) as picture, pytest.raises(ImageError, match=r'image 3: .*cannot be read'):
    READER(picture, 3)


def test_one_or_several():
  one, several = noise(4, 4, 3), noise(2, 4, 4, 3)
  assert photos.listed('x.jpg') == ['x.jpg']
  assert photos.listed(one)[0] is one
  np.testing.assert_array_equal(np.stack(photos.listed(several)), several)
  assert photos.listed(iter(['x.jpg', 'y.jpg'])) == ['x.jpg', 'y.jpg']
  with pytest.raises(ImageError, match=r'expected images: a path, .*, got NoneType'):
    photos.listed(None)


def test_each_is_read_once():
  one, two = noise(4, 4, 3), noise(4, 4, 3)
  found, which = photos.distinct(['x.jpg', one, 'y.jpg', 'x.jpg', two, one])
  assert which == [0, 1, 2, 0, 3, 1]
  assert found[0] == 'x.jpg'
  assert found[2] == 'y.jpg'
  assert found[1] is one
  assert found[3] is two


def test_many_are_read_ahead_in_order_but_not_all_at_once():
  many, asked, lock = (
    [np.full((8, 8), i % 256, np.uint8) for i in range(300)],
    [0],
    threading.Lock(),
  )

  class Counting(photos.Reader):
    def __call__(self, photo, number=0):
      with lock:
        asked[0] += 1
      return super().__call__(photo, number)

  stream = Counting(READER.canvases, READER.stride).stream(many)
  first = next(stream)
  assert asked[0] <= photos.AHEAD + 1
  rest = list(stream)
  assert [p.number for p in (first, *rest)] == list(range(300))
  assert [p.pixels[0, 0, 0] for p in (first, *rest)] == [i % 256 for i in range(300)]


def test_groups_are_of_one_shape_and_full_but_for_the_last():
  sizes = [(64, 64), (30, 64), (60, 90), (64, 128), (100, 60)]
  placed = [READER(noise(*sizes[i % 5], 3), i) for i in range(33)]
  groups = list(photos.gathered(placed, 4))
  shapes = [{(p.canvas, p.source) for p in group} for group in groups]
  assert all(len(shape) == 1 for shape in shapes)
  assert sorted(p.number for group in groups for p in group) == list(range(33))
  for shape in {s for (s,) in map(tuple, shapes)}:
    sizes = [len(group) for group in groups if (group[0].canvas, group[0].source) == shape]
    assert sizes[:-1] == [4] * (len(sizes) - 1)


def test_a_batch_is_filled_up_by_its_first_image():
  group = [READER(noise(50, 64, 3), 0), READER(noise(64, 40, 3), 1)]
  batch = photos.batch_of(group, 3)
  assert batch['image'].shape == (3, *group[0].source, 3)
  assert batch['canvas'].shape == (3, *group[0].canvas, 0)
  np.testing.assert_array_equal(batch['image'][1, :64, :40], group[1].pixels)
  np.testing.assert_array_equal(batch['image'][2], batch['image'][0])
  assert batch['source_size'].tolist() == [[50, 64], [64, 40], [50, 64]]
  assert batch['size'].tolist() == [list(p.size) for p in (*group, group[0])]
