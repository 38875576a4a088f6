"""Grouped convolutions have the gradients of ungrouped ones on each group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelbert_jax.models.convolution import convolve, convolve_by_taps

GROUPS = 4

pytestmark = pytest.mark.usefixtures('quick_compiles')


def by_group(x, kernel, stride):
  """The same convolution, each group by itself."""
  kernels = jnp.split(kernel, GROUPS, axis=3)
  parts = zip(jnp.split(x, GROUPS, axis=3), kernels, strict=True)
  return jnp.concatenate([convolve(x, k, stride, 1) for x, k in parts], axis=3)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize(('height', 'width'), [(7, 9), (8, 6)])
def test_gradients_are_those_of_each_group(stride, size, height, width):
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    x = jnp.array(rng.normal(size=(2, height, width, 8)))
    kernel = jnp.array(rng.normal(size=(size, size, 2, 12)))
    dy = jnp.array(rng.normal(size=(2, -(-height // stride), -(-width // stride), 12)))
    ours, back = jax.vjp(lambda x, k: convolve_by_taps(x, k, stride, GROUPS), x, kernel)
    expected, expected_back = jax.vjp(lambda x, k: by_group(x, k, stride), x, kernel)
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    for found, wanted in zip(back(dy), expected_back(dy), strict=True):
      assert found.dtype == np.float64
      np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_gradients_in_bfloat16_add_up_in_float32():
  # 4,096 places of gradient 1: in bfloat16 a sum stops growing at 256.
  x, kernel = jnp.ones((1, 64, 64, 4), jnp.bfloat16), jnp.ones((3, 3, 1, 4), jnp.bfloat16)
  gradient = jax.grad(lambda k: convolve_by_taps(x, k, 1, GROUPS).astype(jnp.float32).sum())(kernel)
  assert gradient.dtype == jnp.bfloat16
  np.testing.assert_array_equal(gradient[1, 1], 4096)
