"""Sentences about pictures of boxes, in the manner of NLVR's, with what makes them true.

Of each sentence about as many pictures are shown of which it is true as of which it is false, so
that no text predicts its label.
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

OfItem = Callable[[Item], bool]
OfBox = Callable[[Box], bool]
OfPicture = Callable[[Picture], bool]
Holds = Callable[[Sequence[bool]], bool]  # given of which boxes something is true
Kinds = Sequence[tuple[str, OfItem]]  # of items, named in the singular
# What may be true of a box, by its wordings.
Properties = Iterator[tuple[tuple[str, ...], OfBox]]

# Wordings of what boxes something, {it}, is true of.
BOXES: dict[tuple[str, ...], Holds] = {
  ('there is a {box} with {it}', 'there is at least one {box} which has {it}'): any,
  ('there is exactly one {box} with {it}', 'there is one {box} which has {it}'): (
    lambda of: sum(of) == 1
  ),
  ('there are exactly two {boxes} with {it}', 'there are two {boxes} having {it}'): (
    lambda of: sum(of) == 2
  ),
  ('there are at least two {boxes} with {it}', 'there are at least two {boxes} having {it}'): (
    lambda of: sum(of) >= 2
  ),
  ('each {box} has {it}', 'all {boxes} have {it}'): all,
  ('there is no {box} with {it}', 'none of the {boxes} has {it}'): lambda of: not any(of),
  # NLVR has none such. They are about one box, so that words are learnt from what they name; all
  # entries are drawn equally often, and so these half of the time.
  ('the left {box} has {it}',): lambda of: of[0],
  ('the middle {box} has {it}',): lambda of: of[1],
  ('the right {box} has {it}',): lambda of: of[2],
  ('on the left is a {box} with {it}',): lambda of: of[0],
  ('in the middle is a {box} with {it}',): lambda of: of[1],
  ('on the right is a {box} with {it}',): lambda of: of[2],
}


class Statement(NamedTuple):
  """What may be true of a picture: its wordings, and a test."""

  wordings: tuple[str, ...]
  test: OfPicture


def drawn(rng: np.random.Generator, picture: Picture) -> list[tuple[str, bool]]:
  """Draws SENTENCES_PER_PICTURE distinct sentences, each with whether it is true."""
  tower = world.is_tower(picture)
  chosen: dict[str, bool] = {}
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
  properties = _of_towers() if tower else _of_scattered()
  quantified = (
    Statement(
      tuple(frame.format(it=it, **names) for frame in frames for it in wordings),
      _of_boxes(test, holds),
    )
    for (wordings, test), (frames, holds) in itertools.product(properties, BOXES.items())
  )
  return (*quantified, *_of_pictures(tower))


def _of_boxes(test: OfBox, holds: Holds) -> OfPicture:
  return lambda picture: holds([test(box) for box in picture])


def _exactly(test: OfItem, number: int) -> OfBox:
  return lambda box: sum(map(test, box)) == number


def _at_least(test: OfItem, number: int) -> OfBox:
  return lambda box: sum(map(test, box)) >= number


def _both(test: OfItem, other: OfItem) -> OfItem:
  return lambda item: test(item) and other(item)


def _is(colour: str, shape: str = '') -> OfItem:
  """Tests colour and shape; '' is any."""
  return lambda item: colour in ('', item.colour) and shape in ('', item.shape)


def _end(place: int, colour: str, heights: Sequence[int]) -> OfBox:
  """Tests the colour of the base, 0, or of the top, -1, of towers of these heights."""
  return lambda box: len(box) in heights and box[place].colour == colour


def _on(lower: str, upper: str) -> OfBox:
  pair = lower, upper
  return lambda box: pair in itertools.pairwise(item.colour for item in box)


def _only(colour: str) -> OfBox:
  return lambda box: all(item.colour == colour for item in box)


def _colours(number: int) -> OfBox:
  return lambda box: len({item.colour for item in box}) == number


BLOCKS: Kinds = [(f'{colour} block', _is(colour)) for colour in COLOURS]
SCATTERED: Kinds = [
  (f'{colour} {shape or "item"}'.strip(), _is(colour, shape))
  for colour, shape in itertools.product(('', *COLOURS), ('', *world.SHAPES))
]
EDGES: dict[tuple[str, ...], OfItem] = {
  ('touching the edge', 'touching the wall'): lambda item: item.edges > 0,
  ('touching the bottom', 'touching the base'): lambda item: item.on_bottom,
  ('touching a corner', 'closely touching a corner'): lambda item: item.edges > 1,
  ('not touching any edge', 'not touching the wall'): lambda item: not item.edges,
}
ENDS = {0: ('at the base', 'at the bottom'), -1: ('at the top', 'on the top')}


def _of_towers() -> Properties:
  heights = range(1, world.MOST_BLOCKS + 1)
  yield from _counted([('block', _is('')), *BLOCKS], world.MOST_BLOCKS)
  yield from _painted('block')
  yield from _piled()
  for (place, wordings), colour in itertools.product(ENDS.items(), COLOURS):
    ends = tuple(f'a {colour} block {wording}' for wording in wordings)
    yield ends, _end(place, colour, heights)
    for n in heights[1:]:
      high = f'exactly {NUMBERS[n - 1]} blocks having', f'{NUMBERS[n - 1]} blocks with'
      yield tuple(f'{frame} {ends[0]}' for frame in high), _end(place, colour, [n])


def _of_scattered() -> Properties:
  yield from _counted(SCATTERED[:1], world.MOST_ITEMS)
  yield from _counted(SCATTERED[1:], 3)
  yield from _painted('item')
  for (name, test), (wordings, where) in itertools.product(SCATTERED, EDGES.items()):
    things = tuple(f'{_article(name)} {name} {wording}' for wording in wordings)
    yield things, _at_least(_both(test, where), 1)


def _counted(kinds: Kinds, most: int, where: str = '') -> Properties:
  """Yields numbers of items of each kind, up to `most`."""
  for (name, test), n in itertools.product(kinds, range(1, most + 1)):
    items = f'{NUMBERS[n - 1]} {name}{"s" * (n > 1)}{where}'
    # People mean the number that they say.
    yield (f'exactly {items}', items), _exactly(test, n)
    yield (f'at least {items}', *[f'{_article(name)} {name}{where}'] * (n == 1)), _at_least(test, n)


def _article(name: str) -> str:
  return 'an' if name == 'item' else 'a'


def _painted(name: str) -> Properties:
  """Yields of what colours all items are, and of how many."""
  for colour in COLOURS:
    yield (f'only {colour} {name}s', f'{name}s of only {colour} color'), _only(colour)
  yield (f'{name}s of only one color', f'{name}s of the same color'), _colours(1)
  yield (f'{name}s of two different colors', f'{name}s of exactly two colors'), _colours(2)
  yield (f'{name}s of all three colors', f'{name}s of three different colors'), _colours(3)


def _piled() -> Properties:
  """Yields which colour is on which."""
  for upper, lower in itertools.product(COLOURS, repeat=2):
    words = 'over', 'above', 'on'
    yield tuple(f'a {upper} block {word} a {lower} block' for word in words), _on(lower, upper)


def _of_pictures(tower: bool) -> Iterator[Statement]:
  """Yields statements about the items of all boxes together."""
  if tower:
    for wordings, test in _piled():
      yield Statement(tuple(f'there is {it}' for it in wordings), _of_boxes(test, any))
  for wordings, test in _counted(BLOCKS, 7) if tower else _anywhere():
    verb = 'are' if wordings[0].endswith('s') or 's ' in wordings[0] else 'is'
    yield Statement(tuple(f'there {verb} {it}' for it in wordings), _of_all(test))


def _anywhere() -> Properties:
  yield from _counted(SCATTERED, 5)
  for wordings, where in EDGES.items():
    kinds = [(name, _both(test, where)) for name, test in SCATTERED]
    for wording in wordings:
      yield from _counted(kinds, 3, f' {wording}')


def _of_all(test: OfBox) -> OfPicture:
  return lambda picture: test(sum(picture, ()))
