"""Numbers texts by what a model reads of them: equal numbers are equal token ids.

Case, accents, blanks and what is cut off make no difference. Tokenising millions of texts takes
minutes, so texts are compared as bytes, and tokenised only where these do not tell.
"""

from collections.abc import Sequence

import numpy as np

from pixelbert_jax.input.sidecar import Ragged
from pixelbert_jax.input.text import Tokenizer

CHUNK = 1 << 16  # texts at a time
WORD = 100  # characters; longer words are unknown to the tokeniser

# What each byte is read as: 0 for blanks, itself, or the character in lower case.
_READ = np.array([0 if chr(b) in '\t\n\r ' else b for b in range(256)], np.uint8)
_READ[65:91] += 32
# Of these only the tokeniser knows what they become: it drops control characters and accents, and
# takes '[MASK]' for its special token.
_STRANGE = np.array([not 32 < b < 127 or chr(b) == '[' for b in range(256)]) & (_READ > 0)
_OF_WORDS = np.array([b < 128 and chr(b).isalnum() for b in range(256)])


def token_numbers(text: Ragged, tokenizer: Tokenizer) -> np.ndarray:
  """Numbers texts, [N] int64 below N, by their token ids: equal numbers are equal ids.

  As in `truth.text_numbers`, two texts that differ may collide with a probability of a millionth.
  """
  kept = tokenizer.length - 2  # without [CLS] and [SEP]
  whole, head, characters, strange = _hashes(text, kept)
  rows = np.arange(len(text)) if not tokenizer.reads_ascii else np.flatnonzero(strange)
  if len(rows):
    # As the tokeniser spells them, they are compared with the others.
    spelt = Ragged.of((s.encode() for s in _spelt(text, rows, tokenizer)), np.uint8)
    whole[rows], head[rows], characters[rows], _ = _hashes(spelt, kept)
  # A token has a character or more. So a text of fewer characters than tokens are kept is read
  # whole, and has other tokens than any longer one.
  long = np.flatnonzero(characters >= kept)
  key = whole
  if len(long):
    key[long] = _long_keys(text, long, whole[long], head[long], tokenizer)
  return np.unique(key, return_inverse=True)[1]


def _long_keys(
  text: Ragged, rows: np.ndarray, whole: np.ndarray, head: np.ndarray, tokenizer: Tokenizer
) -> np.ndarray:
  """Computes keys [R] uint64 of texts that may be cut.

  Where the first characters are those of no other text, so are the tokens. Of the others those are
  tokenised, one of each spelling, that fill all places: they may be cut.
  """
  _, first, spelling = np.unique(whole, return_index=True, return_inverse=True)
  _, group, size = np.unique(head[first], return_inverse=True, return_counts=True)
  key, shared = ~head[first], np.flatnonzero(size[group] > 1)
  factor = _factors(tokenizer.length)
  for begin in range(0, len(shared), CHUNK):
    some = shared[begin : begin + CHUNK]
    texts = [text.text(i) for i in rows[first[some]]]
    full = np.array(tokenizer.count(texts)) >= tokenizer.length
    key[some] = whole[first[some]]
    if full.any():
      ids, _ = tokenizer([texts[i] for i in np.flatnonzero(full)])
      key[some[full]] = ((ids.astype(np.uint64) + np.uint64(1)) * factor).sum(1)
  return key[spelling]


def _spelt(text: Ragged, rows: np.ndarray, tokenizer: Tokenizer) -> Sequence[str]:
  """Returns texts as the tokeniser reads them: words joined from tokens, special ones marked."""
  spelt, words = dict[str, str](), tokenizer.words
  texts = [text.text(i) for i in rows]
  distinct = list(dict.fromkeys(texts))
  for begin in range(0, len(distinct), CHUNK):
    some = distinct[begin : begin + CHUNK]
    for said, ids in zip(some, tokenizer(some)[0], strict=True):
      # Between [CLS] and the last [SEP]; a text may itself say '[PAD]'.
      ids = ids[1 : np.flatnonzero(ids != tokenizer.pad_id)[-1]]
      pieces = [f'\1{words[i]}' if tokenizer.special[i] else words[i] for i in ids]
      spelt[said] = ' '.join(pieces).replace(' ##', '')
  return [spelt[said] for said in texts]


def _factors(number: int) -> np.ndarray:
  """Draws odd numbers, [number] uint64; always the same."""
  return np.random.default_rng(0).integers(2**64, size=number, dtype=np.uint64) | np.uint64(1)


def _hashes(text: Ragged, kept: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Computes what texts are compared by, each [N].

  Returns:
    whole: uint64, hash of the characters and of where words end.
    head: uint64, hash of the first `kept` characters.
    characters: int64, their number, blanks aside.
    strange: bool, whether only the tokeniser knows what it reads.
  """
  lengths = np.diff(text.start)
  factor = _factors(int(lengths.max(initial=0)) + 1)
  whole, head = np.empty((2, len(text)), np.uint64)
  characters, strange = np.empty(len(text), np.int64), np.empty(len(text), bool)
  for first in range(0, len(text), CHUNK):
    rows = slice(first, min(first + CHUNK, len(text)))
    start = text.start[first : rows.stop + 1] - text.start[first]
    read = _READ[text.values[text.start[first] : text.start[rows.stop]]]
    solid = np.flatnonzero(read)
    character, begin = read[solid], np.searchsorted(solid, start)
    count = np.diff(begin)
    place = np.arange(len(solid)) - np.repeat(begin[:-1], count)
    in_word = _OF_WORDS[character]
    # Blanks matter between two words only; beside punctuation a word ends anyway.
    ends = np.zeros(len(solid), bool)
    ends[1:] = (np.diff(solid) > 1) & in_word[1:] & in_word[:-1] & (place[1:] > 0)
    weight = factor[place]
    code = character.astype(np.uint64)
    whole[rows] = _sums((code + (ends.astype(np.uint64) << np.uint64(8))) * weight, begin)
    whole[rows] += factor[count]
    head[rows] = _sums(np.where(place < kept, code * weight, np.uint64(0)), begin)
    characters[rows] = count
    strange[rows] = _sums(_STRANGE[character].astype(np.uint64), begin) > 0
    for row in np.flatnonzero(count > WORD).tolist():
      strange[first + row] |= max(map(len, text.text(first + row).split())) > WORD
  return whole, head, characters, strange


def _sums(values: np.ndarray, begin: np.ndarray) -> np.ndarray:
  """Sums values [n] uint64, modulo 2**64, from each of `begin` [R + 1] to the next: [R]."""
  running = np.append(np.uint64(0), np.cumsum(values))
  return running[begin[1:]] - running[begin[:-1]]
