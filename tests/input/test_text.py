"""Texts: tokens and their words by hand, and the statistics of hidden words."""

import warnings

import numpy as np
import pytest

from pixelbert_jax import UserError
from pixelbert_jax.input.text import TextError, Tokenizer, hide_words, tokens_of

LENGTH = 12


@pytest.fixture(scope='module')
def tokenizer(vocabulary):
  return Tokenizer(vocabulary, LENGTH)


def spelled(tokenizer, text: str) -> tuple[list[str], list[int]]:
  """Tokens of a text without padding, and the word of each."""
  ids, word = tokenizer([text])
  assert ids.shape == word.shape == (1, LENGTH)
  assert ids.dtype == word.dtype == np.int32
  tokens = [tokenizer.words[i] for i in ids[0]]
  number = len([t for t in tokens if t != '[PAD]'])
  assert tokens[number:] == ['[PAD]'] * (LENGTH - number)
  assert (word[0, number:] == -1).all()
  return tokens[:number], word[0, :number].tolist()


@pytest.mark.parametrize(
  ('text', 'tokens', 'words'),
  [
    ('a red cat', 'a red cat', [0, 1, 2]),
    ('The  RÉD Cat', 'the red cat', [0, 1, 2]),
    ('cats, buses!', 'cat ##s , bus ##es !', [0, 0, 1, 2, 2, 3]),
    # A word with an unknown piece is unknown.
    ('played cats', '[UNK] cat ##s', [-1, 1, 1]),
    ('unplayed', 'un ##play ##ed', [0, 0, 0]),
    ('a zebra on street.', 'a [UNK] on street .', [0, -1, 2, 3, 4]),
    ('', '', []),
  ],
)
def test_tokens_and_their_words(text, tokens, words, tokenizer):
  assert spelled(tokenizer, text) == (['[CLS]', *tokens.split(), '[SEP]'], [-1, *words, -1])


