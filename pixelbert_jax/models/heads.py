"""What is put on top of Pixel-BERT, one model a task."""

from typing import ClassVar

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


class Transform(nn.Module):
  """BERT's transform before an output: dense, GELU, LayerNorm; to `width`, or as wide as it was."""

  init_std: float
  dtype: jnp.dtype
  width: int = 0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = gelu(dense(self.width or x.shape[-1], self.init_std, self.dtype, 'dense')(x))
    return LayerNorm(self.dtype, name='norm')(x)


class PretrainingModel(nn.Module):
  """Pixel-BERT with the two pre-training heads (section 3.3)."""

  INPUTS: ClassVar = ('token_ids', 'token_mask', 'mlm_position')  # of a batch, besides the image

  backbone: PixelBert

  def setup(self) -> None:
    text = self.backbone.text
    self.pooler = Pooler(text.init_std, text.dtype)
    self.itm = dense(1, text.init_std, jnp.promote_types(text.dtype, jnp.float32))
    self.mlm_transform = Transform(text.init_std, text.dtype)
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


class VqaModel(nn.Module):
  """Pixel-BERT with the head that answers questions (section 4.2).

  The paper has "a MLP" on [CLS] and leaves open which. As others do on BERT: its pooler, then a
  layer twice as wide with GELU and LayerNorm, then one output an answer.

  Attributes:
    backbone: Pixel-BERT.
    answers: A, how many there are to choose from.
  """

  INPUTS: ClassVar = ('token_ids', 'token_mask')

  backbone: PixelBert
  answers: int

  def setup(self) -> None:
    text = self.backbone.text
    self.pooler = Pooler(text.init_std, text.dtype)
    self.vqa_transform = Transform(text.init_std, text.dtype, 2 * text.width)
    self.vqa = dense(self.answers, text.init_std, jnp.promote_types(text.dtype, jnp.float32))

  def __call__(
    self, image: Array, size: Array, token_ids: Array, token_mask: Array, train: bool
  ) -> dict[str, Array]:
    """Arguments as of PixelBert; `vqa_logits` [B, K, A] of at least float32."""
    tokens, _ = self.backbone(image, size, token_ids, token_mask, train)
    return {'vqa_logits': self.vqa(self.vqa_transform(self.pooler(tokens)))}


Model = PretrainingModel | VqaModel
