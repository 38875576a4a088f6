"""Heads on top of Pixel-BERT: one model per task."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models.bert import Dense, LayerNorm, gelu
from pixelbert_jax.models.first_stage import FirstStage
from pixelbert_jax.models.pixelbert import PixelBert

Array = jax.Array


class Pooler(nn.Module):
  """BERT's tanh pooler: maps tokens [..., T, D] to [..., D], from [CLS]."""

  init_std: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens: Array) -> Array:
    cls = tokens[..., 0, :]
    return nn.tanh(Dense(cls.shape[-1], self.init_std, self.dtype, name='dense')(cls))


class Transform(nn.Module):
  """BERT's transform before an output: dense, GELU, LayerNorm; `width` 0 keeps the width."""

  init_std: float
  dtype: jnp.dtype
  width: int = 0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = gelu(Dense(self.width or x.shape[-1], self.init_std, self.dtype, name='dense')(x))
    return LayerNorm(self.dtype, name='norm')(x)


class PretrainingModel(nn.Module):
  """Pixel-BERT with the two pre-training heads (section 3.3)."""

  INPUTS: ClassVar = ('token_ids', 'token_mask', 'mlm_position')  # of a batch, besides the image

  backbone: PixelBert

  def setup(self) -> None:
    text = self.backbone.text
    self.pooler = Pooler(text.init_std, text.dtype)
    self.itm = Dense(1, text.init_std, jnp.promote_types(text.dtype, jnp.float32))
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
    """Computes the logits of both tasks.

    Args:
      image, size, token_ids, token_mask, train: as for `PixelBert`.
      mlm_position: [B, K, M] int, positions of the masked tokens.

    Returns:
      `mlm_logits` [B, K, M, V] and `itm_logits` [B, K] (of 'match'), both of at least float32.
    """
    tokens, _ = self.backbone(image, size, token_ids, token_mask, train)
    hidden = jnp.take_along_axis(tokens, mlm_position[..., None], axis=2)
    return {'mlm_logits': self.fill(hidden), 'itm_logits': self.match(tokens)}

  def fill(self, hidden: Array) -> Array:
    """Maps masked tokens [..., D] to logits [..., V]."""
    return self.backbone.text.attend(self.mlm_transform(hidden)) + self.mlm_bias

  def match(self, tokens: Array) -> Array:
    """Maps tokens [..., T, D] to logits [...] of 'match'."""
    return self.itm(self.pooler(tokens))[..., 0]


class MatchingModel(nn.Module):
  """Pixel-BERT with the image-text matching head alone, for NLVR and retrieval (section 4.4).

  The head starts from that of ITM pre-training.

  Attributes:
    backbone: Pixel-BERT.
    first_stage_width: of the space of `FirstStage`, which ranks without pairs; 0 has none.
  """

  INPUTS: ClassVar = ('token_ids', 'token_mask')

  backbone: PixelBert
  first_stage_width: int = 0

  def setup(self) -> None:
    text = self.backbone.text
    self.pooler = Pooler(text.init_std, text.dtype)
    wide = jnp.promote_types(text.dtype, jnp.float32)
    self.itm = Dense(1, text.init_std, wide)
    if self.first_stage_width:
      self.first_stage = FirstStage(self.first_stage_width, text.init_std, wide)

  def __call__(
    self, image: Array, size: Array, token_ids: Array, token_mask: Array, train: bool
  ) -> dict[str, Array]:
    """Computes `match_logits` [B, K] of at least float32; arguments as for `PixelBert`.

    With a first stage also `image_vector` [B, W] and `text_vector` [B, K, W]; and `scale` [], the
    factor of their products.
    """
    pixels, mask = self.backbone.embed_pixels(image, size, train)
    tokens, _ = self.backbone.join(pixels, mask, token_ids, token_mask, train)
    outputs = {'match_logits': self.match(tokens)}
    if self.first_stage_width:
      outputs['image_vector'] = self.image_vector(pixels, mask, train)
      ids, words = (x.reshape(-1, x.shape[-1]) for x in (token_ids, token_mask))
      vectors = self.text_vector(ids, words, train)
      outputs['text_vector'] = vectors.reshape(*token_ids.shape[:2], -1)
      outputs['scale'] = self.first_stage.scale()
    return outputs

  def match(self, tokens: Array) -> Array:
    """Maps tokens [..., T, D] to logits [...] of 'match'."""
    return self.itm(self.pooler(tokens))[..., 0]

  def embed(self, image: Array, size: Array) -> tuple[Array, Array]:
    """Embeds images for `score`, as [B, P, D] with mask [B, P], so that the CNN runs once."""
    return self.backbone.embed_pixels(image, size, train=False)

  def score(self, pixels: Array, pixel_mask: Array, token_ids: Array, token_mask: Array) -> Array:
    """Computes the logits [B, C] of every image from `embed` with every text of [C, T]."""
    ids, mask = (jnp.broadcast_to(x, (len(pixels), *x.shape)) for x in (token_ids, token_mask))
    tokens, _ = self.backbone.join(pixels, pixel_mask, ids, mask, train=False)
    return self.match(tokens)

  def score_listed(
    self, pixels: Array, pixel_mask: Array, image: Array, token_ids: Array, token_mask: Array
  ) -> Array:
    """Computes the logits [U, C] of texts [U, C, T], each row with one image of `embed`.

    `image` [U] int is the place of each row's image among those embedded.
    """
    tokens, _ = self.backbone.join(
      pixels[image], pixel_mask[image], token_ids, token_mask, train=False
    )
    return self.match(tokens)

  def image_vector(self, pixels: Array, pixel_mask: Array, train: bool) -> Array:
    """Computes the first stage's vectors [B, W] of images from `embed`, which see no text."""
    seen = self.backbone.look(pixels, pixel_mask, train)
    return self.first_stage.of_image(seen, pixel_mask)

  def text_vector(self, token_ids: Array, token_mask: Array, train: bool) -> Array:
    """Computes the first stage's vectors [N, W] of texts [N, T], which see no image."""
    return self.first_stage.of_text(self.pooler(self.backbone.read(token_ids, token_mask, train)))


