"""A run in this process: its end, its log, and stopping it at any step."""

import dataclasses
import functools
import json
import shutil
import signal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from configs.pretrain import get_config
from pixelbert_jax import UserError, sharding
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import Experiment, prepare_data, resolve
from pixelbert_jax.input.dataset import RecordError, Split
from pixelbert_jax.loop import DONE, PREEMPTED
from pixelbert_jax.tasks.pretraining import Pretraining
from pixelbert_jax.train import init_state, train
from tests.support.runs import assert_same_run, metrics, stop_at, stop_in_evaluation, timeless

STEPS = 12  # With a save after 5 and 10, and an evaluation after 10.


pytestmark = pytest.mark.usefixtures('quick_compiles')


def make_config(few_scenes):
  config = resolve(get_config('test'))
  config.data.data_dir = str(few_scenes)
  config.epochs = STEPS / 100
  assert config.transformer.dropout > 0
  assert 0 < config.sampled_pixels < 16
  return config


@pytest.fixture
def config(few_scenes):
  return make_config(few_scenes)


@pytest.fixture(scope='module')
def finished(few_scenes, tmp_path_factory):
  """The workdir of a run that went through without interruption."""
  workdir = tmp_path_factory.getbasetemp() / 'finished'  # test_main.py may have made it.
  assert train(make_config(few_scenes), workdir) == DONE
  return workdir


def files(workdir):
  return {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}


def test_the_log_of_a_run(finished):
  lines = timeless(metrics(finished))
  order = [(line['step'], line['split']) for line in lines]
  training = [(step, 'train') for step in range(1, STEPS + 1)]
  assert order == [*training[:10], (10, 'val'), *training[10:], (STEPS, 'test')]
  names = {'loss', 'mlm_loss', 'itm_loss', 'mlm_accuracy', 'itm_accuracy', 'gradient_norm'}
  names |= {'learning_rate_cnn', 'learning_rate_transformer', 'step', 'split', 'mlm_targets'}
  weight = get_config('test').itm_weight
  for line in lines:
    assert line['loss'] == pytest.approx(line['mlm_loss'] + weight * line['itm_loss'], rel=1e-6)
    if line['split'] == 'train':
      assert line.keys() == names
  results = {'itm_accuracy', 'mlm_accuracy', 'mlm_visual_accuracy'}
  results |= {f'{name}_swapped' for name in results} | {'itm_hard_accuracy'}
  assert results <= lines[-1].keys()
  text = (finished / 'metrics.jsonl').read_text()
  assert text.count('examples_per_second') == STEPS
  # A step logs the rate it was taken with: a warm-up of 50 steps from 0.
  rates = [line['learning_rate_transformer'] for line in lines if line['split'] == 'train']
  peak = get_config('test').optimizer.transformer_rate
  np.testing.assert_allclose(rates, peak * np.arange(STEPS) / 50, atol=1e-8)
  kept = sorted(int(path.name) for path in (finished / 'checkpoints').iterdir())
  assert kept == [10, STEPS]


def test_a_finished_run_says_so_and_changes_nothing(config, finished, capsys):
  before = files(finished)
  capsys.readouterr()
  assert train(config, finished) == DONE
  out = capsys.readouterr().out
  assert f'{finished} is trained to the end' in out
  assert 'image-text matching' in out
  assert files(finished) == before


@pytest.mark.slow
@pytest.mark.parametrize('steps', [(1,), (4, 5, 10)], ids=str)
def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(
  steps, config, finished, tmp_path, monkeypatch, capsys
):
  stop_at(monkeypatch, *steps)
  for step in steps:
    assert train(config, tmp_path) == PREEMPTED
    assert f'stopped at step {step}, everything is saved' in capsys.readouterr().out
    assert timeless(metrics(tmp_path))[-1]['step'] == step
  assert train(config, tmp_path) == DONE
  assert f'resuming {tmp_path} at step {steps[-1]} of {STEPS}' in capsys.readouterr().out
  assert_same_run(tmp_path, finished)


def test_an_evaluation_is_stopped_and_repeated(config, finished, tmp_path, monkeypatch, capsys):
  # First that of step 10 on validation, then twice that of the last step on test. Each runs the
  # evaluator twice: as many calls come before.
  handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  for number, step, logged in [(1, 10, 10), (3, 12, 13), (4, 12, 13)]:
    left = stop_in_evaluation(monkeypatch, number)
    assert train(config, tmp_path) == PREEMPTED
    monkeypatch.undo()
    assert left == [0]
    assert f'stopped at step {step}, everything is saved' in capsys.readouterr().out
    assert len(metrics(tmp_path)) == logged
  assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
  assert train(config, tmp_path) == DONE
  assert_same_run(tmp_path, finished)


