"""Pixel-BERT as one would write it in PyTorch without this project, to compare speed with.

A ResNet in torchvision's structure with PyTorch's own layers, and Hugging Face's BERT with its SDPA
attention. Images fill their canvas: nothing is masked.
"""

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from pixelbert_jax.convert.pytorch.configuration_pixelbert import PixelBertConfig


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
  """Makes a convolution without bias."""
  return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class Bottleneck(nn.Module):
  """torchvision's Bottleneck."""

  def __init__(self, inputs: int, width: int, outputs: int, stride: int, groups: int):
    super().__init__()
    self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
    self.conv2, self.bn2 = conv(width, width, 3, stride, groups), nn.BatchNorm2d(width)
    self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
    self.downsample = None
    if stride > 1 or inputs != outputs:
      self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

  def forward(self, x: Tensor) -> Tensor:
    """Computes a block."""
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    y = F.relu(self.bn2(self.conv2(y)), inplace=True)
    y = self.bn3(self.conv3(y))
    return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def resnet(c: PixelBertConfig) -> nn.Sequential:
  """Makes the CNN: images [B, 3, H, W] to features [B, C, H / stride, W / stride]."""
  layers = [conv(3, c.cnn_width, 7, 2), nn.BatchNorm2d(c.cnn_width), nn.ReLU(inplace=True)]
  layers.append(nn.MaxPool2d(3, 2, 1))
  inputs, total = c.cnn_width, 8
  for i, blocks in enumerate(c.stages):
    width = (c.groups * c.group_width or c.cnn_width) * 2**i
    outputs = 4 * c.cnn_width * 2**i
    strided = i > 0 and total < c.total_stride
    total *= 1 + strided
    for j in range(blocks):
      stride = 2 if strided and j == 0 else 1
      layers.append(Bottleneck(inputs, width, outputs, stride, c.groups))
      inputs = outputs
  return nn.Sequential(*layers, nn.MaxPool2d(2, 2, ceil_mode=True))


class PlainPixelBert(nn.Module):
  """Pixel-BERT with its two pre-training heads."""

  def __init__(self, c: PixelBertConfig):
    super().__init__()
    self.frozen = c.batch_norm == 'frozen'
    self.cnn = resnet(c)
    self.projection = nn.Linear(4 * c.cnn_width * 2 ** (len(c.stages) - 1), c.hidden_size)
    self.semantic = nn.Parameter(torch.zeros(c.hidden_size))
    bert = transformers.BertConfig(
      vocab_size=c.vocab_size,
      hidden_size=c.hidden_size,
      num_hidden_layers=c.num_hidden_layers,
      num_attention_heads=c.num_attention_heads,
      intermediate_size=c.intermediate_size,
      max_position_embeddings=c.max_position_embeddings,
      hidden_dropout_prob=c.dropout,
      attention_probs_dropout_prob=c.dropout,
      attn_implementation='sdpa',
    )
    self.bert = transformers.BertForPreTraining(bert)
    self.itm = nn.Linear(c.hidden_size, 1)

  def train(self, mode: bool = True) -> 'PlainPixelBert':
    """Sets the mode; a fixed BatchNorm always uses its running statistics."""
    super().train(mode)
    self.cnn.train(mode and not self.frozen)
    return self

  def forward(
    self,
    image: Tensor,
    ids: Tensor,
    labels: Tensor,
    matched: Tensor,
    pixel_indices: Tensor | None = None,
  ) -> Tensor:
    """Computes the loss of pre-training, in nats.

    Args:
      image: [B, 3, H, W], normalised.
      ids: [N, T], the first N / B texts are those of the first image.
      labels: [N, T], the words under the masks, and -100 elsewhere.
      matched: [N] float, 1 where image and text match.
      pixel_indices: [N, p], the pixels sampled for each text; None is all.
    """
    pixels = self.projection(self.cnn(image).flatten(2).mT) + self.semantic
    pixels = pixels.repeat_interleave(len(ids) // len(image), 0)
    if pixel_indices is not None:
      pixels = pixels.take_along_dim(pixel_indices[..., None], 1)
    bert = self.bert.bert
    x = torch.cat([bert.embeddings(input_ids=ids), pixels], 1)
    tokens = bert.encoder(x).last_hidden_state[:, : ids.shape[1]]
    words = self.bert.cls.predictions(tokens)
    match = self.itm(bert.pooler(tokens))[:, 0]
    mlm = F.cross_entropy(words.flatten(0, 1).float(), labels.flatten())
    return mlm + F.binary_cross_entropy_with_logits(match.float(), matched)
