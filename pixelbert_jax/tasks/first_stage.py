"""Retrieval's first stage: what it learns, and what two stages are worth beside exact scores."""

import jax
import jax.numpy as jnp
import numpy as np

from pixelbert_jax.metrics import Metrics, table
from pixelbert_jax.score import recall, shortlist
from pixelbert_jax.tasks.base import Arrays
from pixelbert_jax.tasks.ranker import Ranking

SHORTLISTS = (1, 2, 5, 10, 20, 50, 100)  # the k of which a report says what they are worth


def contrast(outputs: Arrays, batch: Arrays) -> jax.Array:
  """Computes CLIP's loss [B] in nats, of own captions and images against the rest of a batch.

  An image's own caption has to come before all captions of the batch, a caption's image before its
  images. What is another image's own caption, too, is no negative of it. As in the matching head's
  loss a caption may be one that is only true of the image: recall counts it as a miss.

  Args:
    outputs: `image_vector` [B, W] and `text_vector` [B, K, W], and `scale` [].
    batch: `own` [B, B, K] bool, whether a caption (the last axes) is an own one of an image (the
      first); `weight` [B, K].
  """
  images, texts = outputs['image_vector'], outputs['text_vector']
  logits = outputs['scale'] * jnp.einsum('iw,jkw->ijk', images, texts, precision='highest')
  counts = batch['weight'][:, 0] > 0
  negative = counts[:, None, None] & counts[:, None] & ~batch['own']
  first = jnp.eye(len(images), dtype=bool)[..., None] & (jnp.arange(texts.shape[1]) == 0)
  kept = jnp.where(negative | first, logits, -jnp.inf)
  both = jax.nn.logsumexp(kept, axis=(1, 2)) + jax.nn.logsumexp(kept[..., 0], axis=0)
  return both / 2 - jnp.diagonal(logits[..., 0])


def scores_of(ranking: Ranking) -> np.ndarray:
  """Returns the scores [I, T] that rank: of listed pairs the exact ones, below them the others."""
  exact = ranking.matrix.scores
  if ranking.first is None or ranking.listed is None:
    return exact
  return shortlist.composed(exact, ranking.first, ranking.listed)


def validated(ranking: Ranking) -> Metrics:
  """Computes the first stage's mean recall, and the smallest k that two stages need (`chosen_k`).

  Args:
    ranking: with exact scores of all pairs; without a first stage nothing is computed.
  """
  exact, first, row = ranking.matrix.scores, ranking.first, ranking.gallery.row
  if first is None:
    return {}
  chosen = float(shortlist.smallest_k(exact, first, row))
  return {'recall_mean/first_stage': shortlist.recall_mean(first, row), 'chosen_k': chosen}


def reported(ranking: Ranking) -> Metrics:
  """Computes the recalls of the first stage and, if all pairs are scored, those of two stages.

  - `pairs_scored`: pairs that the matching head scored.
  - `/first_stage`: recalls of the first stage alone.
  - `recall_mean/two_stages_K`, `pairs_scored/two_stages_K`: what two stages would come to.
  - `recall_mean/blind_K`, `pairs_scored/blind_K`: the same with a first stage that sees no image.
  """
  exact, first, row = ranking.matrix.scores, ranking.first, ranking.gallery.row
  if first is None:
    return {}
  values = recall.recalls(*recall.ranks(first, row), row)
  metrics = {f'{name}/first_stage': x for name, x in values.items()}
  if ranking.listed is not None:
    return metrics | {'pairs_scored': float(ranking.listed.sum())}
  stages = {'two_stages': first, 'blind': shortlist.image_blind(exact)}
  for k in (k for k in SHORTLISTS if k < min(exact.shape)):
    for name, scores in stages.items():
      mean, pairs = shortlist.two_stages(exact, scores, row, k)
      metrics |= {f'recall_mean/{name}_{k}': mean, f'pairs_scored/{name}_{k}': float(pairs)}
  return metrics | {'pairs_scored': float(exact.size)}


def table_of(split: str, metrics: Metrics) -> str:
  """Formats what `reported` returned, to stand below a table; '' without a first stage."""
  if 'pairs_scored' not in metrics:
    return ''
  every, scored = metrics['images'] * metrics['texts'], metrics['pairs_scored']
  lines = [f'\n{scored:,.0f} of {every:,.0f} pairs were scored exactly']
  rows = [
    (f'k = {k}', [metrics[f'{x}_{k}'] / of for x, of in _columns(every).values()])
    for k in SHORTLISTS
    if f'recall_mean/two_stages_{k}' in metrics
  ]
  if rows:
    rows.append(('all', [metrics['recall_mean'], 1.0, metrics['recall_mean'], 1.0]))
    lines.append(table(f'two stages on {split}', list(_columns(every)), rows))
  if 'chosen_k' in metrics:
    k = round(metrics['chosen_k'])
    lines.append(f'k chosen on validation: {k}; --mode=evaluate --config.rerank={k} takes it')
  return '\n'.join(lines)


def _columns(every: float) -> dict[str, tuple[str, float]]:
  """Returns by title the metric of each column, without its k, and what it is a share of."""
  return {
    'mean recall': ('recall_mean/two_stages', 1),
    'of the pairs': ('pairs_scored/two_stages', every),
    'image-blind': ('recall_mean/blind', 1),
    'of all pairs': ('pairs_scored/blind', every),
  }