def test_after_the_last_step_a_signal_puts_off_the_result(config, finished, tmp_path, monkeypatch):
  stop_at(monkeypatch, STEPS)
  assert train(config, tmp_path) == PREEMPTED
  assert train(config, tmp_path) == DONE
  assert_same_run(tmp_path, finished)


@pytest.mark.slow
def test_a_run_killed_while_it_is_evaluated_goes_on_with_that(
  config, finished, tmp_path, monkeypatch, capsys
):
  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(Pretraining, 'report', killed)
  with pytest.raises(KeyboardInterrupt):
    train(config, tmp_path)
  monkeypatch.undo()
  capsys.readouterr()
  assert train(config, tmp_path) == DONE
  out = capsys.readouterr().out
  assert f'resuming {tmp_path} at step {STEPS} of {STEPS}' in out
  assert 'image-text matching' in out
  assert '\nstep ' not in out
  assert_same_run(tmp_path, finished)


@pytest.mark.slow
def test_sparse_logs_survive_a_stop_between_lines(config, tmp_path, monkeypatch):
  # The sums since the last line are part of the checkpoint.
  config.log_every, config.eval_every = 4, 100
  assert train(config, tmp_path / 'through') == DONE
  save, saved = ocp.CheckpointManager.save, []

  def stop_in_save(manager, step, *args, **options):
    saved.append(step)
    if step == 5:
      signal.raise_signal(signal.SIGTERM)
    return save(manager, step, *args, **options)

  monkeypatch.setattr(ocp.CheckpointManager, 'save', stop_in_save)
  assert train(config, tmp_path / 'stopped') == PREEMPTED
  monkeypatch.undo()
  assert saved == [2, 5, 6]
  assert train(config, tmp_path / 'stopped') == DONE
  assert_same_run(tmp_path / 'stopped', tmp_path / 'through')


def test_the_second_step_of_a_run_is_saved_and_goes_in_its_turn(config, tmp_path, monkeypatch):
  config.steps, config.save_every, config.eval_every = 4, 100, 100
  stop_at(monkeypatch, 3)
  assert train(config, tmp_path) == PREEMPTED
  assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['2', '3']
  shutil.rmtree(tmp_path / 'checkpoints/3')
  assert train(config, tmp_path) == DONE  # from step 2
  assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['2', '4']


def test_unreadable_images_are_in_the_log_of_a_run_that_was_stopped_too(
  config, tmp_path, monkeypatch, capsys
):
  config.steps, config.log_every, config.eval_every = 6, 4, 100
  encoded, save = Split.encoded, ocp.CheckpointManager.save

  def spoilt(split, image):
    if int(image) % 9 == 0:
      raise RecordError(f'{split.sidecar.image_id[image].decode()}: torn')
    return encoded(split, image)

  def stop_in_save(manager, step, *args, **options):
    if step == 2:
      signal.raise_signal(signal.SIGTERM)
    return save(manager, step, *args, **options)

  monkeypatch.setattr(Split, 'encoded', spoilt)
  monkeypatch.setattr(Pretraining, 'report', lambda *_: {'itm_accuracy': 0.0})
  assert train(config, tmp_path / 'through') == DONE
  assert 'unreadable ' in capsys.readouterr().out.partition('step 4/6')[2]
  monkeypatch.setattr(ocp.CheckpointManager, 'save', stop_in_save)
  assert train(config, tmp_path / 'stopped') == PREEMPTED
  monkeypatch.setattr(ocp.CheckpointManager, 'save', save)
  assert train(config, tmp_path / 'stopped') == DONE
  assert_same_run(tmp_path / 'stopped', tmp_path / 'through')
  plan = Experiment.of(config, prepare_data(config)).batches['train'].plan(0)
  lines = [line for line in metrics(tmp_path / 'through') if line['split'] == 'train']
  shown = [(plan.image[first:last] % 9 == 0).sum() for first, last in ((0, 4), (4, 6))]
  assert [line.get('unreadable', 0) for line in lines] == shown
  assert sum(shown) > 0
  named = (tmp_path / 'through/unreadable-0.jsonl').read_text().splitlines()
  assert len(named) == len({line['image'] for line in map(json.loads, named)}) > 0


@pytest.mark.slow
def test_a_run_starts_from_another_and_goes_on_by_itself(
  config, finished, tmp_path, monkeypatch, capsys
):
  # Moved, so that nothing but its folder is used.
  source = shutil.copytree(finished, tmp_path / 'source')
  config.init_from, config.seed = f'{source}@10', 1
  stop_at(monkeypatch, 1)
  assert train(config, tmp_path / 'run') == PREEMPTED
  out = capsys.readouterr().out
  assert f'starting from {source}, step 10: ' in out
  first, before = timeless(metrics(tmp_path / 'run'))[0], timeless(metrics(finished))
  assert first['loss'] < before[0]['loss']
  shutil.rmtree(source)
  assert train(config, tmp_path / 'run') == DONE
  assert f'resuming {tmp_path / "run"} at step 1 of {STEPS}' in capsys.readouterr().out


