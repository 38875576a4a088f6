"""Files and folders are written whole or not at all."""

import os
import re
import signal
import subprocess
import sys

import pytest

from pixelbert_jax import files
from tests.support.paths import ROOT

# Writes a part, prints a line, and waits to be killed.
WRITER = """
import sys, time
from pixelbert_jax import files

def wait():
  print('writing', flush=True)
  time.sleep(600)

def fill(file):
  file.write(b'new' * 1000)
  file.flush()
  wait()

kind, path = sys.argv[1:]
if kind == 'file':
  files.write(path, fill)
with files.atomic(path) as partial:
  partial.mkdir()
  (partial / 'a').write_text('new')
  wait()
"""


def tree(folder):
  """The content of every file below a folder, by path; None for a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
    for path in folder.rglob('*')
  }


def start_writer(kind, path):
  """A process that is in the middle of writing `path`."""
  process = subprocess.Popen(
    [sys.executable, '-c', WRITER, kind, path], cwd=ROOT, stdout=subprocess.PIPE
  )
  assert process.stdout.readline() == b'writing\n'
  return process


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.communicate()


def write_folder(path, *names):
  with files.atomic(path) as partial:
    partial.mkdir()
    for name in names:
      (partial / name).parent.mkdir(exist_ok=True)
      (partial / name).write_text(name)


def test_each_form_writes_what_it_is_given(tmp_path):
  files.write(tmp_path / 'deep/er/filled', lambda file: file.writelines([b'a', b'b']))
  files.write_bytes(str(tmp_path / 'bytes'), b'\x00\xff')
  files.write_text(tmp_path / 'text', 'ü\r\n')
  write_folder(tmp_path / 'folder', 'a', 'sub/b')
  assert tree(tmp_path) == {
    **{'deep': None, 'deep/er': None, 'deep/er/filled': b'ab'},
    **{'bytes': b'\x00\xff', 'text': 'ü\r\n'.encode()},
    **{'folder': None, 'folder/a': b'a', 'folder/sub': None, 'folder/sub/b': b'sub/b'},
  }


def test_a_relative_path_is_one_of_the_folder_it_was_called_in(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  files.write_text('text', 'a')
  write_folder('folder', 'a')
  assert tree(tmp_path) == {'text': b'a', 'folder': None, 'folder/a': b'a'}


def test_a_file_is_replaced_at_the_end_only(tmp_path):
  path = tmp_path / 'file'
  files.write_text(path, 'old')

  def fill(file):
    file.write(b'new')
    file.flush()
    assert path.read_text() == 'old'
    (partial,) = tmp_path.glob('.*')
    assert re.fullmatch(rf'\.file\..+-{os.getpid()}\.partial', partial.name)

  files.write(path, fill)
  assert tree(tmp_path) == {'file': b'new'}


def test_everything_is_on_disk_before_it_is_renamed(tmp_path, monkeypatch):
  fsync, flushed = os.fsync, []

  def record(number):
    flushed.append((os.fstat(number).st_ino, os.fstat(number).st_size))
    fsync(number)
    assert not (tmp_path / 'folder').exists()

  monkeypatch.setattr(os, 'fsync', record)
  write_folder(tmp_path / 'folder', 'a', 'sub/b')
  inodes = {(tmp_path / 'folder' / name).stat().st_ino: len(name) for name in ('a', 'sub/b')}
  assert dict(flushed) == inodes


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_what_was_there(error, tmp_path):
  files.write_text(tmp_path / 'file', 'old')
  (tmp_path / 'empty').mkdir()
  before = tree(tmp_path)

  def fail(file):
    file.write(b'new' * 1000)
    raise error

  def fail_in_folder(path):
    with files.atomic(path) as partial:
      partial.mkdir()
      (partial / 'a').write_text('new')
      raise error

  for name in ('file', 'other'):
    with pytest.raises(error):
      files.write(tmp_path / name, fail)
  for name in ('empty', 'absent'):
    with pytest.raises(error):
      fail_in_folder(tmp_path / name)
  assert tree(tmp_path) == before


def test_a_folder_that_is_not_empty_is_never_replaced(tmp_path):
  write_folder(tmp_path / 'folder', 'a')
  before = tree(tmp_path)
  with pytest.raises(OSError, match='folder'):
    write_folder(tmp_path / 'folder', 'b')
  assert tree(tmp_path) == before
  (tmp_path / 'folder/a').unlink()
  write_folder(tmp_path / 'folder', 'b')
  assert tree(tmp_path) == {'folder': None, 'folder/b': b'b'}


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_a_killed_process_leaves_the_old_and_the_next_one_tidies_up(kind, tmp_path):
  path = tmp_path / 'name[1]'  # which is a pattern to glob
  write = (lambda: files.write_text(path, 'old')) if kind == 'file' else path.mkdir
  write()
  before = tree(tmp_path)
  kill(start_writer(kind, path))
  after = tree(tmp_path)
  left = {name: content for name, content in after.items() if name not in before}
  assert {name: content for name, content in after.items() if name in before} == before
  assert left
  assert all(name.startswith('.name[1].') for name in left)
  if kind == 'file':
    files.write_text(path, 'whole')
    assert tree(tmp_path) == {'name[1]': b'whole'}
  else:
    write_folder(path, 'b')
    assert tree(tmp_path) == {'name[1]': None, 'name[1]/b': b'b'}


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_what_another_process_is_writing_is_left_to_it(kind, tmp_path):
  path = tmp_path / 'name'
  writer = start_writer(kind, path)
  try:
    partial = tree(tmp_path)
    assert partial
    files.write_text(path, 'whole')
    assert tree(tmp_path) == partial | {'name': b'whole'}
  finally:
    kill(writer)


def test_leftovers_of_this_process_number_and_of_other_names(tmp_path):
  # In a container each start may have the same number.
  with files.atomic(tmp_path / 'a') as partial:
    partial.write_text('')
    name = partial.name
  (tmp_path / name).mkdir()
  (tmp_path / name / 'old').write_text('')
  (tmp_path / name.replace('.a.', '.b.')).write_text('')
  elsewhere = re.sub(r'^\.a\..*-', '.a.another-machine-', name)
  (tmp_path / elsewhere).write_text('')
  write_folder(tmp_path / 'c', 'file')
  (tmp_path / 'a').unlink()
  write_folder(tmp_path / 'a', 'new')
  assert tree(tmp_path) == {
    **{'a': None, 'a/new': b'new', 'c': None, 'c/file': b'file'},
    **{name.replace('.a.', '.b.'): b'', elsewhere: b''},
  }
