"""BERT's embeddings and layers against PyTorch's, and what masks, loops and dropout do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from pixelbert_jax.models.backend import backend
from pixelbert_jax.models.bert import Attention, Encoder, TextEmbedding, gelu

LAYERS, HEADS, WIDTH, MLP_WIDTH = 2, 4, 16, 40
N, S = 3, 7
MASK = np.arange(S) < np.array([[7], [4], [1]])


pytestmark = pytest.mark.usefixtures('quick_compiles')


def encoder(dropout=0.0, layers=LAYERS, dtype=jnp.float32, **options):
  return Encoder(
    layers=layers,
    heads=HEADS,
    mlp_width=MLP_WIDTH,
    dropout=dropout,
    init_std=0.02,
    dtype=dtype,
    **options,
  )


def embedding(vocab_size=11, dropout=0.0, dtype=jnp.float32):
  return TextEmbedding(
    vocab_size=vocab_size,
    width=WIDTH,
    max_positions=S,
    dropout=dropout,
    init_std=0.02,
    dtype=dtype,
  )


def inputs(seed=0):
  return np.random.default_rng(seed).normal(size=(N, S, WIDTH)).astype(np.float32)


@functools.cache
def random_params(layers=LAYERS):
  """Every parameter at random, none left at 0 or 1."""
  model = encoder(layers=layers)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs(), MASK, True))
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def torch_layer(params, number):
  """PyTorch's own post-LayerNorm layer with the parameters of one of ours."""
  layer = nn.TransformerEncoderLayer(
    WIDTH, HEADS, MLP_WIDTH, 0.0, 'gelu', layer_norm_eps=1e-12, batch_first=True
  )
  p = jax.tree.map(lambda x: torch.from_numpy(np.array(x[number])), params['params']['layer'])
  layer.load_state_dict(
    {
      'self_attn.in_proj_weight': p['attention']['qkv']['kernel'].T,
      'self_attn.in_proj_bias': p['attention']['qkv']['bias'],
      'self_attn.out_proj.weight': p['attention']['output']['kernel'].T,
      'self_attn.out_proj.bias': p['attention']['output']['bias'],
      'linear1.weight': p['mlp_in']['kernel'].T,
      'linear1.bias': p['mlp_in']['bias'],
      'linear2.weight': p['mlp_out']['kernel'].T,
      'linear2.bias': p['mlp_out']['bias'],
      'norm1.weight': p['attention_norm']['norm']['scale'],
      'norm1.bias': p['attention_norm']['norm']['bias'],
      'norm2.weight': p['mlp_norm']['norm']['scale'],
      'norm2.bias': p['mlp_norm']['norm']['bias'],
    }
  )
  return layer


def test_torchs_layers_give_the_same():
  params = random_params()
  expected = torch.from_numpy(inputs())
  with torch.no_grad():
    for number in range(LAYERS):
      layer = torch_layer(params, number).train()  # Without dropout: only the plain path.
      expected = layer(expected, src_key_padding_mask=torch.from_numpy(~MASK))
  found = jax.jit(encoder().apply, static_argnums=3)(params, inputs(), MASK, True)
  np.testing.assert_allclose(np.asarray(found)[MASK], expected.numpy()[MASK], rtol=1e-5, atol=1e-5)


def test_torchs_gelu_and_norm_fine_print():
  x = np.linspace(-6, 6, 101, dtype=np.float32)
  expected = nn.functional.gelu(torch.from_numpy(x)).numpy()
  np.testing.assert_allclose(gelu(x), expected, rtol=1e-5, atol=1e-6)
  # An epsilon of 1e-5 or 1e-6 would show where the variance is as small.
  embed = embedding()
  ids = np.array([[0, 4, 2]])
  params = jax.eval_shape(lambda: embed.init(jax.random.key(0), ids, True))['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
  params['word']['embedding'] *= 1e-4
  params['position']['embedding'] *= 1e-4
  word, position, norm = params['word'], params['position'], params['norm']['norm']
  expected = nn.functional.layer_norm(
    torch.from_numpy(word['embedding'][ids] + position['embedding'][:3]),
    (WIDTH,),
    torch.from_numpy(norm['scale']),
    torch.from_numpy(norm['bias']),
    1e-12,
  )
  found = embed.apply({'params': params}, ids, True)
  np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_padding_influences_no_other_token():
  run = jax.jit(encoder().apply, static_argnums=3)
  garbage = np.where(MASK[..., None], inputs(), 100 * inputs(9))
  found, expected = (np.asarray(run(random_params(), x, MASK, True)) for x in (garbage, inputs()))
  np.testing.assert_array_equal(found[MASK], expected[MASK])
  assert not np.allclose(
    found[1, :4], run(random_params(), inputs(), np.ones_like(MASK), True)[1, :4]
  )


@functools.cache
def value_and_gradients(**options):
  model = encoder(dropout=0.3, **options)

  def loss(params, x):
    y = model.apply(params, x, MASK, False, rngs={'dropout': jax.random.key(3)})
    return jnp.sum(jnp.sin(y) * MASK[..., None]), y

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(random_params(), inputs())


def slow(**options):
  return pytest.param(options, marks=pytest.mark.slow, id='-'.join(options))


@pytest.mark.parametrize(
  'options',
  [{'backend': backend('cpu'), 'remat': True}, slow(backend=backend('cpu')), slow(remat=True)],
  ids=str,
)
def test_loop_and_remat_change_neither_outputs_nor_gradients(options):
  found, expected = (jax.tree.leaves(value_and_gradients(**o)) for o in (options, {}))
  for a, b in zip(found, expected, strict=True):
    assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b) + 1e-6


