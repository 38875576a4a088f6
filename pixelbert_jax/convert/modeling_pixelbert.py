"""Pixel-BERT (Huang et al. 2020, arXiv 2004.00849) in PyTorch.

    model = transformers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)
    text = tokenizer(['a red bus'], return_tensors='pt')
    outputs = model(**model.preprocess([PIL.Image.open('bus.jpg')]), **text)
    outputs.itm_logits.sigmoid()  # the probability that image and text match

Needs torch and transformers only. Parameter names are torchvision's in the CNN, and those of
Hugging Face's BERT elsewhere. Shapes: B images, N texts, T tokens, P pixels, D width, V vocabulary.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class PixelBertConfig(PretrainedConfig):
  """The configuration in `config.json`; defaults are the paper's model with ResNet-50."""

  model_type = 'pixelbert'
  defaults = {  # noqa: RUF012
    'stages': (3, 4, 6, 3),  # blocks in each stage of the CNN
    'total_stride': 64,  # of the pixel features, in input pixels
    'cnn_width': 64,  # channels of the stem
    'groups': 1,  # of the 3x3 convolutions
    'group_width': 0,  # channels per group in the first stage; 0 for a plain ResNet
    'stem': '7x7',  # or 'space_to_depth'
    'batch_norm': 'frozen',  # statistics in training: 'frozen', or of the 'batch'
    'vocab_size': 30522,
    'max_position_embeddings': 512,
    'hidden_size': 768,
    'num_hidden_layers': 12,
    'num_attention_heads': 12,
    'intermediate_size': 3072,
    'pixel_position': 'none',  # or 'learnt', 'sine2d'
    'dropout': 0.1,
    'initializer_range': 0.02,
    'image_mean': (0.485, 0.456, 0.406),  # of RGB in 0..1
    'image_deviation': (0.229, 0.224, 0.225),
    'image_shorter': 800,  # length of the shorter side of images ...
    'image_longer': 1333,  # ... unless the longer side would exceed this
  }

  def __init__(self, **kwargs):
    for name, default in self.defaults.items():
      setattr(self, name, kwargs.pop(name, default))
    super().__init__(**kwargs)


@dataclasses.dataclass
class PixelBertOutput(ModelOutput):
  """The outputs of `PixelBert`."""

  loss: Tensor | None = None  # sum of the losses below that have labels
  mlm_loss: Tensor | None = None
  itm_loss: Tensor | None = None
  mlm_logits: Tensor | None = None  # [N, T, V]
  itm_logits: Tensor | None = None  # [N], positive where image and text match
  pooled: Tensor | None = None  # [N, D]
  tokens: Tensor | None = None  # [N, T, D]
  pixels: Tensor | None = None  # [N, P, D]
  pixel_mask: Tensor | None = None  # [N, P] bool


# --- The CNN: images of different sizes in the top left corners of one canvas --------------------
# BatchNorm turns zeros of the padding into its bias, which 3x3 convolutions carry inwards. Masking
# after each BatchNorm makes the output at real pixels that of the unpadded image.


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


# --- BERT -----------------------------------------------------------------------------------------


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


class Layer(nn.Module):
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


# --- Pixel-BERT ---------------------------------------------------------------------------------


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