def test_special_tokens_are_those_in_brackets(tokenizer):
  special = [w for w, s in zip(tokenizer.words, tokenizer.special, strict=True) if s]
  assert special == ['[PAD]', '[unused0]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  assert tokenizer.words[tokenizer.mask_id] == '[MASK]'
  assert tokenizer.words[tokenizer.pad_id] == '[PAD]'


def test_a_mask_in_a_text_is_the_token_and_no_word(tokenizer):
  found = spelled(tokenizer, 'a [MASK] cat')
  assert found == (['[CLS]', 'a', '[MASK]', 'cat', '[SEP]'], [-1, 0, -1, 2, -1])


def test_long_texts_are_cut_and_keep_their_end(tokenizer):
  tokens, words = spelled(tokenizer, 'the ' * 10)
  assert tokens == ['[CLS]', *['the'] * 10, '[SEP]']
  assert spelled(tokenizer, 'the ' * 11 + 'cat') == (tokens, words)
  # A word may be cut in two.
  tokens, words = spelled(tokenizer, 'the ' * 9 + 'cats')
  assert (tokens[-3:], words[-3:]) == (['the', 'cat', '[SEP]'], [8, 9, -1])


def test_texts_do_not_depend_on_their_neighbours(tokenizer):
  texts = ['a cat', 'the ' * 30, 'cats', '']
  ids, word = tokenizer(texts)
  for i, text in enumerate(texts):
    alone = tokenizer([text])
    np.testing.assert_array_equal(ids[i], alone[0][0])
    np.testing.assert_array_equal(word[i], alone[1][0])


def test_numbers_are_the_lines_of_the_file(tmp_path):
  entries = ['[PAD]', '[UNK]', 'a', '\u2028', '\x85', '[CLS]', '[SEP]', '[MASK]', 'cat']
  for end in ('\n', ''):
    path = tmp_path / 'vocab.txt'
    path.write_text('\n'.join(entries) + end, encoding='utf-8')
    tokenizer = Tokenizer(path, 5)
    assert tokenizer.words == entries
    assert tokenizer(['a cat'])[0].tolist() == [[5, 2, 8, 6, 0]]


def test_windows_line_ends_do_no_harm(tmp_path, vocabulary, tokenizer):
  path = tmp_path / 'vocab.txt'
  path.write_bytes(vocabulary.read_bytes().replace(b'\n', b'\r\n'))
  assert Tokenizer(path, LENGTH).words == tokenizer.words


@pytest.mark.parametrize('path', ['', 'nowhere/vocab.txt', '.'])
def test_no_vocabulary_file(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=rf"^text\.vocabulary: no file '{path}'.*vocab\.txt$"):
    Tokenizer(path, LENGTH)


@pytest.mark.parametrize(
  ('content', 'missing'),
  [
    (b'[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n', '[MASK]'),
    (b'<s>\n<pad>\n[UNK]\n[CLS]\n', '[PAD], [SEP], [MASK]'),
    (b'', '[PAD], [UNK], [CLS], [SEP], [MASK]'),
  ],
)
def test_a_file_that_is_no_vocabulary_of_bert(content, missing, tmp_path):
  path = tmp_path / 'vocab.txt'
  path.write_bytes(content)
  with pytest.raises(UserError) as error:
    Tokenizer(path, LENGTH)
  assert str(error.value) == f'text.vocabulary: {path} has no {missing}: not a BERT vocabulary'


SPECIAL = b'[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n'


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    (SPECIAL + b'a\rb\ncat\n', 'holds a lone CR in line 6'),
    (SPECIAL.replace(b'\n', b'\r'), 'holds a lone CR in line 1'),
    (SPECIAL + b'a\r\r\ncat\n', 'holds a lone CR in line 6'),
    (SPECIAL + b'a\n\r\ncat\n', 'has a blank line, 7'),
    (SPECIAL + b'a\n\ncat\n', 'has a blank line, 7'),
    (SPECIAL + b'a\n\n', 'has a blank line, 7'),
    (SPECIAL + b'a\n[MASK]\n', "has '[MASK]' twice, in lines 5 and 7"),
    (SPECIAL + b'a\nb\na\n', "has 'a' twice, in lines 6 and 8"),
    (SPECIAL + b'caf\xe9\n', 'is not UTF-8 in line 6'),
    (SPECIAL.decode().encode('utf-16'), 'is not UTF-8 in line 1'),
    (SPECIAL.decode().encode('utf-16-le'), 'holds a NUL in line 1'),
    (b'\x89PNG\r\n\x1a\n\xff\xfe\x00', 'is not UTF-8 in line 1'),
    (b'\xef\xbb\xbf' + SPECIAL, 'holds a byte order mark in line 1'),
    (SPECIAL + b'a\0\n', 'holds a NUL in line 6'),
    (SPECIAL + b'red bus\n', "has more than a word in line 6, 'red bus'"),
    (SPECIAL + b'cat\t12\n', "has more than a word in line 6, 'cat\\t12'"),
    (
      SPECIAL + b'a\nLondon\n##S\n',
      "is cased: it has 2 entries with capitals or accents ('London'",
    ),
    (
      SPECIAL + 'für\n'.encode(),
      "is cased: it has 1 entries with capitals or accents ('für'), but",
    ),
    (b'a\n' * (1 << 23) + b'b', 'is larger than 16,777,216 bytes'),
  ],
)
def test_a_vocabulary_that_libraries_read_differently(content, said, tmp_path):
  path = tmp_path / 'vocab.txt'
  path.write_bytes(content)
  with pytest.raises(UserError) as error:
    Tokenizer(path, LENGTH)
  assert str(error.value).startswith(f'text.vocabulary: {path} {said}')
  assert '\n' not in str(error.value)


def test_an_uncased_vocabulary_may_hold_what_only_looks_cased(tmp_path):
  """Letters without lower case or accents, and of 30,522 entries one that Unicode changed."""
  path = tmp_path / 'vocab.txt'
  entries = ['[unused1]', '[Unused2]', 'straße', 'ıø', '##か', '红']
  path.write_bytes(SPECIAL + '\n'.join(entries).encode() + b'\n')
  assert Tokenizer(path, LENGTH).words[5:] == entries
  many = [f'w{i}' for i in range(200)] + ['が']
  path.write_bytes(SPECIAL + '\n'.join(many).encode() + b'\n')
  assert Tokenizer(path, LENGTH).words[-1] == 'が'


