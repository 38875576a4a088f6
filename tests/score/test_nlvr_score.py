"""NLVR's and NLVR2's scores: by hand, on the real annotations, against literal programs."""

import io
import json
import random
import zipfile

import pytest

from pixelbert_jax.score import annotations, nlvr, nlvr2
from tests.support.paths import shared


def real_nlvr2(split):
  return annotations.read_nlvr2(shared(f'nlvr2_{split}.json.gz'))


@pytest.fixture
def real_nlvr(tmp_path):
  path = shared('nlvr_dev.zip')
  unpacked = tmp_path / 'dev.json'
  with zipfile.ZipFile(path) as archive:
    unpacked.write_bytes(archive.read('nlvr/dev/dev.json'))
  return unpacked


def test_a_sentence_of_nlvr_is_the_first_number():
  assert nlvr.sentence('1572-0-3') == '1572'
  labels = {'12-0-0': True, '12-0-1': True, '12-1-0': False, '123-0-0': True}
  correct = nlvr.correct({'12-0-0': True, '12-0-1': True, '12-1-0': True, '123-0-0': True}, labels)
  # 123 is not 12; another example of the same sentence spoils it.
  assert nlvr.summarise(correct) == {'accuracy': 0.75, 'consistency': 0.5}


def test_a_sentence_of_nlvr2_is_split_set_and_last_number():
  group = nlvr2.sentence
  assert group('dev-850-0-0') == group('dev-850-3-0')
  assert len({group(f'{name}') for name in ('dev-850-0-0', 'dev-850-0-1', 'dev-85-0-0')}) == 3
  assert group('dev-850-0-0') != group('test1-850-0-0')
  # Where the fields end matters: these would be one if their characters were only joined.
  assert group('dev-11-0-1') != group('dev-1-1-11')


def test_nlvr2_by_hand():
  labels = {
    'dev-1-0-0': True,  # a pair of which one sentence is true and one false: balanced
    'dev-1-0-1': False,
    'dev-1-1-0': True,  # both true: unbalanced
    'dev-1-1-1': True,
    'dev-1-2-0': False,  # a pair with one sentence: in neither
    'dev-2-0-0': True,  # the same numbers in another set
  }
  predictions = labels | {'dev-1-1-1': False, 'dev-1-2-0': True}
  correct = nlvr.correct(predictions, labels)
  assert nlvr2.summarise(correct, labels) == {
    'accuracy': 4 / 6,
    'consistency': 1 / 3,  # of set 1 neither sentence, of set 2 the only one
    'balanced_accuracy': 1.0,
    # A subset is scored as if there were nothing else.
    'balanced_consistency': 1.0,
    'unbalanced_accuracy': 0.5,
    'unbalanced_consistency': 0.5,
  }


def test_what_is_left_of_published_splits_is_counted_and_other_splits_are_taken_as_they_are():
  assert nlvr2.partial(['test1-0-0-0', 'test1-0-0-1']) == '2 of 6,967 statements'
  assert nlvr2.partial(['test1-0-0-0', 'dev-0-0-0']) == '2 of 13,949 statements'
  assert nlvr2.partial(['mine-0-0-0']) == ''
  assert nlvr2.partial(real_nlvr2('dev')) == ''


def test_a_subset_that_is_empty_is_left_out():
  labels = {'dev-1-0-0': True, 'dev-1-1-0': False}
  assert nlvr2.summarise(nlvr.correct(labels, labels), labels) == {
    'accuracy': 1.0,
    'consistency': 1.0,
  }


@pytest.mark.parametrize(
  ('split', 'examples', 'sentences', 'balanced', 'unbalanced'),
  [('dev', 6982, 2018, 2300, 3562), ('test1', 6967, 1995, 2316, 3536)],
)
def test_sizes_of_nlvr2(split, examples, sentences, balanced, unbalanced):
  labels = real_nlvr2(split)
  assert len(labels) == examples
  assert len(set(map(nlvr2.sentence, labels))) == sentences
  found = nlvr2.subsets(labels)
  assert {name: len(set(ids)) for name, ids in found.items()} == {
    'balanced': balanced,
    'unbalanced': unbalanced,
  }
  # One image pair says nothing of its label in the balanced subset.
  assert sum(labels[name] for name in found['balanced']) == balanced / 2


def guesses(labels, rng, care):
  return {name: label if rng.random() < care else not label for name, label in labels.items()}


@pytest.mark.parametrize('care', [0.5, 0.8, 0.99])
def test_nlvr2_against_a_literal_program(care):
  labels = real_nlvr2('dev')
  predictions = guesses(labels, random.Random(0), care)
  csv = [f'{name},{value}' for name, value in predictions.items()]

  answers = dict(line.split(',') for line in csv)
  right, sentences = 0, {}
  for name, label in labels.items():
    split, image_set, _, number = name.split('-')
    key = (split, image_set, number)
    if answers[name] == str(label):
      right += 1
      sentences[key] = sentences.get(key, 0) + 0
    else:
      sentences[key] = sentences.get(key, 0) + 1
  whole = [key for key, wrong in sentences.items() if wrong == 0]

  summary = nlvr2.summarise(nlvr.correct(predictions, labels), labels)
  assert summary['accuracy'] == right / 6982
  assert summary['consistency'] == len(whole) / 2018
  assert 0 < summary['consistency'] < summary['accuracy'] < 1


@pytest.mark.parametrize('care', [0.5, 0.9, 0.995])
def test_nlvr_against_a_literal_program(real_nlvr, care):
  labels = annotations.read_nlvr(real_nlvr)
  assert len(labels) == 5934
  predictions = guesses(labels, random.Random(0), care)

  right, wrong, sentences = 0, set(), set()
  for line in io.StringIO(real_nlvr.read_text(encoding='utf-8')):
    example = json.loads(line)
    number = example['identifier'].partition('-')[0]
    sentences.add(number)
    for k in range(6):
      if str(predictions[f'{example["identifier"]}-{k}']).lower() == example['label']:
        right += 1
      else:
        wrong.add(number)

  summary = nlvr.summarise(nlvr.correct(predictions, labels))
  assert summary['accuracy'] == right / 5934
  assert summary['consistency'] == (len(sentences) - len(wrong)) / 267
  assert len(sentences) == 267


def test_the_majority_of_nlvr_dev(real_nlvr):
  labels = annotations.read_nlvr(real_nlvr)
  always_true = nlvr.summarise(nlvr.correct(dict.fromkeys(labels, True), labels))
  assert always_true['accuracy'] == pytest.approx(547 / 989)


def test_a_missing_prediction_is_an_error():
  with pytest.raises(KeyError):
    nlvr.correct({}, {'1-0-0': True})
