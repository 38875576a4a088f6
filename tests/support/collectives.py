"""What devices exchange: the collectives of the programs that a short run compiles.

    JAX_NUM_CPU_DEVICES=8 python -m tests.support.collectives DATA_DIR

compiles a step, an evaluation and the scoring of retrieval on a mesh of 2 x 4 devices; with
XLA_FLAGS=--xla_dump_to=FOLDER `collectives` reads from what XLA wrote there. It prints the shapes
of the parameters, as JSON.
"""

import functools
import json
import pathlib
import re
import sys

import jax

from configs.pretrain import get_config
from pixelbert_jax import sharding
from pixelbert_jax.experiment import Experiment, prepare_data, resolve
from pixelbert_jax.plan.hlo import COLLECTIVES, arrays
from pixelbert_jax.train import init_state
from tests.support.mesh_run import scores_of_retrieval

LINE = re.compile(rf' = (.*?) (?:{"|".join(COLLECTIVES)})(?:-start)?\(')


def collectives(program: str) -> list[tuple[tuple[int, ...], int]]:
  """Returns shape and bytes of each array that a collective of a program gives, outside loops."""
  return [
    (array.shape, array.bytes)
    for line in program.splitlines()
    for result in LINE.findall(line)
    for array in arrays(result)
  ]


def programs(folder: pathlib.Path) -> dict[str, str]:
  """Reads the programs that XLA wrote to a folder, by the name of the function."""
  found = dict[str, str]()
  for path in folder.glob('*after_optimizations.txt'):
    name = path.name.split('.')[1]
    found[name] = found.get(name, '') + path.read_text()
  return found


def main(data_dir: str) -> None:
  """Compiles."""
  jax.config.update('jax_disable_most_optimizations', True)
  config = resolve(get_config('test'))
  config.data.data_dir, config.batch_size = data_dir, 64
  # Wide, so that parameters are larger than what is computed from them.
  config.transformer.update(width=256, mlp_width=1024, layers=1)
  config.transformer.max_positions = config.text.length  # so that all get a gradient
  config.sampled_pixels = 0  # On CPU alone, XLA gathers the noise that samples them.
  mesh = sharding.make_mesh(2, 4)
  experiment = Experiment.of(config, prepare_data(config))
  batches = experiment.batches
  state, step, _ = init_state(experiment, mesh)
  step.program(state, sharding.global_batch(mesh, batches['train'][0]))
  run = functools.partial(experiment.evaluator(mesh, 1), state.variables)
  run(batches['validation'])
  scores_of_retrieval(data_dir, 'float32', mesh)
  print(json.dumps([x.shape for x in jax.tree.leaves(state.params)]))


if __name__ == '__main__':
  main(*sys.argv[1:])
