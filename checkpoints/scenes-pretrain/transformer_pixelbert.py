"""The Transformer of Pixel-BERT and its embeddings, with the names of Hugging Face's BERT.

Shapes: B images, N texts, T tokens, S tokens and pixels together, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_pixelbert import PixelBertConfig


def group(**modules: nn.Module) -> nn.ModuleDict:
  """Nests modules under names, as Hugging Face's BERT does."""
  return nn.ModuleDict(modules)


def layer_norm(width: int) -> nn.LayerNorm:
  return nn.LayerNorm(width, eps=1e-12)


class Embeddings(nn.Module):
  """LayerNorm(word + position); token types are zero and kept for compatibility with BERT."""

  def __init__(self, c: PixelBertConfig):
    super().__init__()
    self.word_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
    self.position_embeddings = nn.Embedding(c.max_position_embeddings, c.hidden_size)
    self.token_type_embeddings = nn.Module()
    self.token_type_embeddings.register_buffer('weight', torch.zeros(2, c.hidden_size))
    self.LayerNorm = layer_norm(c.hidden_size)
    self.dropout = nn.Dropout(c.dropout)

  def forward(self, input_ids: Tensor) -> Tensor:
    position = self.position_embeddings.weight[: input_ids.shape[-1]]
    position = position + self.token_type_embeddings.weight[0]
    return self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + position))


class Layer(GradientCheckpointingLayer):
  """Attention and MLP, each followed by dropout, residual and LayerNorm."""

  def __init__(self, c: PixelBertConfig):
    super().__init__()
    d = c.hidden_size
    self.heads, self.rate, self.dropout = c.num_attention_heads, c.dropout, nn.Dropout(c.dropout)
    projections = group(query=nn.Linear(d, d), key=nn.Linear(d, d), value=nn.Linear(d, d))
    output = group(dense=nn.Linear(d, d), LayerNorm=layer_norm(d))
    self.attention = nn.ModuleDict({'self': projections, 'output': output})
    self.intermediate = group(dense=nn.Linear(d, c.intermediate_size))
    self.output = group(dense=nn.Linear(c.intermediate_size, d), LayerNorm=layer_norm(d))

  def forward(self, x: Tensor, mask: Tensor) -> Tensor:
    """Maps x [N, S, D] to [N, S, D]; only positions in `mask` [N, S] bool are attended to."""
    projections = self.attention['self'].values()
    query, key, value = (
      linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for linear in projections
    )
    rate = self.rate if self.training else 0.0
    y = F.scaled_dot_product_attention(query, key, value, mask[:, None, None], rate)
    y = self.attention.output.dense(y.transpose(1, 2).flatten(2))
    x = self.attention.output.LayerNorm(x + self.dropout(y))
    y = self.output.dense(F.gelu(self.intermediate.dense(x)))
    return self.output.LayerNorm(x + self.dropout(y))


class PixelPosition(nn.Module):
  """Embeds the places of pixels, as shares of the image's height and width; not in the paper."""

  places = 16  # along a side, each with a learnt embedding

  def __init__(self, c: PixelBertConfig):
    super().__init__()
    self.width = c.hidden_size
    if c.pixel_position == 'learnt':
      self.row, self.column = (nn.Embedding(self.places, self.width) for _ in range(2))
    self.learnt = c.pixel_position == 'learnt'

  def forward(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Embeds the pixels of images, whose real ones [B, h, w] bool are given, as [B, h * w, D]."""
    wide = torch.promote_types(dtype, torch.float32)
    sides = [self.shares(mask.any(axis), wide) for axis in (2, 1)]
    if self.learnt:
      tables = self.row.weight, self.column.weight
      rows, columns = (self.between(x) @ t for x, t in zip(sides, tables, strict=True))
      return (rows[:, :, None] + columns[:, None]).flatten(1, 2)
    rows, columns = (self.sines(x) for x in sides)
    rows, columns = torch.broadcast_tensors(rows[:, :, None], columns[:, None])
    return torch.cat([rows, columns], -1).flatten(1, 2)

  def shares(self, real: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the share [B, n] of an image's side at the middle of each pixel [B, n] bool."""
    middle = torch.arange(real.shape[1], dtype=dtype, device=real.device) + 0.5
    return middle / real.sum(1, keepdim=True).clamp(min=1)

  def between(self, share: Tensor) -> Tensor:
    """Returns the weights [..., places] of the two places beside each share."""
    at = (share * self.places - 0.5).clamp(0, self.places - 1)
    near = 1 - (at[..., None] - torch.arange(self.places, device=share.device)).abs()
    return near.relu().to(self.row.weight.dtype)

  def sines(self, share: Tensor) -> Tensor:
    """Returns sines and cosines [..., D / 2] of the angles 2 pi `share` over wavelengths."""
    half = self.width // 2
    wavelength = 10_000 ** (torch.arange(0, half, 2, device=share.device) / half)
    angle = 2 * torch.pi * share[..., None] / wavelength
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
