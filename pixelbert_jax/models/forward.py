"""The forward pass of a model on a host batch; images are resized and normalised on the device."""

from typing import Any

import jax

from pixelbert_jax.input.image import model_input
from pixelbert_jax.models.heads import Model


def forward(
  model: Model, variables: dict, batch: dict[str, jax.Array], train: bool, **options: Any
) -> Any:
  """Applies a model to a batch; `options` are those of Flax's `apply` (rngs, mutable)."""
  with jax.named_scope('resize'):
    image = model_input(batch, model.backbone.mean, model.backbone.deviation)
  return model.apply(
    variables,
    image,
    batch['size'],
    *(batch[name] for name in model.INPUTS),
    train,
    **options,
  )
