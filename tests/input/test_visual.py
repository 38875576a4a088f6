"""Visual words: what an image determines, by enumeration of a toy grammar; guesses from text."""

import itertools

import numpy as np
import pytest

from pixelbert_jax.input.rows import VISUAL_KINDS, Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Masked
from pixelbert_jax.input.visual import KINDS, TextGuess, determined, visual_words

NUMBER = {kind: i + 1 for i, kind in enumerate(KINDS)}
MASK = 99


def sentences(things) -> set[tuple[str, ...]]:
  """All sentences of two toy shapes that are true of things (colour, shape, place)."""
  said = {('the', colour, shape, 'is', place) for colour, shape, place in things}
  return said | {
    ('a', *a[:2], 'and', 'a', *b[:2]) for a, b in itertools.permutations(sorted(things), 2)
  }


def mask(places) -> int:
  return sum(1 << place for place in places)


def subsets(number: int):
  """Every set of places of a sentence that is not empty."""
  for size in range(1, number + 1):
    yield from itertools.combinations(range(number), size)


@pytest.mark.parametrize('seed', range(4))
def test_determined_is_that_all_true_sentences_agree(seed):
  rng = np.random.default_rng(seed)
  every = list(itertools.product(['red', 'blue'], ['cat', 'dog', 'bus'], ['left', 'right']))
  things = [every[i] for i in rng.choice(len(every), 4, replace=False)]
  true = sentences(things)
  seen = set()
  for said in true:
    alike = [other for other in true if len(other) == len(said)]
    differing = [[i for i in range(len(said)) if said[i] != other[i]] for other in alike]
    rivals = np.array([mask(places) for places in differing if places], np.uint64)
    for hidden in subsets(len(said)):
      fitting = [
        other
        for other in alike
        if all(other[i] == said[i] for i in set(range(len(said))) - {*hidden})
      ]
      for place in hidden:
        agreed = {other[place] for other in fitting} == {said[place]}
        assert determined(rivals, mask(hidden), place) == agreed, (said, hidden, place)
        seen.add(agreed)
  assert seen == {True, False}


def test_determined_without_rivals_and_at_the_last_of_64_words():
  assert determined(np.zeros(0, np.uint64), 0b111, 1)
  last = np.array([1 << 63], np.uint64)
  assert not determined(last, 1 << 63, 63)
  assert determined(last, 1 << 63 | 1, 0)
  assert determined(last, 1 << 62, 62)


# --- Guesses from the text alone ---------------------------------------------------------


def split(*captions: Caption) -> Sidecar:
  """A split of one image with these captions."""
  return Sidecar.of([Row('image', 64, 64, captions)])


def guessed(guess: TextGuess, text: str, word: int) -> str:
  return guess(text.split(), word)


def test_guess_is_the_word_most_often_between_the_neighbours():
  texts = ['a red cat', 'a blue cat', 'a blue cat', 'a red dog', 'one red cat']
  guess = TextGuess(split(*(Caption(t, i, kinds='.cs') for i, t in enumerate(texts))))
  assert guessed(guess, 'a green cat', 1) == 'blue'
  assert guessed(guess, 'a green dog', 1) == 'red'
  assert guessed(guess, 'one green cat', 1) == 'red'
  # At the end of a sentence.
  assert guessed(guess, 'a red horse', 2) == 'cat'
  assert guessed(guess, 'a blue horse', 2) == 'cat'


def test_guess_knows_nothing_of_other_neighbours_or_words_that_are_not_visual():
  guess = TextGuess(split(Caption('a red cat', 0, kinds='.c.')))
  assert guessed(guess, 'the red cat', 1) == ''
  assert guessed(guess, 'a red cat', 0) == ''
  assert guessed(guess, 'a red cat', 2) == ''


def test_guess_of_a_split_without_kinds():
  assert guessed(TextGuess(split(Caption('a red cat', 0))), 'a red cat', 1) == ''


# --- Kinds of hidden places --------------------------------------------------------------

