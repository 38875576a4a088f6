"""A short run on each of several meshes, in a process with its own devices.

    JAX_NUM_CPU_DEVICES=8 python -m tests.support.mesh_run DATA_DIR float32 1x8 8x1 2x4

prints a JSON object: for each mesh the losses of the steps, the metrics of an evaluation whose last
batch is not full, how many parameters are split, and the scores of retrieval, a row an image.
"""

import functools
import json
import sys

import jax
import numpy as np

from configs import retrieval
from configs.pretrain import get_config
from pixelbert_jax import sharding
from pixelbert_jax.experiment import Experiment, init_variables, prepare_data, resolve
from pixelbert_jax.tasks.sums import finish
from pixelbert_jax.train import init_state

STEPS = 20


def run(config, data, fsdp):
  """Trains for STEPS steps and evaluates."""
  mesh = sharding.make_mesh(data, fsdp)
  experiment = Experiment.of(config, prepare_data(config))
  batches = experiment.batches
  state, step, _ = init_state(experiment, mesh)
  if config.dtype == 'float64':
    wide = jax.tree.map(lambda x: x.astype(x.dtype if x.dtype == np.int32 else np.float64), state)
    state = jax.device_put(wide, sharding.state_sharding(mesh, wide))
  losses = []
  for number in range(STEPS):
    state, _ = step(state, [sharding.global_batch(mesh, batches['train'][number])])
    losses.append(finish(jax.device_get(state.sums))['loss'])
    state = state._replace(sums=jax.tree.map(np.zeros_like, jax.device_get(state.sums)))
  run = functools.partial(experiment.evaluator(mesh), state.variables)
  metrics = experiment.task.evaluate(run, batches['validation'])
  scores = scores_of_retrieval(config.data.data_dir, config.dtype, mesh)
  split = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(state.params))
  return {'losses': losses, 'metrics': metrics, 'split': split, 'scores': scores}


def scores_of_retrieval(data_dir, dtype, mesh):
  """Scores images with captions by an untrained model; the last block is not full."""
  config = resolve(retrieval.get_config('test'))
  config.data.data_dir, config.dtype, config.batch_size = data_dir, dtype, 16 * 4
  config.eval_images, config.transformer.width, config.transformer.mlp_width = 21, 128, 512
  experiment = Experiment.of(config, prepare_data(config))
  batches = experiment.batches['validation']
  make = functools.partial(init_variables, experiment.model, config.seed, batches[0])
  shardings = sharding.state_sharding(mesh, jax.eval_shape(make))
  variables = jax.jit(make, out_shardings=shardings)()
  return experiment.evaluator(mesh)(variables, batches).matrix.scores.tolist()


def main(data_dir, dtype, *meshes):
  """Runs on each mesh and prints what came out."""
  jax.config.update('jax_enable_x64', dtype == 'float64')
  jax.config.update('jax_disable_most_optimizations', True)
  config = resolve(get_config('test'))
  config.data.data_dir, config.dtype = data_dir, dtype
  config.batch_size, config.optimizer.transformer_warmup_steps = 64, 5
  # Wide enough that some parameters are large enough to be split.
  config.transformer.width, config.transformer.mlp_width = 128, 512
  print(json.dumps({mesh: run(config, *map(int, mesh.split('x'))) for mesh in meshes}))


if __name__ == '__main__':
  main(*sys.argv[1:])
