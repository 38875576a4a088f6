"""A step from micro-batches is the step from their whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.pretrain import get_config
from pixelbert_jax import UserError, sharding
from pixelbert_jax.experiment import Experiment, prepare_data, resolve
from pixelbert_jax.train import init_state

STEPS = 10


@pytest.fixture(scope='module')
def config(few_scenes):
  """A configuration in which nothing is drawn anew for each micro-batch."""
  config = resolve(get_config('test'))
  config.data.data_dir = str(few_scenes)
  config.seed, config.batch_size, config.texts_per_image = 1, 32, 2
  config.dtype = 'float64'
  config.sampled_pixels, config.transformer.dropout = 0, 0.0
  config.cnn.batch_norm = 'frozen'
  return config


def run(config, micro_batches):
  """The state after STEPS steps in float64, and hidden words counted in each micro-batch."""
  config = config.copy_and_resolve_references()
  config.micro_batches = micro_batches
  mesh = sharding.make_mesh()
  experiment = Experiment.of(config, prepare_data(config))
  batches = experiment.batches['train']
  state, step, _ = init_state(experiment, mesh)
  wide = {jnp.dtype('float32'): jnp.float64}
  state = jax.tree.map(lambda x: x.astype(wide.get(x.dtype, x.dtype)), state)
  words = []
  for number in range(STEPS):
    parts = [batches[number * micro_batches + i] for i in range(micro_batches)]
    words.append([float(part['mlm_weight'].sum()) for part in parts])
    state, _ = step(state, (sharding.global_batch(mesh, part) for part in parts))
  return jax.device_get(state), np.array(words)


pytestmark = pytest.mark.usefixtures('quick_compiles')


# With 16 texts an image, of which 8 are there, half of the places are only filled up.
@pytest.mark.parametrize(('pairs', 'texts'), [(32, 2), (64, 16)])
def test_four_parts_are_the_whole(config, pairs, texts):
  config = config.copy_and_resolve_references()
  config.batch_size, config.texts_per_image = pairs, texts
  with jax.enable_x64(True):
    (whole, words), (parts, few_words) = run(config, 1), run(config, 4)
  np.testing.assert_array_equal(few_words.sum(1, keepdims=True), words)
  assert (few_words.std(1) > 0).all()
  assert int(parts.step) == STEPS
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(parts), strict=True
  ):
    assert a.dtype in (np.int32, np.float64)
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10, err_msg=name)


def test_images_that_do_not_divide_are_refused(config):
  config = config.copy_and_resolve_references()
  config.micro_batches = 3
  with pytest.raises(UserError, match='16 images do not divide among 3 micro_batches'):
    Experiment.of(config, prepare_data(config))


@pytest.mark.parametrize('frozen_stages', [0, 1, 2])
def test_frozen_stages_are_bitwise_unchanged_after_fifty_steps(config, frozen_stages):
  config = config.copy_and_resolve_references()
  config.dtype, config.cnn.batch_norm = 'float32', 'batch'
  config.cnn.frozen_stages = frozen_stages
  assert config.optimizer.cnn_decay * config.optimizer.cnn_momentum > 0
  experiment, mesh = Experiment.of(config, prepare_data(config)), sharding.make_mesh()
  state, step, _ = init_state(experiment, mesh)
  start = jax.device_get(state.variables)
  batch = sharding.global_batch(mesh, experiment.batches['train'][0])
  for _ in range(50):
    state, _ = step(state, [batch])
  fixed = ['stem', *(f'layer{i + 1}' for i in range(frozen_stages))] if frozen_stages else []
  moments = jax.tree_util.tree_leaves_with_path(state.opt_state)
  moments = {part for path, _ in moments for part in map(str, path)}
  for (path, x), old in zip(
    jax.tree_util.tree_leaves_with_path(state.variables), jax.tree.leaves(start), strict=True
  ):
    _, *names = (key.key for key in path)
    is_fixed = names[:2] == ['backbone', 'cnn'] and names[2] in fixed
    assert np.array_equal(x, old) == is_fixed, names
  kept = {part for part in ('stem', 'layer1', 'layer2') if f"['{part}']" in moments}
  assert kept == {'stem', 'layer1', 'layer2'} - set(fixed)
