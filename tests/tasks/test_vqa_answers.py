"""The answers of VQA: the published list, soft targets."""

import json

import numpy as np
import pytest

from data.vqa_v2.answers import is_published
from pixelbert_jax.input.rows import Question, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.score.vqa import OFFICIAL, SHARES, accuracy, normalise
from pixelbert_jax.tasks import answers
from tests.support.paths import shared


def test_published_answers_are_normalised():
  golden = json.loads(shared('vqa_v2_answers_3129.json').read_text())
  assert len(golden) == 3129
  assert [answer for answer in golden if normalise(answer) != answer] == []
  assert is_published(list(golden)[::-1])
  assert not is_published(list(golden)[1:])


def asked(best: list[str], given: list[list[str]] | None = None) -> Sidecar:
  """A split with a question for each of the best answers."""
  given = given or [[answer] * 10 for answer in best]
  questions = [
    Question('what?', i, ten, answer)
    for i, (answer, ten) in enumerate(zip(best, given, strict=True))
  ]
  return Sidecar.of([Row('a', 3, 4, questions=questions)])


def test_answer_list_counts_normalised_answers_over_both_splits():
  train = asked(['Yes'] * 5 + ['no'] * 8 + ['the'] * 9 + ['two'] * 4 + ['2'] * 4)
  val = asked(['yes'] * 5 + ['2'] * 3 + ['rare'] * 8)
  tables = [train.questions, val.questions]
  assert answers.answer_list(tables) == ['2', 'yes', '']
  assert answers.answer_list(tables, least=8) == ['2', 'yes', '', 'no', 'rare']


def test_questions_without_answers_do_not_count():
  hidden = Sidecar.of([Row('a', 3, 4, questions=[Question('what?', i) for i in range(20)])])
  assert answers.answer_list([hidden.questions]) == []


def test_soft_targets():
  given = [
    ['yes'] * n + ['Two', '2', 'two'][: 10 - n] + ['unknown'] * (7 - n) for n in range(8)
  ] + [['unknown'] * 10]
  questions = asked(['yes'] * 9, given).questions
  words = ['2', 'no', 'yes']
  numbers = answers.answer_numbers(questions, words)
  target = answers.soft_targets(questions, numbers, range(9), len(words))
  assert target.dtype == np.float32
  np.testing.assert_allclose(target[:, 2], [0, 0.3, 0.6, 0.9, 1, 1, 1, 1, 0])
  np.testing.assert_allclose(target[:, 0], [0.9] * 8 + [0])
  assert not target[:, 1].any()
  # Kept, with nothing to learn from.
  assert not target[8].any()
  np.testing.assert_array_equal(answers.soft_targets(questions, numbers, [3], 3), target[3:4])


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    (['yes'] * 12, 1),
    (['yes', 'yes'], 1 / 3),
    (['yes', 'no'], 1 / 6),
    (['yes'] * 3 + ['no'], 0.75),
  ],
)
def test_targets_are_the_official_accuracy_of_any_number_of_answers(given, expected):
  questions = asked(['yes'], [given]).questions
  numbers = answers.answer_numbers(questions, ['yes'])
  target = answers.soft_targets(questions, numbers, [0], 1)
  assert target.item() == pytest.approx(expected)
  assert target.item() == pytest.approx(accuracy('yes', given))


def test_a_single_annotator_is_right_in_training_though_the_official_rule_never_says_so():
  questions = asked(['?'] * 3, [['Green.'], ['two'], ['mauve']]).questions
  words = ['green', '2']
  numbers = answers.answer_numbers(questions, words)
  target = answers.soft_targets(questions, numbers, range(3), len(words))
  assert target.tolist() == [[1, 0], [0, 1], [0, 0]]
  assert accuracy('green', ['green']) == 0
  (line,) = answers.unreachable('train', questions, words, OFFICIAL)
  assert line == (
    'out of reach 1 of 3 questions of train, as answered by "mauve": the ceiling is 0.667'
  )
  (line,) = answers.unreachable('test', questions, words, OFFICIAL)
  assert line.startswith('out of reach 3 of 3 questions of test')


def test_without_questions_there_is_nothing_to_guess():
  assert answers.guess_by_type(Sidecar.of([Row('a', 3, 4)]).questions, ['yes']) == {}


# --- Scores of the best answers ------------------------------------------------------------


