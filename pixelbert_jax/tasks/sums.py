"""Losses and metrics as [sum, weight] over a batch, which are divided only once, at the end."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

Array = jax.Array
Sums = dict[str, Array]
ALIKE: Mapping[str, float] = MappingProxyType({})  # weights of losses, all 1


def total(value: Array, weight: Array) -> Array:
  """Computes [weighted sum of values, sum of weights], in float32 or wider."""
  weight = weight.astype(jnp.float32)
  return jnp.stack([jnp.sum(value * weight), jnp.sum(weight)])


def loss(
  sums: Sums, batch: dict[str, Array], weights: Mapping[str, float] = ALIKE
) -> Array | float:
  """Computes the scalar that is minimised: the sum of the means of all losses over the batch.

  `weights` multiply the means of the losses they name.

  For a micro-batch this is its share of the loss of the whole batch, so that the shares add up to
  that loss: each sum is divided by the weight of the whole batch, which every row of `x_total`
  holds for `x_loss`.

  Raises:
    KeyError: a micro-batch has the total of one loss, but not of another.
  """
  result, is_part = 0.0, any(name.endswith('_total') for name in batch)
  for name, (value, part_weight) in sums.items():
    total_name = name.removesuffix('_loss') + '_total'
    weight = batch[total_name][0] if is_part else part_weight
    result += weights.get(name, 1.0) * value / jnp.maximum(weight, 1e-9)  # 0 if nothing counts
  return result


def finish(sums: Sums, weights: Mapping[str, float] = ALIKE) -> dict[str, float]:
  """Divides totals [sum, weight] by their weights; a metric with weight 0 is left out.

  Adds the total `loss`, as in training: losses multiplied by their `weights`, and those of which
  nothing counts left out.
  """
  means = {k: float(s / w) for k, (s, w) in sums.items() if w}
  losses = [weights.get(k, 1.0) * x for k, x in means.items() if k.endswith('_loss')]
  return means | ({'loss': sum(losses)} if losses else {})
