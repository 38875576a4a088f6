"""Small states of training, and workdirs in which they are saved."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pixelbert_jax import sharding
from pixelbert_jax.checkpoints.checkpoint import Checkpoints, abstract
from pixelbert_jax.checkpoints.workdir import claim_workdir
from pixelbert_jax.step import State

FILES = {'vocab.txt': b'[PAD]\ncat\n'}
CONFIG = {'seed': 0, 'betas': [0.9, 0.999], 'data': {'name': 'scenes'}, 'cnn': {'width': 8}}


def make_state(seed):
  """Makes a state with every kind of leaf, odd values among them, placed as a run places it."""
  rng = np.random.default_rng(seed)
  params = {
    'a': {'kernel': rng.normal(size=(3, 4)).astype(np.float32)},
    'b': np.array([3e38, -1e-38, -0.0, 1e-45, seed], np.float32),
    'wide': rng.normal(size=(40, 50)).astype(np.float32),  # in a file of its own
    'half': jnp.arange(seed, seed + 3, dtype=jnp.bfloat16),
  }
  moments = optax.adamw(1e-3).init(jax.tree.map(jnp.asarray, params))
  state = State(
    step=jnp.int32(seed),
    params=params,
    batch_stats={'mean': rng.normal(size=4).astype(np.float32)},
    opt_state=jax.tree.map(lambda x: (x + rng.normal(size=x.shape)).astype(x.dtype), moments),
    sums={'loss': jnp.full(2, 0.1)},
  )
  return jax.device_put(state, sharding.state_sharding(sharding.make_mesh(), state))


def bits(state):
  """Returns the type, shape and bytes of each array."""
  return [(x.dtype, x.shape, x.tobytes()) for x in map(np.asarray, jax.tree.leaves(state))]


def save(workdir, *steps, keep=2):
  """Saves `make_state` of each of these steps in a workdir, as a run does."""
  workdir.mkdir(exist_ok=True)
  claim_workdir(workdir, CONFIG, FILES)
  with contextlib.closing(Checkpoints(workdir, FILES, keep)) as checkpoints:
    for step in steps:
      checkpoints.save(step, make_state(step))


def restore(workdir):
  """Restores the newest step of a workdir that is not damaged."""
  with contextlib.closing(Checkpoints(workdir, FILES)) as checkpoints:
    return checkpoints.restore(abstract(make_state(0)))
