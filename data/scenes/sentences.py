"""Wordings of claims, and the kind of each word.

A masked word is ambiguous only if the image leaves it ambiguous. So a slot for a colour, size,
pattern, number or place fits words of one kind only: sizes precede colours, patterns follow
shapes, and colours are never omitted. And no other word predicts it: plurals do not depend on the
number, articles not on the colour, prepositions not on the side. Sentences are terse because
words without visual meaning only add noise to the training of pixels.
"""

import functools

from data.scenes import world

NUMBERS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
PLURAL = {shape: 'crosses' if shape == 'cross' else shape + 's' for shape in world.OUTLINES}
WHERE = {'left': 'on the left', 'right': 'on the right'}
WHERE |= {'top': 'at the top', 'bottom': 'at the bottom'}

EXISTS = ('{}', 'here is {}', 'we see {}', '{} is here')
PLACE = ('{thing} {where}', '{where} {thing}', '{where} is {thing}')
RELATION = {
  'left-of': ('{a} is left of {b}', '{b} is right of {a}', '{a} left of {b}', '{b} right of {a}'),
  'above': ('{a} is above {b}', '{b} is below {a}', '{a} above {b}', '{b} below {a}'),
}
AND = ('here is {} and {}', 'we see {} and {}', '{} and {} are here')
COUNT = {
  'all': ('the total is {number}', 'objects in total {number}', 'total of objects {number}'),
  'colour': (
    'number of {it} objects {number}',
    'count of {it} objects {number}',
    '{it} objects counted {number}',
  ),
  'shape': ('number of {it} {number}', 'count of {it} {number}', '{it} counted {number}'),
}

# The letters are those of pixelbert_jax.input.rows.VISUAL_KINDS.
KINDS = {
  **dict.fromkeys(world.COLOURS, 'c'),
  **dict.fromkeys((*PLURAL, *PLURAL.values()), 's'),
  **dict.fromkeys(world.SIZES, 'z'),
  **dict.fromkeys(NUMBERS, 'n'),
  **dict.fromkeys((*world.PLACES, 'above', 'below'), 'l'),
  **dict.fromkeys(world.PATTERNS, 'p'),
}


def kinds(text: str) -> str:
  """Returns one letter per word, '.' for words without visual meaning."""
  return ''.join(KINDS.get(word, '.') for word in text.split())


def phrase(description: str) -> str:
  """Turns 'small red circle' into 'a small red circle', 'red circle dots' into '... with dots'."""
  words = description.split()
  if words[-1] in world.PATTERNS:
    words.insert(-1, 'with')
  return ' '.join(['a', *words])


@functools.cache
def wordings(claim: str) -> tuple[str, ...]:
  """Returns all sentences of the grammar that state the claim and nothing else."""
  kind, rest = claim.split(' ', 1)
  return {
    'exists': _exists,
    'place': _place,
    'relation': _relation,
    'and': _and,
    'count': _count,
  }[kind](rest)


def _exists(description: str) -> tuple[str, ...]:
  return tuple(frame.format(phrase(description)) for frame in EXISTS)


def _place(rest: str) -> tuple[str, ...]:
  description, place = rest.rsplit(' ', 1)
  thing = phrase(description)
  return tuple(frame.format(thing=thing, where=WHERE[place]) for frame in PLACE)


def _relation(rest: str) -> tuple[str, ...]:
  relation, a, b = rest.split('|')
  return tuple(frame.format(a=phrase(a), b=phrase(b)) for frame in RELATION[relation])


def _and(rest: str) -> tuple[str, ...]:
  a, b = map(phrase, rest.split('|'))
  orders = ((a, b), (b, a)) if a != b else ((a, b),)
  return tuple(frame.format(*order) for frame in AND for order in orders)


def _count(rest: str) -> tuple[str, ...]:
  subject, number = rest.split()
  it, frames = PLURAL.get(subject, subject), COUNT[subjects(subject)]
  return tuple(frame.format(it=it, number=NUMBERS[int(number)]) for frame in frames)


def subjects(subject: str) -> str:
  """Returns the class of a count's subject: 'all', 'colour' or 'shape'."""
  return 'all' if subject == 'all' else 'shape' if subject in PLURAL else 'colour'
