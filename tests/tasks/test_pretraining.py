"""Losses and accuracies of pre-training, by hand and by PyTorch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pixelbert_jax.input.visual import KINDS
from pixelbert_jax.models.bert import Encoder, TextEmbedding
from pixelbert_jax.models.forward import forward
from pixelbert_jax.models.heads import PretrainingModel
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.models.resnet import ResNet
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.pretraining import Hiding, Pretraining

B, K, T, M, VOCAB = 4, 3, 7, 5, 11


TASK = Pretraining(Hiding(0.15))

pytestmark = pytest.mark.usefixtures('quick_compiles')


def example(seed=0):
  """Logits, and the part of a batch that they are judged by; some weights are zero."""
  rng = np.random.default_rng(seed)
  outputs = {
    'mlm_logits': rng.normal(0, 3, (B, K, M, VOCAB)).astype(np.float32),
    'itm_logits': rng.normal(0, 3, (B, K)).astype(np.float32),
  }
  batch = {
    'mlm_target': rng.integers(0, VOCAB, (B, K, M)).astype(np.int32),
    'mlm_weight': rng.integers(0, 2, (B, K, M)).astype(np.float32),
    'itm_label': rng.integers(0, 2, (B, K)).astype(np.int32),
    'weight': rng.integers(0, 2, (B, K)).astype(np.float32),
  }
  return outputs, batch


@jax.jit
def all_sums(outputs, batch):
  return TASK.losses(outputs, batch) | TASK.accuracies(outputs, batch)


def test_losses_are_torchs_cross_entropies_over_what_counts():
  outputs, batch = example()
  o, b = (jax.tree.map(torch.from_numpy, x) for x in (outputs, batch))
  at, here = b['mlm_weight'] > 0, b['weight'] > 0
  assert 0 < at.sum() < at.numel()
  assert 0 < here.sum() < here.numel()
  mlm = cross_entropy(o['mlm_logits'][at], b['mlm_target'][at].long())
  itm = binary_cross_entropy_with_logits(o['itm_logits'][here], b['itm_label'][here].float())
  sums = jax.jit(TASK.losses)(outputs, batch)
  assert jnp.divide(*sums['mlm_loss']) == pytest.approx(mlm.item(), rel=1e-5)
  assert jnp.divide(*sums['itm_loss']) == pytest.approx(itm.item(), rel=1e-5)
  assert sums_lib.loss(sums, batch) == pytest.approx(mlm.item() + itm.item(), rel=1e-5)
  assert sums['mlm_loss'][1] == at.sum().item()
  assert sums['itm_loss'][1] == here.sum().item()


def test_what_has_no_weight_changes_nothing():
  outputs, batch = example()
  expected = all_sums(outputs, batch)
  outputs['mlm_logits'][batch['mlm_weight'] == 0] *= -3
  outputs['itm_logits'][batch['weight'] == 0] *= -3
  batch['mlm_target'][batch['mlm_weight'] == 0] = 0
  found = all_sums(outputs, batch)
  for name, sums in expected.items():
    np.testing.assert_array_equal(found[name], sums)


def test_a_batch_without_hidden_words_has_a_loss():
  outputs, batch = example()
  batch['mlm_weight'][:] = 0

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(outputs):
    sums = TASK.losses(outputs, batch)
    return sums_lib.loss(sums, batch), jnp.divide(*sums['itm_loss'])

  (value, itm), gradients = run(outputs)
  assert value == itm > 0
  assert not np.any(gradients['mlm_logits'])
  assert np.isfinite(gradients['itm_logits']).all()


def test_totals_of_parts_add_up_to_those_of_the_whole():
  outputs, batch = example()
  batch['mlm_kind'] = np.random.default_rng(1).integers(0, len(KINDS) + 1, (B, K, M))
  batch['mlm_guessed'] = np.random.default_rng(2).integers(0, 2, (B, K, M)).astype(np.float32)

  def sums(rows):
    return all_sums(*jax.tree.map(lambda x: x[rows], (outputs, batch)))

  whole, first, second = sums(slice(None)), sums(slice(0, 2)), sums(slice(2, None))
  assert first['mlm_loss'][1] != second['mlm_loss'][1]
  for name in whole:
    np.testing.assert_allclose(whole[name], first[name] + second[name], rtol=1e-6)


def test_accuracies_by_hand():
  logits = np.full((1, 2, 3, 4), -1.0, np.float32)
  said = np.array([[[0, 1, 2], [3, 3, 3]]])
  np.put_along_axis(logits, said[..., None], 2.0, axis=-1)
  outputs = {'mlm_logits': logits, 'itm_logits': np.array([[0.1, 5.0]], np.float32)}
  batch = {
    'mlm_target': np.array([[[0, 2, 2], [3, 0, 3]]]),
    'mlm_weight': np.array([[[1, 1, 1], [1, 1, 0]]], np.float32),
    'itm_label': np.array([[1, 0]]),
    'weight': np.ones((1, 2), np.float32),
  }
  found = TASK.accuracies(outputs, batch)
  assert {name: tuple(map(float, x)) for name, x in found.items()} == {
    'mlm_accuracy': (3, 5),
    'itm_accuracy': (1, 2),
    'mlm_targets': (5, 1),
  }
  # In evaluation: places 0 and 1 of the first text and 0 and 2 of the second are visual words.
  batch['mlm_kind'] = np.array([[[1, 1, 0], [2, 0, 2]]])
  batch['mlm_guessed'] = np.array([[[0, 1, 0], [0, 0, 1]]], np.float32)
  found = {n: tuple(map(float, x)) for n, x in TASK.accuracies(outputs, batch).items()}
  assert found['mlm_visual_accuracy'] == (2, 3)
  assert found['mlm_visual_accuracy_text_only'] == (1, 3)
  assert found[f'mlm_{KINDS[0]}_accuracy'] == (1, 2)
  assert found[f'mlm_{KINDS[0]}_accuracy_text_only'] == (1, 2)
  assert found[f'mlm_{KINDS[1]}_accuracy'] == (1, 1)
  assert found[f'mlm_{KINDS[1]}_accuracy_text_only'] == (0, 1)
  assert found[f'mlm_{KINDS[2]}_accuracy'] == (0, 0)


@functools.cache
def frozen_model():
  """A whole model without chance or batch statistics, its variables, and its jitted losses."""
  cnn = ResNet((1, 1), 16, 8, stem='space_to_depth', frozen=True)
  common = {'dropout': 0.0, 'init_std': 0.3, 'dtype': jnp.float32}
  text = TextEmbedding(vocab_size=VOCAB, width=16, max_positions=T, **common)
  encoder = Encoder(layers=1, heads=2, mlp_width=16, **common)
  model = PretrainingModel(PixelBert(cnn, text, encoder, sampled_pixels=0))
  b = batch_of_images()
  arguments = [b[name] for name in ('size', 'token_ids', 'token_mask', 'mlm_position')]
  image = jnp.zeros(b['image'].shape)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, *arguments, False))
  rng = np.random.default_rng(0)

  def draw(path, x):
    if path[-1].key in ('var', 'scale'):
      return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    std = 1.5 / np.sqrt(max(x.shape[:-1], default=1))
    return rng.normal(0, std, x.shape).astype(np.float32)

  variables = jax.tree_util.tree_map_with_path(draw, shapes)

  @jax.jit
  def run(batch):
    outputs, changed = forward(model, variables, batch, train=True, mutable=['batch_stats'])
    sums = TASK.losses(outputs, batch)
    return sums_lib.loss(sums, batch), sums, changed

  return model, variables, run


def batch_of_images(seed=0):
  """A whole batch of B images with K texts each."""
  rng = np.random.default_rng(seed)
  mask = np.arange(T) < rng.integers(3, T + 1, (B, K, 1))
  size = rng.integers(17, 33, (B, 2)).astype(np.int32)
  return example(seed)[1] | {
    'image': rng.integers(0, 256, (B, 32, 32, 3)).astype(np.uint8),
    'source_size': size,
    'size': size,
    'token_ids': np.where(mask, rng.integers(1, VOCAB, (B, K, T)), 0).astype(np.int32),
    'token_mask': mask,
    'mlm_position': rng.integers(0, T, (B, K, M)).astype(np.int32),
  }


def test_texts_of_one_image_count_like_pairs_one_by_one():
  *_, run = frozen_model()
  batch = batch_of_images()
  of_images = {'image', 'source_size', 'size'}
  pairs = {
    name: np.repeat(x, K, axis=0) if name in of_images else x.reshape(B * K, 1, *x.shape[2:])
    for name, x in batch.items()
  }
  (together, sums, _), (apart, sums_apart, _) = run(batch), run(pairs)
  assert float(together) == pytest.approx(float(apart), abs=1e-6)
  for name, x in sums.items():
    np.testing.assert_allclose(x, sums_apart[name], rtol=1e-6)


@pytest.mark.parametrize('own', [{}, {'mean': (0.5, 0.4, 0.3), 'deviation': (0.3, 0.2, 0.1)}])
def test_the_model_sees_resized_and_normalised_pixels(own):
  model, variables, _ = frozen_model()
  model = model.clone(backbone=model.backbone.clone(**own))
  batch = batch_of_images()
  found = jax.jit(lambda b: forward(model, variables, b, train=False))(batch)
  image = torch.from_numpy(batch['image'].astype(np.float32)) / 255
  mean = torch.tensor(own.get('mean', [0.485, 0.456, 0.406]))
  deviation = torch.tensor(own.get('deviation', [0.229, 0.224, 0.225]))
  image = ((image - mean) / deviation).numpy()
  texts = (batch[name] for name in ('token_ids', 'token_mask', 'mlm_position'))
  expected = jax.jit(lambda *x: model.apply(variables, *x, False))(image, batch['size'], *texts)
  for name, logits in expected.items():
    np.testing.assert_allclose(found[name], logits, rtol=1e-4, atol=1e-4)
  assert np.ptp(expected['itm_logits'], axis=0).min() > 0.1  # They depend on the image.


def test_frozen_statistics_stay_as_they_are():
  _, variables, run = frozen_model()
  *_, changed = run(batch_of_images())
  jax.tree.map(np.testing.assert_array_equal, changed, {'batch_stats': variables['batch_stats']})


# --- One task alone ------------------------------------------------------------------------


def test_weights_multiply_the_losses_in_the_sum():
  outputs, batch = example()
  weighted = dataclasses.replace(TASK, mlm_weight=0.5, itm_weight=2.0)
  sums = TASK.losses(outputs, batch)
  mlm, itm = (float(jnp.divide(*sums[name])) for name in ('mlm_loss', 'itm_loss'))
  found = sums_lib.loss(weighted.losses(outputs, batch), batch, weighted.weights)
  assert float(found) == pytest.approx(0.5 * mlm + 2 * itm, rel=1e-6)
  finished = sums_lib.finish(weighted.losses(outputs, batch), weighted.weights)
  assert finished == pytest.approx({'mlm_loss': mlm, 'itm_loss': itm, 'loss': float(found)})


@pytest.mark.parametrize('off', ['mlm', 'itm'])
def test_a_task_that_is_off_is_neither_computed_nor_reported(off):
  outputs, batch = example()
  task = dataclasses.replace(TASK, **{f'{off}_weight': 0.0})
  with_nan = outputs | {f'{off}_logits': np.full_like(outputs[f'{off}_logits'], np.nan)}

  @jax.jit
  def run(outputs):
    sums = task.losses(outputs, batch) | task.accuracies(outputs, batch)
    return sums, sums_lib.loss(sums, batch, task.weights)

  sums, loss = run(with_nan)
  metrics = sums_lib.finish(sums, task.weights)
  assert np.isfinite(loss)
  assert not any(name.startswith(off) and name != 'mlm_targets' for name in metrics)
  unused = ','.join(map(str, outputs[f'{off}_logits'].shape))
  assert f'f32[{unused}]' not in run.lower(outputs).compile().as_text()
