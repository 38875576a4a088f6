"""Every mistake gets one line soon, which says what, where and how to mend it; nothing changes."""

import time

import pytest

from pixelbert_jax.main import main
from tests.support.mistakes import MISTAKES, TEST
from tests.support.scenes import build_scenes

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return build_scenes(tmp_path_factory.mktemp('scenes'), train=40, val=4, test=4)


@pytest.fixture
def said(data_dir, tmp_path, monkeypatch, capsys):
  """The one line that a command ends with, after it changed nothing."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))

  def said(*arguments, workdir=tmp_path / 'run'):
    began = time.process_time()  # whatever else the machine does
    code = main([*arguments, f'--workdir={workdir}'] if arguments else [])
    assert code == 1
    assert time.process_time() - began < 10
    captured = capsys.readouterr()
    assert captured.err.startswith('error: ')
    assert captured.err.count('\n') == 1
    return captured.err

  return said


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line(mistake, said, tmp_path):
  arguments, words = MISTAKES[mistake]
  line = said(*arguments)
  for word in words:
    assert word in line
  assert not (tmp_path / 'run').exists()


def test_a_workdir_that_cannot_be_written(said, tmp_path):
  (tmp_path / 'file').write_text('')
  line = said(TEST, workdir=tmp_path / 'file/run')
  assert str(tmp_path / 'file') in line
  assert '--workdir' in line
