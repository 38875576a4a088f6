"""Pairs of images of which each has a canvas of its own, in a batch like any other."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

IMAGES = ('image', 'source_size', 'size', 'flip')


def halves(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Splits a batch of pairs into one of their left images and one of their right images.

  Args:
    batch: image, source_size, size and optionally flip, [2 B, ...] with left and right images in
      turn; canvas [2 B, H, W, H', W', 0], whose shape is that of both canvases.

  Returns:
    Two batches of B images, as `image.model_input` takes them.
  """
  shape = batch['canvas'].shape[1:-1]
  parts = []
  for i, canvas in enumerate((shape[:2], shape[2:])):
    arrays = {name: batch[name] for name in IMAGES if name in batch}
    half = {name: x.reshape(-1, 2, *x.shape[1:])[:, i] for name, x in arrays.items()}
    parts.append(half | {'canvas': jnp.zeros((len(half['size']), *canvas, 0), jnp.uint8)})
  return parts
