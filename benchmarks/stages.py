"""Compiles parts of the CNN for a TPU that is not here, in each way that `Backend` knows.

    pip install -e '.[plan]'
    python -m benchmarks.stages [PART ...]

Each part is compiled forward and backward, as in a training step of 8 images a chip. Appends a line
to benchmarks/results/stages.jsonl for each way: cycles and bytes, by the compiler. Prints the table
of BENCHMARKS.md.
"""

import json
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import record
from pixelbert_jax.input.image import model_input
from pixelbert_jax.models.backend import Backend, backend
from pixelbert_jax.models.padded import pixel_mask
from pixelbert_jax.models.resnet import ResNet
from pixelbert_jax.models.stem import Stem
from pixelbert_jax.plan import target
from pixelbert_jax.plan.cost import cost

RESULTS = pathlib.Path(__file__).with_name('results') / 'stages.jsonl'
TARGET, IMAGES, FILES = 'v5e:2x4', 8, (1280, 1280)
BEST = backend('tpu')


class Cnn(NamedTuple):
  """A model, and the canvas of its images."""

  model: ResNet
  canvas: tuple[int, int]


COMMON: dict[str, Any] = {'frozen': True, 'remat': True, 'dtype': jnp.bfloat16}
CNNS = {
  'R50': Cnn(ResNet((3, 4, 6, 3), **COMMON), (832, 1088)),
  'X152': Cnn(ResNet((3, 8, 36, 3), groups=32, group_width=8, **COMMON), (640, 832)),
}
LOOP = BEST._replace(unroll=False, pairs=False)
# By part, each way by what it does: from the plainest to the one that is used.
PARTS: dict[str, dict[str, Backend]] = {
  'R50 stem': {'whole images': BEST._replace(strips=1), '16 strips': BEST},
  'R50 layer1': {
    'BatchNorm after convolutions': LOOP._replace(folds=False),
    'folded into kernels': LOOP,
    'unrolled': BEST._replace(pairs=False),
    'pairs of columns': BEST,
  },
  'R50 layer2': {'loop': LOOP, 'unrolled': BEST},
  'R50 layer3': {'loop': LOOP, 'unrolled': BEST},
  'X152 layer1': {
    '32 groups': LOOP._replace(lanes=0),
    'merged to 128 channels': LOOP,
    'unrolled': BEST,
  },
  'X152 layer2': {'loop': LOOP, 'unrolled': BEST},
  'X152 layer3': {'loop': LOOP, 'unrolled': BEST},
}


def shape(of: jax.ShapeDtypeStruct | Any, *size: int) -> jax.ShapeDtypeStruct:
  """Describes an array of this type and size."""
  return jax.ShapeDtypeStruct(size, of)


def stem(cnn: Cnn, ways: Backend) -> tuple[Callable, tuple]:
  """Makes the program of resize and stem, with its gradient, and describes its arguments."""
  module = Stem('7x7', cnn.model.width, True, jnp.bfloat16, ways)
  batch = {
    'image': shape(jnp.uint8, IMAGES, *FILES, 3),
    'source_size': shape(jnp.int32, IMAGES, 2),
    'size': shape(jnp.int32, IMAGES, 2),
    'canvas': shape(jnp.uint8, IMAGES, *cnn.canvas, 0),
  }

  def program(variables: dict, batch: dict, dy: jax.Array) -> Any:
    image = model_input(batch, (0.5,) * 3, (0.2,) * 3)
    mask = pixel_mask(batch['size'], *cnn.canvas)
    image = jnp.where(mask, image, 0).astype(jnp.bfloat16)

    def run(params: dict) -> jax.Array:
      return module.apply(variables | {'params': params}, image, mask, True)[0]

    y, gradient = jax.vjp(run, variables['params'])
    return y, gradient(dy)

  image, mask = shape(jnp.bfloat16, IMAGES, *cnn.canvas, 3), shape(bool, IMAGES, *cnn.canvas, 1)
  variables = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, True), image, mask)
  dy = shape(jnp.bfloat16, IMAGES, *(x // 4 for x in cnn.canvas), cnn.model.width)
  return program, (variables, batch, dy)


def stage(cnn: Cnn, number: int, ways: Backend) -> tuple[Callable, tuple]:
  """Makes the program of a stage, with its gradient, and describes its arguments."""
  module = cnn.model.clone(backend=ways).stage(number)
  stride = 4 * math.prod(cnn.model.stage_strides()[: number - 1])
  places = [x // stride for x in cnn.canvas]
  channels = cnn.model.width * (2**number if number > 1 else 1)
  x = shape(jnp.bfloat16, IMAGES, *places, channels)
  mask = shape(bool, IMAGES, *places, 1)
  variables = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, True), x, mask)

  def program(variables: dict, x: jax.Array, mask: jax.Array, dy: jax.Array) -> Any:
    def run(params: dict, x: jax.Array) -> jax.Array:
      return module.apply(variables | {'params': params}, x, mask, True)[0]

    y, gradient = jax.vjp(run, variables['params'], x)
    return y, gradient(dy)

  dy = shape(jnp.bfloat16, IMAGES, *(p // module.stride for p in places), module.features)
  return program, (variables, x, mask, dy)


def measure(part: str, ways: Backend) -> dict[str, Any]:
  """Compiles a part for one chip; returns what the compiler says of it."""
  name, where = part.split()
  cnn = CNNS[name]
  program, described = stem(cnn, ways) if where == 'stem' else stage(cnn, int(where[-1]), ways)
  devices = target.parse(TARGET).devices()
  mesh = Mesh(devices[:1], 'chip')
  whole = NamedSharding(mesh, PartitionSpec())
  described = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), described
  )
  compiled = jax.jit(program).lower(*described).compile()
  total, memory = cost(compiled.as_text()).total, compiled.memory_analysis()
  return {
    'cycles': total.cycles,
    'bytes': total.bytes,
    'temporaries': memory.temp_size_in_bytes,
  }


def table() -> str:
  """Formats the newest line of each part and way."""
  lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
  newest = {(x['part'], x['ways']): x for x in lines}
  rows = ['| part | | Mcycles | GB | temporaries GB |', '|---|---|---|---|---|']
  for part, ways in PARTS.items():
    for words in ways:
      x = newest[part, words]
      numbers = (x['cycles'] / 1e6, x['bytes'] / 1e9, x['temporaries'] / 1e9)
      cells = (f'{numbers[0]:.1f}', f'{numbers[1]:.1f}', f'{numbers[2]:.2f}')
      rows.append(f'| {part} | {words} | {" | ".join(cells)} |')
  return '\n'.join(rows)


def main(*parts: str) -> None:
  """Compiles the parts, or all, in each way."""
  target.prepare()
  jax.config.update('jax_platforms', 'cpu')  # JAX has read the environment before.
  for part in parts or PARTS:
    for words, ways in PARTS[part].items():
      found = measure(part, ways)
      print(part, words, found, flush=True)
      record.append(RESULTS, part=part, ways=words, target=TARGET, **target.versions(), **found)
  print(table())


if __name__ == '__main__':
  main(*sys.argv[1:])