def test_what_does_not_fit_is_an_error_and_leaves_no_workdir(config, finished, tmp_path):
  config.init_from, config.transformer.mlp_width = str(finished), 32
  with pytest.raises(UserError, match=r'transformer\.mlp_width is 64 there and 32 here'):
    train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_run_goes_on_over_its_own_data_alone(config, finished, tmp_path):
  remembered = json.loads((finished / 'data.json').read_text())
  assert remembered[config.data.name].keys() == {'train', 'val', 'test'}
  remembered[config.data.name]['train']['texts'] = 'others'
  (tmp_path / 'data.json').write_text(json.dumps(remembered))
  with pytest.raises(UserError, match=r'a run on another scenes \(train has other texts\):'):
    train(config, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['data.json']


@pytest.mark.slow
def test_what_is_loaded_evaluates_as_the_run_did(finished, few_scenes):
  loaded = checkpoint.load(finished)
  config = ConfigDict(loaded.config)
  config.data.data_dir, config.text.vocabulary = str(few_scenes), str(loaded.vocabulary)
  experiment = Experiment.of(config, prepare_data(config))
  found = evaluated(experiment, loaded.variables, experiment.batches['test'])
  logged = timeless(metrics(finished))[-1]
  for name in ('loss', 'itm_accuracy', 'mlm_accuracy'):
    assert found[name] == pytest.approx(logged[name], rel=1e-6)


def evaluated(experiment, variables, batches):
  """The metrics of a split."""
  run = functools.partial(experiment.evaluator(sharding.make_mesh()), variables)
  return experiment.task.evaluate(run, batches)


@dataclasses.dataclass
class Parts:
  """What a run is made of."""

  experiment: Experiment
  mesh: jax.sharding.Mesh
  program: Any
  _state: Any

  def state(self):
    """A fresh state, to be donated."""
    return jax.device_put(self._state, sharding.state_sharding(self.mesh, self._state))

  def step(self, state, batch):
    """The state after a step, which is finite."""
    state, finite = self.program(state, batch)
    assert finite
    return state

  def batch(self, number):
    return sharding.global_batch(self.mesh, self.experiment.batches['train'][number])


@pytest.fixture(scope='module')
def parts(few_scenes):
  config = make_config(few_scenes)
  experiment, mesh = Experiment.of(config, prepare_data(config)), sharding.make_mesh()
  state, step, _ = init_state(experiment, mesh)
  batch = sharding.global_batch(mesh, experiment.batches['train'][0])
  program = step.program(state, batch)
  return Parts(experiment, mesh, program, jax.tree.map(np.array, state))


def test_the_state_is_donated(parts):
  state = parts.state()
  size = sum(x.nbytes for x in jax.tree.leaves((state.params, state.batch_stats, state.opt_state)))
  assert parts.program.memory_analysis().alias_size_in_bytes >= size
  parts.step(state, parts.batch(0))
  assert state.params['itm']['kernel'].is_deleted()


def test_every_step_draws_anew_and_remembers_batch_statistics(parts):
  states = [parts.state() for _ in range(3)]
  states[2] = states[2]._replace(step=states[2].step + 1)
  first, again, next_step = (parts.step(state, parts.batch(0)) for state in states)
  assert first.sums['mlm_loss'][0] == again.sums['mlm_loss'][0]
  assert first.sums['mlm_loss'][0] != next_step.sums['mlm_loss'][0]
  before = jax.tree.leaves(parts.state().batch_stats)
  for a, b in zip(before, jax.tree.leaves(first.batch_stats), strict=True):
    assert (a != b).any()


def test_the_loss_falls_on_what_is_seen_again_and_again(parts):
  state, some, sums = parts.state(), [parts.batch(i) for i in range(2)], []
  for i in range(80):
    state = parts.step(state, some[i % 2])
    sums.append(jax.device_get(state.sums))
    state = state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
  loss = np.array([sum(s[name][0] / s[name][1] for name in ('mlm_loss', 'itm_loss')) for s in sums])
  assert loss[:4].mean() > 5
  assert loss[-4:].mean() < 0.6 * loss[:4].mean()


@pytest.mark.slow
def test_evaluation_counts_every_pair_once_whatever_the_batch_size(parts):
  variables = parts.state().variables
  test = parts.experiment.batches['test']
  found = evaluated(parts.experiment, variables, test)
  # 3 images at a time: the last batch is filled up.
  few = dataclasses.replace(test, images=3)
  assert len(few) * 3 > len(few.split.sidecar.image_id)
  other = evaluated(parts.experiment, variables, few)
  for name in ('itm_loss', 'itm_accuracy'):
    assert other[name] == pytest.approx(found[name], abs=1e-6)