# --- Texts that somebody gives -----------------------------------------------------------


@pytest.mark.parametrize(
  ('text', 'warned'),
  [
    ('a red cat [MASK]', []),
    ('a red cats unplayed', []),
    (
      'The 红色 Zebra, 红 cat',
      ["holds '红', '色', 'Zebra': not in the model's vocabulary, so it means nothing to it"],
    ),
    (
      'zebra ' + 'the ' * 10,
      [
        "holds 'zebra': not in the model's vocabulary, so it means nothing to it",
        "is cut to 12 tokens, as in training: 'the' is not read",
      ],
    ),
    ('the ' * 10 + 'zebra', ["is cut to 12 tokens, as in training: 'zebra' is not read"]),
  ],
)
def test_what_is_not_read_as_written_is_told(text, warned, tokenizer):
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    tokens = tokens_of(tokenizer, ['a cat', text])
  assert [str(w.message) for w in said] == [f'{text!r} {line}' for line in warned]
  np.testing.assert_array_equal(tokens.ids, tokenizer(['a cat', text])[0])


def test_a_text_of_other_bytes_than_utf8(tokenizer):
  text = b'\xff red'.decode(errors='surrogateescape')  # as of the command line
  with pytest.raises(TextError, match=r"^'\\udcff red' is not UTF-8"):
    tokens_of(tokenizer, ['a cat', text])


# --- Hidden words ------------------------------------------------------------------------


def hide(tokenizer, texts, share, draws):
  """`hide_words` where every ordinary token may be hidden; with it ids and what may be hidden."""
  ids, word = tokenizer(texts)
  return hide_words(ids, word >= 0, draws, share, tokenizer), ids, word >= 0


def draws_for(number: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).random((number, 2 * LENGTH + 1))


def within(count: float, number: float, share: float) -> bool:
  """Whether a count is within five deviations of a binomial one."""
  return abs(count - number * share) < 5 * np.sqrt(number * share * (1 - share)) + 1e-9


@pytest.fixture(scope='module')
def many(tokenizer):
  """Ids, what may be hidden and draws of 100,000 texts of 0 to 10 words, some unknown or cut."""
  rng = np.random.default_rng(1)
  words = ['a', 'red', 'cats', 'on', 'the', 'street', ',', 'dog', 'zebra', '[MASK]', 'unplayed']
  texts = [' '.join(rng.choice(words, n % 11)) for n in range(1000)]
  ids, word = (np.tile(x, (100, 1)) for x in tokenizer(texts))
  return ids, word >= 0, draws_for(len(ids))


@pytest.mark.parametrize('share', [0.15, 0.25])
def test_masks_of_100k_texts(share, many, tokenizer):
  ids, hideable, draws = many
  masked = hide_words(ids, hideable, draws, share, tokenizer)
  row, slot = np.nonzero(masked.weight)
  at = masked.position[row, slot]
  shown, target = masked.ids[row, at], masked.target[row, slot]

  # No place twice, nothing special, and everything else as it was.
  assert len(set(zip(row.tolist(), at.tolist(), strict=True))) == len(row)
  assert hideable[row, at].all()
  assert not tokenizer.special[target].any()
  np.testing.assert_array_equal(target, ids[row, at])
  restored = masked.ids.copy()
  restored[row, at] = target
  np.testing.assert_array_equal(restored, ids)

  # The share of each text rounded up or down, and on average exact.
  wanted, count = share * hideable.sum(1), masked.weight.sum(1)
  assert (abs(count - wanted) < 1).all()
  spread = ((wanted % 1) * (1 - wanted % 1)).sum()
  assert abs(count.sum() - wanted.sum()) < 5 * np.sqrt(spread)

  # 80% [MASK]; 10% another token, by chance the same now and then; 10% as it was.
  ordinary = int((~tokenizer.special).sum())
  assert within((shown == tokenizer.mask_id).sum(), len(row), 0.8)
  assert within((shown == target).sum(), len(row), 0.1 + 0.1 / ordinary)
  changed = (shown != tokenizer.mask_id) & (shown != target)
  assert not tokenizer.special[shown[changed]].any()

  # The other tokens are uniform over the ordinary ones.
  for token in np.flatnonzero(~tokenizer.special):
    could = (target != token).sum()
    assert within((changed & (shown == token)).sum(), could, 0.1 / ordinary), token


