"""A step for which the disk has no room: one line, the steps before whole, and on with room."""

import asyncio
import contextlib
import gc
import re
import shutil
import subprocess
import sys
import types

import pytest
from orbax.checkpoint import serialization

from pixelbert_jax import disk
from pixelbert_jax.checkpoints import room
from pixelbert_jax.checkpoints.checkpoint import Checkpoints, steps
from pixelbert_jax.checkpoints.workdir import LOCK, owned
from pixelbert_jax.lock import LockError
from tests.support.paths import ROOT
from tests.support.states import FILES, bits, make_state, restore, save

# The limit on the size of files stands for a disk that gets full while a step is saved.
SAVING = """
import contextlib, pathlib, resource, sys
from pixelbert_jax import commandline
from pixelbert_jax.checkpoints.checkpoint import Checkpoints
from tests.support.states import FILES, make_state

def command(argv):
  with contextlib.closing(Checkpoints(pathlib.Path(argv[0]), FILES)) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    for step in (5, 6):
      checkpoints.save(step, make_state(step))

code = commandline.answer(command, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.exit(code)
"""


def test_a_disk_that_gets_full_while_a_step_is_saved_is_one_line(tmp_path):
  folder = tmp_path / 'run'
  save(folder, 4)
  done = subprocess.run(
    [sys.executable, '-c', SAVING, folder], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 1, done.stderr
  assert re.fullmatch(
    rf'error: {folder}/checkpoints cannot be written \(File too large\): [\d.]+ kB needed, '
    r'.+ free on that disk: make room, or .+ the steps before are whole\n',
    done.stderr,
  )
  assert steps(folder) == [4]
  assert list((folder / 'checkpoints').glob('*tmp*'))
  with owned(folder):  # The next start deletes what is half-written.
    assert [path.name for path in (folder / 'checkpoints').iterdir()] == ['4']
  assert bits(restore(folder)) == bits(make_state(4))
  save(folder, 5)
  assert bits(restore(folder)) == bits(make_state(5))


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
  folder = tmp_path / 'run'
  save(folder, 4)
  with contextlib.closing(Checkpoints(folder, FILES)) as checkpoints:
    with monkeypatch.context() as patch:
      usage = types.SimpleNamespace(total=10**6, free=1234)
      patch.setattr(shutil, 'disk_usage', lambda path: usage)
      with pytest.raises(
        disk.WriteError, match=r'kB needed, 1\.23 kB free on that disk: make room'
      ):
        checkpoints.save(5, make_state(5))
      usage.total = usage.free = 0  # as of a bucket
      checkpoints.room.check(make_state(5))
    assert steps(folder) == [4]
    checkpoints.save(5, make_state(5))
  assert bits(restore(folder)) == bits(make_state(5))


def test_a_run_whose_workdir_was_taken_saves_nothing(tmp_path):
  folder = tmp_path / 'run'
  save(folder, 4)
  with contextlib.closing(Checkpoints(folder, FILES)) as checkpoints, owned(folder):
    (folder / LOCK).write_text('{"token": "of another", "host": "tpu-7", "process": 9}')
    with pytest.raises(LockError, match='was taken by process 9 on tpu-7'):
      checkpoints.save(5, make_state(5))
    assert steps(folder) == [4]
    (folder / LOCK).unlink()


def test_what_killed_processes_left_in_a_workdir_is_deleted(tmp_path):
  save(tmp_path, 4)
  left = ['.config.json.host-1.partial', 'predictions/.test.json.other-2.partial']
  left += ['checkpoints/5.orbax-checkpoint-tmp/model']
  for name in left:
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / 'predictions/test.json').write_text('[]')
  with owned(tmp_path):
    assert not any((tmp_path / name).exists() for name in left)
    assert steps(tmp_path) == [4]
    assert (tmp_path / 'predictions/test.json').exists()


def test_what_orbax_had_begun_beside_a_failed_read_is_not_shown(monkeypatch):
  shown = []
  monkeypatch.setattr('sys.unraisablehook', shown.append)
  room.omit_repeated.__wrapped__()
  for name, expected in [(serialization.__file__, 0), (__file__, 1)]:
    # As Orbax reads an array: all that ends it, Python's closing too, becomes an error.
    code = """
async def read(waited):
  try:
    await waited
  except BaseException as error:
    raise Exception('Encountered error while reading') from error
"""
    exec(compile(code, name, 'exec'), names := {})
    reading = names['read'](asyncio.sleep(0))
    reading.send(None)
    del reading
    gc.collect()
    assert len(shown) == expected
