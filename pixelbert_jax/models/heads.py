"""What is put on top of Pixel-BERT: masked language modelling and image-text matching."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models.bert import LayerNorm, dense, gelu
from pixelbert_jax.models.pixelbert import PixelBert

Array = jax.Array


class Pooler(nn.Module):
  """BERT's tanh pooler: tokens [..., T, D] to [..., D], from [CLS]."""

  init_std: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens: Array) -> Array:
    cls = tokens[..., 0, :]
    return nn.tanh(dense(cls.shape[-1], self.init_std, self.dtype, 'dense')(cls))


class MlmTransform(nn.Module):
  """BERT's transform before the tied output projection."""

  init_std: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = gelu(dense(x.shape[-1], self.init_std, self.dtype, 'dense')(x))
    return LayerNorm(self.dtype, name='norm')(x)


class PretrainingModel(nn.Module):
  """Pixel-BERT with the two pre-training heads (section 3.3)."""

  backbone: PixelBert

  def setup(self) -> None:
    text = self.backbone.text
    self.pooler = Pooler(text.init_std, text.dtype)
    self.itm = dense(1, text.init_std, jnp.promote_types(text.dtype, jnp.float32))
    self.mlm_transform = MlmTransform(text.init_std, text.dtype)
    self.mlm_bias = self.param('mlm_bias', nn.initializers.zeros, (text.vocab_size,), jnp.float32)

  def __call__(
    self,
    image: Array,
    size: Array,
    token_ids: Array,
    token_mask: Array,
    mlm_position: Array,
    train: bool,
  ) -> dict[str, Array]:
    """Logits of both tasks; arguments as of PixelBert and mlm_position [B, K, M] int.

    Returns:
      `mlm_logits` [B, K, M, V] and `itm_logits` [B, K] (the logit of 'match'), both of at least
      float32.
    """
    tokens, _ = self.backbone(image, size, token_ids, token_mask, train)
    hidden = jnp.take_along_axis(tokens, mlm_position[..., None], axis=2)
    mlm_logits = self.backbone.text.attend(self.mlm_transform(hidden)) + self.mlm_bias
    itm_logits = self.itm(self.pooler(tokens))[..., 0]
    return {'mlm_logits': mlm_logits, 'itm_logits': itm_logits}