@pytest.mark.parametrize('least', [0, 1])
def test_a_word_of_every_short_text_is_hidden_if_asked(least, tokenizer):
  ids, word = tokenizer(['red', 'the red cat', '', 'the red cat on a'] * 5_000)
  masked = hide_words(ids, word >= 0, draws_for(len(ids)), 0.15, tokenizer, least=least)
  hidden = masked.weight.sum(1).reshape(-1, 4)
  assert not hidden[:, 2].any()
  assert (hidden[:, [0, 1, 3]].min(0) == least).all()
  means = hidden.mean(0)[[0, 1, 3]]
  # Without a least, 15% of the words; with it, at least one of each of these.
  np.testing.assert_allclose(means, 1 if least else 0.15 * np.array([1, 3, 5]), atol=0.03)


def test_every_word_is_hidden_as_often(tokenizer):
  number = 100_000
  ids, word = (np.tile(x, (number, 1)) for x in tokenizer(['the red cat on a blue bus']))
  masked = hide_words(ids, word >= 0, draws_for(number), 0.25, tokenizer)
  row, slot = np.nonzero(masked.weight)
  for at in range(1, 8):
    there = masked.position[row, slot] == at
    assert within(there.sum(), number, 0.25)
    # And what becomes of it is the same everywhere.
    shown = masked.ids[row[there], at]
    assert within((shown == tokenizer.mask_id).sum(), there.sum(), 0.8)


def test_places_are_as_many_as_the_longest_text_needs(tokenizer):
  texts = ['the ' * 10, 'a cat', '']
  for share, places in ((0.15, 2), (0.25, 3), (0.5, 5), (1.0, 10)):
    masked, _, hideable = hide(tokenizer, texts, share, draws_for(3))
    for x in (masked.position, masked.target, masked.weight):
      assert x.shape == (3, places)
    assert (masked.weight.sum(1) <= hideable.sum(1)).all()
    unused = masked.weight == 0
    assert (masked.position[unused] == 0).all()
    assert (masked.target[unused] == 0).all()
  assert masked.weight.sum(1).tolist() == [10, 2, 0]
  np.testing.assert_array_equal(masked.ids[2], tokenizer([''])[0][0])
  assert masked.ids.dtype == masked.position.dtype == masked.target.dtype == np.int32
  assert masked.weight.dtype == np.float32


def test_nothing_is_hidden_where_nothing_may_be(tokenizer):
  ids, word = tokenizer(['the red cat', 'the red cat'])
  hideable = word >= 0
  hideable[0] = False
  hideable[1, 1] = False
  masked = hide_words(ids, hideable, draws_for(2), 1.0, tokenizer)
  assert masked.weight.sum(1).tolist() == [0, 2]
  np.testing.assert_array_equal(masked.ids[0], ids[0])
  assert set(masked.position[1, :2].tolist()) == {2, 3}


def test_draws_are_the_only_chance(tokenizer):
  texts = ['the red cat on a street', 'a blue bus', 'dogs'] * 50
  draws = draws_for(len(texts))
  np.random.seed(0)  # noqa: NPY002 - the global state must not matter
  first, ids, _ = hide(tokenizer, texts, 0.25, draws)
  again, untouched, _ = hide(tokenizer, texts, 0.25, draws)
  np.testing.assert_array_equal(ids, untouched)
  # Each text's own draws, whatever texts come with it.
  tail, _, _ = hide(tokenizer, texts[60:], 0.25, draws[60:])
  other, _, _ = hide(tokenizer, texts, 0.25, draws_for(len(texts), seed=1))
  for field in ('ids', 'position', 'target', 'weight'):
    np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    np.testing.assert_array_equal(getattr(first, field)[60:], getattr(tail, field))
  assert (first.ids != other.ids).any()
