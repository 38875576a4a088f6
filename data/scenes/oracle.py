"""Computes what an oracle scores on scenes; `python -m data.scenes.oracle` writes it.

It answers as most annotators did, which is a bound, and ranks all that is true of an image or of a
caption before the rest, in any order. Captions are true of several images, so that is not 100%, and
what ranks the rarer of the true ones first does better.
"""

import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.scenes import record, world
from pixelbert_jax.score.recall import CUTOFFS, expected_image_recall, expected_text_recall

FILE = pathlib.Path(__file__).with_name('oracle.json')
# Number of images that retrieval ranks: the first of a split.
POOL = 200


def oracle(examples: Sequence[dict[str, Any]]) -> dict[str, float]:
  """Computes the scores on a split, in 0..1, from its examples (see `record.example`)."""
  pool = examples[:POOL]
  captions = [caption['claim'] for example in pool for caption in example['captions']]
  claims = [set(example['claims']) for example in pool]
  # [N, I], whether caption n is true of image i.
  true = np.array([[claim in image_claims for image_claims in claims] for claim in captions])
  own = np.array([len(example['captions']) for example in pool])
  return {
    'vqa_accuracy': vqa_accuracy(examples),
    **{f'image_recall_at_{k}': expected_image_recall(true, k) for k in CUTOFFS},
    **{f'text_recall_at_{k}': expected_text_recall(true, own, k) for k in CUTOFFS},
  }


def vqa_accuracy(examples: Sequence[dict[str, Any]]) -> float:
  """Computes the mean official accuracy of the best of the ten answers to each question."""
  answers = [json.loads(q['answers']) for e in examples for q in e['questions']]
  return float(np.mean([max(map(agreement, Counter(a).values())) for a in answers]))


def agreement(matches: int, annotators: int = 10) -> float:
  """Computes VQA's accuracy of an answer that `matches` annotators gave.

  It is the mean over annotators of min(1, matches among the others / 3).
  """
  total = matches * min(1, (matches - 1) / 3) + (annotators - matches) * min(1, matches / 3)
  return total / annotators


def main() -> None:
  """Writes the scores on the evaluation splits of all difficulties."""
  scores = {}
  for difficulty in world.DIFFICULTIES:
    for split in ('val', 'test'):
      images = range(record.SPLITS[split])
      examples = [record.example(record.Place(difficulty, split, i)) for i in images]
      rounded = {name: round(value, 4) for name, value in oracle(examples).items()}
      scores.setdefault(difficulty, {})[split] = rounded
  FILE.write_text(json.dumps(scores, indent=2) + '\n')


if __name__ == '__main__':
  main()
