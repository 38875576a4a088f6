"""Measures input: images per second on one core, beside the decoder's limit and a Pillow pipeline.

    python -m benchmarks.input [--parts=images] [--repeats=5] [--memory_images=20000] [--output=F]

The parts are `images`, `memory` and `planning` (`planning.py`); all of them, unless some are named.
All cases of images run interleaved, on the same generated photographs and one core. Results are
medians, appended to benchmarks/results/input.jsonl as one line.
"""

import functools
import importlib.metadata
import io
import itertools
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import psutil
import simplejpeg
from absl import app, flags
from PIL import Image
from tqdm import tqdm

from benchmarks import planning, record
from data.miniatures import photograph
from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.pipeline import read
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.tasks.pretraining import Hiding, PairBatches

try:
  import cv2
except ImportError:  # Not a dependency; only compared with.
  cv2 = None

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
ROOT = pathlib.Path(__file__).parents[1]
BATCH = 16
CANVASES = {
  '800/1333': Canvases(800, 1333, ((832, 832), (832, 1088), (832, 1344), (1088, 832), (1344, 832))),
  '384/640': Canvases(384, 640, ((384, 384), (384, 512), (384, 640), (512, 384), (640, 384))),
}
PIXELS = ('image', 'source_size', 'size', 'canvas')
PARTS = ('images', 'memory', 'planning')
PACKAGES = ('jax', 'numpy', 'Pillow', 'simplejpeg', 'opencv-python-headless')


@functools.cache
def photographs() -> list[bytes]:
  """Generates the photographs of all measurements."""
  return [photograph(480, 640, seed) for seed in range(BATCH)]


class Repeated(Sequence):
  """A dataset of many records that repeat a few images."""

  def __init__(self, images: Sequence[bytes], length: int):
    self._images, self._length = images, length

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, i: int) -> dict[str, bytes]:
    return {'image': self._images[i % len(self._images)]}


def batches_of(images: Sequence[bytes], length: int, canvases: Canvases) -> PairBatches:
  """Makes the real batches of a dataset of `length` records with one text each."""
  sizes = [image_lib.file_size(data) for data in images]
  text = 'a large red circle is left of two small blue squares {}'
  rows = (Row(f'{i}', *sizes[i % len(images)], [Caption(text.format(i), i)]) for i in range(length))
  return PairBatches(
    split=Split(Repeated(images, length), Sidecar.of(rows)),
    tokenizer=Tokenizer(ROOT / 'data/scenes/vocab.txt', 40),
    canvases=canvases,
    seed=0,
    images=BATCH,
    texts_per_image=1,
    hiding=Hiding(0.15),
    training=True,
  )


def by_pillow(data: bytes, canvases: Canvases) -> np.ndarray:
  """Loads an image as ViLT does: [3, h, w] float32, normalised."""
  with Image.open(io.BytesIO(data)) as picture:
    picture = picture.convert('RGB')
  height, width = canvases.target(np.array(picture.size[::-1])).tolist()
  picture = picture.resize((width, height), Image.Resampling.BICUBIC)
  pixels = np.asarray(picture).transpose(2, 0, 1).astype(np.float32) / 255
  mean, deviation = (np.float32(x)[:, None, None] for x in (MEAN, DEVIATION))
  return (pixels - mean) / deviation


def batch_by_pillow(images: Sequence[bytes], canvases: Canvases) -> jax.Array:
  """Makes the input of the model [B, H, W, 3] entirely on the host."""
  pixels = [by_pillow(data, canvases) for data in images]
  canvas = image_lib.choose_canvas(np.array([x.shape[1:] for x in pixels]), canvases.shapes)[0]
  batch = np.zeros((len(images), *canvases.shapes[canvas], 3), np.float32)
  for row, x in zip(batch, pixels, strict=True):
    row[: x.shape[1], : x.shape[2]] = x.transpose(1, 2, 0)
  return jax.device_put(batch)


def cases(images: Sequence[bytes], large: bytes) -> Iterator[tuple[str, int, Callable[[], Any]]]:
  """Yields the measured cases: name, number of images, and call."""
  yield 'decode limit (simplejpeg)', BATCH, lambda: [simplejpeg.decode_jpeg(x) for x in images]
  yield 'decode, Pillow', BATCH, lambda: [decode_by_pillow(x) for x in images]
  if cv2:
    buffers = [np.frombuffer(x, np.uint8) for x in images]
    yield (
      'decode, OpenCV',
      BATCH,
      lambda: [cv2.imdecode(x, cv2.IMREAD_COLOR_RGB) for x in buffers],
    )
  model_input = jax.jit(image_lib.model_input, static_argnums=(1, 2))
  for name, canvases in CANVASES.items():
    batches = batches_of(images, len(images), canvases)
    device = jax.device_put({k: batches[0][k] for k in PIXELS})
    numbers = itertools.count()

    def host(batches=batches, numbers=numbers) -> dict:
      return batches[next(numbers) % len(batches)]

    def host_and_device(host=host) -> jax.Array:
      batch = host()
      return model_input({k: batch[k] for k in PIXELS}, MEAN, DEVIATION).block_until_ready()

    yield f'host part {name}', BATCH, host
    yield (
      f'Pillow {name}',
      BATCH,
      lambda canvases=canvases: [by_pillow(x, canvases) for x in images],
    )
    yield (
      f'device part {name} (on this CPU)',
      BATCH,
      lambda device=device: model_input(device, MEAN, DEVIATION).block_until_ready(),
    )
    yield f'whole path {name}', BATCH, host_and_device
    yield (
      f'whole path by Pillow {name}',
      BATCH,
      lambda canvases=canvases: batch_by_pillow(images, canvases).block_until_ready(),
    )
  yield from cases_of_large(large)


