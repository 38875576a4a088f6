"""Numbers texts by the words that a model reads of them.

Case, accents, blanks, punctuation and what is cut off make no difference. Tokenising millions of
texts takes minutes, so texts are compared as bytes, and tokenised only where these do not tell.
"""

import string
import unicodedata
from collections.abc import Sequence

import numpy as np

from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.text import Tokenizer

CHUNK = 1 << 16  # texts at a time
WORD = 100  # characters; longer words are unknown to the tokeniser

_SEEN = np.array([chr(b) not in '\t\n\r ' for b in range(256)])
_MARKS = np.array([chr(b) in string.punctuation for b in range(256)])
# What each byte is read as: 0 for blanks and punctuation, itself, or the character in lower case.
_READ = np.where(_SEEN & ~_MARKS, np.arange(256), 0).astype(np.uint8)
_READ[65:91] += 32
# Of these only the tokeniser knows what they become: it drops control characters and accents, and
# takes '[MASK]' for its special token.
_STRANGE = np.array([not 32 < b < 127 or chr(b) == '[' for b in range(256)]) & _SEEN
_OF_WORDS = np.array([b < 128 and chr(b).isalnum() for b in range(256)])


def token_numbers(text: Ragged, tokenizer: Tokenizer) -> np.ndarray:
  """Numbers texts, [N] int64 below N, by their tokens: of equal numbers only punctuation differs.

  As in `truth.text_numbers`, two texts that differ may collide with a probability of a millionth.
  """
  kept = tokenizer.length - 2  # without [CLS] and [SEP]
  whole, head, seen, marks, strange = _hashes(text, kept)
  strange |= marks > kept // 2  # Then two that read alike may differ in their first words.
  rows = np.arange(len(text)) if not tokenizer.reads_ascii else np.flatnonzero(strange)
  if len(rows):
    # As the tokeniser spells them, they are compared with the others.
    spelt = Ragged.of((s.encode() for s in _spelt(text, rows, tokenizer)), np.uint8)
    whole[rows], head[rows], seen[rows], *_ = _hashes(spelt, kept)
  # A token has a character or more. So a text of fewer characters than tokens are kept is read
  # whole.
  long = seen >= kept
  key = whole
  if long.any():
    # A longer one has more words, unless punctuation fills its places.
    few = np.unique(head[~long]) if marks[long].any() else np.zeros(0, np.uint64)
    known = (marks[long] > 0) & np.isin(head[long], few)
    rows = np.flatnonzero(long)
    key[long] = _long_keys(text, rows, tokenizer, whole=whole[long], head=head[long], known=known)
  return np.unique(key, return_inverse=True)[1]


def _long_keys(
  text: Ragged,
  rows: np.ndarray,
  tokenizer: Tokenizer,
  *,
  whole: np.ndarray,
  head: np.ndarray,
  known: np.ndarray,
) -> np.ndarray:
  """Computes keys [R] uint64 of texts that may be cut.

  Where the first characters are those of no other text, so are the words. The others, also those
  whose first characters a short text has (`known` [R] bool), are tokenised, one of each spelling;
  those that fill all places may be cut.
  """
  _, first, spelling = np.unique(whole, return_index=True, return_inverse=True)
  _, group, size = np.unique(head[first], return_inverse=True, return_counts=True)
  key, shared = ~head[first], np.flatnonzero((size[group] > 1) | known[first])
  for begin in range(0, len(shared), CHUNK):
    some = shared[begin : begin + CHUNK]
    texts = [text.text(i) for i in rows[first[some]]]
    full = np.array(tokenizer.count(texts)) >= tokenizer.length
    key[some] = whole[first[some]]
    if full.any():
      spelt = _spelt(text, rows[first[some[full]]], tokenizer)
      key[some[full]], *_ = _hashes(Ragged.of((s.encode() for s in spelt), np.uint8), 0)
  return key[spelling]


def _spelt(text: Ragged, rows: np.ndarray, tokenizer: Tokenizer) -> Sequence[str]:
  """Returns texts as the tokeniser reads them: words joined from tokens, special ones marked.

  Punctuation is left out.
  """
  spelt, words = dict[str, str](), tokenizer.words
  texts = [text.text(i) for i in rows]
  distinct = list(dict.fromkeys(texts))
  for begin in range(0, len(distinct), CHUNK):
    some = distinct[begin : begin + CHUNK]
    for said, ids in zip(some, tokenizer(some)[0], strict=True):
      # Between [CLS] and the last [SEP]; a text may itself say '[PAD]'.
      ids = ids[1 : np.flatnonzero(ids != tokenizer.pad_id)[-1]]
      pieces = [f'\1{words[i]}' if tokenizer.special[i] else words[i] for i in ids]
      pieces = [p for p in pieces if not (len(p) == 1 and unicodedata.category(p)[0] in 'PS')]
      spelt[said] = ' '.join(pieces).replace(' ##', '')
  return [spelt[said] for said in texts]


