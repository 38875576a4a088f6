"""Computes how much of the canvases is padding, from sizes of images, without any data.

    python -m benchmarks.padding
    python -m benchmarks.padding --config=configs/nlvr2.py:r50 --sizes=FILE

The first takes the paper's configurations with the sizes in benchmarks/image_sizes.json, which says
where they are from, and appends a line each to benchmarks/results/padding.jsonl. The second takes
one configuration with a file of lines `height,width`, such as those of a dataset at hand.

Padding is the share by which canvases have more pixels than the resized images on them. Groups that
move to a larger canvas because they fill no batch (`Canvases.fill`) are not counted.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from benchmarks import record
from pixelbert_jax import configuration
from pixelbert_jax.input.canvases import Canvases

ROOT = pathlib.Path(__file__).parents[1]
SIZES = ROOT / 'benchmarks/image_sizes.json'
RESULTS = ROOT / 'benchmarks/results/padding.jsonl'
# By configuration: the sizes of its images.
CASES = {
  **dict.fromkeys(('pretrain.py:r50', 'pretrain.py:x152', 'pretrain.py:r50_1gpu'), 'coco'),
  **dict.fromkeys(('vqa.py:r50', 'vqa.py:x152', 'retrieval.py:r50', 'retrieval.py:x152'), 'coco'),
  **dict.fromkeys(('nlvr2.py:r50', 'nlvr2.py:x152'), 'nlvr2'),
  **dict.fromkeys(('nlvr.py:r50', 'nlvr.py:x152'), 'nlvr'),
}


def padding(canvases: Canvases, size: np.ndarray, count: np.ndarray) -> tuple[float, np.ndarray]:
  """Computes the padding, and the share of images (or pairs of images) on each canvas, [K].

  Args:
    canvases: how images are resized and placed.
    size: [N, 2] height and width of images; [N, 2, 2] of pairs of images.
    count: [N], how many there are of each.
  """
  chosen, images = canvases.choose(size), size.ndim - 1
  placed = canvases.area[chosen] * (images / canvases.sides.shape[1])
  resized = canvases.target(size).prod(-1, dtype=np.int64).reshape(len(size), -1).sum(-1)
  shares = np.bincount(chosen, count, len(canvases.shapes)) / count.sum()
  return float(placed @ count / (resized @ count) - 1), shares


def pairs(size: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Makes all pairs of images of these sizes, [N * N, 2, 2], with how many there are of each."""
  left, right = np.indices((len(size), len(size))).reshape(2, -1)
  return np.stack([size[left], size[right]], axis=1), count[left] * count[right]


def of(spec: str, sizes: np.ndarray) -> tuple[float, dict[str, float]]:
  """Computes the padding of a configuration, and the share of each of its canvases.

  Args:
    spec: the configuration, FILE[:VARIANT].
    sizes: [N, 3] height, width and number of images.
  """
  config = configuration.load(spec)
  canvases = Canvases(
    config.image.shorter, config.image.longer, tuple(map(tuple, config.image.canvases))
  )
  size, count = sizes[:, :2], sizes[:, 2].astype(np.float64)
  if config.name == 'nlvr2':
    size, count = pairs(size, count)
  found, shares = padding(canvases, size, count)
  names = ('x'.join(map(str, shape)) for shape in canvases.shapes)
  return found, dict(zip(names, shares.round(3).tolist(), strict=True))


def published(name: str) -> np.ndarray:
  """Returns the sizes [N, 3] of a dataset's images in benchmarks/image_sizes.json."""
  return np.array(json.loads(SIZES.read_text())[name]['sizes'])


def main() -> int:
  """Prints the padding of one configuration, or of all of the paper's and appends them."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', help='FILE[:VARIANT]')
  parser.add_argument('--sizes', help='a file of lines height,width')
  flags = parser.parse_args()
  if bool(flags.config) != bool(flags.sizes):
    parser.error('--config and --sizes go together')
  if flags.config:
    sizes = np.loadtxt(flags.sizes, int, delimiter=',', ndmin=2)
    found, shares = of(flags.config, np.insert(sizes, 2, 1, axis=1))
    print(f'{found:.1%} of {len(sizes):,} images: {shares}')
    return 0
  for spec, dataset in CASES.items():
    found, shares = of(str(ROOT / 'configs' / spec), published(dataset))
    print(f'{spec:22}{dataset:8}{found:6.1%}  {shares}')
    record.append(RESULTS, config=spec, sizes=dataset, padding=round(found, 4), shares=shares)
  return 0


if __name__ == '__main__':
  sys.exit(main())
