"""Statements about two images, in the form of NLVR2.

As there, each sentence comes with one pair of which it is true and with one of which it
is false, so that nothing can be told from the text.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence

import numpy as np

from data.scenes import sentences, world

# Two statements a sentence: one and a half an image.
SENTENCES_PER_SCENE = 0.75

# A pair of classes, of the left image and of the right one.
Cell = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Statement:
  """A sentence of a pair; `left` and `right` are numbers of images of the split.

  `identifier` is NLVR2's '<split>-<set>-<pair>-<sentence>'.
  """

  identifier: str
  sentence: str
  label: bool
  left: int
  right: int


@dataclasses.dataclass(frozen=True)
class Template:
  """What must hold of a pair.

  Attributes:
    sentence: the text, lower-case.
    classes: [I] the class of each image: how many things fit what the sentence speaks of,
      or only whether any does.
    true: the pairs of classes of which the sentence is true.
    false: pairs of classes of which it is false, the more telling ones.
  """

  sentence: str
  classes: np.ndarray
  true: Sequence[Cell]
  false: Sequence[Cell]


CONTAINS = {
  'both images contain {}': (((1, 1),), ((1, 0), (0, 1))),
  'only one image contains {}': (((1, 0), (0, 1)), ((1, 1), (0, 0))),
  'the left image contains {}': (((1, 0), (1, 1)), ((0, 1), (0, 0))),
  'the right image contains {}': (((0, 1), (1, 1)), ((1, 0), (0, 0))),
}
TOTAL = 'there are {} objects in total'
COMPARE: dict[str, Callable[[int, int], bool]] = {
  'the left image has more objects than the right one': operator.gt,
  'the left image has fewer objects than the right one': operator.lt,
  'the images have equally many objects': operator.eq,
}


def statements(
  rng: np.random.Generator, split: str, scenes: Sequence[world.Scene], difficulty: world.Difficulty
) -> list[Statement]:
  """The statements of a split, as many true as false."""
  found: list[Statement] = []
  wanted = round(SENTENCES_PER_SCENE * len(scenes))
  presence = _presence(scenes)
  total = np.array([len(scene.things) for scene in scenes])
  # A small split may lack the pairs of a template; one of two images, of nearly all.
  for _ in range(20 * wanted):
    template = _template(rng, presence, total, difficulty)
    pairs = [(label, _pair(rng, template, label)) for label in (True, False)]
    if all(pair for _, pair in pairs):
      found += _both(rng, f'{split}-{len(found) // 2}', template.sentence, pairs)
    if len(found) == 2 * wanted:
      break
  return found


def _both(
  rng: np.random.Generator, prefix: str, sentence: str, pairs: list[tuple[bool, tuple[int, int]]]
) -> list[Statement]:
  """The sentence with its two pairs, in random order."""
  ordered = [pairs[i] for i in rng.permutation(2)]
  return [
    Statement(f'{prefix}-{number}-0', sentence, label, *pair)
    for number, (label, pair) in enumerate(ordered)
  ]


def _presence(scenes: Sequence[world.Scene]) -> dict[str, np.ndarray]:
  """For 'red circle', 'red object' and 'circle' alike: [I] 1 where an image has one, else 0."""
  presence: dict[str, np.ndarray] = {}
  for i, scene in enumerate(scenes):
    for t in scene.things:
      for description in (f'{t.colour} {t.shape}', f'{t.colour} object', t.shape):
        presence.setdefault(description, np.zeros(len(scenes), np.int64))[i] = 1
  return presence


def _template(
  rng: np.random.Generator,
  presence: dict[str, np.ndarray],
  total: np.ndarray,
  difficulty: world.Difficulty,
) -> Template:
  """A random sentence: three in five of what the images contain, two of how much."""
  kind = rng.integers(5)
  if kind < 3:
    frame, cells = list(CONTAINS.items())[rng.integers(len(CONTAINS))]
    description = _description(rng, difficulty)
    classes = presence.get(description, np.zeros_like(total))
    return Template(frame.format(sentences.phrase(description)), classes, *cells)
  numbers = range(1, difficulty.most + 1)
  cells = [(a, b) for a in numbers for b in numbers]
  if kind == 3:
    number = int(rng.integers(2, 2 * difficulty.most + 1))
    true = [cell for cell in cells if sum(cell) == number]
    false = [cell for cell in cells if abs(sum(cell) - number) == 1]
    return Template(TOTAL.format(sentences.NUMBERS[number]), total, true, false)
  sentence, holds = list(COMPARE.items())[rng.integers(len(COMPARE))]
  true = [cell for cell in cells if holds(*cell)]
  return Template(sentence, total, true, [cell for cell in cells if cell not in true])


def _description(rng: np.random.Generator, difficulty: world.Difficulty) -> str:
  """Half with colour and shape, the rest with one of them."""
  colour = difficulty.colours[rng.integers(len(difficulty.colours))]
  shape = difficulty.shapes[rng.integers(len(difficulty.shapes))]
  return (f'{colour} {shape}', f'{colour} {shape}', f'{colour} object', shape)[rng.integers(4)]


def _pair(rng: np.random.Generator, template: Template, label: bool) -> tuple[int, int] | None:
  """Two different images of which the sentence is true, or false; None if none are met."""
  cells = template.true if label else template.false
  left, right = (np.flatnonzero(template.classes == c) for c in cells[rng.integers(len(cells))])
  if not len(left) or not len(right):
    return None
  pair = int(left[rng.integers(len(left))]), int(right[rng.integers(len(right))])
  return pair if pair[0] != pair[1] else None