class Nlvr2Model(nn.Module):
  """Pixel-BERT for statements about two images (section 4.3, "pair").

  The text is encoded with each image; the two [CLS] are concatenated and go through an MLP, as in
  `VqaModel`. One logit with binary cross-entropy is equivalent to the paper's two logits with
  cross-entropy.
  """

  IMAGES: ClassVar = 2  # per statement
  INPUTS: ClassVar = ('token_ids', 'token_mask')

  backbone: PixelBert

  def setup(self) -> None:
    text = self.backbone.text
    self.pooler = Pooler(text.init_std, text.dtype)
    self.nlvr2_transform = Transform(text.init_std, text.dtype, 2 * text.width)
    self.nlvr2 = Dense(1, text.init_std, jnp.promote_types(text.dtype, jnp.float32))

  def __call__(
    self, image: Array, size: Array, token_ids: Array, token_mask: Array, train: bool
  ) -> dict[str, Array]:
    """Computes `match_logits` [B, K] of at least float32.

    Args:
      image: [2 B, H, W, 3], alternately the left and the right image of each pair; or the left
        images [B, H, W, 3] and the right ones [B, H', W', 3], on canvases of their own. BatchNorm
        by batch statistics then has those of the left and of the right ones.
      size: [2 B, 2].
      token_ids: [B, K, T].
      token_mask: [B, K, T].
      train: as for `PixelBert`.
    """
    ids, mask = (jnp.repeat(x, self.IMAGES, axis=0) for x in (token_ids, token_mask))
    pixels = self.embed(image, size, train)
    tokens, _ = self.backbone.join(*pixels, ids, mask, train)
    cls = self.pooler(tokens).reshape(-1, self.IMAGES, *tokens.shape[1:2], tokens.shape[-1])
    both = jnp.concatenate([cls[:, 0], cls[:, 1]], axis=-1)
    return {'match_logits': self.nlvr2(self.nlvr2_transform(both))[..., 0]}

  def embed(self, image: Any, size: Array, train: bool) -> tuple[Array, Array]:
    """Embeds the images of pairs as [2 B, P, D] with mask [2 B, P], left and right in turn."""
    if not isinstance(image, tuple):
      return self.backbone.embed_pixels(image, size, train)
    sizes = size.reshape(-1, self.IMAGES, 2)
    halves = [self.backbone.embed_pixels(x, sizes[:, i], train) for i, x in enumerate(image)]
    longest = max(mask.shape[1] for _, mask in halves)

    def in_turn(*xs: Array) -> Array:
      wide = [jnp.pad(x, ((0, 0), (0, longest - x.shape[1]), *[(0, 0)] * (x.ndim - 2))) for x in xs]
      return jnp.stack(wide, axis=1).reshape(-1, *wide[0].shape[1:])

    pixels, masks = zip(*halves, strict=True)
    return in_turn(*pixels), in_turn(*masks)


class VqaModel(nn.Module):
  """Pixel-BERT with a head for visual question answering (section 4.2).

  The paper does not specify its "MLP" on [CLS]. As is usual on BERT, it is the pooler, a layer
  twice as wide with GELU and LayerNorm, and one output per answer.

  Attributes:
    backbone: Pixel-BERT.
    answers: A, number of answers in the list.
  """

  INPUTS: ClassVar = ('token_ids', 'token_mask')

  backbone: PixelBert
  answers: int

  def setup(self) -> None:
    text = self.backbone.text
    self.pooler = Pooler(text.init_std, text.dtype)
    self.vqa_transform = Transform(text.init_std, text.dtype, 2 * text.width)
    self.vqa = Dense(self.answers, text.init_std, jnp.promote_types(text.dtype, jnp.float32))

  def __call__(
    self, image: Array, size: Array, token_ids: Array, token_mask: Array, train: bool
  ) -> dict[str, Array]:
    """Computes `vqa_logits` [B, K, A] of at least float32; arguments as for `PixelBert`."""
    tokens, _ = self.backbone(image, size, token_ids, token_mask, train)
    return {'vqa_logits': self.answer(tokens)}

  def answer(self, tokens: Array) -> Array:
    """Maps tokens [..., T, D] to logits [..., A]."""
    return self.vqa(self.vqa_transform(self.pooler(tokens)))


class LabelModel(nn.Module):
  """The CNN of Pixel-BERT with a head for what an image shows, to be trained before the rest.

  The paper starts from a CNN that was trained to tell the classes of ImageNet. Of the backbone only
  the CNN has parameters here.

  Attributes:
    backbone: Pixel-BERT.
    labels: L, number of labels in the list.
  """

  INPUTS: ClassVar = ()

  backbone: PixelBert
  labels: int

  def setup(self) -> None:
    text = self.backbone.text
    self.label = Dense(self.labels, text.init_std, jnp.promote_types(text.dtype, jnp.float32))

  def __call__(self, image: Array, size: Array, train: bool) -> dict[str, Array]:
    """Computes `label_logits` [B, L] of at least float32; arguments as for `PixelBert`."""
    features, mask = self.backbone.cnn(image, size, train)
    mean = jnp.mean(features, axis=(1, 2), dtype=self.label.dtype, where=mask[..., None])
    return {'label_logits': self.label(mean)}


Model = PretrainingModel | MatchingModel | Nlvr2Model | VqaModel | LabelModel
