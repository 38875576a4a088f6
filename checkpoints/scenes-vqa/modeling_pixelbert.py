"""Pixel-BERT (Huang et al. 2020, arXiv 2004.00849) in PyTorch: a class for each task.

    model = transformers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)
    text = tokenizer(['a red bus'], return_tensors='pt')
    outputs = model(**model.preprocess([PIL.Image.open('bus.jpg')]), **text)

Needs torch and transformers only; README.md beside this file shows the task of its folder. What the
classes share is in `backbone_pixelbert.py`, which stands on `cnn_pixelbert.py` and
`transformer_pixelbert.py`. Shapes: B images, N texts, T tokens, D width, L labels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import can_return_tuple

from .backbone_pixelbert import PixelBertModel, PixelBertOutput, PixelBertPreTrainedModel
from .cnn_pixelbert import ResNet
from .configuration_pixelbert import PixelBertConfig
from .transformer_pixelbert import group, layer_norm


class PixelBertForPreTraining(PixelBertModel):
  """Masked language modelling (MLM) and image-text matching (ITM)."""

  def add_heads(self, config: PixelBertConfig) -> None:
    d = config.hidden_size
    self.cls = group(
      predictions=group(transform=group(dense=nn.Linear(d, d), LayerNorm=layer_norm(d)))
    )
    self.cls.predictions.bias = nn.Parameter(torch.zeros(config.vocab_size))
    self.itm = nn.Linear(d, 1)

  def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
    """Resizes the vocabulary: embeddings, which are MLM's decoder too, and the decoder's bias."""
    words, predictions = super().resize_token_embeddings(*args, **kwargs), self.cls.predictions
    more = words.num_embeddings - len(predictions.bias)
    predictions.bias = nn.Parameter(F.pad(predictions.bias.detach(), (0, more)))
    return words

  @can_return_tuple
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
    """Computes the logits of both tasks, and `loss`, the sum of the losses that have labels.

    Args:
      pixel_values, input_ids, attention_mask, image_size, pixel_indices: as for `encode`.
      labels: [N, T], the words under the [MASK]s, and -100 elsewhere.
      itm_labels: [N], 1 where image and text match.
    """
    out = self.encode(pixel_values, input_ids, attention_mask, image_size, pixel_indices)
    predictions, losses = self.cls.predictions, {}
    hidden = F.gelu(predictions.transform.dense(out.tokens))
    hidden = predictions.transform.LayerNorm(hidden)
    mlm_logits = F.linear(hidden, self.get_input_embeddings().weight, predictions.bias)
    itm_logits = self.itm(out.pooled)[:, 0]
    if labels is not None:
      total = F.cross_entropy(mlm_logits.flatten(0, 1), labels.flatten(), reduction='sum')
      losses['mlm_loss'] = total / (labels != -100).sum().clamp(min=1)
    if itm_labels is not None:
      losses['itm_loss'] = binary_loss(itm_logits, itm_labels)
    if losses:
      losses['loss'] = sum(losses.values())
    return PixelBertOutput(mlm_logits=mlm_logits, itm_logits=itm_logits, **losses, **out)


class Classifier(nn.Module):
  """The head of questions and of pairs of images: [N, I] to [N, outputs]."""

  def __init__(self, inputs: int, width: int, outputs: int):
    super().__init__()
    self.dense, self.LayerNorm = nn.Linear(inputs, width), layer_norm(width)
    self.out = nn.Linear(width, outputs)

  def forward(self, x: Tensor) -> Tensor:
    return self.out(self.LayerNorm(F.gelu(self.dense(x))))


class PixelBertForQuestionAnswering(PixelBertModel):
  """Visual question answering: `logits` [N, L], of the answers in `config.id2label`."""

  def add_heads(self, config: PixelBertConfig) -> None:
    self.classifier = Classifier(config.hidden_size, 2 * config.hidden_size, config.num_labels)

  @can_return_tuple
  def forward(
    self,
    pixel_values: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    image_size: Tensor | None = None,
    labels: Tensor | None = None,
  ) -> PixelBertOutput:
    """Computes the logits; arguments as for `encode`, and `labels` [N, L], scores in 0..1."""
    out = self.encode(pixel_values, input_ids, attention_mask, image_size)
    logits = self.classifier(out.pooled)
    return PixelBertOutput(loss=binary_loss(logits, labels), logits=logits, **out)


class PixelBertForImageAndTextRetrieval(PixelBertModel):
  """Whether texts are true of images: `logits` [N]. Retrieval and NLVR use it.

  With `config.first_stage` its images and texts have vectors too, whose products rank them apart.
  """

  def add_heads(self, config: PixelBertConfig) -> None:
    self.itm = nn.Linear(config.hidden_size, 1)
    if config.first_stage:
      d, width = config.hidden_size, config.first_stage
      self.first_stage = group(text=nn.Linear(d, width), image=nn.Linear(d, width))
      # Of the factor of the products in a contrastive loss, as CLIP's.
      self.first_stage.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

  @can_return_tuple
  def forward(
    self,
    pixel_values: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    image_size: Tensor | None = None,
    labels: Tensor | None = None,
  ) -> PixelBertOutput:
    """Computes the logits; arguments as for `encode`, and `labels` [N], 1 for a true text."""
    out = self.encode(pixel_values, input_ids, attention_mask, image_size)
    logits = self.itm(out.pooled)[:, 0]
    return PixelBertOutput(loss=binary_loss(logits, labels), logits=logits, **out)

  def get_image_features(self, pixel_values: Tensor, image_size: Tensor | None = None) -> Tensor:
    """Computes the first stage's unit vectors [B, `first_stage`] of images alone."""
    pixels, mask = self.embed_pixels(pixel_values, image_size)
    real = mask[..., None]
    mean = (self.attend(pixels, mask) * real).sum(1) / real.sum(1)
    return unit(self.first_stage.image(mean))

  def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Computes the first stage's unit vectors [N, `first_stage`] of texts alone."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    tokens = self.attend(self.bert.embeddings(input_ids), mask.bool())
    return unit(self.first_stage.text(self.pool(tokens)))