SITES = [(layer, site) for layer in range(2) for site in ('attention/output', 'mlp_out')]


def dropped_at(layer, site, rate=0.5):
  """[N, S, D] bool: what was kept after one sublayer, seen in the sign of the output.

  That sublayer adds 1 to everything and all others add 0, so that dropout leaves two values; the
  LayerNorms keep them apart.
  """
  params = jax.tree.map(np.zeros_like, random_params(2))
  for norm in ('attention_norm', 'mlp_norm'):
    params['params']['layer'][norm]['norm']['scale'][:] = 1
  functools.reduce(dict.get, site.split('/'), params['params']['layer'])['bias'][layer] = 1
  model = encoder(dropout=rate, layers=2)
  run = dropout_run(model)
  return np.asarray(run(params, jax.random.key(5))) > 0


@functools.cache
def dropout_run(model):
  x, mask = np.zeros((64, S, WIDTH), np.float32), np.ones((64, S), bool)
  return jax.jit(lambda params, key: model.apply(params, x, mask, False, rngs={'dropout': key}))


def test_dropout_differs_between_layers_and_sublayers():
  kept = [dropped_at(*site) for site in SITES]
  for i, a in enumerate(kept):
    assert abs(a.mean() - 0.5) < 0.02
    for b in kept[:i]:
      assert abs((a == b).mean() - 0.5) < 0.02
    assert abs((a[1:] == a[:-1]).mean() - 0.5) < 0.02  # Nor are examples alike.
    assert abs((a[:, 1:] == a[:, :-1]).mean() - 0.5) < 0.02
  # The rate is what is dropped, not what is kept.
  assert abs(dropped_at(*SITES[0], rate=0.25).mean() - 0.75) < 0.02


def test_attention_weights_are_dropped_too():
  attention = Attention(heads=HEADS, dropout=0.25, init_std=0.02, dtype=jnp.float32)
  x, mask = np.zeros((64, S, WIDTH), np.float32), np.ones((64, S), bool)
  # Every weight is 1/S and every value 1, so what comes out counts the keys that a head kept.
  params = {
    'qkv': {
      'kernel': np.zeros((WIDTH, 3 * WIDTH), np.float32),
      'bias': np.repeat(np.float32([0, 0, 1]), WIDTH),
    },
    'output': {'kernel': np.eye(WIDTH, dtype=np.float32), 'bias': np.zeros(WIDTH, np.float32)},
  }
  run = jax.jit(
    lambda key: attention.apply({'params': params}, x, mask, False, rngs={'dropout': key})
  )
  kept = np.asarray(run(jax.random.key(0))).reshape(64, S, HEADS, -1) * S * 0.75
  np.testing.assert_allclose(kept, np.round(kept), atol=1e-4)
  np.testing.assert_array_equal(kept, kept[..., :1].repeat(WIDTH // HEADS, axis=-1))
  assert kept.mean() == pytest.approx(0.75 * S, rel=0.02)
  variance = 0.75 * 0.25 * S
  for axes in [(0,), (1,), (2,)]:  # Examples, queries and heads differ.
    assert kept[..., 0].var(axes).mean() == pytest.approx(variance, rel=0.3)


def test_dropout_is_off_when_deterministic():
  run = jax.jit(encoder(dropout=0.5).apply, static_argnums=3)
  found = run(random_params(), inputs(), MASK, True)
  expected = jax.jit(encoder().apply, static_argnums=3)(random_params(), inputs(), MASK, True)
  np.testing.assert_array_equal(found, expected)
  embed = embedding(50, dropout=0.25)
  ids = np.random.default_rng(0).integers(50, size=(100, S))
  params = embed.init(jax.random.key(0), ids, True)
  sure = np.asarray(embed.apply(params, ids, True))
  np.testing.assert_array_equal(sure, embedding(50).apply(params, ids, False))
  drawn = np.asarray(embed.apply(params, ids, False, rngs={'dropout': jax.random.key(0)}))
  assert abs((drawn == 0).mean() - 0.25) < 0.02
  np.testing.assert_allclose(drawn[drawn != 0], sure[drawn != 0] / 0.75, rtol=1e-6)


def test_texts_have_positions_and_the_output_projection_is_tied():
  embed = embedding()
  ids = np.array([[3, 3, 5]])
  params = embed.init(jax.random.key(0), ids, True)
  out = np.asarray(embed.apply(params, ids, True))
  assert not np.allclose(out[0, 0], out[0, 1])
  assert set(params['params']) == {'word', 'position', 'norm'}
  x = np.random.default_rng(0).normal(size=(2, 5, WIDTH)).astype(np.float32)
  word = np.asarray(params['params']['word']['embedding'])
  assert word.shape == (11, WIDTH)
  logits = embed.apply(params, x, method='attend')
  np.testing.assert_allclose(logits, x @ word.T, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_of_the_computation_only():
  model = encoder(dtype=jnp.bfloat16)
  x = inputs().astype(jnp.bfloat16)
  out, params = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, MASK, True))
  assert out.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype('float32')}
  embed = embedding(dtype=jnp.bfloat16)
  ids = np.array([[3, 3, 5]])
  out, params = jax.eval_shape(lambda: embed.init_with_output(jax.random.key(0), ids, True))
  assert out.dtype == jnp.bfloat16
  logits = jax.eval_shape(lambda p: embed.apply(p, x, method='attend'), params)
  assert logits.dtype == jnp.float32
