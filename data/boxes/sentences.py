"""Sentences about pictures of boxes, in the manner of NLVR's, with what makes them true.

Of each sentence as many pictures are shown of which it is true as of which it is false, so that no
text predicts its label.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data.boxes import world
from data.boxes.world import Box, Item, Picture
from pixelbert_jax.input.boxes import COLOURS

SENTENCES_PER_PICTURE = 8
NUMBERS = ('one', 'two', 'three', 'four', 'five', 'six', 'seven')
# Sentences that are true or false of fewer pictures than this share are left out.
RARE = 0.04
PICTURES = 400  # of which that share is counted
# What a sentence has at random instead of its own words.
EXCHANGED = (
  dict(zip(NUMBERS, '1234567', strict=True)),
  {'item': 'object', 'items': 'objects'},
  {'color': 'colour', 'colors': 'colours'},
)
OFTEN = 0.3

# Wordings of how many boxes something is true of, {it}, and what numbers fit.
BOXES: dict[tuple[str, ...], Sequence[int]] = {
  ('there is a {box} with {it}', 'there is at least one {box} which has {it}'): (1, 2, 3),
  ('there is exactly one {box} with {it}', 'there is one {box} which has {it}'): (1,),
  ('there are exactly two {boxes} with {it}', 'there are two {boxes} having {it}'): (2,),
  ('there are at least two {boxes} with {it}', 'there are at least two {boxes} having {it}'): (
    2,
    3,
  ),
  ('each {box} has {it}', 'all {boxes} have {it}'): (3,),
  ('there is no {box} with {it}', 'none of the {boxes} has {it}'): (0,),
}


class Property(NamedTuple):
  """What may be true of a box: its wordings, and a test."""

  wordings: tuple[str, ...]
  test: Callable[[Box], bool]


class Statement(NamedTuple):
  """What may be true of a picture: its wordings, and a test."""

  wordings: tuple[str, ...]
  test: Callable[[Picture], bool]


def drawn(rng: np.random.Generator, picture: Picture) -> list[tuple[str, bool]]:
  """Draws SENTENCES_PER_PICTURE distinct sentences, each with whether it is true."""
  tower, chosen = world.is_tower(picture), {}
  every = statements(tower)
  while len(chosen) < SENTENCES_PER_PICTURE:
    number = int(rng.integers(len(every)))
    true, share = every[number].test(picture), _true_share(tower, number)
    this, other = (share, 1 - share) if true else (1 - share, share)
    if min(this, other) >= RARE and rng.random() < other / this:
      wordings = every[number].wordings
      chosen[_varied(rng, wordings[rng.integers(len(wordings))])] = true
  return list(chosen.items())


def _varied(rng: np.random.Generator, text: str) -> str:
  words = text.split()
  for others in EXCHANGED:
    if rng.random() < OFTEN:
      words = [others.get(word, word) for word in words]
  return ' '.join(words) + '.' * (rng.random() < 0.5)


@functools.cache
def _true_share(tower: bool, number: int) -> float:
  """Counts of which share of pictures a statement is true."""
  return float(np.mean([statements(tower)[number].test(picture) for picture in _pictures(tower)]))


@functools.cache
def _pictures(tower: bool) -> list[Picture]:
  rng = np.random.default_rng(0)
  drawn = iter(lambda: world.sample(rng), None)
  return list(itertools.islice((p for p in drawn if world.is_tower(p) == tower), PICTURES))


@functools.cache
def statements(tower: bool) -> tuple[Statement, ...]:
  """Lists all statements about towers, or about scattered items."""
  names = {'box': 'tower', 'boxes': 'towers'} if tower else {'box': 'box', 'boxes': 'boxes'}
  properties = _of_towers() if tower else _of_boxes()
  quantified = (
    Statement(
      tuple(frame.format(it=it, **names) for frame in frames for it in of_box.wordings),
      lambda picture, of_box=of_box, fits=fits: sum(map(of_box.test, picture)) in fits,
    )
    for of_box, (frames, fits) in itertools.product(properties, BOXES.items())
  )
  return (*quantified, *_of_pictures(tower))


def _number(test: Callable[[Item], bool], box: Sequence[Item]) -> int:
  return sum(map(test, box))


def _counts(
  kinds: Sequence[tuple[str, Callable[[Item], bool]]], most: int, where: str = ''
) -> Iterator[Property]:
  """Yields numbers of things of each kind, which are named in the singular."""
  for (name, test), n in itertools.product(kinds, range(1, most + 1)):
    things = f'{NUMBERS[n - 1]} {name}{"s" * (n > 1)}{where}'
    # People mean the number that they say.
    yield Property((f'exactly {things}', things), lambda box, t=test, n=n: _number(t, box) == n)
    some = (f'at least {things}', *[f'a {name}{where}'] * (n == 1))
    yield Property(some, lambda box, t=test, n=n: _number(t, box) >= n)


def _blocks() -> list[tuple[str, Callable[[Item], bool]]]:
  return [(f'{c} block', lambda item, c=c: item.colour == c) for c in COLOURS]


def _of_towers() -> Iterator[Property]:
  yield from _counts([('block', lambda item: True), *_blocks()], world.MOST_BLOCKS)
  for c in COLOURS:
    for place, wordings in {
      0: ('at the base', 'at the bottom'),
      -1: ('at the top', 'on the top'),
    }.items():
      ends = tuple(f'a {c} block {wording}' for wording in wordings)
      yield Property(ends, lambda box, c=c, i=place: box[i].colour == c)
      for n in range(2, world.MOST_BLOCKS + 1):
        high = tuple(
          f'{frame} {ends[0]}'
          for frame in (f'exactly {NUMBERS[n - 1]} blocks having', f'{NUMBERS[n - 1]} blocks with')
        )
        yield Property(high, lambda box, c=c, i=place, n=n: len(box) == n and box[i].colour == c)
    yield _only(c, 'block')
  yield from _over()
  yield from _colours('block')


def _over() -> Iterator[Property]:
  """Yields which colour is on which."""
  for c, d in itertools.product(COLOURS, repeat=2):
    yield Property(
      tuple(f'a {c} block {word} a {d} block' for word in ('over', 'above', 'on')),
      lambda box, pair=(d, c): pair in itertools.pairwise(item.colour for item in box),
    )


def _of_boxes() -> Iterator[Property]:
  kinds = _kinds()
  yield from _counts(kinds, 3)
  yield from _counts([('item', lambda item: True)], world.MOST_ITEMS)
  yield from _colours('item')
  for c in COLOURS:
    yield _only(c, 'item')
  for name, test in kinds:
    for wordings, where in EDGES.items():
      yield Property(
        tuple(f'a {name} {wording}' for wording in wordings),
        lambda box, t=test, where=where: any(t(i) and where(i) for i in box),
      )


EDGES: dict[tuple[str, ...], Callable[[Item], bool]] = {
  ('touching the edge', 'touching the wall'): lambda item: item.edges > 0,
  ('touching the bottom', 'touching the base'): lambda item: item.on_bottom,
  ('touching a corner', 'closely touching a corner'): lambda item: item.edges > 1,
  ('not touching any edge', 'not touching the wall'): lambda item: not item.edges,
}


def _kinds() -> list[tuple[str, Callable[[Item], bool]]]:
  """Lists kinds of scattered items: 'item', 'black item', 'circle', 'black circle', ..."""
  named = itertools.product(('', *COLOURS), ('item', *world.SHAPES))
  return [
    (
      f'{colour} {shape}'.strip(),
      lambda i, c=colour, s=shape: i.colour.startswith(c) and s in (i.shape, 'item'),
    )
    for colour, shape in named
  ]


def _only(colour: str, thing: str) -> Property:
  return Property(
    (f'only {colour} {thing}s', f'{thing}s of only {colour} color'),
    lambda box: all(item.colour == colour for item in box),
  )


def _colours(thing: str) -> Iterator[Property]:
  wordings = {
    1: (f'{thing}s of only one color', f'{thing}s of the same color'),
    2: (f'{thing}s of two different colors', f'{thing}s of exactly two colors'),
    3: (f'{thing}s of all three colors', f'{thing}s of three different colors'),
  }
  for number, of_number in wordings.items():
    yield Property(of_number, lambda box, n=number: len({item.colour for item in box}) == n)


def _of_pictures(tower: bool) -> Iterator[Statement]:
  """Yields statements about all items of a picture, of whatever box."""
  if tower:
    counted = _counts(_blocks(), len(NUMBERS))
    for wordings, test in _over():
      yield Statement(
        tuple(f'there is {wording}' for wording in wordings), lambda p, t=test: any(map(t, p))
      )
  else:
    counted = itertools.chain(
      _counts(_kinds(), 5),
      *(
        _counts([(n, lambda i, t=t, w=w: t(i) and w(i)) for n, t in _kinds()], 3, f' {wording}')
        for wordings, w in EDGES.items()
        for wording in wordings
      ),
    )
  for wordings, test in counted:
    verb = 'is' if any(w.startswith(('one ', 'a ', 'at least one ')) for w in wordings) else 'are'
    yield Statement(
      tuple(f'there {verb} {wording}' for wording in wordings), lambda p, t=test: t(sum(p, ()))
    )
