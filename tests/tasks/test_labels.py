"""Labels: what they are, their loss and scores, and runs that train the CNN alone with them."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch

from configs import labels, pretrain
from data import build as build_lib
from data.builders import open_dataset
from data.scenes import record
from pixelbert_jax import UserError, predict, sharding
from pixelbert_jax.checkpoints import starting
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.experiment import Experiment, init_variables, resolve
from pixelbert_jax.input.rows import Row
from pixelbert_jax.input.selection import select
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.loop import DONE
from pixelbert_jax.main import main
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.labels import FILE, Labels, frequent_claims, true_labels
from pixelbert_jax.train import init_state, train
from tests.support import corpora
from tests.support.runs import metrics, short_config

STEPS = 8

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture(scope='module')
def make(few_scenes, dataset):
  """The batches of a split, with any field changed."""
  config = resolve(short_config(labels, few_scenes, STEPS))
  made = Experiment.of(config, dataset).batches

  def make(role, **fields):
    return dataclasses.replace(made[role], **fields)

  return make


@pytest.fixture(scope='module')
def finished(few_scenes, tmp_path_factory):
  """The workdir of a run that has learnt something, tested on all images that it has not seen."""
  config = short_config(labels, few_scenes, 60, eval_every=30)
  config.data.test = 'val+test'
  config.optimizer.update(cnn_rule='muon', cnn_rate=2e-2, transformer_rate=2e-2, clip_norm=0.0)
  workdir = tmp_path_factory.mktemp('labels') / 'run'
  assert train(config, workdir) == DONE
  return workdir


# --- The labels ----------------------------------------------------------------------------


def test_claims_that_are_true_of_hardly_any_image_or_of_nearly_all_are_no_labels():
  most = {'everywhere': 300, 'nearly': 298, 'often': 297, 'few': 3, 'hardly': 2}
  rows = [
    Row(f'{i}', 64, 64, claims=[claim for claim, n in most.items() if i < n]) for i in range(300)
  ]
  assert frequent_claims(Sidecar.of(rows)) == ['few', 'often']


def test_what_is_true_of_an_image_is_found_by_name_in_every_split(make, dataset):
  for role, name in (('train', 'train'), ('validation', 'val'), ('test', 'test')):
    batches, seen = make(role), []
    for number in range(len(batches)):
      batch, shown = batches[number], batches.plan(0).image[number]
      for row in np.flatnonzero(batch['weight'][:, 0]):
        seen.append(shown[row])
        place = record.Place('easy', name, int(shown[row]))
        assert dataset[name].sidecar.image_id[shown[row]].decode() == place.image_id
        true = {x for x, says in zip(batches.labels, batch['label'][row], strict=True) if says}
        assert true == set(record.example(place)['claims']) & set(batches.labels)
    assert len(set(seen)) == len(seen)
    assert role == 'train' or len(seen) == 10


def test_splits_that_are_joined_have_the_claims_of_both(dataset, make):
  known = make('train').labels
  both = true_labels(select(dataset, 'val+test').sidecar, known)
  each = [true_labels(dataset[name].sidecar, known) for name in ('val', 'test')]
  np.testing.assert_array_equal(both, np.concatenate(each))
  assert both.any()


def test_data_that_do_not_say_what_is_true_are_refused(tmp_path, capsys, few_scenes, vocabulary):
  files, _ = corpora.nlvr2({'train': 6, 'dev': 6, 'test1': 6})
  manual = corpora.as_folder(files, tmp_path / 'manual')
  assert build_lib.command(['nlvr2'], tmp_path, manual) == 0
  capsys.readouterr()
  config = short_config(labels, tmp_path, STEPS)
  config.data.update(name='nlvr2', validation='dev', test='test1')
  config.text.vocabulary = str(vocabulary)
  with pytest.raises(UserError, match='nlvr2 has no labels, since train has no claims') as error:
    Experiment.of(resolve(config), open_dataset('nlvr2', tmp_path))
  assert '\n' not in str(error.value)


# --- Batches -------------------------------------------------------------------------------


def test_micro_batches_make_up_the_batch_and_know_its_weight(make):
  whole, parts = make('train')[2], make('train', micro_batches=2)
  halves = [parts[4], parts[5]]
  for name in ('label', 'weight', 'image', 'size'):
    np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), whole[name])
  for half in halves:
    np.testing.assert_array_equal(half['labels_total'], whole['weight'].sum())


def test_an_image_of_which_a_side_is_true_is_not_mirrored(make, dataset):
  batches, seen = make('train', flip=1.0), []
  for number in range(len(batches)):
    for image, flip in zip(batches.plan(0).image[number], batches[number]['flip'], strict=True):
      claims = record.example(record.Place('easy', 'train', int(image)))['claims']
      assert flip == (not any('left' in claim or 'right' in claim for claim in claims))
      seen.append(flip)
  assert 0 < sum(seen) < len(seen)


# --- Loss and scores -----------------------------------------------------------------------


def test_the_loss_is_binary_cross_entropy_over_labels_and_the_images_that_count():
  rng = np.random.default_rng(0)
  logits, label = rng.normal(0, 3, (3, 5)).astype(np.float32), rng.random((3, 5)) < 0.4
  weight = np.array([[1], [0], [1]], np.float32)
  batch = {'label': label, 'weight': weight}
  sums = Labels(['x'] * 5).losses({'label_logits': logits}, batch)
  counted = weight[:, 0] > 0
  expected = torch.nn.functional.binary_cross_entropy_with_logits(
    torch.from_numpy(logits[counted]), torch.from_numpy(label[counted]).float(), reduction='sum'
  )
  assert float(sums_lib.loss(sums, batch)) == pytest.approx(expected.item() / 2, rel=1e-6)
  assert sums['labels_loss'][1] == 2


def test_a_label_counts_for_what_it_is_true_of_as_much_as_for_the_rest():
  task = Labels(['count all 1', 'exists red star', 'exists blue star', 'place red star left'])
  label = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]], bool)
  said = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
  batch = {'label': label, 'weight': np.array([[1], [1], [1], [0]], np.float32)}
  outputs = {'label_logits': np.where(said, 1, -1).astype(np.float32)}
  sums = jax.jit(lambda o, b: task.losses(o, b) | task.accuracies(o, b))(outputs, batch)
  # The last label is true of no image that counts.
  found = task.evaluate(lambda batches: (jax.device_get(sums), {}), None)
  assert found['labels_accuracy'] == pytest.approx(10 / 12)
  assert found['labels_true_accuracy'] == pytest.approx((2 / 2 + 1 / 1 + 1 / 1) / 3)
  assert found['labels_false_accuracy'] == pytest.approx((0 / 1 + 2 / 2 + 1 / 2) / 3)
  assert found['labels_balanced_accuracy'] == pytest.approx((1 + 0.5) / 2)
  assert found['labels_balanced_accuracy/count'] == 0.5
  assert found['labels_balanced_accuracy/exists'] == pytest.approx((1 + 0.75) / 2)
  assert not any('place' in name for name in found)
  lines = task.table('test', found).splitlines()
  assert lines[1].split() == ['all', 'labels', '0.750', '1.000', '0.500']
  assert [line.split()[0] for line in lines[2:]] == ['count', 'exists']


def test_a_model_sees_the_image_and_not_its_padding(make, few_scenes, dataset):
  experiment = Experiment.of(resolve(short_config(labels, few_scenes, STEPS)), dataset)
  model, rng = experiment.model, np.random.default_rng(0)
  variables = jax.jit(lambda: init_variables(model, 0, make('test')[0]))()
  image = rng.normal(size=(2, 48, 64, 3)).astype(np.float32)
  padded = np.pad(image, ((0, 0), (0, 16), (0, 32), (0, 0)), constant_values=3)
  size = np.array([[48, 64], [48, 64]], np.int32)
  own, shared = (
    jax.jit(lambda v, x: model.apply(v, x, size, False)['label_logits'])(variables, x)
    for x in (image, padded)
  )
  assert own.shape == (2, len(make('test').labels))
  np.testing.assert_allclose(shared, own, atol=1e-5)
  assert not np.allclose(own[0], own[1], atol=1e-3)


# --- Runs ----------------------------------------------------------------------------------


def test_a_run_learns_what_images_show_that_it_has_not_seen(finished):
  tested = metrics(finished)[-1]
  assert tested['split'] == 'val+test'
  assert tested['labels_balanced_accuracy'] > 0.52
  assert tested['labels_balanced_accuracy/count'] > 0.58


def test_pre_training_starts_from_the_cnn_alone(finished, few_scenes, dataset, capsys):
  config = short_config(pretrain, few_scenes, STEPS)
  config.init_from, config.cnn.batch_norm = str(finished), ''
  config = resolve(config)
  assert config.cnn.batch_norm == 'frozen'
  experiment = Experiment.of(config, dataset)
  mesh = sharding.make_mesh()
  loaded = starting.starting_point(config.init_from, finished / 'none', mesh)
  fresh = init_state(experiment, mesh)[0].variables
  capsys.readouterr()
  taken = by_name(starting.take(loaded, config.to_dict(), fresh))
  there, here = by_name(loaded.variables), by_name(fresh)
  cnn = {name for name in here if '/cnn/' in name}
  assert f'{len(cnn)} of {len(here)} arrays' in capsys.readouterr().out
  assert there.keys() - cnn == {'params/label/kernel', 'params/label/bias'}
  for name, x in taken.items():
    np.testing.assert_array_equal(x, (there if name in cnn else here)[name])
  kernel = 'params/backbone/cnn/stem/conv1/kernel'
  assert not np.array_equal(taken[kernel], here[kernel])


def test_an_evaluation_has_the_labels_of_the_run(finished, few_scenes, tmp_path, capsys):
  assert len(json.loads((finished / FILE).read_text())) > 100
  (logged,) = (line for line in metrics(finished) if line['split'] == 'val+test')
  data = f'--config.data.data_dir={few_scenes}', f'--workdir={tmp_path}'
  command = ['--config=configs/labels.py:test', '--mode=evaluate', *data]
  command.append('--config.data.test=val+test')
  # Those of its training split would be others.
  assert main([*command, f'--checkpoint={finished}', '--config.data.train=val']) == 0
  (row,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith('all labels'))
  assert row.split()[2] == f'{logged["labels_balanced_accuracy"]:.3f}'


def test_a_cnn_alone_is_not_for_texts(finished):
  with pytest.raises(UserError, match=rf'{finished} .* reads no texts: .*init_from={finished}'):
    predict.load(finished)
