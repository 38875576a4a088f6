"""Checkpoints give back every bit; a workdir belongs to one configuration."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pixelbert_jax import sharding
from pixelbert_jax.checkpoint import (
  CheckpointError,
  Checkpoints,
  abstract,
)
from pixelbert_jax.step import State
from pixelbert_jax.workdir import claim_workdir


def make_state(seed):
  """A state with every kind of leaf, odd values among them, placed as a run does."""
  rng = np.random.default_rng(seed)
  params = {
    'a': {'kernel': rng.normal(size=(3, 4)).astype(np.float32)},
    'b': np.array([np.nan, np.inf, -0.0, 1e-45, seed], np.float32),
    'half': jnp.arange(seed, seed + 3, dtype=jnp.bfloat16),
  }
  state = State(
    step=jnp.int32(seed),
    params=params,
    batch_stats={'mean': rng.normal(size=4).astype(np.float32)},
    opt_state=optax.adamw(1e-3).init(jax.tree.map(jnp.asarray, params)),
    sums={'loss': jnp.full(2, 0.1)},
  )
  return jax.device_put(state, sharding.state_sharding(sharding.make_mesh(), state))


def bits(state):
  return [(x.dtype, x.shape, x.tobytes()) for x in map(np.asarray, jax.tree.leaves(state))]


def save(workdir, *steps, keep=2):
  with contextlib.closing(Checkpoints(workdir, keep)) as checkpoints:
    for step in steps:
      checkpoints.save(step, make_state(step))


def restore(workdir, step=None):
  with contextlib.closing(Checkpoints(workdir)) as checkpoints:
    return checkpoints.restore(abstract(make_state(0)), step)


def test_every_bit_comes_back(tmp_path):
  save(tmp_path, 5)
  restored = restore(tmp_path)
  assert bits(restored) == bits(make_state(5))
  assert jax.tree.structure(restored) == jax.tree.structure(make_state(5))
  assert restored.params['b'].sharding == make_state(5).params['b'].sharding


def test_the_newest_is_restored_and_the_last_few_are_kept(tmp_path):
  save(tmp_path, 1, 2, 3, keep=2)
  save(tmp_path, 3, 4, keep=2)  # Saving a step once more is nothing.
  with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
    assert checkpoints.latest == 4
  assert int(restore(tmp_path).step) == 4
  assert bits(restore(tmp_path, 3)) == bits(make_state(3))
  with pytest.raises(CheckpointError, match='checkpoints/1 cannot be restored'):
    restore(tmp_path, 1)


def test_nothing_is_there_at_first(tmp_path):
  with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
    assert checkpoints.latest is None


def test_a_step_taken_at_once_does_not_disturb_the_save(tmp_path):
  # The next step is given the memory of the state that is being written.
  step = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 + 7, state), donate_argnums=0)
  state = make_state(1)._replace(params={'large': jnp.ones((2000, 1000))})
  like = abstract(state)
  with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
    checkpoints.save(1, state)
    for _ in range(10):
      state = step(state)
    jax.block_until_ready(state)
    restored = checkpoints.restore(like, 1)
  assert int(state.step) == 7
  assert int(restored.step) == 1
  np.testing.assert_array_equal(restored.params['large'], 1)


def test_a_workdir_that_was_moved_restores(tmp_path):
  save(tmp_path / 'here', 5)
  shutil.move(tmp_path / 'here', tmp_path / 'there')
  assert bits(restore(tmp_path / 'there')) == bits(make_state(5))