TWO = split(
  Caption('the red cat is left', 0, kinds='.cs.l', rivals=(0b00010, 0b10100)),
  Caption('two big dogs', 1, kinds='nzs'),
)
WORD = np.array([[-1, 0, 1, 2, 3, 4, -1], [-1, 0, 1, 2, -1, -1, -1]])


def hidden(*rows: list[tuple[int, int]]) -> Masked:
  """Texts whose ids are 10 + place; each row lists (place, token shown), at most four."""
  ids = np.tile(np.arange(10, 17, dtype=np.int32), (len(rows), 1))
  position, target = np.zeros((2, len(rows), 4), np.int32)
  weight = np.zeros((len(rows), 4), np.float32)
  for n, row in enumerate(rows):
    for slot, (place, shown) in enumerate(row):
      position[n, slot], target[n, slot], weight[n, slot] = place, ids[n, place], 1
      ids[n, place] = shown
  return Masked(ids, position, target, weight)


def kinds(sidecar, texts, masked, guess=None) -> tuple[list, list]:
  guess = guess or TextGuess(sidecar)
  kind, right = visual_words(
    sidecar, np.array(texts), WORD[texts], masked=masked, mask_id=MASK, guess=guess
  )
  assert kind.shape == right.shape == masked.position.shape
  assert (kind.dtype, right.dtype) == (np.int32, np.float32)
  return kind.tolist(), right.tolist()


def test_kinds_are_those_of_the_words():
  assert list(KINDS) == list(VISUAL_KINDS.values())
  kind, _ = kinds(TWO, [0, 1], hidden([(3, MASK)], [(1, MASK), (2, MASK), (3, MASK)]))
  assert kind[0] == [NUMBER['shape'], 0, 0, 0]
  assert kind[1] == [NUMBER['count'], NUMBER['size'], NUMBER['shape'], 0]


def test_words_that_are_not_visual_have_no_kind():
  kind, right = kinds(TWO, [0, 1], hidden([(1, MASK), (4, MASK)], []))
  assert kind == right == [[0] * 4] * 2


def test_only_places_that_show_the_mask_have_a_kind():
  # As it was, another token, and hidden.
  kind, _ = kinds(TWO, [0, 1], hidden([], [(1, 11), (2, 16), (3, MASK)]))
  assert kind[1] == [0, 0, NUMBER['shape'], 0]


def test_words_that_the_image_leaves_open_have_no_kind():
  # 'red' has a rival alone; 'cat' and 'left' only together.
  kind, _ = kinds(TWO, [0, 0], hidden([(2, MASK), (3, MASK)], [(3, MASK), (5, MASK)]))
  assert kind[0] == [0, NUMBER['shape'], 0, 0]
  assert kind[1] == [0, 0, 0, 0]


def test_a_word_that_shows_another_token_is_unknown_too():
  # 'left' is hidden, though by another token, so 'cat' has its rival.
  kind, _ = kinds(TWO, [0, 0], hidden([(3, MASK), (5, 16)], [(3, MASK)]))
  assert [row[0] for row in kind] == [0, NUMBER['shape']]


def test_guessed_says_where_the_text_alone_is_right():
  train = split(
    Caption('two small dogs', 0, kinds='nzs'),
    Caption('two small dogs', 1, kinds='nzs'),
    Caption('one big dogs', 2, kinds='nzs'),
    Caption('x big dogs', 3, kinds='..s'),
  )
  masked = hidden([(3, MASK)], [(1, MASK), (2, MASK), (3, MASK)])
  kind, right = kinds(TWO, [0, 1], masked, TextGuess(train))
  # 'two' is right of nothing before 'big'; 'small' was more frequent; 'dogs' ends after 'big'.
  assert right == [[0, 0, 0, 0], [0, 0, 1, 0]]
  assert kind[1][:3] == [NUMBER['count'], NUMBER['size'], NUMBER['shape']]


def test_datasets_that_do_not_know_what_they_show_have_no_kinds():
  plain = split(Caption('the red cat is left', 0), Caption('two big dogs', 1))
  kind, right = kinds(plain, [0, 1], hidden([(2, MASK)], [(1, MASK)]))
  assert kind == right == [[0] * 4] * 2
