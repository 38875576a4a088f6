"""Draws the foils of a caption: sentences that differ from it in what matters, and are false.

What differs is whose a colour or a shape is, a side, a size, a pattern or a number. Over many
scenes foils say what captions say as often, so that no foil is told by its words alone.
"""

from collections.abc import Iterator

import numpy as np

from data.scenes import claims, sentences, world

MOST = 4  # foils of a caption


def foils(
  rng: np.random.Generator,
  claim: str,
  scene: world.Scene,
  difficulty: world.Difficulty,
  true: set[str],
) -> list[str]:
  """Draws up to MOST foils of a caption that states `claim`; `true` are all true claims."""
  kind, rest = claim.split(' ', 1)
  changed = list(_changes(kind, rest, scene, difficulty))
  false = sorted({c for c in changed if c not in true})
  if not false and kind == 'exists':  # The only thing of a scene has nothing to exchange.
    false = sorted({c for c in _others(rest.split(), difficulty) if c not in true})
  chosen = [false[i] for i in rng.permutation(len(false))[:MOST]]
  wordings = [sentences.wordings(c) for c in chosen]
  return [texts[rng.integers(len(texts))] for texts in wordings]


def _changes(
  kind: str, rest: str, scene: world.Scene, difficulty: world.Difficulty
) -> Iterator[str]:
  """Yields claims like `kind rest` with something exchanged; some may be true."""
  if kind == 'count':
    subject, number = rest.split()
    numbers = {n for of, n in claims.count_shares(difficulty) if of == _subjects(subject)}
    yield from (f'count {subject} {n}' for n in numbers - {int(number)})
  elif kind == 'exists':
    for words in _exchanged(rest.split(), scene):
      yield f'exists {" ".join(words)}'
    yield from (f'exists {words}' for words in _turned(rest.split(), difficulty))
  elif kind == 'place':
    thing, place = rest.rsplit(' ', 1)
    yield f'place {thing} {world.OPPOSITE[place]}'
  elif kind == 'and':
    (colour, shape), (other_colour, other_shape) = (d.split() for d in rest.split('|'))
    yield 'and ' + '|'.join(sorted((f'{other_colour} {shape}', f'{colour} {other_shape}')))
  elif kind == 'relation':
    relation, a, b = rest.split('|')
    yield f'relation {relation}|{b}|{a}'


def _exchanged(words: list[str], scene: world.Scene) -> Iterator[list[str]]:
  """Yields a description's words with the colour, or the shape, of a thing of the scene."""
  for i, word in enumerate(words):
    for attribute in ('colour', 'shape'):
      values = [getattr(thing, attribute) for thing in scene.things]
      if word in values:
        yield from ([*words[:i], value, *words[i + 1 :]] for value in values)


def _turned(words: list[str], difficulty: world.Difficulty) -> Iterator[str]:
  """Yields a description with the other size, or another pattern."""
  for i, word in enumerate(words):
    for values in (world.SIZES, difficulty.patterns):
      if word in values:
        yield from (' '.join([*words[:i], value, *words[i + 1 :]]) for value in values)


def _others(words: list[str], difficulty: world.Difficulty) -> Iterator[str]:
  """Yields claims that a thing exists, as described but of another colour or shape."""
  for i, word in enumerate(words):
    for values in (difficulty.colours, difficulty.shapes):
      if word in values:
        yield from (f'exists {" ".join([*words[:i], value, *words[i + 1 :]])}' for value in values)


def _subjects(subject: str) -> str:
  """Returns the class of a count's subject: 'all', 'colour' or 'shape'."""
  return 'all' if subject == 'all' else 'colour' if subject in world.COLOURS else 'shape'
