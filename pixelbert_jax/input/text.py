"""Texts: WordPiece tokens, and the words hidden for masked language modelling."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from tokenizers import BertWordPieceTokenizer

from pixelbert_jax import UserError

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


class Tokenizer:
  """BERT's uncased WordPiece over a vocabulary file of one entry a line.

  Attributes:
    words: [V] the entries.
    special: [V] bool, which of them are BERT's special tokens (and '[unused..]').
  """

  def __init__(self, vocabulary: str | pathlib.Path, length: int):
    """Reads `vocabulary`; texts are cut to `length` tokens, [CLS] and [SEP] counted."""
    path = pathlib.Path(vocabulary)
    if not path.is_file():
      raise UserError(f'text.vocabulary: no file {str(vocabulary)!r}; give the path of a vocab.txt')
    # Not `splitlines`: an entry may be one of Unicode's line separators.
    text = path.read_text(encoding='utf-8', errors='replace')
    self.words = text.removesuffix('\n').split('\n')
    missing = [t for t in SPECIAL if t not in self.words]
    if missing:
      raise UserError(f'text.vocabulary: {path} has no {", ".join(missing)}: not a BERT vocabulary')
    self._tokenizer = BertWordPieceTokenizer(str(path), lowercase=True)
    self._tokenizer.enable_truncation(length)
    self._tokenizer.enable_padding(length=length, pad_id=self.words.index('[PAD]'))
    self.mask_id, self.pad_id = self.words.index('[MASK]'), self.words.index('[PAD]')
    self.special = np.array(
      [w.startswith('[') and w.endswith(']') and len(w) > 2 for w in self.words]
    )

  def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokenises N texts.

    Returns:
      ids [N, T] int32, and word [N, T] int32: which blank- or punctuation-separated word of the
      text a token belongs to, -1 for special tokens and padding.
    """
    encodings = self._tokenizer.encode_batch(list(texts))
    ids = np.array([e.ids for e in encodings], np.int32)
    word = np.array([[-1 if w is None else w for w in e.word_ids] for e in encodings], np.int32)
    # [UNK] is a word to the library, but nothing to hide or predict.
    return ids, np.where(self.special[ids], -1, word)


@dataclasses.dataclass(frozen=True)
class Masked:
  """Texts with words hidden. N texts of T tokens with at most M hidden.

  Attributes:
    ids: [N, T] int32 with hidden tokens replaced.
    position: [N, M] int32, where; 0 in unused places.
    target: [N, M] int32, the token that stood there.
    weight: [N, M] float32, 1 for a hidden token and 0 for an unused place.
  """

  ids: np.ndarray
  position: np.ndarray
  target: np.ndarray
  weight: np.ndarray


def hide_words(
  ids: np.ndarray, hideable: np.ndarray, draws: np.ndarray, share: float, tokenizer: Tokenizer
) -> Masked:
  """Hides tokens as BERT does (section 3.3): 80% [MASK], 10% another token, 10% unchanged.

  A text of n tokens has `share * n` of them hidden on average (rounded at random), so at most
  M = ceil(share * (T - 2)), and none is special.

  Args:
    ids: [N, T] int32.
    hideable: [N, T] bool, False for special tokens, padding and what shall stay.
    draws: [N, 2 T + 1] float64, uniform in [0, 1): the only source of chance.
    share: of the tokens to hide.
    tokenizer: whose vocabulary other tokens come from.
  """
  n, t = ids.shape
  order, fate, rounding = draws[:, :t], draws[:, t : 2 * t], draws[:, -1]
  count = np.floor(share * hideable.sum(1) + rounding).astype(int)
  slots = int(np.ceil(share * (t - 2)))
  position = np.argsort(np.where(hideable, order, 2.0), axis=1)[:, :slots].astype(np.int32)
  weight = (np.arange(slots) < count[:, None]).astype(np.float32)
  position = np.where(weight > 0, position, 0)
  row = np.arange(n)[:, None]
  target, fate = ids[row, position], fate[row, position]
  ordinary = np.flatnonzero(~tokenizer.special)
  # The last tenth of `fate` names the other token, so that one draw decides all.
  other = ordinary[((fate - 0.9) * 10 * len(ordinary)).clip(0, len(ordinary) - 1).astype(int)]
  shown = np.where(fate < 0.8, tokenizer.mask_id, np.where(fate < 0.9, target, other))
  hidden = ids.copy()
  i, j = np.nonzero(weight)
  hidden[i, position[i, j]] = shown[i, j]
  return Masked(hidden, position, np.where(weight > 0, target, 0).astype(np.int32), weight)
