"""Draws the foils of a caption: sentences that differ from it in what matters, and are false.

What differs is whose a colour or a shape is, a side, a size, a pattern or a number. Over many
scenes foils say what captions say as often, so that no foil is told by its words alone.
"""

from collections.abc import Iterable, Iterator, Sequence

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
    others = _with_another(rest, (difficulty.colours, difficulty.shapes))
    false = sorted({c for words in others if (c := f'exists {words}') not in true})
  chosen = [false[i] for i in rng.permutation(len(false))[:MOST]]
  wordings = [sentences.wordings(c) for c in chosen]
  return [texts[rng.integers(len(texts))] for texts in wordings]


def _changes(
  kind: str, rest: str, scene: world.Scene, difficulty: world.Difficulty
) -> Iterator[str]:
  """Yields claims like `kind rest` with something exchanged; some may be true."""
  if kind == 'count':
    subject, number = rest.split()
    numbers = {n for of, n in claims.count_shares(difficulty) if of == sentences.subjects(subject)}
    yield from (f'count {subject} {n}' for n in numbers - {int(number)})
  elif kind == 'exists':
    shown = ([getattr(t, name) for t in scene.things] for name in ('colour', 'shape'))
    choices = (*shown, world.SIZES, difficulty.patterns)
    yield from (f'exists {words}' for words in _with_another(rest, choices))
  elif kind == 'place':
    thing, place = rest.rsplit(' ', 1)
    yield f'place {thing} {world.OPPOSITE[place]}'
  elif kind == 'and':
    (colour, shape), (other_colour, other_shape) = (d.split() for d in rest.split('|'))
    yield 'and ' + '|'.join(sorted((f'{other_colour} {shape}', f'{colour} {other_shape}')))
  elif kind == 'relation':
    relation, a, b = rest.split('|')
    yield f'relation {relation}|{b}|{a}'


def _with_another(words: str, choices: Iterable[Sequence[str]]) -> Iterator[str]:
  """Yields a description with each of its words replaced by all values it is chosen from."""
  each = words.split()
  for i, word in enumerate(each):
    for values in choices:
      if word in values:
        yield from (' '.join([*each[:i], value, *each[i + 1 :]]) for value in values)
