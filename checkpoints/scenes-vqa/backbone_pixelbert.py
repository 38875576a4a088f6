"""Pixel-BERT without a head, and what all of its classes share.

Shapes: B images, N texts, T tokens, P pixels, S tokens and pixels together, D width, V vocabulary,
L labels.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .cnn_pixelbert import ResNet
from .configuration_pixelbert import PixelBertConfig
from .transformer_pixelbert import Embeddings, Layer, PixelPosition, group


@dataclasses.dataclass
class PixelBertOutput(ModelOutput):
  """The outputs of every class; None for what it does not compute."""

  loss: Tensor | None = None  # if labels are given
  mlm_loss: Tensor | None = None
  itm_loss: Tensor | None = None
  logits: Tensor | None = None  # [N], positive where the text is true, or [N or B, L]
  mlm_logits: Tensor | None = None  # [N, T, V]
  itm_logits: Tensor | None = None  # [N], positive where image and text match
  pooled: Tensor | None = None  # [N, D]
  tokens: Tensor | None = None  # [N, T, D]
  pixels: Tensor | None = None  # [N, P, D]
  pixel_mask: Tensor | None = None  # [N, P] bool


class PixelBertPreTrainedModel(PreTrainedModel):
  """What all classes share: initial weights, and how images are prepared."""

  config_class = PixelBertConfig

  def _init_weights(self, module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
      nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    elif isinstance(module, nn.Linear | nn.Embedding):
      nn.init.normal_(module.weight, std=self.config.initializer_range)
      if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    elif isinstance(module, PixelBertModel):
      nn.init.normal_(module.semantic, std=self.config.initializer_range)

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

  def see(self, pixel_values: Tensor, image_size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Computes the CNN's features [B, C, h, w] and the mask of real ones [B, 1, h, w] bool."""
    if image_size is None:
      image_size = torch.tensor([pixel_values.shape[2:]], device=pixel_values.device)
    return self.cnn(pixel_values, image_size.expand(len(pixel_values), 2))


class PixelBertModel(PixelBertPreTrainedModel):
  """Pixel-BERT without a head. The classes below add theirs, whose names are beside its own."""

  supports_gradient_checkpointing = True  # of the Transformer's layers

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
    self.add_heads(config)
    self.post_init()

  def add_heads(self, config: PixelBertConfig) -> None:
    """Adds the modules of a task."""

  def get_input_embeddings(self) -> nn.Embedding:
    return self.bert.embeddings.word_embeddings

  def set_input_embeddings(self, value: nn.Embedding) -> None:
    self.bert.embeddings.word_embeddings = value

  def embed_pixels(
    self, pixel_values: Tensor, image_size: Tensor | None = None
  ) -> tuple[Tensor, Tensor]:
    """Encodes images as pixel tokens [B, P, D], with the mask of real ones [B, P] bool."""
    features, mask = self.see(pixel_values, image_size)
    pixels = self.projection(features.flatten(2).mT) + self.semantic
    if self.cell_position is not None:
      pixels = pixels + self.cell_position(mask[:, 0], pixels.dtype).to(pixels.dtype)
    return pixels, mask.flatten(1)

  def attend(self, x: Tensor, mask: Tensor) -> Tensor:
    """Maps tokens, pixels or both [N, S, D], real by a mask [N, S] bool, to [N, S, D]."""
    for layer in self.bert.encoder.layer:
      x = layer(x, mask)
    return x

  def pool(self, tokens: Tensor) -> Tensor:
    """Maps [N, T, D] to [N, D], from [CLS]."""
    return self.bert.pooler.dense(tokens[:, 0]).tanh()

  def encode(
    self,
    pixel_values: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    image_size: Tensor | None = None,
    pixel_indices: Tensor | None = None,
  ) -> PixelBertOutput:
    """Encodes pairs of images and texts.

    Args:
      pixel_values: [B, 3, H, W], normalised.
      input_ids: [N, T], from [CLS] to [SEP]; the first N / B texts are those of the first image.
      attention_mask: [N, T], 0 for padding. Default: no padding.
      image_size: [B, 2], height and width of each image in its canvas. Default: the whole canvas.
      pixel_indices: [N, p], the pixels sampled for each text, as in pre-training (paper section
        3.3). Default: all.
    """
    texts, rest = divmod(len(input_ids), len(pixel_values))
    if rest or not texts:
      raise ValueError(
        f'{len(input_ids)} texts for {len(pixel_values)} images: give the same number for each'
      )
    if attention_mask is None:
      attention_mask = torch.ones_like(input_ids)
    pixels, pixel_mask = self.embed_pixels(pixel_values, image_size)
    pixels, pixel_mask = (x.repeat_interleave(texts, 0) for x in (pixels, pixel_mask))
    if pixel_indices is not None:
      pixels = pixels.take_along_dim(pixel_indices[..., None], 1)
      pixel_mask = pixel_mask.take_along_dim(pixel_indices, 1)
    x = torch.cat([self.bert.embeddings(input_ids), pixels], 1)
    x = self.attend(x, torch.cat([attention_mask.bool(), pixel_mask], 1))
    tokens, pixels = x.split([input_ids.shape[1], pixels.shape[1]], 1)
    pooled = self.pool(tokens)
    return PixelBertOutput(pooled=pooled, tokens=tokens, pixels=pixels, pixel_mask=pixel_mask)
