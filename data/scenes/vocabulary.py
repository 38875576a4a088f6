"""Makes the WordPiece vocabulary of scenes; `python -m data.scenes.vocabulary` writes it."""

import itertools
import pathlib
import re
import string
from collections.abc import Iterable, Iterator

from data.scenes import sentences, statements

FILE = pathlib.Path(__file__).with_name('vocab.txt')
SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')

# Words of the questions, which are composed in code.
_QUESTIONS = (
  'what colour is the object',
  'what shape is the object',
  'what size is the object',
  'is the or',
  'how many objects are there',
  'is there a',
  'is a',
)


def tokens() -> list[str]:
  """Returns special tokens, the words of all difficulties, and pieces that spell other words."""
  return with_pieces({w for text in _texts() for w in re.sub(r'\{\w*\}', ' ', text).split()})


def with_pieces(words: Iterable[str]) -> list[str]:
  """Returns a vocabulary of lower-case words: special tokens, the words, and pieces."""
  letters = string.ascii_lowercase + string.digits
  pieces = [*letters, *(f'##{letter}' for letter in letters), *string.punctuation]
  return list(dict.fromkeys([*SPECIAL, *sorted(words), *pieces]))


def _texts() -> Iterator[str]:
  """Yields texts, some with {slots}, that contain every word of the grammar."""
  yield from (*sentences.KINDS, 'a with', *_QUESTIONS, *sentences.WHERE.values())
  yield from (*sentences.EXISTS, *sentences.PLACE, *sentences.AND)
  yield from itertools.chain(*sentences.RELATION.values(), *sentences.COUNT.values())
  yield from (*statements.CONTAINS, *statements.COMPARE, statements.TOTAL)


if __name__ == '__main__':
  FILE.write_text('\n'.join(tokens()) + '\n')
