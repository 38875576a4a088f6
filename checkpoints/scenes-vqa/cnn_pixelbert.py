"""The CNN of Pixel-BERT: images of different sizes in the top left corners of one canvas.

BatchNorm turns zeros of the padding into its bias, which 3x3 convolutions carry inwards. Masking
after each BatchNorm makes the output at real pixels that of the unpadded image. Parameter names are
torchvision's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_pixelbert import PixelBertConfig


class BatchNorm(nn.Module):
  """BatchNorm2d with batch statistics of real pixels only, or `frozen` statistics."""

  def __init__(self, features: int, frozen: bool, epsilon: float = 1e-5, momentum: float = 0.1):
    super().__init__()
    self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
    self.register_buffer('running_mean', torch.zeros(features))
    self.register_buffer('running_var', torch.ones(features))
    self.frozen, self.epsilon, self.momentum = frozen, epsilon, momentum

  def forward(self, x: Tensor, mask: Tensor) -> Tensor:
    mean, variance = self.running_mean, self.running_var
    if self.training and not self.frozen:
      count = mask.sum()
      mean = (x * mask).sum((0, 2, 3)) / count
      variance = ((x - mean[:, None, None]).square() * mask).sum((0, 2, 3)) / count
      with torch.no_grad():
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
    gain = self.weight * (variance + self.epsilon).rsqrt()
    return (x * gain[:, None, None] + (self.bias - mean * gain)[:, None, None]) * mask


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
  return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


def max_pool(x: Tensor, mask: Tensor, window: int) -> tuple[Tensor, Tensor]:
  """Max-pools real pixels with stride 2; sizes are halved and rounded up."""
  x = x.masked_fill(~mask, -torch.inf)
  x = F.max_pool2d(x, window, 2, padding=(window - 1) // 2, ceil_mode=window == 2)
  mask = mask[..., ::2, ::2]
  return x.masked_fill(~mask, 0), mask


class Bottleneck(nn.Module):
  """1x1, 3x3 (with the stride and the groups) and 1x1 convolutions."""

  def __init__(self, inputs, width, outputs, stride, groups, frozen):
    super().__init__()
    self.stride = stride
    self.conv1, self.bn1 = conv(inputs, width, 1), BatchNorm(width, frozen)
    self.conv2, self.bn2 = conv(width, width, 3, stride, groups), BatchNorm(width, frozen)
    self.conv3, self.bn3 = conv(width, outputs, 1), BatchNorm(outputs, frozen)
    self.downsample = None
    if stride > 1 or inputs != outputs:
      parts = conv(inputs, outputs, 1, stride), BatchNorm(outputs, frozen)
      self.downsample = nn.ModuleList(parts)

  def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    y = self.bn1(self.conv1(x), mask).relu()
    mask = mask[..., :: self.stride, :: self.stride]
    y = self.bn2(self.conv2(y), mask).relu()
    y = self.bn3(self.conv3(y), mask)
    if self.downsample is not None:
      convolution, norm = self.downsample
      x = norm(convolution(x), mask)
    return (x + y).relu(), mask


class ResNet(nn.Module):
  """ResNet or ResNeXt up to its last stage, then a 2x2 max-pool."""

  def __init__(self, c: PixelBertConfig):
    super().__init__()
    self.patches, frozen = c.stem == 'space_to_depth', c.batch_norm == 'frozen'
    self.conv1 = conv(48, c.cnn_width, 3) if self.patches else conv(3, c.cnn_width, 7, 2)
    self.bn1 = BatchNorm(c.cnn_width, frozen)
    inputs, stride = c.cnn_width, 8  # of the stem (4) and the last pool (2)
    for i, blocks in enumerate(c.stages):
      width = (c.groups * c.group_width or c.cnn_width) * 2**i
      outputs = 4 * c.cnn_width * 2**i
      strided = i > 0 and stride < c.total_stride
      stride *= 1 + strided
      stage = nn.ModuleList()
      for j in range(blocks):
        step = 2 if strided and j == 0 else 1
        stage.append(
          Bottleneck(inputs, width, outputs, stride=step, groups=c.groups, frozen=frozen)
        )
        inputs = outputs
      self.add_module(f'layer{i + 1}', stage)
    self.depth, self.features = len(c.stages), inputs

  def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Returns features [B, C, h, w] and the mask of real ones [B, 1, h, w] bool.

    Args:
      image: [B, 3, H, W].
      size: [B, 2], height and width of each image in its canvas.
    """
    rows, columns = (torch.arange(n, device=image.device) for n in image.shape[2:])
    mask = (rows[:, None] < size[:, 0, None, None]) & (columns < size[:, 1, None, None])
    mask = mask[:, None]
    x = image.masked_fill(~mask, 0)
    if self.patches:  # Patches of 4x4 pixels become channels.
      x, mask = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)), mask[..., ::4, ::4]
      x = x.unflatten(2, (-1, 4)).unflatten(4, (-1, 4)).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    else:
      mask = mask[..., ::2, ::2]
    x = self.bn1(self.conv1(x), mask).relu()
    if not self.patches:
      x, mask = max_pool(x, mask, 3)
    for i in range(self.depth):
      for block in getattr(self, f'layer{i + 1}'):
        x, mask = block(x, mask)
    return max_pool(x, mask, 2)
