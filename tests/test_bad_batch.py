"""What is not finite: a step stops the run or is left out, and is never saved as good."""

import jax
import numpy as np
import pytest

from configs.pretrain import get_config
from pixelbert_jax import UserError, bad_batch, sharding
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import Experiment, prepare_data, resolve
from pixelbert_jax.tasks.pretraining import PairBatches, Pretraining
from pixelbert_jax.train import init_state, train
from tests.support.runs import metrics
from tests.support.states import bits

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture
def config(few_scenes):
  config = resolve(get_config('test'))
  config.data.data_dir, config.steps, config.eval_batches = str(few_scenes), 6, 1
  config.save_every = 2
  return config


@pytest.fixture
def spoil(monkeypatch):
  """Makes the batches of these steps bad: a weight is NaN."""

  def spoil(*steps):
    make = PairBatches.make

    def spoilt(self, index, pool=None):
      batch = make(self, index, pool)
      if self.training and index + 1 in steps:
        batch['weight'][0, 0] = np.nan
      return batch

    monkeypatch.setattr(PairBatches, 'make', spoilt)

  return spoil


def finite(workdir):
  """The steps of a workdir, all of which load."""
  return [checkpoint.load(f'{workdir}@{step}').step for step in checkpoint.steps(workdir)]


def test_a_step_that_is_left_out_changes_nothing_but_its_number(config):
  config.on_bad_batch = 'skip'
  mesh = sharding.make_mesh()
  experiment = Experiment.of(config, prepare_data(config))
  state, step, _ = init_state(experiment, mesh)
  made = [experiment.batches['train'][i] for i in range(2)]
  made[-1]['weight'][0, 0] = np.nan
  batches = [sharding.global_batch(mesh, batch) for batch in made]
  state, good = step(state, batches[:1])
  assert good
  before = jax.device_get(state)
  state, good = step(state, batches[1:])
  assert not good
  assert bits(state._replace(step=before.step)) == bits(before)
  assert (int(before.step), int(state.step)) == (1, 2)


def test_an_update_that_is_not_finite_is_never_saved(config, tmp_path, capsys):
  # Its loss and its gradient are finite.
  config.optimizer.transformer_rate = config.optimizer.transformer_decay = 1e30
  config.optimizer.transformer_warmup_steps = 0
  config.log_every, config.save_every = 100, 1
  for _ in range(2):  # To go on leads to the same end.
    with pytest.raises(UserError, match='training has diverged: at step 1 the loss, the grad') as e:
      train(config, tmp_path)
    assert 'keeps step' not in str(e.value)
    assert '\n' not in str(e.value)
  assert finite(tmp_path) == []
  with pytest.raises(UserError, match=r'no step before 1: .* --config\.save_every=1'):
    bad_batch.replay(tmp_path)


def test_a_bad_batch_is_named_kept_and_replayed(config, spoil, tmp_path, capsys):
  spoil(4)
  with pytest.raises(UserError, match=f'at step 4 .*skip; .*; {tmp_path} keeps step 2$'):
    train(config, tmp_path)
  assert finite(tmp_path) == [2]
  assert [line['step'] for line in metrics(tmp_path)] == [1, 2, 3]
  with np.load(tmp_path / 'bad_batch.npz') as batch:
    assert int(batch['step']) == 4
    assert batch['0/image'].shape[0] == len(batch['image_id']) == 4
  assert bad_batch.main([str(tmp_path)]) == 0
  said = capsys.readouterr().out
  assert 'the batch of step 4 at the parameters of step 2\n' in said
  assert 'itm_loss            nan' in said
  assert 'not finite are the gradients of ' in said
  # The same run goes on without it.
  config.on_bad_batch = 'skip'
  assert train(config, tmp_path) == 0
  captured = capsys.readouterr()
  assert f'resuming {tmp_path} at step 2' in captured.out
  assert 'not finite, left out: step 4; 1 so far' in captured.err
  lines = [line for line in metrics(tmp_path) if line['split'] == 'train']
  assert [line.get('skipped') for line in lines] == [None, None, 0, 1, 1, 1]
  assert 'loss' not in lines[3]
  # The schedule waits for a step.
  assert lines[3]['learning_rate_transformer'] == lines[2]['learning_rate_transformer']


def test_too_many_bad_batches_stop_a_run_also_across_a_restart(config, spoil, tmp_path):
  spoil(1, 4)
  config.on_bad_batch, config.most_skipped = 'skip', 1
  for _ in range(2):
    with pytest.raises(UserError, match=r'2 steps were not finite, the last of them 4, .* step 2$'):
      train(config, tmp_path)


def test_an_evaluation_that_is_not_finite_is_no_result(config, tmp_path, monkeypatch):
  def report(self, run, batches, path):
    return self.evaluate(run, batches) | {'itm_loss': float('inf')}

  monkeypatch.setattr(Pretraining, 'report', report)
  with pytest.raises(UserError, match=r'on test after step 6 itm_loss is not .* keeps step 4$'):
    train(config, tmp_path)
  assert finite(tmp_path) == [4]
  assert {line['split'] for line in metrics(tmp_path)} == {'train'}