def test_the_best_score_is_that_of_the_best_answer_of_the_list():
  given = [
    ['a cat'] * 4 + ['dog'] * 3 + ['Bird'] * 3,
    ['Yes'] * 10,
    ['yes'] * 10,
    ['yes'] * 9 + ['Yes'],
    [],
  ]
  questions = asked(['?'] * 5, given).questions
  for words in (['cat', 'dog', 'bird', 'yes'], ['dog', 'cow', 'no'], ['cow']):
    expected = [max(accuracy(a, ten) for a in words) if ten else 0 for ten in given]
    assert answers.best_scores(questions, words).tolist() == expected
  assert answers.best_scores(questions, ['cat', 'yes']).tolist() == [1, 0, 1, 1, 0]
  assert answers.best_scores(questions, []).tolist() == [0] * 5
  assert answers.best_scores(asked([]).questions, ['cat']).tolist() == []


# --- One's own data ------------------------------------------------------------------------

DISTINCT = ['-5', '5', 'C++', 'C', 'A', 'T-shirt', 't shirt', 'two', '2', 'the', "don't", 'dont']


def test_own_answers_are_all_listed_as_most_wrote_them():
  given = [['Yes'], [' yes'], ['yes', 'YES'], ['no'], *([answer] for answer in DISTINCT)]
  found = answers.every_answer(asked(['?'] * len(given), given).questions)
  assert found[0] == 'yes'
  assert sorted(found) == sorted(['yes', 'no', *DISTINCT])


@pytest.mark.parametrize('alike', [1, 2, 3, 10])
def test_an_own_answer_that_all_annotators_gave_scores_1_and_all_others_0(alike):
  given = [[answer] * alike for answer in DISTINCT]
  questions = asked(DISTINCT, given).questions
  numbers = answers.answer_numbers(questions, DISTINCT, SHARES)
  chosen = range(len(DISTINCT))
  targets = answers.soft_targets(questions, numbers, chosen, len(DISTINCT), SHARES)
  np.testing.assert_array_equal(targets, np.eye(len(DISTINCT)))
  assert answers.best_scores(questions, DISTINCT, SHARES).tolist() == [1] * len(DISTINCT)


def test_where_own_annotators_differ_an_answer_scores_their_share():
  given = [['Red', 'red ', 'RED', 'crimson'], ['red', 'dark red']]
  questions = asked(['?'] * 2, given).questions
  numbers = answers.answer_numbers(questions, ['crimson', 'RED'], SHARES)
  targets = answers.soft_targets(questions, numbers, range(2), 2, SHARES)
  assert targets.tolist() == [[0.25, 0.75], [0, 0.5]]
  for i, said in enumerate(['crimson', 'Red']):
    scores = [SHARES.accuracy(said, few) for few in given]
    assert scores == targets[:, i].tolist()


# --- What a run is told --------------------------------------------------------------------


def test_answers_that_count_as_one_are_named():
  tables = [asked(['?'], [given]).questions for given in (['Yes', 'two', '2', 'no'], ['yes'])]
  (line,) = answers.spellings(tables, ['yes', '2', 'no'], OFFICIAL)
  assert line.startswith('same answer 2 in several forms: ')
  assert '"Yes" = "yes"' in line
  assert '"2" = "two"' in line
  (line,) = answers.spellings(tables, ['Yes', 'two', '2', 'no'], SHARES)
  assert line == 'same answer 1 in several forms: "Yes" = "yes"'
  assert answers.spellings(tables[:1], ['Yes', 'two', '2', 'no'], SHARES) == []


def test_questions_that_no_answer_of_the_list_scores_on_are_counted_and_named():
  given = [['red']] * 5 + [['crimson']] * 2 + [['Red', 'navy']] + [['é' * 40]]
  questions = asked(['?'] * 9, given).questions
  (line,) = answers.unreachable('test', questions, ['red'], SHARES)
  assert line == (
    'out of reach 3 of 9 questions of test, as answered by "crimson", '
    f'"{"é" * 27}...": the ceiling is 0.611'
  )
  assert answers.unreachable('test', questions, answers.every_answer(questions), SHARES) == []
  hidden = Sidecar.of([Row('a', 3, 4, questions=[Question('what?', 0)])]).questions
  assert answers.unreachable('test', hidden, ['red'], OFFICIAL) == []
