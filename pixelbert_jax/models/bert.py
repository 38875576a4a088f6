"""BERT's embeddings and encoder (Devlin et al. 2018), with all details of the original.

Post-LayerNorm with epsilon 1e-12, and erf GELU. Softmax and LayerNorm compute in at least float32.
Weights of Hugging Face's `BertModel` map one to one; `qkv` concatenates query, key and value.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models import gradients
from pixelbert_jax.models.backend import Backend

Array = jax.Array


def gelu(x: Array) -> Array:
  """Computes the exact GELU of BERT, with erf.

  jax.nn.gelu uses erfc, which makes the MLP 2.5 times as slow on CPU.
  """
  half = x.dtype.type(0.5)
  return half * x * (1 + jax.lax.erf(x * x.dtype.type(0.5**0.5)))


class LayerNorm(nn.Module):
  """LayerNorm that computes in at least float32 and returns `dtype`."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x = nn.LayerNorm(epsilon=1e-12, dtype=wide, use_fast_variance=False, name='norm')(x)
    return x.astype(self.dtype)


class Dense(nn.Module):
  """A linear layer with normal weights of standard deviation `std` and zero bias."""

  features: int
  std: float
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps [..., I] to [..., features] of `dtype`."""
    normal, zeros = nn.initializers.normal(self.std), nn.initializers.zeros
    kernel = self.param('kernel', normal, (x.shape[-1], self.features), jnp.float32)
    bias = self.param('bias', zeros, (self.features,), jnp.float32)
    return gradients.shift(gradients.multiply(x.astype(self.dtype), kernel), bias)


class TextEmbedding(nn.Module):
  """LayerNorm(word + position); like the paper, without a semantic vector (section 3.2)."""

  vocab_size: int
  width: int
  max_positions: int
  dropout: float
  init_std: float
  dtype: jnp.dtype

  def setup(self) -> None:
    normal = nn.initializers.normal(self.init_std)
    self.word = nn.Embed(self.vocab_size, self.width, embedding_init=normal)
    self.position = nn.Embed(self.max_positions, self.width, embedding_init=normal)
    self.norm = LayerNorm(self.dtype)
    self.drop = nn.Dropout(self.dropout)

  def __call__(self, token_ids: Array, deterministic: bool) -> Array:
    """Embeds tokens [N, T] int as [N, T, D]."""
    positions = self.position(jnp.arange(token_ids.shape[-1]))
    return self.drop(self.norm(self.word(token_ids) + positions), deterministic=deterministic)

  def attend(self, x: Array) -> Array:
    """Maps [..., D] to logits [..., V], at least float32: the tied output projection of MLM."""
    wide = jnp.promote_types(self.dtype, jnp.float32)

    def logits(x: Array, word: Array) -> Array:
      return jnp.einsum('...d,vd->...v', x, word, preferred_element_type=wide)

    def gradient(x: Array, dy: Array) -> Array:
      axes = tuple(range(x.ndim - 1))
      return jnp.tensordot(dy, x.astype(wide), (axes, axes))

    return gradients.apply_wide(logits, gradient, x.astype(self.dtype), self.word.embedding)


class Attention(nn.Module):
  """Multi-head self-attention up to the output projection.

  With `mutable=['attention']`, `apply` also returns the attention weights [N, H, S, S] before
  dropout. A variable in the collection `attention_change` is added to them; where it is zero, its
  gradient is theirs.
  """

  heads: int
  dropout: float
  init_std: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, mask: Array, deterministic: bool) -> Array:
    """Maps x [N, S, D] to [N, S, D]; only positions in `mask` [N, S] bool are attended to."""
    n, s, d = x.shape
    qkv = Dense(3 * d, self.init_std, self.dtype, name='qkv')(x)
    # The gradient of a split is a concatenation; that of three slices, a sum of padded ones.
    query, key, value = (
      part.reshape(n, s, self.heads, d // self.heads) for part in jnp.split(qkv, 3, axis=-1)
    )
    wide = jnp.promote_types(self.dtype, jnp.float32)
    scores = jnp.einsum('nqhd,nkhd->nhqk', query, key, preferred_element_type=wide)
    scores = scores / (d // self.heads) ** 0.5
    scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(wide).min)
    weights = nn.softmax(scores).astype(self.dtype)
    if not self.is_initializing():
      # For heat maps; no-ops unless `apply` is given the collection, or has it mutable.
      weights = self.perturb('weights', weights, 'attention_change')
      self.sow('attention', 'weights', weights)
    weights = nn.Dropout(self.dropout)(weights, deterministic=deterministic)
    out = jnp.einsum('nhqk,nkhd->nqhd', weights, value).reshape(n, s, d)
    return Dense(d, self.init_std, self.dtype, name='output')(out)


class Layer(nn.Module):
  """A Transformer layer: attention and MLP, each followed by dropout, residual and LayerNorm."""

  heads: int
  mlp_width: int
  dropout: float
  init_std: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array, mask: Array, deterministic: bool) -> Array:
    """Maps x [N, S, D] and mask [N, S] bool to [N, S, D]."""
    drop = nn.Dropout(self.dropout)
    attention = Attention(self.heads, self.dropout, self.init_std, self.dtype, name='attention')
    y = attention(x, mask, deterministic)
    x = LayerNorm(self.dtype, name='attention_norm')(x + drop(y, deterministic=deterministic))
    y = gelu(Dense(self.mlp_width, self.init_std, self.dtype, name='mlp_in')(x))
    y = Dense(x.shape[-1], self.init_std, self.dtype, name='mlp_out')(y)
    return LayerNorm(self.dtype, name='mlp_norm')(x + drop(y, deterministic=deterministic))


class Encoder(nn.Module):
  """A stack of layers under one scan; the leading axis of parameters is the layer.

  Attributes:
    remat: recompute each layer's activations in the backward pass.
    backend: what the program is compiled for does best.
  """

  layers: int
  heads: int
  mlp_width: int
  dropout: float
  init_std: float
  dtype: jnp.dtype
  remat: bool = False
  backend: Backend = Backend()

  @nn.compact
  def __call__(self, x: Array, mask: Array, deterministic: bool) -> Array:
    """Maps x [N, S, D] and mask [N, S] bool to [N, S, D]."""
    # Outside of a loop, XLA would keep what was computed instead of computing it again.
    remat = functools.partial(nn.remat, static_argnums=(3,), prevent_cse=self.backend.unroll)
    layer = remat(Layer) if self.remat else Layer
    scan = nn.scan(
      lambda layer, x, _: (layer(x, mask, deterministic), None),
      variable_axes={'params': 0, 'attention': 0, 'attention_change': 0},
      split_rngs={'params': True, 'dropout': True},
      length=self.layers,
      unroll=self.layers if self.backend.unroll else 1,
    )
    shared = layer(
      self.heads, self.mlp_width, self.dropout, self.init_std, self.dtype, name='layer'
    )
    x, _ = scan(shared, x, None)
    return x