def decode_by_pillow(data: bytes) -> np.ndarray:
  """Decodes an image with Pillow."""
  return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


def cases_of_large(data: bytes) -> Iterator[tuple[str, int, Callable[[], Any]]]:
  """Yields the cases of a photograph of 12 megapixels: decoders, scales, and our host part."""
  size = np.array(image_lib.file_size(data))
  buffer = np.frombuffer(data, np.uint8)
  for scale in (1, 2, 4, 8):
    height, width = (-(-size // scale)).tolist() if scale > 1 else (0, 0)
    yield (
      f'12 MP decode 1/{scale}, simplejpeg',
      1,
      lambda h=height, w=width: simplejpeg.decode_jpeg(data, 'RGB', min_height=h, min_width=w),
    )
    if cv2:
      flag = cv2.IMREAD_COLOR_RGB if scale == 1 else getattr(cv2, f'IMREAD_REDUCED_COLOR_{scale}')
      yield f'12 MP decode 1/{scale}, OpenCV', 1, lambda f=flag: cv2.imdecode(buffer, f)
  for name, canvases in CANVASES.items():
    target = canvases.target(size)
    yield f'12 MP host part {name}', 1, lambda t=target: image_lib.load(data, size, t)
    yield f'12 MP Pillow {name}', 1, lambda c=canvases: by_pillow(data, c)


def measure(repeats: int) -> dict[str, float]:
  """Measures images per second of every case, as medians over interleaved rounds."""
  images = photographs()
  timed = list(cases(images, photograph(3000, 4000, 0)))
  seconds: dict[str, list[float]] = {name: [] for name, *_ in timed}
  for turn in tqdm(range(repeats + 1), 'rounds', leave=False):
    for name, number, call in timed:
      began = time.perf_counter()
      call()
      if turn:  # The first round warms up.
        seconds[name].append((time.perf_counter() - began) / number)
  rates = {name: round(1 / statistics.median(s), 1) for name, s in seconds.items()}
  return {'bytes of an image': round(statistics.mean(map(len, images))), **rates}


def differences() -> dict[str, float]:
  """Computes the mean absolute difference, of 255, between our model input and Pillow's."""
  means = {}
  images = photographs()
  for name, canvases in CANVASES.items():
    batches = batches_of(images, BATCH, canvases)
    batch, order = batches[0], batches.plan(0).image[0]
    ours = image_lib.model_input(batch, MEAN, DEVIATION)
    pillow = batch_by_pillow([images[i] for i in order], canvases)
    height, width = batch['size'][0]
    difference = (np.asarray(ours) - np.asarray(pillow))[:, :height, :width]
    means[f'difference {name}'] = round(float(abs(difference * DEVIATION).mean() * 255), 3)
  return means


def memory(number: int) -> dict[str, float]:
  """Measures resident MiB while `number` images pass the pipeline: early, at the end, maximum."""
  process, mib = psutil.Process(), 2**20
  images = photographs()
  batches = batches_of(images, number, CANVASES['800/1333'])
  resident = []
  for _ in tqdm(read(batches, range(len(batches))), 'memory', len(batches), leave=False):
    resident.append(process.memory_info().rss / mib)
  early = len(resident) // 10
  return {
    f'MiB resident after {early * BATCH:,} images': round(resident[early]),
    f'MiB resident after {len(resident) * BATCH:,} images': round(resident[-1]),
    'MiB resident at most': round(max(resident)),
  }


def version(package: str) -> str | None:
  """Returns the installed version, or None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def rates(repeats: int) -> dict[str, float]:
  """Measures images per second on one core, and how far results are from Pillow's."""
  all_cores = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {max(all_cores)})  # XLA's threads start later and inherit it.
  if cv2:
    cv2.setNumThreads(1)
  results = measure(repeats) | differences()
  os.sched_setaffinity(0, all_cores)
  limit = results['decode limit (simplejpeg)']
  return results | {
    f'host part {n} of limit': round(results[f'host part {n}'] / limit, 2) for n in CANVASES
  }


def main(_) -> None:
  values, results = flags.FLAGS, {}
  if 'images' in values.parts:
    results |= rates(values.repeats)
  if 'memory' in values.parts:
    results |= memory(values.memory_images)
  if 'planning' in values.parts:
    results |= planning.measure(CANVASES['800/1333'])
  for name, value in results.items():
    print(f'{name:<60}{value:>12,}')
  versions = {name: version(name) for name in PACKAGES}
  record.append(pathlib.Path(values.output), versions=versions, results=results)


if __name__ == '__main__':
  flags.DEFINE_multi_enum('parts', PARTS, PARTS, 'What to measure.')
  flags.DEFINE_integer('repeats', 5, 'Rounds over all cases.')
  flags.DEFINE_integer('memory_images', 20_000, 'Images read in the measurement of memory.')
  flags.DEFINE_string('output', str(planning.RESULTS), 'File of results.')
  app.run(main)