def _factors(number: int) -> np.ndarray:
  """Draws odd numbers, [number] uint64; always the same."""
  return np.random.default_rng(0).integers(2**64, size=number, dtype=np.uint64) | np.uint64(1)


def word_hashes(text: Ragged) -> tuple[np.ndarray, np.ndarray]:
  """Hashes the words of N texts, in lower case: [W] uint64, and the number of words of each [N]."""
  hashes, count = [], np.empty(len(text), np.int64)
  for first in range(0, len(text), CHUNK):
    rows = slice(first, min(first + CHUNK, len(text)))
    begin = text.start[first]
    read = _READ[text.values[begin : text.start[rows.stop]]]
    row = np.repeat(np.arange(rows.stop - first), np.diff(text.start[first : rows.stop + 1]))
    # The first character of a word follows a blank, punctuation or another text.
    starts = read > 0
    starts[1:] &= (read[:-1] == 0) | (row[1:] != row[:-1])
    place = np.flatnonzero(starts)
    number = np.cumsum(starts) - 1
    within = np.arange(len(read)) - place[number] if len(place) else np.zeros(0, int)
    weight = np.where(read > 0, _factors(int(within.max(initial=0)) + 1)[within.clip(0)], 0)
    hashes.append(_sums(read.astype(np.uint64) * weight, np.append(place, len(read))))
    count[rows] = np.bincount(row[place], minlength=rows.stop - first)
  return np.concatenate([np.zeros(0, np.uint64), *hashes]), count


def _hashes(text: Ragged, kept: int) -> tuple[np.ndarray, ...]:
  """Computes what texts are compared by, each [N].

  Returns:
    whole: uint64, hash of the characters and of where words end, punctuation left out.
    head: uint64, hash of the first `kept // 2` of these characters.
    seen: int64, the number of characters, blanks aside.
    marks: int64, how many of them are punctuation.
    strange: bool, whether only the tokeniser knows what it reads.
  """
  lengths = np.diff(text.start)
  factor = _factors(int(lengths.max(initial=0)) + 1)
  whole, head = np.empty((2, len(text)), np.uint64)
  seen, marks = np.empty((2, len(text)), np.int64)
  strange = np.empty(len(text), bool)
  for first in range(0, len(text), CHUNK):
    rows = slice(first, min(first + CHUNK, len(text)))
    start = text.start[first : rows.stop + 1] - text.start[first]
    written = text.values[text.start[first] : text.start[rows.stop]]
    read = _READ[written]
    solid = np.flatnonzero(read)
    character, begin = read[solid], np.searchsorted(solid, start)
    count = np.diff(begin)
    place = np.arange(len(solid)) - np.repeat(begin[:-1], count)
    in_word = _OF_WORDS[character]
    # Blanks and punctuation matter between two words only.
    ends = np.zeros(len(solid), bool)
    ends[1:] = (np.diff(solid) > 1) & in_word[1:] & in_word[:-1] & (place[1:] > 0)
    weight = factor[place]
    code = character.astype(np.uint64)
    whole[rows] = _sums((code + (ends.astype(np.uint64) << np.uint64(8))) * weight, begin)
    whole[rows] += factor[count]
    head[rows] = _sums(np.where(place < kept // 2, code * weight, np.uint64(0)), begin)
    seen[rows], marks[rows] = (
      _sums(table[written].astype(np.uint64), start) for table in (_SEEN, _MARKS)
    )
    strange[rows] = _sums(_STRANGE[written].astype(np.uint64), start) > 0
    for row in np.flatnonzero(seen[rows] > WORD).tolist():
      strange[first + row] |= max(map(len, text.text(first + row).split())) > WORD
  return whole, head, seen, marks, strange


def _sums(values: np.ndarray, begin: np.ndarray) -> np.ndarray:
  """Sums values [n] uint64, modulo 2**64, from each of `begin` [R + 1] to the next: [R]."""
  running = np.append(np.uint64(0), np.cumsum(values))
  return running[begin[1:]] - running[begin[:-1]]
