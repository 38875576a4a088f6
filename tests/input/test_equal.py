"""Texts that a model reads alike but for punctuation, found without tokenising all texts."""

import functools
import pathlib
import tempfile
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.scenes import vocabulary
from pixelbert_jax.input.equal import token_numbers
from pixelbert_jax.input.groups import Groups
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.truth import Truth
from pixelbert_jax.tasks.gallery import listed


@functools.cache
def tokenizer(length: int, complete: bool = True) -> Tokenizer:
  """The tokeniser of scenes, or one that knows neither 'b' nor digits."""
  if complete:
    return Tokenizer(vocabulary.FILE, length)
  words = [w for w in vocabulary.FILE.read_text().split('\n') if not set(w) & set('b0123456789')]
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'vocab.txt')
    path.write_text('\n'.join(words))
    return Tokenizer(path, length)


def packed(texts: list[str]) -> Ragged:
  return Ragged.of((text.encode() for text in texts), np.uint8)


def assert_as_tokens(texts: list[str], reader: Tokenizer) -> None:
  ids, _ = reader(texts)
  marks = np.array([len(w) == 1 and unicodedata.category(w)[0] in 'PS' for w in reader.words])
  ends = [np.flatnonzero(row != reader.pad_id)[-1] for row in ids]
  wanted = [tuple(row[:end][~marks[row[:end]]]) for row, end in zip(ids, ends, strict=True)]
  found = token_numbers(packed(texts), reader)
  assert found.max() < len(texts)
  same = found[:, None] == found
  np.testing.assert_array_equal(same, [[a == b for a in wanted] for b in wanted])


PIECES = st.sampled_from(
  ['a', 'A', 'red', 'Red', 'circle', 'b', '0', ' ', '  ', '\t', '.', ',', '-', '[', ']', '[MASK]',
   '[mask]', '[UNK]', 'é', 'e', 'É', 'ß', '中', '文', '😀', '\x00', '\x7f', '\u200b', '\xa0', '#',
   '##', 'x' * 101, 'x' * 102, '[PAD]']
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
  texts=st.lists(st.lists(PIECES, max_size=9).map(''.join), min_size=1, max_size=12),
  length=st.sampled_from([3, 5, 8, 40]),
  complete=st.booleans(),
)
def test_numbers_are_equal_where_tokens_are_but_for_punctuation(texts, length, complete):
  changed = [change(text) for text in texts[:3] for change in (str.upper, str.strip, str.lower)]
  assert_as_tokens([*texts, *changed, texts[0] + ' a red circle'], tokenizer(length, complete))


def test_texts_that_are_cut_equal_those_that_end_there():
  words = ['a', 'red', 'circle', 'and', 'a', 'blue', 'star']
  texts = [' '.join(words[:n]) for n in range(1, 8)] + ['a redcircle', 'a b c d e f', 'abcdef']
  for length in range(3, 12):
    assert_as_tokens(texts, tokenizer(length))


def test_millions_of_texts_take_seconds():
  import time

  rng = np.random.default_rng(0)
  said = rng.integers(97, 123, (100_000, 35), np.uint8)
  said[:, 5::6] = ord(' ')
  began = time.process_time()
  numbers = token_numbers(Ragged(said.reshape(-1), np.arange(100_001) * 35), tokenizer(40))
  assert len(np.unique(numbers)) == 100_000
  assert time.process_time() - began < 1


# --- Truth -------------------------------------------------------------------------------


def sidecar_of(captions: list[list[str]], claims: bool = False) -> Sidecar:
  """Images with these captions; with claims, each caption as it is written is one."""
  return Sidecar.of(
    [
      Row(
        f'{i}',
        64,
        64,
        [Caption(t, 10 * i + j, claim=t if claims else None) for j, t in enumerate(texts)],
        texts if claims else (),
      )
      for i, texts in enumerate(captions)
    ]
  )


@pytest.mark.parametrize('claims', [False, True])
def test_a_text_read_like_an_own_caption_is_true(claims):
  said = [['A red circle', 'a star'], ['a red circle'], ['a blue circle'], ['a red  circle .']]
  sidecar = sidecar_of(said, claims)
  texts, images = np.arange(5), np.repeat(np.arange(4), 5)
  found = {
    length: Truth(sidecar, length and tokenizer(length))(images, np.tile(texts, 4)).reshape(4, 5)
    for length in (0, 40, 5, 4)
  }
  plain = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]], bool)
  np.testing.assert_array_equal(found[0], plain)
  alike = plain.copy()
  # They differ in a capital or a full stop.
  alike[[0, 1, 0, 1, 3, 3], [2, 0, 4, 4, 0, 2]] = True
  np.testing.assert_array_equal(found[40], alike)
  np.testing.assert_array_equal(found[5], alike)
  # Cut to two words: 'a red', 'a star', 'a blue'.
  np.testing.assert_array_equal(found[4], alike)


@pytest.mark.parametrize('claims', [False, True])
def test_no_pair_is_called_untrue_whose_tokens_are_those_of_an_own_caption(claims):
  colours = ('red', 'blue', 'green', 'yellow')
  said = [f'a {colours[i % 4]} circle' for i in range(60)]
  said = [t if i // 4 % 2 else t.capitalize() for i, t in enumerate(said)]
  sidecar = sidecar_of([[text] for text in said], claims)
  own = {
    name: [(truth(np.full(60, i), np.arange(60))) for i in range(60)]
    for name, truth in {
      'read': Truth(sidecar, tokenizer(40)),
      'own': Truth(listed(sidecar), tokenizer(40)),
    }.items()
  }
  for i in range(60):
    alike = np.arange(60) % 4 == i % 4
    np.testing.assert_array_equal(own['read'][i], alike)
    np.testing.assert_array_equal(own['own'][i], alike)
  number = np.arange(60)
  groups = Groups(
    canvas=number * 0,
    image=number,
    text=number[:, None],
    matched=np.ones((60, 1), bool),
    weight=np.ones((60, 1), np.float32),
  )
  for seed in range(5):
    rng = np.random.default_rng(seed)
    after = Negatives(sidecar, Truth(sidecar, tokenizer(40)))(groups, rng)
    untrue = ~after.matched[:, 0] & (after.weight[:, 0] > 0)
    assert untrue.sum() == 30
    assert (after.text[untrue, 0] % 4 != number[untrue] % 4).all()
