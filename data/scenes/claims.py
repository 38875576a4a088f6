"""Claims: canonical strings of the statements that sentences make about a scene.

  exists red circle | exists small red circle | exists red circle stripes
  place red circle left
  relation left-of|red circle|blue square | relation above|red circle|blue square
  and blue square|red circle
  count all 2 | count red 1 | count circle 0

A description fits every thing that has the attributes it names. A claim is true if it is true of
some thing, or of some two different things, that fit its descriptions.
"""

import functools
from collections import Counter

import numpy as np

from data.scenes import world

# Counts that are rarer than this share in a class of subjects are never stated (`count_shares`).
RARE = 0.05


def description(thing: world.Thing) -> str:
  """Returns colour and shape, which most sentences use for a thing."""
  return f'{thing.colour} {thing.shape}'


def existence(thing: world.Thing) -> list[str]:
  """Returns the claims that a thing exists: by description, also with size, with pattern."""
  name = description(thing)
  claims = [f'exists {name}', f'exists {thing.size} {name}']
  return claims + [f'exists {name} {thing.pattern}'] * (thing.pattern != world.PLAIN)


def places(scene: world.Scene, thing: world.Thing) -> list[str]:
  """Returns the claims about the position of a thing in the image."""
  return [f'place {description(thing)} {place}' for place in scene.places(thing)]


def relations(scene: world.Scene, a: world.Thing, b: world.Thing) -> list[str]:
  """Returns the claims about the position of a relative to b."""
  names = f'{description(a)}|{description(b)}'
  holds = {'left-of': scene.left_of(a, b), 'above': scene.above(a, b)}
  return [f'relation {relation}|{names}' for relation, true in holds.items() if true]


def conjunction(a: world.Thing, b: world.Thing) -> str:
  """Returns the claim that both exist."""
  return 'and ' + '|'.join(sorted((description(a), description(b))))


def counts(scene: world.Scene, difficulty: world.Difficulty) -> dict[str, dict[str, int]]:
  """Counts the things of each subject, by class of subjects ('all', 'colour', 'shape')."""
  colours = Counter(thing.colour for thing in scene.things)
  shapes = Counter(thing.shape for thing in scene.things)
  return {
    'all': {'all': len(scene.things)},
    'colour': {colour: colours[colour] for colour in difficulty.colours},
    'shape': {shape: shapes[shape] for shape in difficulty.shapes},
  }


def true_claims(scene: world.Scene, difficulty: world.Difficulty) -> set[str]:
  """Returns every claim of the grammar that is true of the scene."""
  claims = set()
  for thing in scene.things:
    claims.update(existence(thing), places(scene, thing))
  for a in scene.things:
    for b in scene.things:
      if a is not b:
        claims.update(relations(scene, a, b), [conjunction(a, b)])
  for subjects in counts(scene, difficulty).values():
    claims.update(f'count {subject} {number}' for subject, number in subjects.items())
  return claims


def opposite(claim: str) -> str | None:
  """Returns the claim that contradicts this one if each description fits one thing only."""
  kind, rest = claim.split(' ', 1)
  if kind == 'place':
    name, place = rest.rsplit(' ', 1)
    return f'place {name} {world.OPPOSITE[place]}'
  if kind == 'relation':
    relation, a, b = rest.split('|')
    return f'relation {relation}|{b}|{a}'
  return None


@functools.cache
def count_shares(difficulty: world.Difficulty) -> dict[tuple[str, int], float]:
  """Computes how often to state each count, so that the subject does not predict the number.

  Zero red things are far more frequent than two. The share, by (class of subjects, number), of
  scenes with such a subject that state the count makes all numbers of a class equally frequent.
  Numbers rarer than RARE are never stated: they would make all others as rare.
  """
  shares = {}
  values = {'all': 1, 'colour': len(difficulty.colours), 'shape': len(difficulty.shapes)}
  for subjects, choices in values.items():
    frequencies = _number_frequencies(choices, difficulty.most)
    stated = {number: share for number, share in enumerate(frequencies) if share >= RARE}
    least = min(stated.values())
    shares |= {(subjects, number): least / share for number, share in stated.items()}
  return shares


def _number_frequencies(choices: int, most: int) -> list[float]:
  """Computes [most + 1], the probability that any of `choices` subjects has 0, 1, ... things."""
  frequencies = np.zeros(most + 1)
  for things in range(1, most + 1):
    draws = np.indices((choices,) * things).reshape(things, -1)
    number = (draws == np.arange(choices)[:, None, None]).sum(1)
    frequencies += [(number == n).any(0).mean() / most for n in range(most + 1)]
  return frequencies.tolist()


def stated_counts(
  rng: np.random.Generator, scene: world.Scene, difficulty: world.Difficulty
) -> list[tuple[str, str, int]]:
  """Draws the counts to state, as (class, subject, number); 'all' is always among them."""
  stated = []
  counted = counts(scene, difficulty)
  for (subjects, number), share in count_shares(difficulty).items():
    fitting = [subject for subject, n in counted[subjects].items() if n == number]
    if fitting and rng.random() < share:
      stated.append((subjects, fitting[rng.integers(len(fitting))], number))
  return stated
