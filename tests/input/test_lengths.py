"""Lengths of texts, and which are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.scenes import vocabulary
from pixelbert_jax.input import lengths
from pixelbert_jax.input.lengths import Cut
from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.text import Tokenizer


def packed(texts: list[str]) -> Ragged:
  return Ragged.of((text.encode() for text in texts), np.uint8)


TEXTS = st.lists(
  st.lists(
    st.sampled_from(
      ['a', 'Red', 'circle', 'zebra', '0', ' ', '\t', '.', '[', ']', '[MASK]', 'é', '中', '\x00']
    )
    | st.text(max_size=3),
    max_size=12,
  ).map(''.join),
  min_size=1,
  max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, length=st.integers(3, 14))
def test_texts_are_counted_as_they_are_tokenised(texts, length):
  tokens = [int((ids != 0).sum()) for ids in Tokenizer(vocabulary.FILE, 400)(texts)[0]]
  tokens = [n + text.count('[PAD]') for n, text in zip(tokens, texts, strict=True)]
  tokenizer = Tokenizer(vocabulary.FILE, length)
  assert tokenizer.count(texts) == tokens
  found = lengths.cut(packed(texts), tokenizer)
  assert (found.texts, found.exact) == (len(texts), True)
  assert found.cut == sum(n > length for n in tokens)
  assert found.longest == max(*tokens, length)


@given(texts=TEXTS)
@settings(max_examples=100, deadline=None)
def test_words_are_no_more_than_tokens(texts):
  ascii_only = [''.join(c for c in text if ' ' <= c <= 'Z' or 'a' <= c <= '~') for text in texts]
  tokens = np.array(Tokenizer(vocabulary.FILE, 8).count(ascii_only))
  found = lengths.words(packed(ascii_only))
  assert (found + 2 <= tokens).all()


def test_words_and_punctuation_marks_are_counted():
  texts = ['', 'a', ' a  red circle. ', "it's", 'b', 'x-y', 'Größe 3']
  assert lengths.words(packed(texts)).tolist() == [0, 1, 4, 3, 1, 3, 2]


@pytest.fixture
def text():
  """A thousand short texts and some longer ones."""
  return packed(['a red circle'] * 992 + ['a red circle and a blue star'] * 5 + ['star ' * 30] * 3)


def test_what_reads_nearly_all_and_all(text):
  tokenizer = Tokenizer(vocabulary.FILE, 6)
  assert lengths.cut(text, tokenizer) == Cut(1000, 8, True, 6, 32)
  assert lengths.cut(text, tokenizer, most=4) == Cut(1000, 8, False, 6, 32)
  shorter = Tokenizer(vocabulary.FILE, 4)
  assert lengths.cut(text, shorter) == Cut(1000, 1000, True, 5, 32)
  line = lengths.summary({'train': text, 'val': packed(['a'])}, shorter, 512)
  assert '1,000 of 1,000 texts of train (100.00%), to text.length=4 tokens' in line
  assert '--config.text.length=5 reads 99% whole, --config.text.length=32 reads all whole' in line
  assert 'val' not in line
  assert '\n' not in line
  assert '(transformer.max_positions is 16)' in lengths.summary({'train': text}, shorter, 16)
  whole = lengths.summary({'train': text}, Tokenizer(vocabulary.FILE, 32), 512)
  assert whole == 'cut         no text has more than the 32 tokens of text.length'


def test_an_empty_split():
  assert lengths.cut(packed([]), Tokenizer(vocabulary.FILE, 8)) == Cut(0, 0, True, 8, 8)
