"""The command itself, in processes of its own: exit codes, messages, kills."""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support.paths import ROOT
from tests.support.runs import COMMAND, assert_same_run, metrics, timeless

STEPS = 12
RESULTS = {'itm_accuracy', 'mlm_accuracy', 'mlm_visual_accuracy'}
RESULTS |= {'itm_accuracy_swapped', 'mlm_visual_accuracy_swapped'}


@pytest.fixture
def start(spawn):
  """Starts a few steps of a variant of `configs/pretrain.py`."""

  def start(workdir, *arguments, variant='test', **more_environment):
    command = [*COMMAND, f'--config=configs/pretrain.py:{variant}', f'--workdir={workdir}']
    return spawn([*command, f'--config.epochs={STEPS / 100}', *arguments], **more_environment)

  return start


@pytest.fixture
def run(start):
  """Runs the command to its end: exit code, stdout, stderr."""

  def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err

  return run


@pytest.fixture(scope='session')
def finished(environment, tmp_path_factory):
  """The workdir of a run that went through without interruption."""
  workdir = tmp_path_factory.getbasetemp() / 'finished'  # test_train.py may have made it.
  command = [*COMMAND, '--config=configs/pretrain.py:test', f'--workdir={workdir}']
  command += [f'--config.epochs={STEPS / 100}']
  subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
  return workdir


def interrupt(process, number, lines, delay=0.0):
  """Sends a signal so long after so many reports of steps; returns the exit code."""
  for line in process.stdout:
    lines -= line.startswith('step ')
    if lines <= 0:
      break
  time.sleep(delay)
  process.send_signal(number)
  process.communicate(timeout=300)
  return process.returncode


def error_line(code, err):
  assert code == 1
  assert err.startswith('error: ')
  assert err.count('\n') == 1
  assert 'Traceback' not in err
  return err


def test_a_run_ends_with_its_result(finished):
  lines = metrics(finished)
  assert lines[-1]['split'] == 'test'
  assert lines[-1]['step'] == STEPS
  assert lines[-1].keys() >= RESULTS
  assert all(0 <= lines[-1][name] <= 1 for name in RESULTS)


def test_errors_are_one_line(start, finished, tmp_path):
  before = (finished / 'config.json').read_bytes()
  other = start(finished, '--config.seed=1')
  paper = start(tmp_path / 'run', variant='r50')
  _, err = other.communicate(timeout=300)
  message = error_line(other.returncode, err)
  assert str(finished) in message
  assert 'seed is 0 there and 1 here' in message
  assert (finished / 'config.json').read_bytes() == before
  # A paper variant asks where to start from.
  _, err = paper.communicate(timeout=300)
  message = error_line(paper.returncode, err)
  assert 'init_from' in message
  assert '--config.init_from=scratch' in message
  assert not (tmp_path / 'run').exists()


def damage(step):
  """Changes a byte of the largest array that was saved."""
  files = [path for path in (step / 'model').rglob('*') if path.is_file()]
  path = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


@pytest.mark.slow
def test_after_damage_a_run_goes_on_from_the_step_before_or_says_why_not(run, finished, tmp_path):
  workdir = tmp_path / 'damaged'
  shutil.copytree(finished, workdir)
  damage(workdir / f'checkpoints/{STEPS}')
  code, out, err = run(workdir)
  assert code == 0
  # Which array holds that byte, Orbax decides anew with each save.
  assert re.search(rf'checkpoints/{STEPS} is damaged \(model/\S+ is not what was saved\)', err)
  assert f'resuming {workdir} at step 10 of {STEPS}' in out
  assert_same_run(workdir, finished)
  for step in (10, STEPS):
    damage(workdir / f'checkpoints/{step}')
  code, _, err = run(workdir)
  assert f'{workdir}/checkpoints has nothing that can be restored' in error_line(code, err)


