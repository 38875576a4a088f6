"""Draws the captions of a scene."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from data.scenes import claims, rivals, sentences, world

CAPTIONS_PER_SCENE = 8


@dataclasses.dataclass(frozen=True)
class Caption:
  """A true sentence; the fields are those of pixelbert_jax.input.rows.Caption."""

  text: str
  claim: str
  kinds: str
  rivals: tuple[int, ...]


def captions(
  rng: np.random.Generator,
  scene: world.Scene,
  difficulty: world.Difficulty,
  true: set[str],
) -> list[Caption]:
  """Draws CAPTIONS_PER_SCENE distinct captions of mixed kinds; `true` are all true claims."""
  chosen: dict[str, str] = {}
  for claim in _candidates(rng, scene, difficulty, true):
    unused = [text for text in sentences.wordings(claim) if text not in chosen]
    if unused:
      chosen[unused[rng.integers(len(unused))]] = claim
    if len(chosen) == CAPTIONS_PER_SCENE:
      break
  texts = rng.permutation(list(chosen)).tolist()
  all_texts = [text for claim in true for text in sentences.wordings(claim)]
  return [
    Caption(text, chosen[text], sentences.kinds(text), masks)
    for text, masks in zip(texts, rivals.rivals(texts, all_texts), strict=True)
  ]


def _candidates(
  rng: np.random.Generator,
  scene: world.Scene,
  difficulty: world.Difficulty,
  true: set[str],
) -> Iterator[str]:
  """Yields claims endlessly, by priority; a repeated claim requests another wording."""
  things = [scene.things[i] for i in rng.permutation(len(scene.things))]
  first, last = things[0], things[-1]
  plain, sized, *_ = claims.existence(first)
  yield plain
  yield sized
  for _, subject, number in claims.stated_counts(rng, scene, difficulty):
    yield f'count {subject} {number}'
  yield from _some(rng, [claim for t in things for claim in claims.existence(t)[2:]], 1)
  places = [claim for t in things for claim in claims.places(scene, t)]
  places = _some(rng, [claim for claim in places if claims.opposite(claim) not in true], 4)
  yield from places[:2]
  yield from _pair(rng, scene, things, true)
  yield from places[2:]
  yield from _pair(rng, scene, things, true)
  while True:
    yield from places
    yield from claims.existence(last)[:2]
    yield from claims.existence(first)[:2]


def _pair(
  rng: np.random.Generator, scene: world.Scene, things: list[world.Thing], true: set[str]
) -> list[str]:
  """Draws a claim on two things of different looks: a relation, or one time in three 'and'."""
  pairs = [(a, b) for a in things for b in things]
  pairs = [(a, b) for a, b in pairs if claims.description(a) != claims.description(b)]
  relations = [claim for a, b in pairs for claim in claims.relations(scene, a, b)]
  relations = [claim for claim in relations if claims.opposite(claim) not in true]
  if relations and rng.random() < 2 / 3:
    return _some(rng, relations, 1)
  return _some(rng, [claims.conjunction(a, b) for a, b in pairs], 1)


def _some(rng: np.random.Generator, choices: list[str], limit: int) -> list[str]:
  """Draws up to `limit` distinct choices."""
  distinct = sorted(set(choices))
  return [distinct[i] for i in rng.permutation(len(distinct))[:limit]]
