"""Losses and metrics as [sum, weight] over a batch, which are divided only once, at the end."""

import jax
import jax.numpy as jnp

Array = jax.Array
Sums = dict[str, Array]


def total(value: Array, weight: Array) -> Array:
  """Computes [weighted sum of values, sum of weights], in float32 or wider."""
  weight = weight.astype(jnp.float32)
  return jnp.stack([jnp.sum(value * weight), jnp.sum(weight)])


def loss(sums: Sums, batch: dict[str, Array]) -> Array | float:
  """Computes the scalar that is minimised: the sum of the means of all losses over the batch.

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
    result += value / jnp.maximum(weight, 1e-9)  # 0 where nothing counts
  return result


def finish(sums: Sums) -> dict[str, float]:
  """Divides totals [sum, weight] by their weights; a metric with weight 0 is left out.

  Adds the total `loss`, to which a loss with weight 0 contributes nothing, as in training.
  """
  means = {k: float(s / w) for k, (s, w) in sums.items() if w}
  losses = [mean for name, mean in means.items() if name.endswith('_loss')]
  return means | ({'loss': sum(losses)} if losses else {})
