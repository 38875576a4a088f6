"""Errors of a disk: what cannot be written, what room it needs and there is, what to do."""

import subprocess
import sys

import pytest

from pixelbert_jax import disk, files
from tests.support.paths import ROOT

WRITE = """
import resource, sys
from pixelbert_jax import commandline, files
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
sys.exit(commandline.answer(lambda argv: files.write_bytes(argv[0], bytes(10**6)), sys.argv[1:]))
"""


def test_a_file_that_does_not_fit_is_one_line_and_leaves_what_was_there(tmp_path):
  path = tmp_path / 'file'
  path.write_text('old')
  done = subprocess.run(
    [sys.executable, '-c', WRITE, path], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 1
  said = f'error: {path} cannot be written (File too large): 1 MB needed, '
  assert done.stderr.startswith(said)
  assert done.stderr.count('\n') == 1
  assert [file.read_text() for file in tmp_path.iterdir()] == ['old']


@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (OSError(28, 'No space left on device'), 'No space left on device'),
    (OSError(122, 'Disk quota exceeded'), 'Disk quota exceeded'),
    (OSError('1000 requested and 24 written'), 'No space left on device'),  # NumPy
    (ValueError("Failed to write: x [os_error_code='28']"), 'No space left on device'),  # Orbax
    (Exception('Permission denied (os error 13)'), 'Permission denied'),  # tokenizers
    (OSError(30, 'Read-only file system', '{folder}/.a.partial'), 'Read-only file system'),
  ],
)
def test_what_libraries_say_of_a_disk_is_understood(error, words, tmp_path):
  if isinstance(error, OSError) and error.filename:
    error.filename = error.filename.format(folder=tmp_path)
  with pytest.raises(disk.WriteError) as caught, files.atomic(tmp_path / 'a'):
    raise error
  assert str(caught.value).startswith(f'{tmp_path}/a cannot be written ({words}): ')
  assert ('free on that disk' in str(caught.value)) == (words[0] in 'ND')


@pytest.mark.parametrize(
  'error', [PermissionError(13, 'denied', '/elsewhere/file'), ValueError('x'), OSError('y')]
)
def test_other_errors_stay_what_they_are(error, tmp_path):
  with pytest.raises(type(error)) as caught, files.atomic(tmp_path / 'a'):
    raise error
  assert caught.value is error


def test_a_full_disk_in_the_log_is_one_error(tmp_path):
  # Limits are the process's, so it is one of its own.
  code = """
import pathlib, resource, sys
from pixelbert_jax import commandline
from pixelbert_jax.metrics import MetricsLog
def command(argv):
  log = MetricsLog(pathlib.Path(argv[0]), 0)
  resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
  for step in range(100):
    log.write(step, 'train', {f'metric_{i}': float(i) for i in range(20)})
sys.exit(commandline.answer(command, sys.argv[1:]))
"""
  done = subprocess.run(
    [sys.executable, '-c', code, tmp_path],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
  )
  assert done.returncode == 1
  first, *more = done.stderr.splitlines()
  assert first.startswith(f'error: {tmp_path} cannot be written (File too large): ')
  assert more == []


def test_sizes():
  assert [disk.size(n) for n in (0, 999, 1500, 2.5e9, 3e12)] == [
    *('0 bytes', '999 bytes', '1.5 kB', '2.5 GB', '3 TB')
  ]
