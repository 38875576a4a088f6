"""Several processes on CPU train one model; they stop, and fail, together."""

import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from pixelbert_jax import processes
from pixelbert_jax.checkpoints.checkpoint import steps
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.processes import LOST, STEPS, WOVEN, assert_ends_as, ends, farthest, run, start
from tests.support.runs import COMMAND, metrics, timeless


def wait_for_step(process, number):
  for line in process.stdout:
    if line.startswith(f'step {number}/'):
      return
  raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_two_processes_are_one_run_stopped_lost_and_resumed(start_pair, environment, tmp_path):
  alone = tmp_path / 'alone'
  command = [*COMMAND, '--config=configs/pretrain.py:test', f'--workdir={alone}']
  command += [f'--config.epochs={STEPS / 100}']
  devices = environment | {'JAX_NUM_CPU_DEVICES': '2'}
  subprocess.run(command, cwd=ROOT, env=devices, check=True, timeout=300)

  # The second alone is told to stop: both do, after the same step.
  pair = start_pair(tmp_path / 'run')
  wait_for_step(pair[0], 3)
  pair[1].send_signal(signal.SIGTERM)
  codes, outputs = ends(pair)
  assert codes == [75, 75], outputs
  assert 'everything is saved: run again to resume' in outputs[0][0]
  assert outputs[1][0] == ''
  stopped_at = metrics(tmp_path / 'run')[-1]['step']
  assert 3 < stopped_at < STEPS
  assert (tmp_path / f'run/checkpoints/{stopped_at}').is_dir()
  shutil.copytree(tmp_path / 'run', tmp_path / 'lost')

  # Resumed, the second is killed: the first does not wait for it, and says what happened.
  pair = start_pair(tmp_path / 'lost')
  wait_for_step(pair[0], stopped_at + 1)
  pair[1].kill()
  codes, outputs = ends(pair)
  assert codes[0] in (134, -signal.SIGABRT), outputs

  for name in ('run', 'lost'):
    codes, outputs = ends(start_pair(tmp_path / name))
    assert codes == [0, 0], outputs
    assert 'resuming' in outputs[0][0]
    assert outputs[1][0] == ''
  assert_ends_as(tmp_path / 'lost', tmp_path / 'run')
  for line, expected in zip(
    timeless(metrics(tmp_path / 'run')), timeless(metrics(alone)), strict=True
  ):
    assert line.pop('split') == expected.pop('split')
    assert line == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(start_pair, environment, tmp_path):
  checkpoint = tiny.write(tmp_path / 'checkpoint', 'pretrain')
  arguments = '--config=configs/retrieval.py:test', '--mode=evaluate', f'--checkpoint={checkpoint}'
  command = [*COMMAND, *arguments, f'--workdir={tmp_path / "alone"}']
  subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
  codes, outputs = ends(start_pair(tmp_path / 'two', *arguments))
  assert codes == [0, 0], outputs
  assert '10 images with 50 captions' in outputs[0][0]
  assert outputs[1][0] == ''
  alone, two = (np.load(tmp_path / f'{x}/predictions/test.npz') for x in ('alone', 'two'))
  np.testing.assert_allclose(two['scores'], alone['scores'], atol=1e-5)
  assert two['scores'].std() > 1e-3
  for name in ('image_ids', 'text_ids'):
    np.testing.assert_array_equal(two[name], alone[name])


# Wide enough that some parameters are split.
WOVEN_RUN = [
  *WOVEN,
  '--config=configs/pretrain.py:test',
  '--config.mesh.fsdp=2',
  '--config.transformer.width=128',
  '--config.transformer.mlp_width=512',
  '--config.save_every=3',
]


@pytest.mark.slow
def test_four_processes_are_one_on_any_mesh_and_fewer_go_on(spawn, tmp_path):
  def train(shape, name, steps):
    command = [*WOVEN_RUN, f'--config.steps={steps}', f'--workdir={tmp_path / name}']
    return run(shape, command, spawn)

  train('1x4', 'alone', 6)
  train('4x1', 'four', 3)
  for shape in ('2x2', '1x4'):
    shutil.copytree(tmp_path / 'four', tmp_path / shape)
    assert f'resuming {tmp_path / shape} at step 3 of 6' in train(shape, shape, 6)
    assert farthest(tmp_path / shape, tmp_path / 'alone') < 1e-5


@pytest.mark.slow
def test_a_process_lost_in_a_save_and_in_an_evaluation_loses_no_saved_step(spawn, tmp_path):
  command = [*WOVEN_RUN, '--config.steps=6', f'--workdir={tmp_path / "run"}']
  for dies in ('1:save:2', '0:batch:1'):
    codes, outputs = ends(start('2x1', command, spawn, DIES=dies))
    assert codes.pop(int(dies[0])) == -signal.SIGKILL
    assert codes[0] in LOST, outputs
    saved = max(steps(tmp_path / 'run'))
  assert f'resuming {tmp_path / "run"} at step {saved} of 6' in run('2x1', command, spawn)
  assert metrics(tmp_path / 'run')[-1]['split'] == 'test'


@pytest.mark.parametrize(
  ('first', 'then', 'lost'),
  [
    (RuntimeError('Gloo all-gather failed: Connection closed by peer'), None, True),
    (ValueError('UNAVAILABLE: no such task'), OSError('not saved'), True),
    (ValueError('shapes (2, 3) and (3,)'), OSError('disk full'), False),
  ],
)
def test_a_lost_process_is_told_from_an_error_of_ones_own(first, then, lost):
  if then:
    then.__cause__ = first
  assert processes.tells_of_a_lost_process(then or first) == lost


def test_without_a_word_who_the_others_are_it_is_an_error(environment, tmp_path):
  bare = {k: x for k, x in environment.items() if not k.startswith(('JAX_COORD', 'SLURM', 'TPU_'))}
  command = [*COMMAND, '--config=configs/pretrain.py:test', '--distributed']
  command += [f'--workdir={tmp_path / "run"}']
  done = subprocess.run(
    command, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=120, check=False
  )
  assert done.returncode == 1
  assert done.stderr.startswith('error: --distributed: ')
  assert done.stderr.count('\n') == 1
  assert 'JAX_COORDINATOR_ADDRESS' in done.stderr
  assert not os.path.exists(tmp_path / 'run')


@pytest.mark.slow
def test_an_error_of_one_ends_all(start_pair, tmp_path):
  # Only the first process meets it, the others wait for it.
  (tmp_path / 'file').write_text('')
  pair = start_pair(tmp_path / 'file' / 'run')
  codes, outputs = ends(pair)
  assert codes[0] == 1, outputs
  assert codes[1] != 0, outputs