class PixelBertForImagesAndTextClassification(PixelBertModel):
  """Whether texts are true of pairs of images (NLVR2): `logits` [N]."""

  def add_heads(self, config: PixelBertConfig) -> None:
    self.classifier = Classifier(2 * config.hidden_size, 2 * config.hidden_size, 1)

  @can_return_tuple
  def forward(
    self,
    pixel_values: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    image_size: Tensor | None = None,
    labels: Tensor | None = None,
  ) -> PixelBertOutput:
    """Computes the logits.

    Args:
      pixel_values: [2 B, 3, H, W], left and right in turn.
      input_ids: [N, T]; the first N / B texts are those of the first pair.
      attention_mask: [N, T].
      image_size: [2 B, 2].
      labels: [N], 1 for a true text.
    """
    pairs = len(pixel_values) // 2
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    # The texts of a pair with its left image, then again with the right one.
    ids, mask = (
      x.unflatten(0, (pairs, -1)).repeat_interleave(2, 0).flatten(0, 1) for x in (input_ids, mask)
    )
    pooled = self.encode(pixel_values, ids, mask, image_size)['pooled']
    left, right = pooled.unflatten(0, (pairs, 2, -1)).unbind(1)
    logits = self.classifier(torch.cat([left, right], -1).flatten(0, 1))[:, 0]
    return PixelBertOutput(loss=binary_loss(logits, labels), logits=logits)


class PixelBertForImageClassification(PixelBertPreTrainedModel):
  """What an image shows, told by the CNN alone: `logits` [B, L], of `config.id2label`."""

  def __init__(self, config: PixelBertConfig):
    super().__init__(config)
    self.cnn = ResNet(config)
    self.classifier = nn.Linear(self.cnn.features, config.num_labels)
    self.post_init()

  @can_return_tuple
  def forward(
    self, pixel_values: Tensor, image_size: Tensor | None = None, labels: Tensor | None = None
  ) -> PixelBertOutput:
    """Computes the logits; arguments as for `encode`, and `labels` [B, L], 1 where true."""
    features, mask = self.see(pixel_values, image_size)
    logits = self.classifier((features * mask).sum((2, 3)) / mask.sum((2, 3)))
    return PixelBertOutput(loss=binary_loss(logits, labels), logits=logits)


def binary_loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
  """Computes the binary cross-entropy in nats: summed over labels, if any, mean over the rest."""
  if labels is None:
    return None
  losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction='sum')
  return losses / len(logits)


def unit(x: Tensor) -> Tensor:
  """Scales [N, W] to length 1."""
  return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()
