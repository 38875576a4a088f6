"""Draws statements about two images, in the format of NLVR2.

As there, each sentence has one pair of which it is true and one of which it is false, so that the
text does not predict the label.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence

import numpy as np

from data.scenes import sentences, world

# With two statements per sentence: 1.5 statements per scene.
SENTENCES_PER_SCENE = 0.75

# The classes of the left and the right image of a pair.
Cell = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Statement:
  """A sentence about a pair; `left` and `right` are the numbers of its images in the split.

  `identifier` is NLVR2's '<split>-<set>-<pair>-<sentence>'.
  """

  identifier: str
  sentence: str
  label: bool
  left: int
  right: int


@dataclasses.dataclass(frozen=True)
class Template:
  """A sentence with the pairs of which it is true and false.

  Attributes:
    sentence: the text, lower-case.
    classes: [I], the class of each image: the number of things that the sentence is about, or 1
      if any exist.
    true: pairs of classes of which the sentence is true.
    false: pairs of classes of which it is false; the harder ones.
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
  """Draws the statements of a split; half of them are true."""
  drawn: list[Statement] = []
  wanted = round(SENTENCES_PER_SCENE * len(scenes))
  presence = _presence(scenes)
  total = np.array([len(scene.things) for scene in scenes])
  # Small splits lack the pairs of some templates; a split of two images those of nearly all.
  for _ in range(20 * wanted):
    template = _template(rng, presence, total, difficulty)
    pairs = [(label, _pair(rng, template, label)) for label in (True, False)]
    if all(pair for _, pair in pairs):
      drawn += _both(rng, f'{split}-{len(drawn) // 2}', template.sentence, pairs)
    if len(drawn) == 2 * wanted:
      break
  return drawn


def _both(
  rng: np.random.Generator, prefix: str, sentence: str, pairs: list[tuple[bool, tuple[int, int]]]
) -> list[Statement]:
  """Makes the two statements of a sentence, in random order."""
  ordered = [pairs[i] for i in rng.permutation(2)]
  return [
    Statement(f'{prefix}-{number}-0', sentence, label, *pair)
    for number, (label, pair) in enumerate(ordered)
  ]


def _presence(scenes: Sequence[world.Scene]) -> dict[str, np.ndarray]:
  """Computes [I], 1 if an image has such a thing, for each 'red circle', 'red object', 'circle'."""
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
  """Draws a sentence: three in five are about the content of images, two about numbers."""
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
  """Draws a description: half have colour and shape, the others one of them."""
  colour = difficulty.colours[rng.integers(len(difficulty.colours))]
  shape = difficulty.shapes[rng.integers(len(difficulty.shapes))]
  return (f'{colour} {shape}', f'{colour} {shape}', f'{colour} object', shape)[rng.integers(4)]


def _pair(rng: np.random.Generator, template: Template, label: bool) -> tuple[int, int] | None:
  """Draws two different images of which the sentence is true, or false; None if it finds none."""
  cells = template.true if label else template.false
  left, right = (np.flatnonzero(template.classes == c) for c in cells[rng.integers(len(cells))])
  if not len(left) or not len(right):
    return None
  pair = int(left[rng.integers(len(left))]), int(right[rng.integers(len(right))])
  return pair if pair[0] != pair[1] else None
