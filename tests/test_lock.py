"""One process at a time holds a lock file, and what a killed one left is taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pixelbert_jax import UserError, disk, lock
from tests.support.paths import ROOT

HOLDER = """
import sys, time
from pixelbert_jax import lock
with lock.held(sys.argv[1], 'the folder', 'give another'):
  print('held', flush=True)
  time.sleep(600)
"""
STARTED_AT_ONCE = """
import sys
from pixelbert_jax import lock
print('ready', flush=True)
sys.stdin.readline()
try:
  with lock.held(sys.argv[1], 'the folder', 'give another'):
    print('held', flush=True)
    sys.stdin.readline()
except lock.LockError:
  print('refused', flush=True)
"""
ELSEWHERE = {'host': 'tpu-7', 'process': 9, 'started': '2026-01-31 10:00:00', 'kernel': 'another'}


def start(code, *arguments):
  return subprocess.Popen(
    [sys.executable, '-c', code, *map(str, arguments)],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


@pytest.fixture
def holder(tmp_path):
  """Another process that holds the lock."""
  process = start(HOLDER, tmp_path / '.lock')
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.communicate()


@pytest.fixture
def no_wait(monkeypatch):
  """Any wait for a lock is an error."""

  def sleep(seconds):
    raise AssertionError(f'waited {seconds} s')

  monkeypatch.setattr(lock.time, 'sleep', sleep)


@pytest.fixture
def quick(monkeypatch):
  for name, seconds in {'RENEWED': 0.05, 'STALE': 1.5, 'POLLED': 0.02, 'SETTLED': 0.05}.items():
    monkeypatch.setattr(lock, name, seconds)


def held(folder, **options):
  return lock.held(folder / '.lock', 'the folder', 'give another', **options)


def left_behind(folder, seconds_ago=0.0, **owner):
  path = folder / '.lock'
  path.write_text(json.dumps(ELSEWHERE | {'token': 'x'} | owner))
  os.utime(path, (time.time() - seconds_ago,) * 2)
  return path


def test_a_lock_names_its_owner_and_is_gone_at_the_end_with_the_folders_it_made(tmp_path, no_wait):
  with held(tmp_path / 'runs/a'):
    (path,) = (tmp_path / 'runs/a').iterdir()
    assert json.loads(path.read_text())['process'] == os.getpid()
    lock.check(path)
  assert list(tmp_path.iterdir()) == []
  with pytest.raises(ValueError, match='an error'), held(tmp_path):
    raise ValueError('an error')
  assert list(tmp_path.iterdir()) == []


def test_while_another_process_lives_it_is_refused_in_a_line_that_names_it(holder, tmp_path):
  before = (tmp_path / '.lock').read_bytes()
  with pytest.raises(lock.LockError, match=rf'in use by process {holder.pid} on') as caught:
    held(tmp_path).__enter__()
  assert '\n' not in str(caught.value)
  assert f'delete {tmp_path}/.lock' in str(caught.value)
  assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
  with pytest.raises(lock.LockError, match=f'was taken by process {holder.pid}'):
    lock.check(tmp_path / '.lock')


def test_after_a_kill_it_goes_on_at_once(holder, tmp_path, no_wait):
  holder.kill()
  holder.wait()
  with held(tmp_path):
    assert f'"process": {os.getpid()}' in (tmp_path / '.lock').read_text()
  assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_has_now_is_noticed(holder, tmp_path):
  path = tmp_path / '.lock'
  owner = json.loads(path.read_text())
  holder.kill()
  holder.wait()
  # This process has the number; that of the lock was started at another time.
  path.write_text(json.dumps(owner | {'process': os.getpid()}))
  with held(tmp_path):
    pass


@pytest.mark.parametrize('lives', [True, False])
def test_in_another_container_of_this_machine_the_kernel_knows(lives, holder, tmp_path):
  path = tmp_path / '.lock'
  owner = json.loads(path.read_text())
  with path.open('r+') as file:  # The same file: its owner holds it open.
    file.write(json.dumps(owner | {'space': 'pid:[1]', 'process': 1}))
    file.truncate()
  if lives:
    with pytest.raises(lock.LockError, match='in use by process 1 on'):
      held(tmp_path).__enter__()
  else:
    holder.kill()
    holder.wait()
    with held(tmp_path):
      pass


def test_of_processes_that_start_at_once_one_wins(tmp_path):
  for stale in (False, True):
    if stale:
      left_behind(tmp_path, seconds_ago=999)
    processes = [start(STARTED_AT_ONCE, tmp_path / '.lock') for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ['ready\n'] * 4
    for process in processes:
      process.stdin.write('now\n')
      process.stdin.flush()
    assert (
      sorted(process.stdout.readline() for process in processes) == ['held\n'] + ['refused\n'] * 3
    )
    for process in processes:
      process.communicate('end\n')
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_is_waited_for_until_it_is_stale(tmp_path, quick, capsys):
  path = left_behind(tmp_path)
  began = time.perf_counter()
  with held(tmp_path):
    assert time.perf_counter() - began >= lock.STALE - 0.1
    assert json.loads(path.read_text())['process'] == os.getpid()
  (line,) = capsys.readouterr().err.splitlines()
  assert 'in use by process 9 on tpu-7, started 2026-01-31 10:00:00: waiting, for' in line
  left_behind(tmp_path, seconds_ago=10)
  with held(tmp_path):  # It was not renewed for long enough.
    assert capsys.readouterr().err == ''


def test_a_lock_of_another_machine_that_is_renewed_is_refused(tmp_path, quick):
  path = left_behind(tmp_path)
  timer = threading.Timer(0.2, os.utime, [path])
  timer.start()
  with pytest.raises(lock.LockError, match='in use by process 9 on tpu-7'):
    held(tmp_path).__enter__()
  timer.join()


def test_a_lock_is_renewed_and_its_loss_is_noticed(tmp_path, quick):
  path = tmp_path / '.lock'
  with held(tmp_path):
    os.utime(path, (0, 0))
    for _ in range(100):
      time.sleep(0.05)
      if path.stat().st_mtime > 0:
        break
    assert time.time() - path.stat().st_mtime < 10
    lock.check(path)
    path.unlink()
    left_behind(tmp_path)
    with pytest.raises(lock.LockError, match='was taken by process 9 on tpu-7'):
      lock.check(path)
  assert json.loads(path.read_text())['host'] == 'tpu-7'  # is not this one's to delete


def test_where_there_are_no_links_as_in_a_bucket(tmp_path, quick, monkeypatch):
  def link(*_):
    raise PermissionError(1, 'Operation not permitted')

  monkeypatch.setattr(os, 'link', link)
  with held(tmp_path):
    lock.check(tmp_path / '.lock')
    with pytest.raises(lock.LockError):
      held(tmp_path).__enter__()
  assert list(tmp_path.iterdir()) == []


def test_a_build_waits_for_its_owner(holder, tmp_path, quick):
  threading.Timer(0.3, holder.send_signal, [signal.SIGKILL]).start()
  with held(tmp_path, waits=True):
    assert holder.wait() == -signal.SIGKILL


def test_a_disk_is_tidied_before_it_has_to_have_room(tmp_path, monkeypatch):
  write, full = os.pwrite, [True]

  def pwrite(*arguments):
    if full:
      raise OSError(28, 'No space left on device')
    return write(*arguments)

  monkeypatch.setattr(os, 'pwrite', pwrite)
  with held(tmp_path, tidy=full.clear):
    assert f'"process": {os.getpid()}' in (tmp_path / '.lock').read_text()
  full.append(True)
  with pytest.raises(UserError, match='No space left'), held(tmp_path):
    pass
  assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(disk.WriteError, match=rf'{tmp_path}/file/run cannot be written .*: give ano'):
    held(tmp_path / 'file/run').__enter__()
