"""The paper's two optimisers are PyTorch's; Muon for a CNN from scratch; rates by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from configs.pretrain import get_config
from pixelbert_jax import optim
from pixelbert_jax.experiment import init_variables, make_model, make_optimizer

SHAPES = {
  'backbone': {
    'cnn': {'conv': {'kernel': (3, 3, 2, 4)}, 'bn': {'scale': (2, 4), 'bias': (2, 4)}},
    'text': {'word': {'embedding': (5, 4)}},
    'layer': {'dense': {'kernel': (2, 4, 4), 'bias': (2, 4)}},
    'semantic': (4,),
  },
  'head': {'kernel': (4, 1), 'bias': (1,)},
  'mlm_bias': (5,),
}
SETTINGS = {
  'cnn_momentum': 0.9,
  'cnn_decay': 0.05,
  'transformer_rule': 'adamw',
  'transformer_betas': (0.8, 0.95),
  'transformer_epsilon': 1e-3,
  'transformer_decay': 0.03,
}


def random_tree(seed, scale=1.0):
  rng = np.random.default_rng(seed)
  is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
  return jax.tree.map(lambda shape: scale * rng.normal(size=shape), SHAPES, is_leaf=is_shape)


def rates(peak):
  """Learning rates of 20 steps: a warm-up and two drops."""
  return [peak * min(i / 4, 1) * 0.1 ** ((i >= 10) + (i >= 15)) for i in range(20)]


def flat(tree):
  return {'/'.join(k.key for k in path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def torch_trajectory(gradients, cnn_rates, transformer_rates, clip_norm):
  """Parameters after 20 steps of torch's optimisers, clipped by hand as one vector."""
  params = {n: torch.nn.Parameter(torch.from_numpy(x)) for n, x in flat(random_tree(0)).items()}
  groups = {
    part: [
      [x for n, x in params.items() if ('/cnn/' in n) == cnn and decays(n) == decayed]
      for decayed in (True, False)
    ]
    for part, cnn in [('cnn', True), ('transformer', False)]
  }

  def with_decay(part):
    decayed, others = groups[part]
    decay = SETTINGS[f'{part}_decay']
    return [{'params': decayed, 'weight_decay': decay}, {'params': others, 'weight_decay': 0.0}]

  def adamw(part):
    betas, eps = SETTINGS['transformer_betas'], SETTINGS['transformer_epsilon']
    return torch.optim.AdamW(with_decay(part), lr=0.0, betas=betas, eps=eps)

  def sgd(part):
    return torch.optim.SGD(with_decay(part), lr=0.0, momentum=SETTINGS['cnn_momentum'])

  optimizers = sgd('cnn'), adamw('transformer')
  for tree, *learning_rates in zip(gradients, cnn_rates, transformer_rates, strict=True):
    gradient = {n: torch.from_numpy(x) for n, x in flat(tree).items()}
    norm = torch.sqrt(sum((g**2).sum() for g in gradient.values()))
    factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
    for name, param in params.items():
      param.grad = gradient[name] * factor
    for optimizer, rate in zip(optimizers, learning_rates, strict=True):
      for group in optimizer.param_groups:
        group['lr'] = rate
      optimizer.step()
  return {n: x.detach().numpy() for n, x in params.items()}


def decays(name):
  """Weights of convolutions, linear layers and embeddings decay; nothing else does."""
  return name.endswith(('kernel', 'embedding'))


pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.mark.parametrize('clip_norm', [0.0, 20.0])
def test_torchs_sgd_and_adamw_go_the_same_way(clip_norm):
  # Norms of about 10 and 30 take turns: with a limit of 20 every other step is clipped.
  gradients = [random_tree(i + 1, 1.0 if i % 2 else 3.0) for i in range(20)]
  norms = [np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(g))) for g in gradients]
  assert min(norms) < 15
  assert max(norms) > 25
  cnn_rates, transformer_rates = rates(0.02), rates(0.01)
  expected = torch_trajectory(gradients, cnn_rates, transformer_rates, clip_norm)
  with jax.enable_x64(True):
    params = jax.tree.map(jnp.asarray, random_tree(0))
    optimizer = optim.optimizer(
      params,
      cnn_rule='sgd',
      cnn_rate=lambda step: jnp.array(cnn_rates)[step],
      transformer_rate=lambda step: jnp.array(transformer_rates)[step],
      clip_norm=clip_norm,
      **SETTINGS,
    )

    @jax.jit
    def step(gradient, state, params):
      updates, state = optimizer.update(gradient, state, params)
      return state, optax.apply_updates(params, updates)

    state = jax.jit(optimizer.init)(params)
    for gradient in gradients:
      state, params = step(gradient, state, params)
    found = flat(jax.tree.map(np.asarray, params))
  assert found.keys() == expected.keys()
  start = flat(random_tree(0))
  for name, x in found.items():
    assert x.dtype == np.float64
    assert np.abs(x - start[name]).max() > 1e-3
    np.testing.assert_allclose(x, expected[name], rtol=0, atol=1e-10, err_msg=name)


