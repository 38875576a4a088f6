"""Compares gradients of a grouped convolution's kernel: this project's and XLA's.

    python -m benchmarks.grouped_convolution

appends one line to benchmarks/results/grouped_convolution.jsonl: seconds of both gradients for a
3x3 layer of ResNeXt-152 32x8d (512 channels in 32 groups, 38x63 cells) on this machine.
"""

import functools
import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pixelbert_jax.models import convolution

SHAPE, GROUPS, REPETITIONS = (1, 38, 63, 512), 32, 5
RESULTS = pathlib.Path(__file__).with_name('results') / 'grouped_convolution.jsonl'


def seconds(convolve: Callable, x: jax.Array, kernel: jax.Array) -> float:
  """Measures the median time of a convolution's gradients by input and kernel, after compiling."""
  gradients = jax.jit(jax.grad(lambda x, k: convolve(x, k, 1, GROUPS).sum(), argnums=(0, 1)))
  jax.block_until_ready(gradients(x, kernel))
  times = []
  for _ in range(REPETITIONS):
    began = time.perf_counter()
    jax.block_until_ready(gradients(x, kernel))
    times.append(time.perf_counter() - began)
  return statistics.median(times)


def main() -> None:
  """Measures both gradients and appends a line."""
  normal = functools.partial(jax.random.normal, jax.random.key(0), dtype=jnp.float32)
  x, kernel = normal(SHAPE), normal((3, 3, SHAPE[-1] // GROUPS, SHAPE[-1]))
  xla = seconds(convolution.convolve, x, kernel)
  ours = seconds(convolution.convolve_by_rows, x, kernel)
  device = jax.devices()[0].device_kind
  line = {
    'device': f'{device} {platform.machine()}' if device == 'cpu' else device,
    'jax': jax.__version__,
    'seconds_xla': round(xla, 4),
    'seconds_ours': round(ours, 4),
    'ratio': round(xla / ours, 1),
  }
  with RESULTS.open('a') as file:
    file.write(json.dumps(line) + '\n')
  print(json.dumps(line))


if __name__ == '__main__':
  main()
