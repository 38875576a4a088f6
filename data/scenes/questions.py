"""Draws questions about a scene, each with ten answers, in the format of VQA.

The subject of a question is drawn before, and independently of, the answer, so that the text does
not predict the answer.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data.scenes import claims, sentences, world

ANNOTATORS = 10
# Each annotator gives the true answer with this probability, else another of the same kind.
CARE = 0.9


@dataclasses.dataclass(frozen=True)
class Question:
  """A question in VQA's terms; `truth` is its `multiple_choice_answer`."""

  text: str
  question_type: str
  answer_type: str
  truth: str
  answers: tuple[str, ...]


def questions(
  rng: np.random.Generator,
  scene: world.Scene,
  difficulty: world.Difficulty,
  true: set[str],
) -> list[Question]:
  """Draws about six questions of all kinds; `true` are the scene's true claims."""
  asked = [
    *_colour(rng, scene, difficulty),
    *_shape(rng, scene, difficulty),
    *(_size(rng, scene) if rng.random() < 0.5 else _place(rng, scene)),
    *_count(rng, scene, difficulty),
    *_existence(rng, scene, difficulty, true),
    *_existence(rng, scene, difficulty, true),
    *_relation(rng, scene, true),
  ]
  return list({question.text: question for question in asked}.values())


def _ask(
  rng: np.random.Generator,
  text: str,
  question_type: str,
  answer_type: str,
  *,
  truth: str,
  choices: Sequence[str],
) -> Question:
  """Makes a question with the annotators' answers; wrong ones are drawn from `choices`."""
  wrong = [choice for choice in choices if choice != truth]
  careful = rng.random(ANNOTATORS) < CARE
  answers = tuple(truth if care else wrong[rng.integers(len(wrong))] for care in careful.tolist())
  return Question(text, question_type, answer_type, truth, answers)


def _pick(rng: np.random.Generator, choices: Sequence) -> list:
  """Draws a list of one choice; empty if `choices` is."""
  return [choices[rng.integers(len(choices))]] if len(choices) else []


def _alone(things: Sequence[world.Thing], key: Callable[[world.Thing], str]) -> list[world.Thing]:
  """Returns the things whose key no other thing shares."""
  keys = [key(thing) for thing in things]
  return [thing for thing, k in zip(things, keys, strict=True) if keys.count(k) == 1]


def _mentions(scene: world.Scene) -> list[tuple[str, world.Thing]]:
  """Returns phrases that fit one thing only, without its colour and shape."""
  mentions = [(f'the {thing.size} object', thing) for thing in _alone(scene.things, _size_of)]
  for place, where in sentences.WHERE.items():
    placed = [thing for thing in scene.things if place in scene.places(thing)]
    # Things near the middle would make the phrase ambiguous.
    opposite = [t for t in scene.things if world.OPPOSITE[place] in scene.places(t)]
    if len(placed) == 1 and len(placed) + len(opposite) == len(scene.things):
      mentions.append((f'the object {where}', placed[0]))
  return mentions


def _size_of(thing: world.Thing) -> str:
  return thing.size


def _colour(
  rng: np.random.Generator, scene: world.Scene, difficulty: world.Difficulty
) -> Iterator[Question]:
  alone = _alone(scene.things, lambda thing: thing.shape)
  for mention, thing in _pick(rng, _mentions(scene) + [(f'the {t.shape}', t) for t in alone]):
    text = f'what colour is {mention}'
    yield _ask(rng, text, 'what colour is', 'other', truth=thing.colour, choices=difficulty.colours)


def _shape(
  rng: np.random.Generator, scene: world.Scene, difficulty: world.Difficulty
) -> Iterator[Question]:
  alone = _alone(scene.things, lambda thing: thing.colour)
  mentions = _mentions(scene) + [(f'the {t.colour} object', t) for t in alone]
  for mention, thing in _pick(rng, mentions):
    text = f'what shape is {mention}'
    yield _ask(rng, text, 'what shape is', 'other', truth=thing.shape, choices=difficulty.shapes)


def _size(rng: np.random.Generator, scene: world.Scene) -> Iterator[Question]:
  for thing in _pick(rng, _alone(scene.things, claims.description)):
    text = f'what size is the {claims.description(thing)}'
    yield _ask(rng, text, 'what size is', 'other', truth=thing.size, choices=world.SIZES)


def _place(rng: np.random.Generator, scene: world.Scene) -> Iterator[Question]:
  alone = _alone(scene.things, claims.description)
  placed = [(thing, place) for thing in alone for place in scene.places(thing)]
  for thing, place in _pick(rng, placed):
    sides = rng.permutation([place, world.OPPOSITE[place]]).tolist()
    where = ' or '.join(sentences.WHERE[side] for side in sides)
    text = f'is the {claims.description(thing)} {where}'
    yield _ask(rng, text, 'is the', 'other', truth=place, choices=sides)


def _count(
  rng: np.random.Generator, scene: world.Scene, difficulty: world.Difficulty
) -> Iterator[Question]:
  for subjects, subject, number in claims.stated_counts(rng, scene, difficulty):
    named = {'all': 'objects', 'colour': f'{subject} objects'}.get(subjects)
    text = f'how many {named or sentences.PLURAL[subject]} are there'
    choices = [str(n) for n in range(difficulty.most + 1)]
    yield _ask(rng, text, 'how many', 'number', truth=str(number), choices=choices)


def _existence(
  rng: np.random.Generator,
  scene: world.Scene,
  difficulty: world.Difficulty,
  true: set[str],
) -> Iterator[Question]:
  """Yields 'is there a red circle', also with a size or a pattern; yes and no are balanced."""
  detail = rng.integers(3)
  described = [
    (thing, claims.existence(thing)[detail])
    for thing in scene.things
    if detail < len(claims.existence(thing))
  ]
  for _, claim in _pick(rng, described):
    truth = 'yes' if rng.random() < 0.5 else 'no'
    while truth == 'no' and claim in true:
      claim = _altered(rng, claim, difficulty)
    text = f'is there {sentences.phrase(claim.removeprefix("exists "))}'
    yield _ask(rng, text, 'is there a', 'yes/no', truth=truth, choices=('yes', 'no'))


def _altered(rng: np.random.Generator, claim: str, difficulty: world.Difficulty) -> str:
  """Redraws one attribute of an existence claim, so that it stays close to the true one."""
  kind, *words = claim.split()
  i = rng.integers(len(words))
  values = (difficulty.colours, difficulty.shapes, world.SIZES, difficulty.patterns)
  options = next(options for options in values if words[i] in options)
  words[i] = options[rng.integers(len(options))]
  return ' '.join([kind, *words])


def _relation(rng: np.random.Generator, scene: world.Scene, true: set[str]) -> Iterator[Question]:
  """Yields 'is a red circle left of a blue square', for claims whose opposite is false."""
  related = sorted(claim for claim in true if claim.startswith('relation'))
  related = [claim for claim in related if claims.opposite(claim) not in true]
  for claim in _pick(rng, related):
    truth = 'yes' if rng.random() < 0.5 else 'no'
    stated = claim if truth == 'yes' else claims.opposite(claim)
    # The first two wordings are 'A is left of B' and 'B is right of A'.
    thing, rest = sentences.wordings(stated)[rng.integers(2)].split(' is ')
    yield _ask(rng, f'is {thing} {rest}', 'is a', 'yes/no', truth=truth, choices=('yes', 'no'))
