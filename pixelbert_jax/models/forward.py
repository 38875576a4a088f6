"""The forward pass of a model on a host batch; images are resized and normalised on the device."""

from typing import Any

import jax
import jax.numpy as jnp

from pixelbert_jax.input.image import model_input
from pixelbert_jax.models.heads import Model


def forward(
  model: Model, variables: dict, batch: dict[str, jax.Array], train: bool, **options: Any
) -> Any:
  """Applies a model to a batch; `options` are those of Flax's `apply` (rngs, mutable)."""
  with jax.named_scope('resize'):
    image = model_input(batch, model.backbone.mean, model.backbone.deviation)
  if train:
    variables = variables | {
      'params': _narrowed(variables['params'], model.backbone.gradient_dtype)
    }
  return model.apply(
    variables,
    image,
    batch['size'],
    *(batch[name] for name in model.INPUTS),
    train,
    **options,
  )


def _narrowed(params: dict, dtype: jnp.dtype) -> dict:
  """Casts the kernels of the backbone to the type of their gradients, where that is narrower.

  A gradient is of its parameter's type (`gradients.py`).
  """

  def narrow(path: tuple, x: jax.Array) -> jax.Array:
    narrower = jnp.promote_types(x.dtype, dtype) != dtype
    return x.astype(dtype) if narrower and path[-1].key == 'kernel' else x

  backbone = jax.tree_util.tree_map_with_path(narrow, params['backbone'])
  return params | {'backbone': backbone}
