"""Checkpoints give back every bit, or say that they cannot."""

import contextlib
import dataclasses
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pixelbert_jax import sharding
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.checkpoints.checkpoint import (
  CheckpointError,
  Checkpoints,
  abstract,
  load,
  steps,
  write_model,
)
from tests.support.paths import ROOT
from tests.support.states import CONFIG, FILES, bits, make_state, restore, save


def flip(path, position=None):
  """Changes one byte of a file: that in the middle, or at `position`."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2 if position is None else position] ^= 0x10
  path.write_bytes(content)


def largest(folder):
  """The file that holds the largest array."""
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda p: p.stat().st_size)


def test_the_step_with_the_best_score_is_kept_and_taken(tmp_path):
  folder = tmp_path / 'run'
  save(folder)
  with contextlib.closing(Checkpoints(folder, FILES, keep=1)) as checkpoints:
    assert checkpoints.chosen is None
    for step, score in {5: 0.5, 10: 0.7, 15: 0.7, 20: 0.6, 25: None}.items():
      checkpoints.save(step, make_state(step))
      checkpoints.score(step, score)
    assert checkpoints.chosen == (10, 0.7)
  assert steps(folder) == [10, 25]
  # Another process finds it too; a run goes on from the newest.
  with contextlib.closing(Checkpoints(folder, FILES, keep=1)) as checkpoints:
    assert checkpoints.chosen == (10, 0.7)
    assert int(checkpoints.restore(abstract(make_state(0))).step) == 25
  assert load(folder).step == 10
  assert load(f'{folder}@25').step == 25
  flip(largest(folder / 'checkpoints/10/model'))
  assert load(folder).step == 25


@pytest.fixture
def workdir(tmp_path):
  """That of a run with the steps 5 and 10."""
  save(tmp_path / 'run', 5, 10)
  return tmp_path / 'run'


@pytest.fixture
def converted(tmp_path):
  """What `convert` writes: one model, no training state."""
  variables = jax.tree.map(np.asarray, make_state(7).variables)
  folder = tmp_path / 'deep' / 'converted'
  write_model(folder, CONFIG, variables, FILES | {'conversion.json': b'{"a": 1}'})
  return folder


def test_every_bit_comes_back(tmp_path):
  save(tmp_path, 5)
  restored = restore(tmp_path)
  assert bits(restored) == bits(make_state(5))
  assert jax.tree.structure(restored) == jax.tree.structure(make_state(5))
  assert restored.params['b'].sharding == make_state(5).params['b'].sharding


def test_the_newest_is_restored_and_the_last_few_are_kept(tmp_path):
  save(tmp_path, 1, 2, 3, keep=2)
  save(tmp_path, 3, 4, keep=2)  # Saving a step once more is nothing.
  with contextlib.closing(Checkpoints(tmp_path, FILES)) as checkpoints:
    assert checkpoints.latest == 4
  assert bits(restore(tmp_path)) == bits(make_state(4))
  assert steps(tmp_path) == [3, 4]


def test_nothing_is_there_at_first(tmp_path):
  save(tmp_path)
  with contextlib.closing(Checkpoints(tmp_path, FILES)) as checkpoints:
    assert checkpoints.latest is None


def test_a_step_taken_at_once_does_not_disturb_the_save(tmp_path):
  # The next step is given the memory of the state that is being written.
  step = jax.jit(lambda state: jax.tree.map(lambda x: x * 0 + 7, state), donate_argnums=0)
  state = make_state(1)._replace(params={'large': jnp.ones((2000, 1000))})
  like = abstract(state)
  save(tmp_path)
  with contextlib.closing(Checkpoints(tmp_path, FILES)) as checkpoints:
    checkpoints.save(1, state)
    for _ in range(10):
      state = step(state)
    jax.block_until_ready(state)
  with contextlib.closing(Checkpoints(tmp_path, FILES)) as checkpoints:
    restored = checkpoints.restore(like)
  assert int(state.step) == 7
  assert int(restored.step) == 1
  np.testing.assert_array_equal(restored.params['large'], 1)


def test_a_checkpoint_loads_after_moving_its_folder_alone(workdir, converted, tmp_path):
  for folder, step in ((workdir, 10), (converted, 7)):
    moved = shutil.move(folder, tmp_path / 'there' / folder.name)
    (tmp_path / 'words.txt').unlink(missing_ok=True)
    found = load(moved)
    assert bits(found.variables) == bits(make_state(step).variables)
    assert jax.tree.structure(found.variables) == jax.tree.structure(make_state(0).variables)
    assert (found.config, found.folder) == (CONFIG, moved)
    assert found.vocabulary.read_text() == '[PAD]\ncat\n'
    assert isinstance(found.vocabulary, pathlib.Path)
    assert {type(x) for x in jax.tree.leaves(found.variables)} == {np.ndarray}
  assert found.step == 0
  assert bits(restore(tmp_path / 'there' / 'run')) == bits(make_state(10))


def test_a_step_may_be_named(workdir):
  assert load(workdir).step == 10
  assert load(f'{workdir}@10').step == 10
  found = load(f'{workdir}@5')
  assert found.step == 5
  assert bits(found.variables) == bits(make_state(5).variables)
  workdir.rename(workdir.with_name('run@7'))  # Not a step, if there is such a folder.
  assert load(workdir.with_name('run@7')).step == 10


def test_a_model_is_loaded_to_where_a_state_lies(workdir):
  mesh = sharding.make_mesh()
  found = load(workdir, mesh)
  expected = make_state(10).variables
  assert bits(found.variables) == bits(expected)
  same = jax.tree.map(lambda a, b: a.sharding == b.sharding, found.variables, expected)
  assert all(jax.tree.leaves(same))


def test_a_model_is_read_without_optimiser_state(workdir):
  shutil.rmtree(workdir / 'checkpoints/10/training')
  assert bits(load(workdir).variables) == bits(make_state(10).variables)


def test_what_is_no_checkpoint_is_told_in_one_line(workdir, tmp_path):
  (tmp_path / 'other').mkdir()
  (tmp_path / 'began' / 'checkpoints' / '5.orbax-checkpoint-tmp').mkdir(parents=True)
  for spec, part in {
    tmp_path / 'nowhere': 'no such folder',
    f'{tmp_path}/nowhere@3': f'{tmp_path}/nowhere: no such folder',
    tmp_path / 'words.txt': 'no such folder; give a checkpoint',
    tmp_path / 'other': 'is not a checkpoint',
    tmp_path / 'began': 'is not a checkpoint (no step in checkpoints/)',
    f'{workdir}@7': 'has no step 7: it has 5, 10',
    f'{workdir}@x': 'no such folder',
    f'{workdir}-s0': f'no such folder: did you mean {workdir}?; give a checkpoint',
  }.items():
    with pytest.raises(CheckpointError) as caught:
      load(spec)
    assert part in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_bucket_is_read_through_the_file_layer(converted, monkeypatch):
  bucket = FakeBucket('gs://bucket/converted', converted)
  restore = ocp.StandardCheckpointer.restore
  monkeypatch.setattr(
    ocp.StandardCheckpointer, 'restore', lambda self, path, *like: restore(self, path.local, *like)
  )
  monkeypatch.setattr(checkpoint, 'epath', types.SimpleNamespace(Path=bucket.at))
  found = load('gs://bucket/converted')
  assert bits(found.variables) == bits(make_state(7).variables)
  assert str(found.folder) == 'gs://bucket/converted'
  assert found.vocabulary.read_text() == '[PAD]\ncat\n'  # a copy that a tokeniser can open
  monkeypatch.undo()
  assert converted not in found.vocabulary.parents


@dataclasses.dataclass
class FakeBucket:
  """Files of a bucket, which in truth lie in `local`. It is no path to the operating system."""

  spec: str
  local: pathlib.Path

  def at(self, spec):
    assert str(spec) == self.spec
    return self

  def __str__(self):
    return self.spec

  def __truediv__(self, other):
    return FakeBucket(f'{self.spec}/{other}', self.local / other)

  def __getattr__(self, name):
    assert name in ('name', 'exists', 'is_dir', 'read_text', 'read_bytes', 'iterdir'), name
    return getattr(self.local, name)


# --- Writing a model ---------------------------------------------------------------------


def test_a_model_is_written_whole_or_not_at_all(converted, tmp_path):
  assert {path.name for path in converted.iterdir()} == {
    *('config.json', 'vocab.txt', 'conversion.json', 'checkpoints')
  }
  assert json.loads((converted / 'config.json').read_text()) == CONFIG
  assert {path.name for path in (converted / 'checkpoints/0').iterdir()} >= {'model', 'manifest'}
  assert not (converted / 'checkpoints/0/training').exists()
  before = {path: path.read_bytes() for path in converted.rglob('*') if path.is_file()}
  variables = make_state(1).variables
  with pytest.raises(CheckpointError, match=f'{converted} is not empty'):
    write_model(converted, CONFIG, variables, FILES)
  assert {path: path.read_bytes() for path in converted.rglob('*') if path.is_file()} == before
  with pytest.raises(FileNotFoundError):
    write_model(tmp_path / 'new', CONFIG, variables, FILES | {'no folder/words': b''})
  with pytest.raises(TypeError):
    write_model(tmp_path / 'new', CONFIG | {'a': {1, 2}}, variables, FILES)
  assert {path.name for path in tmp_path.iterdir()} == {'deep'}
  (tmp_path / 'new').mkdir()
  write_model(tmp_path / 'new', CONFIG, variables, FILES)
  assert bits(load(tmp_path / 'new').variables) == bits(variables)


# --- Damage ------------------------------------------------------------------------------


def test_a_damaged_array_is_never_restored_and_the_step_before_is_taken(workdir, capsys):
  flip(largest(workdir / 'checkpoints/10/model'))
  assert bits(load(workdir).variables) == bits(make_state(5).variables)
  line = f'{workdir}/checkpoints/10 is damaged (model/params/wide is not what was saved): '
  assert capsys.readouterr().err == f'{line}taking step 5\n'
  with pytest.raises(CheckpointError, match='step 10: model/params/wide is not what was saved'):
    load(f'{workdir}@10')
  assert steps(workdir) == [5, 10]  # Who reads changes nothing.
  assert bits(restore(workdir)) == bits(make_state(5))
  assert capsys.readouterr().err == f'{line}taking step 5\n'
  # The run saves that step again, and goes on from it.
  save(workdir, 10)
  assert bits(restore(workdir)) == bits(make_state(10))
  assert (workdir / 'checkpoints/10.damaged').is_dir()
  assert capsys.readouterr().err == ''


def test_damaged_training_state_is_seen_too(workdir, capsys):
  flip(largest(workdir / 'checkpoints/10/training'))
  assert bits(restore(workdir)) == bits(make_state(5))
  assert 'checkpoints/10 is damaged (training/opt_state' in capsys.readouterr().err


@pytest.mark.parametrize('value', [np.nan, -np.inf])
def test_numbers_that_are_not_finite_are_refused_though_they_are_what_was_saved(
  workdir, tmp_path, capsys, value
):
  state = make_state(20)
  state.params['a']['kernel'] = state.params['a']['kernel'].at[1, 2].set(value)
  with contextlib.closing(Checkpoints(workdir, FILES)) as checkpoints:
    checkpoints.save(20, state)
  assert load(workdir).step == 10
  assert int(restore(workdir).step) == 10
  line = '20 is damaged (model/params/a/kernel holds numbers that are not finite): taking step 10\n'
  assert capsys.readouterr().err == 2 * f'{workdir}/checkpoints/{line}'
  write_model(tmp_path / 'model', CONFIG, state.variables, FILES)
  for mesh in (None, sharding.make_mesh()):
    with pytest.raises(CheckpointError, match=r'kernel holds numbers that are not finite$'):
      load(tmp_path / 'model', mesh)


def test_with_no_step_left_it_is_an_error_and_nothing_is_moved(workdir):
  for step in (5, 10):
    flip(largest(workdir / f'checkpoints/{step}/model'))
  for attempt in (load, restore):
    with pytest.raises(CheckpointError, match=r'step 10: .* is not what .*; step 5: ') as caught:
      attempt(workdir)
    assert '\n' not in str(caught.value)
  assert steps(workdir) == [5, 10]


def test_steps_that_are_half_deleted_or_renamed_or_of_an_earlier_version_are_refused(workdir):
  for path in (workdir / 'checkpoints/5').iterdir():
    if path.name != 'model':
      shutil.rmtree(path) if path.is_dir() else path.unlink()
  with pytest.raises(CheckpointError, match='step 5: no manifest: saved by an earlier version'):
    load(f'{workdir}@5')
  (workdir / 'checkpoints/10').rename(workdir / 'checkpoints/12')
  with pytest.raises(CheckpointError, match='step 12: it was saved as step 10; step 5: no manif'):
    restore(workdir)


def test_a_state_of_another_shape_is_an_error_and_not_damage(workdir):
  like = make_state(0)
  like = like._replace(params=like.params | {'b': jnp.zeros(4)}, sums={})
  with (
    contextlib.closing(Checkpoints(workdir, FILES)) as checkpoints,
    pytest.raises(CheckpointError) as caught,
  ):
    checkpoints.restore(abstract(like))
  assert type(caught.value) is CheckpointError  # and not DamagedError
  message = str(caught.value)
  assert 'model/params/b is float32 [5] in the checkpoint and float32 [4] in this run' in message
  assert 'training/sums/loss is float32 [2] in the checkpoint and absent in this run' in message
  assert steps(workdir) == [5, 10]


def test_a_byte_flipped_anywhere_never_gives_wrong_values(workdir):
  done = subprocess.run(
    [sys.executable, '-m', 'tests.support.damage', workdir.parent],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  outcomes = json.loads(done.stdout.splitlines()[-1])
  assert outcomes.keys() == {
    *('read error', 'read 5', 'read 10', 'resume error', 'resume 5', 'resume 10')
  }


SAVE = """
import itertools, pathlib, sys
from pixelbert_jax.checkpoints.checkpoint import Checkpoints
from tests.support.states import FILES, make_state
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]), FILES)
for step in itertools.count((checkpoints.latest or 0) + 1):
  print(step, flush=True)
  checkpoints.save(step, make_state(step))
"""


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_what_it_saved_before(tmp_path, capsys):
  chance, reached = random.Random(0), 0
  save(tmp_path)
  for _ in range(6):
    command = [sys.executable, '-c', SAVE, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
      for number in range(1, 4):  # A save begins when the one before is done.
        assert int(process.stdout.readline()) == reached + number
      time.sleep(chance.uniform(0, 0.5))
      process.send_signal(signal.SIGKILL)
    found = load(tmp_path)
    assert bits(found.variables) == bits(make_state(found.step).variables)
    assert bits(restore(tmp_path)) == bits(make_state(found.step))
    assert found.step > reached
    reached = found.step
  assert 'damaged' not in capsys.readouterr().out  # The newest is written before it has its name.
