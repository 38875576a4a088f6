"""Pre-training: masked language modelling and image-text matching (paper section 3.3).

A batch has B images of K texts, of T tokens with at most M hidden:
  image [B, H, W, 3] uint8 as it travels; source_size [B, 2] its height and width there;
  size [B, 2] those the model is to see (int32) on its canvas, which is that of canvas
  [B, H', W', 0]; perhaps flip [B] bool (`input/image.py: model_input`)
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  mlm_position, mlm_target [B, K, M] int32; mlm_weight [B, K, M] float32, 0 in unmatched pairs
  itm_label [B, K] int32, 1 for a matched pair; weight [B, K] float32, 0 where only filled up
  with micro-batches mlm_total and itm_total [B] float32, the weights of the whole batch in each row
  in evaluation mlm_kind [B, K, M] int32, 1 + the kind of a visual word that the image determines,
  and mlm_guessed [B, K, M] float32, 1 where the text alone gives the word away
"""

import jax
import jax.numpy as jnp
import optax

from pixelbert_jax.input.image import model_input
from pixelbert_jax.input.visual import KINDS
from pixelbert_jax.models.heads import PretrainingModel

Array = jax.Array
Sums = dict[str, Array]


def total(value: Array, weight: Array) -> Array:
  """[2] of at least float32: the weighted sum of values and the sum of weights."""
  weight = weight.astype(jnp.float32)
  return jnp.stack([jnp.sum(value * weight), jnp.sum(weight)])


def mean(sums: Array) -> Array:
  """The mean of a `total`; 0 where nothing was counted."""
  return sums[0] / jnp.maximum(sums[1], 1e-9)


def forward(model: PretrainingModel, variables: dict, batch: Sums, train: bool, **options):
  """Runs the model on a batch; `options` are those of Flax's `apply` (rngs, mutable)."""
  return model.apply(
    variables,
    model_input(batch, model.backbone.mean, model.backbone.deviation),
    batch['size'],
    batch['token_ids'],
    batch['token_mask'],
    batch['mlm_position'],
    train,
    **options,
  )


def losses(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """Cross-entropies of both tasks in nats, as totals over the batch."""
  mlm = optax.softmax_cross_entropy_with_integer_labels(outputs['mlm_logits'], batch['mlm_target'])
  itm = optax.sigmoid_binary_cross_entropy(outputs['itm_logits'], batch['itm_label'])
  return {
    'mlm_loss': total(mlm, batch['mlm_weight']),
    'itm_loss': total(itm, batch['weight']),
  }


def loss(sums: Sums, batch: Sums) -> Array:
  """The scalar that is minimised: the two means over the batch, summed.

  Of a micro-batch it is the part that adds up to that: its sums over the weights of all.
  """
  losses = 0.0
  for task in ('mlm', 'itm'):
    value, own_weight = sums[f'{task}_loss']
    weight = batch[f'{task}_total'][0] if f'{task}_total' in batch else own_weight
    losses += mean(jnp.stack([value, weight]))
  return losses


def accuracies(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """Shares of right answers, as totals over the batch."""
  mlm = outputs['mlm_logits'].argmax(-1) == batch['mlm_target']
  itm = (outputs['itm_logits'] > 0) == (batch['itm_label'] > 0)
  sums = {
    'mlm_accuracy': total(mlm, batch['mlm_weight']),
    'itm_accuracy': total(itm, batch['weight']),
  }
  if 'mlm_kind' not in batch:
    return sums
  kind, weight = batch['mlm_kind'], batch['mlm_weight']
  sums['mlm_visual_accuracy'] = total(mlm, weight * (kind > 0))
  sums['mlm_visual_accuracy_text_only'] = total(batch['mlm_guessed'], weight * (kind > 0))
  for i, name in enumerate(KINDS):
    sums[f'mlm_{name}_accuracy'] = total(mlm, weight * (kind == i + 1))
    sums[f'mlm_{name}_accuracy_text_only'] = total(batch['mlm_guessed'], weight * (kind == i + 1))
  return sums