def test_a_stopped_run_goes_on_as_if_it_never_was(start, run, finished, environment, tmp_path):
  assert interrupt(start(tmp_path), signal.SIGTERM, 6) == 75
  stopped_at = metrics(tmp_path)[-1]['step']
  assert 6 <= stopped_at < STEPS
  code, out, _ = run(tmp_path)
  assert code == 0
  assert f'resuming {tmp_path} at step {stopped_at} of {STEPS}' in out
  assert_same_run(tmp_path, finished)
  # The last line asks the model, as it stands.
  words = shlex.split(out.splitlines()[-1])[1:]
  assert words[:2] == ['-m', 'pixelbert_jax.predict']
  asked = subprocess.run(
    [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
  )
  assert asked.stdout.startswith('hidden words'), asked.stderr


def wait_for(process, start):
  for line in process.stdout:
    if line.startswith(start):
      return
  raise AssertionError(process.stderr.read())


def test_a_signal_is_heard_while_the_first_step_compiles(start, tmp_path):
  options = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '0', 'JAX_ENABLE_COMPILATION_CACHE': 'false'}
  process = start(tmp_path, **options)
  wait_for(process, 'compiling   images 4x64x64 (1 of 1) ...')
  time.sleep(1)
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=300)
  assert process.returncode == 75, err
  assert out.splitlines() == ['stopped before the first step: run again to resume']
  assert list((tmp_path / 'checkpoints').iterdir()) == []


def test_a_long_validation_is_broken_off_with_its_step_saved(start, tmp_path):
  arguments = ['eval_every=3', 'save_every=100', 'eval_batches=0', 'data.validation=train']
  process = start(tmp_path, *(f'--config.{argument}' for argument in arguments))
  wait_for(process, 'step 3/')
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=300)
  assert process.returncode == 75
  saved = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert saved == {'2', '3'}  # and no other
  assert [line['step'] for line in metrics(tmp_path)] == [1, 2, 3]


def test_quiet_leaves_the_final_table(run, finished, tmp_path):
  code, out, err = run(tmp_path, '--quiet')
  assert (code, err) == (0, '')
  assert out.startswith('accuracy on test')
  assert all(line[:6] not in ('step 1', 'the mo', 'python') for line in out.splitlines())
  assert_same_run(tmp_path, finished)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_the_same(start, run, tmp_path):
  # As users run it: fully optimised.
  options = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'}
  through, workdir = tmp_path / 'through', tmp_path / 'killed'
  assert run(through, **options)[0] == 0
  chance = random.Random(0)
  codes = []
  for _ in range(5):
    number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    process = start(workdir, **options)
    codes.append(interrupt(process, number, chance.randrange(6), chance.uniform(0, 0.4)))
    # It may have come to its end before, or not yet to where signals are caught.
    assert codes[-1] in (0, 75, -number), codes
  assert 75 in codes
  assert -signal.SIGKILL in codes
  assert run(workdir, **options)[0] == 0
  assert_same_run(workdir, through)


@pytest.mark.slow
def test_two_devices_give_the_metrics_of_one(run, finished, tmp_path):
  code, out, _ = run(tmp_path, JAX_NUM_CPU_DEVICES='2')
  assert code == 0
  assert "{'data': 2, 'fsdp': 1}" in out
  for line, expected in zip(timeless(metrics(tmp_path)), timeless(metrics(finished)), strict=True):
    assert line.pop('split') == expected.pop('split')
    assert line == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_the_command_as_it_is_in_the_readme(environment, tmp_path_factory, tmp_path):
  # The whole dataset: that of TFDS_DATA_DIR, or else the first run builds it.
  data_dir = os.environ.get('TFDS_DATA_DIR', str(tmp_path_factory.getbasetemp() / 'tfds'))
  command = [*COMMAND, '--config=configs/pretrain.py:test', f'--workdir={tmp_path / "run"}']
  result = subprocess.run(
    command,
    cwd=ROOT,
    env=environment | {'TFDS_DATA_DIR': data_dir},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  assert 'accuracy on test' in result.stdout
  last = metrics(tmp_path / 'run')[-1]
  assert last['split'] == 'test'
  assert last.keys() >= RESULTS