class PixelBert(PreTrainedModel):
  """Pixel-BERT with heads for masked language modelling (MLM) and image-text matching (ITM)."""

  config_class = PixelBertConfig

  def __init__(self, config: PixelBertConfig):
    super().__init__(config)
    d = config.hidden_size
    self.cnn = ResNet(config)
    self.projection = nn.Linear(self.cnn.features, d)
    self.semantic = nn.Parameter(torch.zeros(d))
    self.cell_position = PixelPosition(config) if config.pixel_position != 'none' else None
    layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
    self.bert = group(
      embeddings=Embeddings(config),
      encoder=group(layer=layers),
      pooler=group(dense=nn.Linear(d, d)),
    )
    self.cls = group(
      predictions=group(transform=group(dense=nn.Linear(d, d), LayerNorm=layer_norm(d)))
    )
    self.cls.predictions.bias = nn.Parameter(torch.zeros(config.vocab_size))
    self.itm = nn.Linear(d, 1)
    self.post_init()

  def _init_weights(self, module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
      nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    elif isinstance(module, nn.Linear | nn.Embedding):
      nn.init.normal_(module.weight, std=self.config.initializer_range)
      if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    elif module is self:
      nn.init.normal_(self.semantic, std=self.config.initializer_range)

  @torch.no_grad()
  def preprocess(self, images: list) -> dict[str, Tensor]:
    """Resizes, normalises and pads upright PIL images; returns `pixel_values` and `image_size`."""
    c, normalised = self.config, []
    for image in images:
      scale = min(c.image_shorter / min(image.size), c.image_longer / max(image.size))
      width, height = (max(int(side * scale + 0.5), 1) for side in image.size)
      image = image.convert('RGB').resize((width, height), resample=3)  # bicubic
      pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
      pixels = pixels.view(height, width, 3).to(self.device, self.dtype) / 255
      mean, deviation = pixels.new_tensor(c.image_mean), pixels.new_tensor(c.image_deviation)
      normalised.append(((pixels - mean) / deviation).permute(2, 0, 1))
    size = torch.tensor([x.shape[1:] for x in normalised], device=self.device)
    canvas = size.amax(0).tolist()
    padded = [F.pad(x, (0, canvas[1] - x.shape[2], 0, canvas[0] - x.shape[1])) for x in normalised]
    return {'pixel_values': torch.stack(padded), 'image_size': size}

  def embed_pixels(self, pixel_values: Tensor, image_size: Tensor) -> tuple[Tensor, Tensor]:
    """Encodes images as pixel tokens [B, P, D], with the mask of real ones [B, P] bool."""
    features, mask = self.cnn(pixel_values, image_size)
    pixels = self.projection(features.flatten(2).mT) + self.semantic
    if self.cell_position is not None:
      pixels = pixels + self.cell_position(mask[:, 0], pixels.dtype).to(pixels.dtype)
    return pixels, mask.flatten(1)

  def forward(
    self,
    pixel_values: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    image_size: Tensor | None = None,
    pixel_indices: Tensor | None = None,
    labels: Tensor | None = None,
    itm_labels: Tensor | None = None,
  ) -> PixelBertOutput:
    """Encodes pairs of images and texts.

    Args:
      pixel_values: [B, 3, H, W], normalised.
      input_ids: [N, T], from [CLS] to [SEP]; the first N / B texts are those of the first image.
      attention_mask: [N, T], 0 for padding. Default: no padding.
      image_size: [B, 2], height and width of each image in its canvas. Default: the whole canvas.
      pixel_indices: [N, p], the pixels sampled for each text, as in pre-training (paper section
        3.3). Default: all.
      labels: [N, T], the words under the [MASK]s, and -100 elsewhere.
      itm_labels: [N], 1 where image and text match.
    """
    if image_size is None:
      image_size = torch.tensor([pixel_values.shape[2:]], device=pixel_values.device)
    if attention_mask is None:
      attention_mask = torch.ones_like(input_ids)
    pixels, pixel_mask = self.embed_pixels(pixel_values, image_size.expand(len(pixel_values), 2))
    texts = len(input_ids) // len(pixel_values)
    pixels, pixel_mask = (x.repeat_interleave(texts, 0) for x in (pixels, pixel_mask))
    if pixel_indices is not None:
      pixels = pixels.take_along_dim(pixel_indices[..., None], 1)
      pixel_mask = pixel_mask.take_along_dim(pixel_indices, 1)

    x = torch.cat([self.bert.embeddings(input_ids), pixels], 1)
    mask = torch.cat([attention_mask.bool(), pixel_mask], 1)
    for layer in self.bert.encoder.layer:
      x = layer(x, mask)
    tokens, pixels = x.split([input_ids.shape[1], pixels.shape[1]], 1)
    pooled = self.bert.pooler.dense(tokens[:, 0]).tanh()
    transform = self.cls.predictions.transform
    hidden = transform.LayerNorm(F.gelu(transform.dense(tokens)))
    words = self.bert.embeddings.word_embeddings.weight
    mlm_logits = F.linear(hidden, words, self.cls.predictions.bias)
    itm_logits = self.itm(pooled)[:, 0]
    losses = pretraining_losses(mlm_logits, itm_logits, labels, itm_labels)
    return PixelBertOutput(
      loss=sum(losses.values()) if losses else None,
      **losses,
      mlm_logits=mlm_logits,
      itm_logits=itm_logits,
      pooled=pooled,
      tokens=tokens,
      pixels=pixels,
      pixel_mask=pixel_mask,
    )


def pretraining_losses(
  mlm_logits: Tensor, itm_logits: Tensor, labels: Tensor | None, itm_labels: Tensor | None
) -> dict[str, Tensor]:
  """Computes the mean cross-entropy, in nats, of each task that has labels."""
  losses = {}
  if labels is not None:
    total = F.cross_entropy(mlm_logits.flatten(0, 1), labels.flatten(), reduction='sum')
    losses['mlm_loss'] = total / (labels != -100).sum().clamp(min=1)
  if itm_labels is not None:
    matched = itm_labels.to(itm_logits.dtype)
    losses['itm_loss'] = F.binary_cross_entropy_with_logits(itm_logits, matched)
  return losses
