"""Changes of NLVR's pictures leave what is said of them true, or false."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from configs import nlvr
from data.boxes import boxes_dataset_builder, render, sentences, vocabulary, world
from data.build import build, open_dataset
from pixelbert_jax import UserError
from pixelbert_jax.experiment import Experiment, resolve
from pixelbert_jax.input import image
from pixelbert_jax.input.boxes import MISSPELT, ORDERS, Change
from pixelbert_jax.loop import DONE, PREEMPTED
from pixelbert_jax.train import train
from tests.support.boxes import CHANGES, changed, examples, meanings, plain
from tests.support.runs import assert_same_run, stop_at

pytestmark = pytest.mark.usefixtures('quick_compiles')

EXACT = 0.16  # of 255, on average; the smallest triangle in another colour would differ by 0.17


def differ(a, b):
  return np.abs(a.astype(float) - b).mean()


def drawn(number):
  return [world.sample(np.random.default_rng([7, i])) for i in range(number)]


# --- Pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_picture_shows_the_changed_items(change):
  for picture in drawn(4):
    found = change.picture(render.pixels(picture))
    assert differ(found, render.pixels(changed(picture, change))) < EXACT


def test_of_real_pictures_too():
  for example, change in zip(examples('dev')[::40], itertools.cycle(CHANGES)):
    shown = render.pixels(example.picture)
    pixels = min(example.pixels('dev'), key=lambda x: differ(x, shown))
    assert differ(pixels, shown) < EXACT
    expected = render.pixels(changed(example.picture, change))
    assert differ(change.picture(pixels), expected) < EXACT


def test_without_a_change_pixels_are_the_same():
  pixels = np.random.default_rng(0).integers(0, 256, (25, 100, 3), np.uint8)
  np.testing.assert_array_equal(Change((False,) * 3, ORDERS[0]).picture(pixels), pixels)


def test_the_images_of_an_example_are_all_orders_of_its_boxes():
  for example in examples('dev')[::80]:
    missing = []
    for order in itertools.permutations(example.picture):
      shown = render.pixels(order)
      missing.append(min(differ(x, shown) for x in example.pixels('dev')))
    assert max(missing) < EXACT


# --- Sentences -----------------------------------------------------------------------------


def test_what_is_said_stays_true_or_false():
  for picture, change in zip(drawn(16), CHANGES * 2, strict=True):
    tower = world.is_tower(picture)
    before, after = meanings(tower), changed(picture, change)
    for text, true in list(before.items())[:: 1 if tower else 7]:
      assert before[change.sentence(text)](after) == true(picture), text


def test_labels_of_people_hold_of_the_changed_pictures():
  known, right = 0, 0
  for example in examples('dev') + examples('test'):
    meaning = meanings(world.is_tower(example.picture))
    if plain(example.sentence) in meaning:
      for change in CHANGES:
        known += 1
        said = meaning[plain(change.sentence(example.sentence))]
        right += said(changed(example.picture, change)) == example.label
  assert known > 400 * len(CHANGES)
  assert right > 0.99 * known


def test_colours_are_exchanged_wherever_they_are_named():
  change = Change((False,) * 3, (1, 2, 0))  # black to yellow, yellow to blue, blue to black
  said = 'There are 2 Black items, ablue one and two yellows.'
  assert change.sentence(said) == 'There are 2 yellow items, ablack one and two blues.'


def test_a_change_leaves_out_what_a_sentence_may_not_allow():
  mirrored, order = (True, False, True), ORDERS[3]
  there = 'there is a tower'
  assert Change.of([there, there], mirrored, order) == (mirrored, order)
  sided = Change.of([there, 'an item touching the Right wall'], mirrored, order)
  assert sided == ((False,) * 3, order)
  assert Change.of(['a bule block', there], mirrored, order) == (mirrored, ORDERS[0])


def test_people_name_no_other_place_or_colour_than_is_known():
  words = {w for s in ('dev', 'test') for e in examples(s) for w in re.findall(r'\w+', e.sentence)}
  sides = {w for w in words if re.search('left|right|first|last|centre|center|beside', w, re.I)}
  assert {w.lower() for w in sides} == {'right'}
  odd = {w for w in words if re.match('b.?[lua]{1,2}|yel|gold|dark|cyan', w, re.I)}
  odd = {w for w in odd if not re.search('black|blue|yellow|block|ball', w, re.I)}
  assert {w for w in odd if not MISSPELT.search(w)} <= {
    'base',
    'bases',
    'below',
    'bellow',
    'blccks',
    'but',
  }


def test_its_vocabulary_has_the_words_of_generated_sentences_and_nearly_all_of_people():
  words = vocabulary.FILE.read_text().splitlines()
  assert words == vocabulary.tokens()
  said = [w for e in examples('dev') for w in plain(e.sentence).split()]
  assert np.mean([w in words for w in said]) > 0.98


# --- Batches -------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def few_boxes(tmp_path_factory):
  """The folder of a small dataset of boxes."""
  folder = tmp_path_factory.mktemp('boxes')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(boxes_dataset_builder, 'SPLITS', {'train': 24, 'val': 4, 'test': 4})
    build('boxes', folder)
  return folder


@pytest.fixture
def make(few_boxes):
  """Makes the batches of a split, with fields of the configuration changed."""

  def make(role, **fields):
    config = nlvr.get_config('nlvr')
    config.data.update(data_dir=str(few_boxes), name='boxes', train='train', test='test')
    config.data.validation = 'val'
    config.texts_per_image, config.batch_size, config.augment = 8, 32, 1.0
    config.update(fields)
    dataset = open_dataset('boxes', few_boxes)
    return Experiment.of(resolve(config), dataset).batches[role]

  return make


def words(batches, ids):
  return [batches.tokenizer.words[i] for i in ids if i != batches.tokenizer.pad_id]


def test_picture_and_sentences_change_together(make):
  unchanged, batches = make('train', augment=0.0), make('train', augment=1.0)
  orders = set()
  for number in range(len(batches)):
    before, after = unchanged[number], batches[number]
    np.testing.assert_array_equal(before['label'], after['label'])
    for row in range(len(before['image'])):
      pixels = before['image'][row, :100, :400]
      (change,) = {
        c.order: c
        for mirrored in itertools.product((False, True), repeat=3)
        for c in (Change(mirrored, order) for order in ORDERS)
        if (c.picture(pixels) == after['image'][row, :100, :400]).all()
      }.values()
      orders.add(change.order)
      for k, text in enumerate(before['statement'][row]):
        ids, _ = batches.tokenizer([change.sentence(unchanged.text(text))])
        np.testing.assert_array_equal(after['token_ids'][row, k], ids[0])
  assert len(orders) > 3


def test_changes_are_functions_of_seed_and_step(make):
  batches, again, other = make('train'), make('train'), make('train', seed=1)
  later = len(batches)  # the first batch of the second epoch
  for name in ('image', 'token_ids'):
    np.testing.assert_array_equal(batches[later][name], again[later][name])
    assert (batches[0][name] != other[0][name]).any()
  parts = dataclasses.replace(batches, micro_batches=2)
  for name in ('image', 'token_ids'):
    both = np.concatenate([parts[2][name], parts[3][name]])
    np.testing.assert_array_equal(both, batches[1][name])


def test_evaluation_changes_nothing(make):
  for name, x in make('test', augment=1.0)[0].items():
    np.testing.assert_array_equal(x, make('test', augment=0.0)[0][name])


@pytest.mark.parametrize('role', ['train', 'test'])
def test_baselines_see_one_of_the_two_alone(make, role):
  shown = make(role)[0]
  no_image, no_text = make(role, blank='image')[0], make(role, blank='text')
  assert (no_image['image'] == image.GREY).all()
  np.testing.assert_array_equal(no_image['token_ids'], shown['token_ids'])
  assert words(no_text, no_text[0]['token_ids'][0, 0]) == ['[CLS]', '[SEP]']
  np.testing.assert_array_equal(no_text[0]['image'], shown['image'])


def test_other_pictures_are_refused(dataset, few_scenes):
  config = nlvr.get_config('test')
  config.data.data_dir, config.augment = str(few_scenes), 0.5
  with pytest.raises(UserError, match=r'config\.augment is for pictures of three boxes'):
    len(Experiment.of(resolve(config), dataset).batches['train'])


def test_as_many_sentences_are_true_as_false():
  said = [
    label for i in range(40) for _, label in sentences.drawn(np.random.default_rng(i), drawn(40)[i])
  ]
  assert 0.4 < np.mean(said) < 0.6


# --- Runs ----------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_with_the_same_changes(few_boxes, tmp_path, monkeypatch):
  config = nlvr.get_config('test')
  config.data.update(data_dir=str(few_boxes), name='boxes')
  config.text.vocabulary = str(vocabulary.FILE)
  config.image.update(shorter=16, longer=64, canvases=((16, 64),), flip=0.5)
  config.text.length, config.augment, config.steps, config.eval_every = 24, 1.0, 8, 8
  assert train(config, tmp_path / 'whole') == DONE
  stop_at(monkeypatch, 3)
  assert train(config, tmp_path / 'stopped') == PREEMPTED
  assert train(config, tmp_path / 'stopped') == DONE
  assert_same_run(tmp_path / 'whole', tmp_path / 'stopped')
