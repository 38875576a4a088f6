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

import dataclasses
import math
import pathlib

import jax
import optax

from pixelbert_jax.input.pairs import PairBatches
from pixelbert_jax.input.visual import KINDS
from pixelbert_jax.metrics import Metrics
from pixelbert_jax.metrics import table as text_table
from pixelbert_jax.tasks.sums import Run, Sums, finish, total

Array = jax.Array

LOGGED = ('mlm_loss', 'itm_loss', 'mlm_accuracy', 'itm_accuracy')
SHOWN = ('loss', 'itm_accuracy', 'mlm_accuracy', 'mlm_visual_accuracy')
CHOSEN_BY = ''


def losses(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """Cross-entropies of both tasks in nats, as totals over the batch."""
  mlm = optax.softmax_cross_entropy_with_integer_labels(outputs['mlm_logits'], batch['mlm_target'])
  itm = optax.sigmoid_binary_cross_entropy(outputs['itm_logits'], batch['itm_label'])
  return {
    'mlm_loss': total(mlm, batch['mlm_weight']),
    'itm_loss': total(itm, batch['weight']),
  }


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


def items(outputs: dict[str, Array], batch: dict[str, Array]) -> dict[str, Array]:
  """Nothing: all there is to know of pre-training are sums."""
  return {}


def evaluate(run: Run, batches: PairBatches) -> Metrics:
  """Means over all pairs of a split; what never occurs is not a number.

  Every text is seen twice: whole for matching, with words hidden for the rest.
  """
  whole, _ = run(dataclasses.replace(batches, whole_share=1.0))
  hidden, _ = run(dataclasses.replace(batches, whole_share=0.0))
  return finish({k: (whole if k.startswith('itm') else hidden)[k] for k in hidden})


def result(run: Run, batches: PairBatches, path: pathlib.Path) -> Metrics:
  """The same, and again (`..._swapped`) with every image swapped for another; writes nothing."""
  swapped = evaluate(run, dataclasses.replace(batches, swapped=True))
  return evaluate(run, batches) | {f'{name}_swapped': x for name, x in swapped.items()}


def table(split: str, metrics: Metrics) -> str:
  """Accuracies on a split beside those with swapped images and a guess from the text alone."""
  rows = {'image-text matching': 'itm_accuracy', 'hidden words': 'mlm_accuracy'}
  rows |= {'visual words, determined': 'mlm_visual_accuracy'}
  rows |= {f'  {kind}': f'mlm_{kind}_accuracy' for kind in KINDS}
  missing = float('nan')
  return text_table(
    f'accuracy on {split}',
    ['own image', 'swapped image', 'text alone'],
    [
      (title, [metrics.get(name + end, missing) for end in ('', '_swapped', '_text_only')])
      for title, name in rows.items()
      if math.isfinite(metrics.get(name, missing))
    ],
  )
