"""Operations on padded images, in each way that a backend may compute them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pixelbert_jax.models.padded import max_pool

WAYS = pytest.mark.parametrize('compares', [True, False])


@WAYS
@pytest.mark.parametrize(('window', 'before'), [(3, 1), (2, 0)])
@pytest.mark.parametrize('side', [8, 9])
def test_max_pool_is_pytorchs_among_equals_too(compares, window, before, side):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 3, (2, side, side, 4)).astype(np.float32)  # with many equal maxima
  mask = np.ones((2, side, side, 1), bool)
  y, pull = jax.vjp(lambda x: max_pool(x, mask, window, before, compares=compares)[0], x)
  weights = rng.normal(size=y.shape).astype(np.float32)
  expected = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
  theirs = torch.nn.functional.max_pool2d(expected, window, 2, before, ceil_mode=window == 2)
  (theirs * torch.from_numpy(weights).permute(0, 3, 1, 2)).sum().backward()
  np.testing.assert_array_equal(y, theirs.detach().permute(0, 2, 3, 1))
  np.testing.assert_allclose(pull(weights)[0], expected.grad.permute(0, 2, 3, 1), atol=1e-6)


@WAYS
def test_max_pool_hides_no_nan_and_shows_no_padding(compares):
  x = jnp.full((1, 6, 6, 1), 5.0).at[0, 1, 1].set(jnp.nan).at[0, 4:].set(jnp.nan)
  mask = jnp.arange(6)[None, :, None, None] < 4
  mask = jnp.broadcast_to(mask, (1, 6, 6, 1))
  y, real = max_pool(x, mask, 3, 1, compares=compares)
  found = np.isnan(y[0, ..., 0])
  # The windows of rows and columns -1 to 1 and 1 to 3 hold the NaN; the rows of padding none.
  assert found.tolist() == [[True, True, False], [True, True, False], [False] * 3]
  assert real[0, ..., 0].tolist() == [[True] * 3, [True] * 3, [False] * 3]
