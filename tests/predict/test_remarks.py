"""What the command adds to the numbers: near ties, nothing likely, words that are not known."""

import pytest

from pixelbert_jax.predict import remarks


@pytest.mark.parametrize(
  ('probabilities', 'said'),
  [
    ([0.9, 0.8, 0.1], []),
    ([0.9, 0.81], ['All 2 answers nearly tie: the model prefers none of them.']),
    ([0.9, 0.9, 0.1], ['The first 2 answers tie: the model prefers none of them.']),
    ([0.9, 0.86, 0.82, 0.8], ['The first 3 answers nearly tie: the model prefers none of them.']),
    ([0.5], []),
    ([0.499, 0.1], ['No answer reaches 0.5: to this model none is likely.']),
    # As printed, they are 0.500 and 0.500.
    ([0.4998, 0.49951], ['All 2 answers tie: the model prefers none of them.']),
    (
      [0.3, 0.29],
      [
        'All 2 answers nearly tie: the model prefers none of them.',
        'No answer reaches 0.5: to this model none is likely.',
      ],
    ),
    (
      [0.00001, 0.0],
      [
        'All 2 answers tie: the model prefers none of them.',
        'No answer reaches 0.5: to this model none is likely.',
      ],
    ),
  ],
)
def test_ties_and_unlikely_answers(probabilities, said):
  assert remarks.remarks('answer', probabilities) == said


def test_texts_do_not_tie_and_any_of_them_may_be_likely():
  assert remarks.remarks('match', [0.1, 0.6]) == []
  assert remarks.remarks('match', [0.9, 0.9]) == []
  none = ['No text reaches 0.5: to this model none is likely.']
  assert remarks.remarks('match', [0.1, 0.4]) == none
  assert remarks.remarks('match', [0.4]) == none
  assert remarks.remarks('fill', [0.4, 0.1]) == [none[0].replace('text', 'word')]


def test_rows_with_unknown_words_are_marked_and_the_mark_explained():
  assert remarks.row('a cat', 0.1239, []) == '0.124  a cat'
  assert remarks.row('a yak', 0.1239, ['yak']) == '0.124* a yak'
  assert remarks.legend([[], []]) == []
  (line,) = remarks.legend([['yak', 'gnu'], [], ['yak']])
  assert line.startswith('* ')
  assert line.endswith("vocabulary and mean nothing to it: 'yak', 'gnu'")
