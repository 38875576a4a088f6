"""Lengths of texts in tokens, and how many are cut because they are longer than a model reads."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.text import SPECIAL_EACH, Tokenizer

CHUNK = 1 << 16  # texts at a time
MOST = 1 << 17  # texts that are tokenised, which takes a second or two
# Of each byte: 0 for blanks, 1 for part of a word, 2 for punctuation, which is a token each.
_KIND = np.array(
  [1 if b > 127 or chr(b).isalnum() else 2 if 32 < b < 127 else 0 for b in range(256)], np.int8
)


@dataclasses.dataclass(frozen=True)
class Cut:
  """How many of N texts are cut.

  Attributes:
    texts: N.
    cut: how many are cut; at least so many, if not `exact`.
    exact: whether all long texts were tokenised.
    nearly, longest: tokens, at which a hundredth of the texts at most, and none, are cut.
  """

  texts: int
  cut: int
  exact: bool
  nearly: int
  longest: int


def words(text: Ragged) -> np.ndarray:
  """Counts words and punctuation marks of texts, [N] int64; each is a token or more."""
  return _counts(text, lambda kind, before: (kind == 2) | ((kind == 1) & (before != 1)))


def cut(text: Ragged, tokenizer: Tokenizer, most: int = MOST) -> Cut:
  """Counts the texts that the tokeniser cuts.

  A text has at most as many tokens as bytes, blanks aside. Of the texts that this does not clear,
  the `most` longest are tokenised, and of the others the words are counted.
  """
  bytes_each = _counts(text, lambda kind, before: kind > 0)
  rows = np.flatnonzero(bytes_each > tokenizer.length - SPECIAL_EACH)
  rows = rows[np.argsort(-bytes_each[rows], kind='stable')]
  texts = [text.text(i) for i in rows[:most]]
  distinct = list(dict.fromkeys(texts))
  tokens = dict(zip(distinct, tokenizer.count(distinct), strict=True))
  lengths = np.array([tokens[said] for said in texts], np.int64)
  lengths = np.sort(np.append(lengths, words(text.take(rows[most:])) + SPECIAL_EACH))[::-1]
  spared = min(len(text) // 100, len(lengths) - 1)
  longest, nearly = lengths[[0, spared]] if len(lengths) else (0, 0)
  return Cut(
    texts=len(text),
    cut=int((lengths > tokenizer.length).sum()),
    exact=len(rows) <= most,
    nearly=max(int(nearly), tokenizer.length),
    longest=max(int(longest), tokenizer.length),
  )


def summary(texts: Mapping[str, Ragged], tokenizer: Tokenizer, positions: int) -> str:
  """Describes in one line which texts of which splits are cut, and what would change that.

  `positions` is the number of tokens that the model has room for.
  """
  found = {split: cut(text, tokenizer) for split, text in texts.items()}
  length = tokenizer.length
  said = [
    f'{"" if c.exact else "at least "}{c.cut:,} of {c.texts:,} texts of {split} '
    f'({c.cut / c.texts:.2%})'
    for split, c in found.items()
    if c.cut
  ]
  if not said:
    return f'cut         no text has more than the {length} tokens of text.length'
  nearly, longest = (max(getattr(c, n) for c in found.values()) for n in ('nearly', 'longest'))
  cures = [f'--config.text.length={longest} reads all whole']
  if length < nearly < longest:
    cures.insert(0, f'--config.text.length={nearly} reads 99% whole')
  room = f' (transformer.max_positions is {positions})' if longest > positions else ''
  return f'cut         {", ".join(said)}, to text.length={length} tokens; {", ".join(cures)}{room}'


def _counts(text: Ragged, chosen: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
  """Counts bytes of texts, [N] int64: those chosen by their kind and that of the byte before.

  Before the first byte of a text is a blank.
  """
  counts = np.empty(len(text), np.int64)
  for first in range(0, len(text), CHUNK):
    start = text.start[first : first + CHUNK + 1]
    kind = _KIND[text.values[start[0] : start[-1]]]
    before = np.append(np.int8(0), kind)[: len(kind)]
    before[(start[:-1] - start[0])[np.diff(start) > 0]] = 0
    running = np.append(0, np.cumsum(chosen(kind, before)))
    counts[first : first + CHUNK] = np.diff(running[start - start[0]])
  return counts