def test_muon_moves_a_convolution_in_all_directions_alike():
  # Two stacked layers, as nn.scan keeps them, with gradients mostly in one direction.
  rng = np.random.default_rng(0)
  strengths = np.array([[100, 50, 20, 10], [1, 1, 0.3, 0.1]])
  left, right = (np.linalg.qr(rng.normal(size=(2, n, 4)))[0] for n in (18, 4))
  gradient = np.einsum('lis,ls,los->lio', left, strengths, right).reshape(2, 3, 3, 2, 4)
  params = {'cnn': {'conv': {'kernel': jnp.zeros((2, 3, 3, 2, 4))}, 'bn': {'bias': jnp.zeros(4)}}}
  gradients = {'cnn': {'conv': {'kernel': jnp.asarray(gradient)}, 'bn': {'bias': jnp.ones(4)}}}
  rate = lambda step: 0.1  # noqa: E731
  optimizer = optim.optimizer(
    params, 'muon', cnn_rate=rate, transformer_rate=rate, clip_norm=0.0, **SETTINGS
  )
  updates, _ = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p))(gradients, params)
  update = np.asarray(updates['cnn']['conv']['kernel'])
  # As long as AdamW's steps usually are, and against the gradient.
  np.testing.assert_allclose(np.sqrt((update**2).mean((1, 2, 3, 4))), 0.2 * 0.1, rtol=0.25)
  along = np.einsum('lis,lio,los->ls', left, update.reshape(2, 18, 4), right)
  assert (along < 0).all()
  assert along.max() / along.min() > 0.55  # Newton-Schulz: within 0.7 to 1.2
  # What is no kernel takes the first step of Adam with Nesterov's momentum, beta 0.8.
  expected = -0.1 * (0.8 * 0.2 / (1 - 0.8**2) + 1)
  np.testing.assert_allclose(updates['cnn']['bn']['bias'], expected, rtol=1e-3)


@pytest.mark.parametrize(('cnn_rule', 'transformer_rule'), [('sgd', 'adamw'), ('muon', 'muon')])
def test_biases_norms_and_the_semantic_vector_do_not_decay(cnn_rule, transformer_rule):
  params = jax.tree.map(jnp.asarray, random_tree(0))
  rate = lambda step: 0.1  # noqa: E731
  optimizer = optim.optimizer(
    params,
    cnn_rule,
    cnn_rate=rate,
    transformer_rate=rate,
    clip_norm=10.0,
    **SETTINGS | {'transformer_rule': transformer_rule},
  )
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(lambda p: optimizer.update(zeros, optimizer.init(p), p))(params)
  for name, update in flat(updates).items():
    part = 'cnn' if '/cnn/' in name else 'transformer'
    decay = 0.1 * SETTINGS[f'{part}_decay'] * decays(name)
    np.testing.assert_allclose(update, -decay * flat(params)[name], rtol=1e-5, err_msg=name)


def test_muon_moves_all_directions_of_each_layer_alike():
  rng = np.random.default_rng(0)
  layers = rng.normal(size=(3, 6, 4)) * np.array([1e-3, 1, 1e3])[:, None, None]
  params = {'encoder': {'kernel': jnp.asarray(layers)}, 'head': {'kernel': jnp.ones((6, 1))}}
  rate = lambda step: 0.1  # noqa: E731
  optimizer = optim.optimizer(
    params,
    'none',
    cnn_rate=rate,
    transformer_rate=rate,
    clip_norm=0.0,
    **SETTINGS | {'transformer_rule': 'muon', 'transformer_decay': 0.0},
  )
  updates, _ = jax.jit(lambda p: optimizer.update(p, optimizer.init(p), p))(params)
  for update in np.asarray(updates['encoder']['kernel']):
    values = np.linalg.svd(update, compute_uv=False)
    assert values.min() / values.max() > 0.55  # Newton-Schulz: within 0.7 to 1.2
    assert np.square(update).mean() ** 0.5 == pytest.approx(0.1 * 0.2, rel=0.2)
  # A head's kernel takes the first step of Adam with Nesterov's momentum, beta 0.8, epsilon 1e-3.
  expected = -0.1 * (0.8 * 0.2 / (1 - 0.8**2) + 1) / (1 + 1e-3)
  np.testing.assert_allclose(updates['head']['kernel'], expected, rtol=1e-5)


