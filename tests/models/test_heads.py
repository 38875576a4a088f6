"""The pre-training heads, computed again in PyTorch from the tokens of the backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn
from torch.nn.functional import gelu, layer_norm

from pixelbert_jax.models.heads import PretrainingModel

VOCAB, WIDTH = 13, 8


class Text(nn.Module):
  """Stands for the embedding: what the heads use of it."""

  dtype: jnp.dtype = jnp.float32
  vocab_size: int = VOCAB
  init_std: float = 0.02

  def setup(self):
    self.word = self.param('word', nn.initializers.normal(1.0), (VOCAB, WIDTH))

  def attend(self, x):
    return (x @ self.word.astype(self.dtype).T).astype(jnp.float32)


class Backbone(nn.Module):
  """Gives its `image` back as the tokens."""

  text: Text

  def __call__(self, image, size, token_ids, token_mask, train):
    return image.astype(self.text.dtype), None


def run(dtype):
  model = PretrainingModel(Backbone(Text(dtype)))
  rng = np.random.default_rng(0)
  tokens = rng.normal(size=(2, 3, 5, WIDTH)).astype(np.float32)
  position = rng.integers(0, 5, (2, 3, 4))
  arguments = tokens, None, None, None, position, False
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
  outputs = jax.jit(lambda variables: model.apply(variables, *arguments))(variables)
  return tokens, position, variables['params'], outputs


def expected_logits(tokens, position, params):
  tokens, p = torch.from_numpy(tokens), jax.tree.map(torch.from_numpy, params)

  def dense(x, p):
    return x @ p['kernel'] + p['bias']

  pooled = torch.tanh(dense(tokens[:, :, 0], p['pooler']['dense']))
  transform = p['mlm_transform']
  norm = transform['norm']['norm']
  mlm = torch.zeros(*position.shape, VOCAB)
  for at in np.ndindex(position.shape):
    hidden = gelu(dense(tokens[at[0], at[1], position[at]], transform['dense']))
    hidden = layer_norm(hidden, (WIDTH,), norm['scale'], norm['bias'], 1e-12)
    mlm[at] = hidden @ p['backbone']['text']['word'].T + p['mlm_bias']
  return {'itm_logits': dense(pooled, p['itm'])[..., 0].numpy(), 'mlm_logits': mlm.numpy()}


def test_logits_are_those_of_bert():
  tokens, position, params, outputs = run(jnp.float32)
  expected = expected_logits(tokens, position, params)
  assert set(outputs) == set(expected)
  for name, logits in outputs.items():
    np.testing.assert_allclose(logits, expected[name], rtol=1e-5, atol=1e-5)


def test_logits_are_float32_whatever_the_computation_is():
  tokens, position, params, outputs = run(jnp.bfloat16)
  expected = expected_logits(tokens, position, params)
  for name, logits in outputs.items():
    assert logits.dtype == jnp.float32
    difference = np.linalg.norm(logits - expected[name])
    assert difference < 0.05 * np.linalg.norm(expected[name])
