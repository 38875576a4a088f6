"""Convolutions give the same on every backend, and sum the gradients of kernels in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelbert_jax.models.backend import Backend, backend
from pixelbert_jax.models.convolution import (
  Conv,
  convolve,
  convolve_by_rows,
  convolve_wide,
  groups_to_merge,
  merge_groups,
)

GROUPS = 4

pytestmark = pytest.mark.usefixtures('quick_compiles')


def by_group(x, kernel, stride):
  """The same convolution, each group by itself."""
  kernels = jnp.split(kernel, GROUPS, axis=3)
  parts = zip(jnp.split(x, GROUPS, axis=3), kernels, strict=True)
  return jnp.concatenate([convolve(x, k, stride, 1) for x, k in parts], axis=3)


def results(function, *inputs):
  """The output of a function of (x, kernel), and its gradients along something random."""
  y, back = jax.jit(functools.partial(jax.vjp, function))(*inputs)
  dy = np.random.default_rng(9).normal(size=y.shape)
  return y, *jax.jit(lambda back, dy: back(dy))(back, jnp.asarray(dy, y.dtype))


def assert_same(found, expected, tolerance):
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize(('height', 'width'), [(7, 9), (8, 6)])
def test_gradients_are_those_of_each_group(stride, size, height, width):
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    x = jnp.array(rng.normal(size=(2, height, width, 8)))
    kernel = jnp.array(rng.normal(size=(size, size, 2, 12)))
    found = results(lambda x, k: convolve_by_rows(x, k, stride, GROUPS), x, kernel)
    expected = results(lambda x, k: by_group(x, k, stride), x, kernel)
    assert expected[0].dtype == np.float64
    assert_same(found, expected, 1e-12)


# Of ResNeXt-101 and -152 32x8d, in the order of their stages.
@pytest.mark.parametrize(
  ('width', 'merged'), [(8, 16), (16, 8), (32, 4), pytest.param(64, 2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('stride', [1, 2])
def test_merged_groups_compute_what_groups_do(width, merged, stride):
  groups, rng = 32, np.random.default_rng(width)
  with jax.enable_x64(True):
    x = jnp.array(rng.normal(size=(1, 2, 3, groups * width)))
    kernel = jnp.array(rng.normal(size=(3, 3, width, groups * width)) / width)

    def as_one(x, kernel):
      # By rows, since XLA's own gradient of a grouped kernel takes half a minute.
      return convolve_by_rows(x, merge_groups(kernel, groups, merged), stride, groups // merged)

    expected = results(lambda x, k: convolve_by_rows(x, k, stride, groups), x, kernel)
    assert_same(results(as_one, x, kernel), expected, 1e-10)


def test_only_groups_of_a_quarter_of_the_lanes_are_merged():
  widths = (4, 8, 16, 32, 64, 128)
  assert [groups_to_merge(32, n, 128) for n in widths] == [32, 16, 8, 4, 1, 1]
  assert [groups_to_merge(32, n, 0) for n in widths] == [1] * 6
  assert groups_to_merge(1, 8, 128) == 1
  assert groups_to_merge(6, 30, 128) == 3  # 4 would not divide 6.


# Which ways a backend goes changes rounding and nothing else, least of all the parameters.
@pytest.mark.parametrize('platform', ['tpu', 'gpu'])
@pytest.mark.parametrize(
  ('size', 'stride', 'groups'), [(1, 1, 1), (1, 2, 1), (3, 2, 1), (3, 1, 8), (3, 2, 8)]
)
def test_a_layer_is_the_same_on_every_backend(platform, size, stride, groups):
  rng = np.random.default_rng(1)
  with jax.enable_x64(True):
    x = jnp.array(rng.normal(size=(2, 7, 10, 32)))
    kernel = jnp.array(rng.normal(size=(size, size, 32 // groups, 48)))

    def layer(platform, x, kernel):
      conv = Conv(48, size, stride, groups, dtype=jnp.float64, backend=backend(platform))
      return conv.apply({'params': {'kernel': kernel}}, x)

    expected = results(functools.partial(layer, 'cpu'), x, kernel)
    assert expected[0].shape == (2, -(-7 // stride), -(-10 // stride), 48)
    assert_same(results(functools.partial(layer, platform), x, kernel), expected, 1e-12)


def test_gradients_in_bfloat16_add_up_in_float32():
  # 4,096 places of gradient 1: in bfloat16 a sum stops growing at 256.
  x, kernel = jnp.ones((1, 64, 64, 4), jnp.bfloat16), jnp.ones((3, 3, 1, 4), jnp.bfloat16)
  gradient = jax.grad(lambda k: convolve_by_rows(x, k, 1, GROUPS).astype(jnp.float32).sum())(kernel)
  assert gradient.dtype == jnp.bfloat16
  np.testing.assert_array_equal(gradient[1, 1], 4096)


@pytest.mark.parametrize('products', [True, False])
@pytest.mark.parametrize('stride', [1, 2])
def test_the_gradient_of_a_kernel_counts_every_pixel(products, stride):
  # 1.8 million pixels: bfloat16 has 8 bits of such a number.
  conv = Conv(1, 1, stride, dtype=jnp.bfloat16, backend=Backend(products=products))
  x = jnp.ones((8, 479, 475, 1))

  def total(kernel):
    return conv.apply({'params': {'kernel': kernel}}, x).astype(jnp.float32).sum()

  gradient = jax.jit(jax.grad(total))(jnp.full((1, 1, 1, 1), 0.1))
  assert gradient.dtype == jnp.float32
  assert gradient.item() == 8 * -(-479 // stride) * -(-475 // stride)


@pytest.mark.parametrize('groups', [1, 2, 8])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 3, 7])
def test_kernels_have_float32_gradients_in_bfloat16(groups, stride, size):
  # Small whole numbers: bfloat16 has them, so that both computations are exact.
  rng = np.random.default_rng(2)
  whole = functools.partial(rng.integers, -3, 4)
  x, kernel = (
    jnp.array(whole(s), jnp.float32) for s in ((2, 9, 12, 8), (size, size, 8 // groups, 8))
  )
  y = convolve(x, kernel, stride, groups)
  dy = jnp.array(whole(y.shape), jnp.float32)

  @jax.jit
  def gradients(x, dy):
    return jax.vjp(lambda x, k: convolve_wide(x, k, stride, groups), x, kernel)[1](dy)

  _, expected = gradients(x, dy)
  dx, found = gradients(x.astype(jnp.bfloat16), dy.astype(jnp.bfloat16))
  assert dx.dtype == jnp.bfloat16
  assert found.dtype == jnp.float32
  np.testing.assert_array_equal(found, expected)