@pytest.mark.parametrize('field', ['cnn_rule', 'transformer_rule'])
def test_an_unknown_rule_is_named(field):
  rules = {'cnn_rule': 'sgd', **SETTINGS} | {field: 'adam'}
  with pytest.raises(ValueError, match=f"optimizer.{field} has to be one of .* not 'adam'"):
    optim.optimizer(
      {'cnn': {'kernel': jnp.ones(3)}},
      cnn_rate=lambda step: 0.1,
      transformer_rate=lambda step: 0.1,
      clip_norm=0.0,
      **rules,
    )


def test_an_unmatched_parameter_is_named():
  with pytest.raises(ValueError, match='cnn/conv/gain is matched by 0'):
    optim.match_once({1: '.*kernel'}, {'cnn': {'conv': {'kernel': 0, 'gain': 0}}})


def test_a_doubly_matched_parameter_is_named():
  with pytest.raises(ValueError, match='head/kernel is matched by 2'):
    optim.match_once({1: '.*kernel', 2: 'head/.*', 3: 'x'}, {'head': {'kernel': 0}})


def test_patterns_match_whole_paths():
  params = {'a': {'kernel': 0, 'kernels': 0}, 'akernel': 0}
  labels = optim.match_once({1: 'a/kernel', 2: 'a/kernels|akernel'}, params)
  assert labels == {'a': {'kernel': 1, 'kernels': 2}, 'akernel': 2}


def test_an_unknown_kind_of_parameter_stops_the_optimiser():
  params = random_tree(0)
  params['head']['temperature'] = np.zeros(())
  rate = lambda _: 1.0  # noqa: E731
  with pytest.raises(ValueError, match='head/temperature is matched by 0'):
    optim.optimizer(params, 'sgd', cnn_rate=rate, transformer_rate=rate, clip_norm=1.0, **SETTINGS)


def test_a_cnn_without_a_rule_stays_as_it_is():
  params, gradients = (jax.tree.map(jnp.asarray, random_tree(seed)) for seed in (0, 1))
  rate = lambda step: 0.1  # noqa: E731
  optimizer = optim.optimizer(
    params, 'none', cnn_rate=rate, transformer_rate=rate, clip_norm=0.0, **SETTINGS
  )
  updates, _ = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p))(gradients, params)
  for name, update in flat(updates).items():
    assert np.any(update) == ('/cnn/' not in name), name


@functools.cache
def r50():
  """The configuration of ResNet-50 and the shapes of its parameters."""
  config = get_config('r50')
  batch = {
    'image': np.zeros((1, 64, 64, 3), np.uint8),
    'size': np.full((1, 2), 64),
    'token_ids': np.zeros((1, 1, 40), np.int32),
    'token_mask': np.ones((1, 1, 40), bool),
    'mlm_position': np.zeros((1, 1, 6), np.int32),
  }
  model = make_model(config, 30_522)
  return config, jax.eval_shape(lambda: init_variables(model, 0, batch))['params']


def test_every_parameter_of_the_papers_model_has_one_optimiser():
  _, params = r50()
  names = flat(params)
  parts = flat(optim.match_once(optim.OPTIMISERS, params))
  decayed = flat(optim.match_once(optim.DECAYED, params))
  assert names.keys() == parts.keys() == decayed.keys()
  assert {n for n, part in parts.items() if part == 'cnn'} == {n for n in names if '/cnn/' in n}
  for name, flag in decayed.items():
    assert flag == decays(name), name
  # SGD for what has a counterpart in torchvision's ResNet-50 without its head, no more, no less.
  cnn = sum(names[n].size for n, part in parts.items() if part == 'cnn')
  assert cnn == 23_508_032


def test_rates_follow_the_paper():
  config, params = r50()
  steps = 130
  _, schedules = make_optimizer(config, params, steps)
  for name, peak in [('cnn', 1e-2), ('transformer', 1e-4)]:
    expected = {0: 0, 1: 1e-3, 500: 0.5, 999: 0.999, 1000: 1, 1001: 1, 24 * steps: 1}
    expected |= {25 * steps - 1: 1, 25 * steps: 0.1, 35 * steps - 1: 0.1, 35 * steps: 0.01}
    expected |= {40 * steps: 0.01}
    for step, share in expected.items():
      assert schedules[name](step) == pytest.approx(share * peak, abs=1e-5 * peak), step


def test_a_rate_without_warmup_starts_at_its_peak():
  schedule = optim.stepped_schedule(0.5, 0, (), 0.1)
  assert schedule(0) == pytest.approx(0.5)
  assert schedule(10_000) == pytest.approx(0.5)
