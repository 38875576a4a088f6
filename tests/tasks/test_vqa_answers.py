"""The answers of VQA: the published list, soft targets."""

import json

import numpy as np
import pytest

from data.vqa_v2.answers import is_published
from pixelbert_jax.input.rows import Question, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.score.vqa import accuracy, normalise
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


def test_without_questions_there_is_nothing_to_guess():
  assert answers.guess_by_type(Sidecar.of([Row('a', 3, 4)]).questions, ['yes']) == {}
