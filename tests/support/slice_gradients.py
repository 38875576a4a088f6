"""Compiles gradients for a TPU slice that is not here, and prints what its devices sum.

    python -m tests.support.slice_gradients float32

prints one line a sum over devices: its types. Needs libtpu, and `plan.target.ENVIRONMENT`.
"""

import re
import sys

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from configs.pretrain import get_config
from pixelbert_jax.experiment import init_variables, make_model, resolve
from pixelbert_jax.models.forward import forward
from pixelbert_jax.plan.hlo import arrays

VOCAB, B, K, T, SIDE = 29, 8, 2, 6, 64


def main(gradient_dtype: str) -> None:
  """Compiles the gradient of a small pre-training model in bfloat16 and prints its sums."""
  config = resolve(get_config('test'))
  config.dtype, config.gradient_dtype = 'bfloat16', gradient_dtype
  config.cnn.update(stem='7x7', stages=(1, 2), groups=2, group_width=4, batch_norm='frozen')
  model = make_model(config, VOCAB, platform='tpu')
  topology = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x4')
  axes = (AxisType.Auto,)
  mesh = Mesh(np.array(topology.devices).reshape(-1), ('data',), axis_types=axes)

  def on(mesh_axes: P):
    return lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, mesh_axes))

  batch = {
    'image': np.zeros((B, SIDE, SIDE, 3), np.uint8),
    'source_size': np.full((B, 2), SIDE, np.int32),
    'size': np.full((B, 2), SIDE, np.int32),
    'token_ids': np.zeros((B, K, T), np.int32),
    'token_mask': np.ones((B, K, T), bool),
    'mlm_position': np.zeros((B, K, 3), np.int32),
  }
  variables = jax.eval_shape(lambda: init_variables(model, 0, batch))

  def gradient(variables, batch):
    keys = {name: jax.random.key(0) for name in ('pixels', 'dropout')}

    def loss(params):
      all_variables = variables | {'params': params}
      outputs, _ = forward(model, all_variables, batch, True, rngs=keys, mutable=['batch_stats'])
      return sum(x.sum() for x in outputs.values())

    return jax.grad(loss)(variables['params'])

  arguments = jax.tree.map(on(P()), variables), jax.tree.map(on(P('data')), batch)
  program = jax.jit(gradient, out_shardings=NamedSharding(mesh, P()))
  text = program.lower(*arguments).compile().as_text()
  for line in text.splitlines():
    found = re.match(r'\s*(?:ROOT )?%\S+ = (.*?) (?:all-reduce|reduce-scatter)(?:-start)?\(', line)
    if found:
      print(*sorted({array.kind for array in arrays(found[1])}))


if __name__ == '__main__':
  main(sys.argv[1])
