"""The best scores that the data allow: `python -m data.scenes.ceilings` writes them.

Annotators err, and a caption is true of more images than its own, so not even a perfect
model gets everything right.
"""

import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.scenes import record, world
from pixelbert_jax.score.recall import CUTOFFS, expected_image_recall, expected_text_recall

FILE = pathlib.Path(__file__).with_name('ceilings.json')
# Retrieval is among the first images of a split, so many of them.
POOL = 200


def ceilings(examples: Sequence[dict[str, Any]]) -> dict[str, float]:
  """The ceilings of a split, given as what `record.example` returns, as shares of 1."""
  pool = examples[:POOL]
  # [N, I] whether caption n is true of image i.
  said = [caption['claim'] for example in pool for caption in example['captions']]
  claims = [set(example['claims']) for example in pool]
  true = np.array([[claim in of_image for of_image in claims] for claim in said])
  own = np.array([len(example['captions']) for example in pool])
  return {
    'vqa_accuracy': vqa_accuracy(examples),
    **{f'image_recall_at_{k}': expected_image_recall(true, k) for k in CUTOFFS},
    **{f'text_recall_at_{k}': expected_text_recall(true, own, k) for k in CUTOFFS},
  }


def vqa_accuracy(examples: Sequence[dict[str, Any]]) -> float:
  """Mean official accuracy of giving each question the best answer under its ten."""
  answers = [json.loads(q['answers']) for e in examples for q in e['questions']]
  return float(np.mean([max(map(agreement, Counter(a).values())) for a in answers]))


def agreement(matches: int, annotators: int = 10) -> float:
  """VQA's accuracy of an answer that so many of the annotators gave.

  The mean, over leaving out each annotator, of min(1, matches among the others / 3).
  """
  left_out = matches * min(1, (matches - 1) / 3) + (annotators - matches) * min(1, matches / 3)
  return left_out / annotators


def main() -> None:
  """Writes the ceilings of all difficulties' evaluation splits."""
  found = {}
  for difficulty in world.DIFFICULTIES:
    for split in ('val', 'test'):
      images = range(record.SPLITS[split])
      examples = [record.example(record.Place(difficulty, split, i)) for i in images]
      rounded = {name: round(value, 4) for name, value in ceilings(examples).items()}
      found.setdefault(difficulty, {})[split] = rounded
  FILE.write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  main()
