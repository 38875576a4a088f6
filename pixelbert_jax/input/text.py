"""Texts: WordPiece tokens, and the tokens hidden for masked language modelling."""

import dataclasses
import functools
import pathlib
import re
import string
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import BertWordPieceTokenizer

from pixelbert_jax import UserError
from pixelbert_jax.input.vocabulary import is_special, read_vocabulary

SPECIAL_EACH = 2  # tokens of every text: [CLS] and [SEP]
# Texts whose tokens are those of their words one by one, and these words.
PLAIN = re.compile(r'[ !-Z\\-~]*')
WORD = re.compile(r'[a-z0-9]+|[^ a-z0-9]')


def word_pieces(words: Sequence[str]) -> BertWordPieceTokenizer:
  """Returns BERT's uncased tokeniser over the entries of a vocabulary."""
  return BertWordPieceTokenizer({word: i for i, word in enumerate(words)}, lowercase=True)


class Tokenizer:
  """BERT's uncased WordPiece tokeniser, over a vocabulary file with an entry in each line.

  Attributes:
    words: the V entries.
    special: [V] bool, which entries are special tokens of BERT (or '[unused..]').
    mask_id, pad_id, unknown_id: token ids of [MASK], [PAD] and [UNK].
    length: tokens that texts are cut to.
    reads_ascii: True if no word of ASCII characters is unknown, unless it is very long.
  """

  def __init__(self, vocabulary: str | pathlib.Path, length: int):
    """Reads `vocabulary`; texts will be cut to `length` tokens, with [CLS] and [SEP].

    Raises:
      UserError: the file does not exist, or is no vocabulary of an uncased BERT.
    """
    path = pathlib.Path(vocabulary)
    if not path.is_file():
      raise UserError(f'text.vocabulary: no file {str(vocabulary)!r}; give the path of a vocab.txt')
    _, self.words = read_vocabulary(path, f'text.vocabulary: {path}')
    self._tokenizer = word_pieces(self.words)
    self.length = length
    self._tokenizer.enable_truncation(length)
    self._tokenizer.enable_padding(length=length, pad_id=self.words.index('[PAD]'))
    self.mask_id, self.pad_id = self.words.index('[MASK]'), self.words.index('[PAD]')
    self.unknown_id = self.words.index('[UNK]')
    self._letter = np.array([len(w) == 3 and w.startswith('##') for w in self.words])
    entries, readable = set(self.words), set(map(chr, range(33, 127))) - set(string.ascii_uppercase)
    self.reads_ascii = (
      readable <= entries and {f'##{c}' for c in readable if c.isalnum()} <= entries
    )
    self.special = np.array([is_special(w) for w in self.words])

  def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokenises N texts.

    Returns:
      ids [N, T] int32, and word [N, T] int32: the number of the token's word (separated by blanks
      or punctuation) in the text, -1 for special tokens and padding.
    """
    encodings = self._tokenizer.encode_batch(list(texts))
    ids = np.array([e.ids for e in encodings], np.int32)
    word = np.array([[-1 if w is None else w for w in e.word_ids] for e in encodings], np.int32)
    # The library counts [UNK] as a word, but it is not to be hidden or predicted.
    return ids, np.where(self.special[ids], -1, word)

  def count(self, texts: Sequence[str]) -> list[int]:
    """Counts the tokens of N texts, with [CLS] and [SEP], as if nothing were cut."""
    # Words come again and again: each is tokenised once.
    split = [WORD.findall(t.lower()) if PLAIN.fullmatch(t) else [t] for t in texts]
    parts = list(dict.fromkeys(part for parts in split for part in parts))
    pieces = {p: len(e) for p, e in zip(parts, self._whole.encode_batch(parts), strict=True)}
    return [sum(pieces[p] - SPECIAL_EACH for p in parts) + SPECIAL_EACH for parts in split]

  @functools.cached_property
  def _whole(self) -> tokenizers.Tokenizer:
    whole = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()
    return whole

  def read(self, text: str) -> tuple[list[tuple[str, list[int]]], str]:
    """Splits a text into words (separated by blanks or punctuation).

    Returns:
      The words as written, each with the positions of its tokens, and the end of the text that is
      cut off.
    """
    encoding = self._tokenizer.encode(text)
    places: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids):
      if word is not None:
        places.setdefault(word, []).append(place)
    spans = [(encoding.offsets[p[0]][0], encoding.offsets[p[-1]][1], p) for p in places.values()]
    cut = text[spans[-1][1] :].strip() if encoding.overflowing else ''
    return [(text[start:end], p) for start, end, p in spans], cut

  def unknown(self, text: str) -> list[str]:
    """Lists the words of a text, each once, that the vocabulary lacks or has letter by letter."""
    ids = self([text])[0][0]
    words, _ = self.read(text)
    unknown = (
      word
      for word, places in words
      if (ids[places] == self.unknown_id).any() or 2 < len(word) == len(places)
    )
    return list(dict.fromkeys(unknown))

  def strange(self, ids: np.ndarray) -> np.ndarray:
    """Tells, [...] bool, which texts of ids [..., T] may hold words unknown to the vocabulary."""
    letter = self._letter[ids]
    return (ids == self.unknown_id).any(-1) | (letter[..., 1:] & letter[..., :-1]).any(-1)


class TextError(UserError):
  """An unusable text; the message says which and why."""


class UnknownWordsWarning(UserWarning):
  """The warning that a text holds words which the vocabulary lacks."""


class Tokens(NamedTuple):
  """N texts of T tokens: ids [N, T] int32, mask [N, T] bool, position of the first [MASK] [N]."""

  ids: np.ndarray
  mask: np.ndarray
  place: np.ndarray


def listed(texts: str | Iterable[str]) -> list[str]:
  """Returns one text, or several, as a list; raises TextError if it is neither."""
  if not isinstance(texts, Iterable):
    raise TextError(f'expected a text, or several, got {type(texts).__name__} {texts!r}')
  return [texts] if isinstance(texts, str) else list(texts)


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
  """Tokenises texts of a user; warns of words that are cut off or unknown.

  Raises:
    TextError: a text is empty, not a string, or not UTF-8.
  """
  for text in texts:
    if not isinstance(text, str):
      raise TextError(f'expected a text, got {type(text).__name__} {text!r}')
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise TextError(f'{text!r} is not UTF-8: give a text in that encoding') from error
  if not texts:
    return Tokens(np.zeros((0, 1), np.int32), np.zeros((0, 1), bool), np.zeros(0, np.int32))
  ids, _ = tokenizer(texts)
  mask = ids != tokenizer.pad_id
  length, strange = ids.shape[1], tokenizer.strange(ids)
  for text, real, odd in zip(texts, mask.sum(1), strange, strict=True):
    if real == 2:  # [CLS] and [SEP]
      raise TextError(f'{text!r} is empty: give a text with words')
    if real < length and not odd:
      continue
    unknown, (_, cut) = tokenizer.unknown(text), tokenizer.read(text)
    if unknown:
      warnings.warn(
        f"{text!r} holds {', '.join(map(repr, unknown))}: not in the model's vocabulary, so it "
        'means nothing to it',
        UnknownWordsWarning,
        stacklevel=3,
      )
    if cut:
      warnings.warn(
        f'{text!r} is cut to {length} tokens, as in training: {cut!r} is not read', stacklevel=3
      )
  return Tokens(ids, mask, (ids == tokenizer.mask_id).argmax(1))


@dataclasses.dataclass(frozen=True)
class Masked:
  """N texts of T tokens, with at most M tokens hidden in each.

  Attributes:
    ids: [N, T] int32 with hidden tokens replaced.
    position: [N, M] int32, positions of the hidden tokens; 0 in unused places.
    target: [N, M] int32, the tokens that were hidden.
    weight: [N, M] float32, 1 for a hidden token and 0 for an unused place.
  """

  ids: np.ndarray
  position: np.ndarray
  target: np.ndarray
  weight: np.ndarray


def hiding_places(length: int, share: float) -> int:
  """Returns M, the most tokens that `hide_words` hides in a text of `length` tokens."""
  return int(np.ceil(share * (length - 2)))  # [CLS] and [SEP] are never hidden.


def hide_words(
  ids: np.ndarray,
  hideable: np.ndarray,
  draws: np.ndarray,
  share: float,
  tokenizer: Tokenizer,
  *,
  least: int = 0,
) -> Masked:
  """Hides tokens as BERT does (section 3.3): 80% [MASK], 10% another token, 10% unchanged.

  Of n hideable tokens of a text, `share * n` are hidden on average (rounded at random), so at most
  M = ceil(share * (T - 2)).

  Args:
    ids: [N, T] int32.
    hideable: [N, T] bool, False for special tokens, padding and tokens to keep.
    draws: [N, 2 T + 1] float64, uniform in [0, 1): all random draws.
    share: share of the tokens to hide.
    tokenizer: other tokens are drawn from its vocabulary.
    least: tokens that are hidden in a text at least, if it has as many that may be.
  """
  n, t = ids.shape
  slots = hiding_places(t, share)
  order, fate, rounding = draws[:, :t], draws[:, t : 2 * t], draws[:, -1]
  available = hideable.sum(1)
  count = np.floor(share * available + rounding).astype(int)
  count = np.maximum(count, np.minimum(least, available))
  position = np.argsort(np.where(hideable, order, 2.0), axis=1)[:, :slots].astype(np.int32)
  weight = (np.arange(slots) < count[:, None]).astype(np.float32)
  position = np.where(weight > 0, position, 0)
  row = np.arange(n)[:, None]
  target, fate = ids[row, position], fate[row, position]
  ordinary = np.flatnonzero(~tokenizer.special)
  # The last tenth of `fate` also chooses the other token, so one draw is enough.
  other = ordinary[((fate - 0.9) * 10 * len(ordinary)).clip(0, len(ordinary) - 1).astype(int)]
  shown = np.where(fate < 0.8, tokenizer.mask_id, np.where(fate < 0.9, target, other))
  hidden = ids.copy()
  i, j = np.nonzero(weight)
  hidden[i, position[i, j]] = shown[i, j]
  return Masked(hidden, position, np.where(weight > 0, target, 0).astype(np.int32), weight)
