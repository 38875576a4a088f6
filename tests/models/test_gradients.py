"""Gradients of parameters are float32 where the computation is bfloat16."""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs.pretrain import get_config
from pixelbert_jax.experiment import init_variables, make_model, resolve
from pixelbert_jax.models import gradients
from pixelbert_jax.models.bert import Dense
from pixelbert_jax.models.forward import forward
from pixelbert_jax.plan.target import ENVIRONMENT
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures('quick_compiles')

PIXELS = 1_820_017
VOCAB, B, K, T, SIDE = 29, 2, 2, 6, 32


@pytest.mark.parametrize(
  ('operation', 'shape'),
  [(gradients.multiply, (1, 1)), (gradients.scale, (1,)), (gradients.shift, (1,))],
)
def test_a_gradient_counts_every_pixel(operation, shape):
  x, parameter = jnp.ones((PIXELS, 1), jnp.bfloat16), jnp.full(shape, 0.1)
  total = jax.jit(jax.grad(lambda p: operation(x, p).astype(jnp.float32).sum()))
  assert total(parameter).item() == PIXELS


@pytest.mark.parametrize('operation', [gradients.multiply, gradients.scale, gradients.shift])
def test_operations_are_those_of_the_cast_parameter(operation):
  rng = np.random.default_rng(0)
  x = jnp.array(rng.normal(size=(3, 5, 4)), jnp.bfloat16)
  parameter = jnp.array(
    rng.normal(size=(4, 4) if operation is gradients.multiply else 4), jnp.float32
  )
  dy = jnp.array(rng.normal(size=x.shape), jnp.bfloat16)
  cast = parameter.astype(jnp.bfloat16)
  found, back = jax.vjp(operation, x, parameter)
  expected, expected_back = jax.vjp(operation, x, cast)
  np.testing.assert_array_equal(found, expected)
  for a, b in zip(back(dy), expected_back(dy), strict=True):
    np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=0.02, atol=0.05)


def test_a_linear_layer_starts_and_computes_as_flaxs():
  x = jnp.array(np.random.default_rng(0).normal(size=(2, 3, 8)), jnp.float32)
  ours, theirs = Dense(5, 0.3), nn.Dense(5, kernel_init=nn.initializers.normal(0.3))
  variables = ours.init(jax.random.key(1), x)
  jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(jax.random.key(1), x))
  np.testing.assert_array_equal(ours.apply(variables, x), theirs.apply(variables, x))


def gradients_of_a_model(**fields):
  """The gradient of a small pre-training model along something random, by parameter."""
  config = resolve(get_config('test'))
  config.dtype, config.transformer.dropout = 'bfloat16', 0.0
  config.cnn.update(stem='7x7', stages=(1, 2), groups=2, group_width=4, batch_norm='batch')
  config.update_from_flattened_dict(fields)
  model, rng = make_model(config, VOCAB), np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (B, SIDE, SIDE, 3), np.uint8),
    'source_size': np.full((B, 2), SIDE, np.int32),
    'size': np.array([[SIDE, SIDE], [20, 25]], np.int32),
    'token_ids': rng.integers(0, VOCAB, (B, K, T)).astype(np.int32),
    'token_mask': np.ones((B, K, T), bool),
    'mlm_position': np.tile(np.arange(3, dtype=np.int32), (B, K, 1)),
  }

  @jax.jit
  def gradient():
    # Of seed 0, what the sum of one bias has beyond bfloat16 cancels out.
    variables = init_variables(model, 1, batch)

    def loss(params):
      keys = {'pixels': jax.random.key(5)}
      outputs, _ = forward(
        model, variables | {'params': params}, batch, True, rngs=keys, mutable=['batch_stats']
      )
      # Of no symmetry, so that no gradient is zero.
      return sum((jnp.sin(jnp.arange(x.size)) * x.ravel()).sum() for x in outputs.values())

    return jax.grad(loss)(variables['params'])

  found = jax.tree_util.tree_leaves_with_path(gradient())
  return {'/'.join(key.key for key in path): np.asarray(x) for path, x in found}


@pytest.fixture(scope='module')
def wide():
  return gradients_of_a_model()


def test_no_gradient_of_a_parameter_is_rounded_to_bfloat16(wide):
  for name, x in wide.items():
    assert x.dtype == np.float32
    assert (x != x.astype(jnp.bfloat16).astype(np.float32)).any(), name


def test_gradients_of_kernels_in_bfloat16_are_the_same_to_its_digits(wide):
  for name, x in gradients_of_a_model(gradient_dtype='bfloat16').items():
    assert x.dtype == np.float32
    assert np.linalg.norm(x - wide[name]) < 0.05 * np.linalg.norm(wide[name]) + 1e-5, name


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is missing: pip install -e .[plan]'
)
@pytest.mark.parametrize(('gradient_dtype', 'kernels'), [('float32', 'f32'), ('bfloat16', 'bf16')])
def test_devices_of_a_slice_sum_gradients_in_that_type(gradient_dtype, kernels):
  done = subprocess.run(
    [sys.executable, '-m', 'tests.support.slice_gradients', gradient_dtype],
    cwd=ROOT,
    env=os.environ | ENVIRONMENT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert set(done.stdout.split()) == {'f32', kernels}
