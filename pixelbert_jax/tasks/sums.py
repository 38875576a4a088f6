"""Losses and metrics as [sum, weight] over a batch, divided once."""

import jax
import jax.numpy as jnp

Array = jax.Array
Sums = dict[str, Array]


def total(value: Array, weight: Array) -> Array:
  """[2] of at least float32: the weighted sum of values and the sum of weights."""
  weight = weight.astype(jnp.float32)
  return jnp.stack([jnp.sum(value * weight), jnp.sum(weight)])


def loss(sums: Sums, batch: dict[str, Array]) -> Array:
  """The scalar that is minimised: the means of all losses over the batch, added up.

  Of a micro-batch it is the part that adds up to that: its sums over the weights of the whole
  batch, which stand in each row of `x_total` for `x_loss`; KeyError if one is missing.
  """
  added, is_part = 0.0, any(name.endswith('_total') for name in batch)
  for name, (value, own_weight) in sums.items():
    whole = name.removesuffix('_loss') + '_total'
    weight = batch[whole][0] if is_part else own_weight
    added += value / jnp.maximum(weight, 1e-9)  # 0 where nothing is counted
  return added


def finish(sums: Sums) -> dict[str, float]:
  """Divides totals [sum, weight] by their weights, once; what never occurs is not a number.

  Adds the whole `loss`, to which a loss that never occurs adds nothing, as in training.
  """
  means = {k: float(s / w) if w else float('nan') for k, (s, w) in sums.items()}
  losses = [means[name] for name, (_, w) in sums.items() if name.endswith('_loss') and w]
  return means | {'loss': sum(losses)}
