"""Makes the records of the dataset: the image of a scene with all its texts.

A record is a function of (difficulty, split, index) alone. This module does not import TFDS, so
that worker processes start fast.
"""

import dataclasses
import json
from typing import Any

import numpy as np

from data.scenes import captions, claims, foils, questions, render, statements, world

SEED = 20200402
SPLITS = {'train': 8_000, 'val': 500, 'test': 1_000}

# Purposes of random draws; each has its own stream.
_SCENE, _TEXT, _PAIRS, _FOILS = range(4)


@dataclasses.dataclass(frozen=True)
class Place:
  """The address of a record: number `index` of a split at a difficulty."""

  difficulty: str
  split: str
  index: int

  @property
  def image_id(self) -> str:
    return f'{self.split}-{self.index:05d}'

  def text_id(self, number: int) -> int:
    """Returns an id that is unique among the captions (or questions) of all splits."""
    return (list(SPLITS).index(self.split) * 1_000_000 + self.index) * 100 + number


def _rng(difficulty: str, split: str, purpose: int, index: int) -> np.random.Generator:
  numbers = list(world.DIFFICULTIES).index(difficulty), list(SPLITS).index(split)
  return np.random.default_rng([SEED, *numbers, purpose, index])


def scene(place: Place) -> world.Scene:
  """Draws the scene of a record."""
  rng = _rng(place.difficulty, place.split, _SCENE, place.index)
  return world.sample(rng, world.DIFFICULTIES[place.difficulty])


def pairs(difficulty: str, split: str, images: int) -> dict[int, list[dict[str, Any]]]:
  """Draws the statements of a split of `images` images, by the number of their left image."""
  scenes = [scene(Place(difficulty, split, i)) for i in range(images)]
  rng = _rng(difficulty, split, _PAIRS, 0)
  by_left: dict[int, list[dict[str, Any]]] = {i: [] for i in range(images)}
  for s in statements.statements(rng, split, scenes, world.DIFFICULTIES[difficulty]):
    ids = {side: Place(difficulty, split, getattr(s, side)).image_id for side in ('left', 'right')}
    stated = {'identifier': s.identifier, 'sentence': s.sentence, 'label': str(s.label)}
    by_left[s.left].append(stated | ids)
  return by_left


def example(place: Place) -> dict[str, Any]:
  """Makes a record without its statements; the image is JPEG bytes."""
  difficulty, drawn = world.DIFFICULTIES[place.difficulty], scene(place)
  rng = _rng(place.difficulty, place.split, _TEXT, place.index)
  true = claims.true_claims(drawn, difficulty)
  texts = captions.captions(rng, drawn, difficulty, true)
  asked = questions.questions(rng, drawn, difficulty, true)
  rng = _rng(place.difficulty, place.split, _FOILS, place.index)
  false = [foils.foils(rng, text.claim, drawn, difficulty, true) for text in texts]
  return {
    'image': render.jpeg(drawn),
    'image_id': place.image_id,
    'height': drawn.height,
    'width': drawn.width,
    'objects': [_object(thing) for thing in drawn.things],
    'captions': [
      _caption(caption, place.text_id(i)) | {'foils': json.dumps(false[i])}
      for i, caption in enumerate(texts)
    ],
    'claims': sorted(true),
    'questions': [_question(question, place.text_id(i)) for i, question in enumerate(asked)],
  }


def _object(thing: world.Thing) -> dict[str, Any]:
  looks = {name: getattr(thing, name) for name in ('shape', 'colour', 'size', 'pattern')}
  return looks | {'bbox': np.array(thing.box, np.int32)}


def _caption(caption: captions.Caption, number: int) -> dict[str, Any]:
  rivals = ','.join(map(str, caption.rivals))
  return vars(caption) | {'id': number, 'rivals': rivals}


def _question(question: questions.Question, number: int) -> dict[str, Any]:
  return {
    'question_id': number,
    'question': question.text,
    'question_type': question.question_type,
    'answer_type': question.answer_type,
    'multiple_choice_answer': question.truth,
    'answers': json.dumps(question.answers),
  }
