"""Several processes on CPU train one model; they stop, and fail, together."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from pixelbert_jax import processes
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.processes import STEPS, assert_ends_as, ends
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


WOVEN = """
import sys
import jax, numpy as np
from pixelbert_jax import processes, sharding

processes.join()
devices = np.array(jax.devices())[[0, 2, 1, 3]].reshape(4, 1)  # as on a TPU slice
mesh = jax.sharding.Mesh(devices, sharding.AXES)
mine = np.arange(4) + 4 * jax.process_index()
rows = sharding.plan_rows(mesh, sharding.global_batch(mesh, {'x': mine})['x'])
print([device.process_index for device in mesh.devices.flat], rows.tolist(), file=sys.stderr)
"""


@pytest.mark.slow
def test_rows_come_back_in_their_order_from_a_mesh_that_is_not_process_by_process(
  start_pair, tmp_path
):
  pair = start_pair(tmp_path, command=[sys.executable, '-c', WOVEN], JAX_NUM_CPU_DEVICES='2')
  codes, outputs = ends(pair)
  assert codes == [0, 0], outputs
  for _, said in outputs:
    assert said.endswith(f'[0, 1, 0, 1] {list(range(8))}\n')


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
