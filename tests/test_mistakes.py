"""Every mistake gets one line soon, which says what, where and how to mend it; nothing changes."""

import time

import pytest

from pixelbert_jax import configuration
from pixelbert_jax.main import main
from tests.support.mistakes import MISTAKES, TEST
from tests.support.paths import ROOT
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


@pytest.mark.parametrize('workdir', ['gs://b/runs/x', 's3://b/x', 'hf://b/x', 'file:///b/x'])
def test_a_workdir_is_a_folder_of_this_machine(workdir, said, tmp_path, monkeypatch):
  config = ROOT / 'configs/pretrain.py'
  monkeypatch.chdir(tmp_path)
  line = said(f'--config={config}:test', workdir=workdir)
  assert f'--workdir: {workdir} is an address' in line
  assert 'mount the bucket' in line
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('address', ['gs://b/run', 'az://b/run', 'https://b/run', 'file:///b/run'])
def test_a_checkpoint_that_cannot_be_reached(address, said, tmp_path, monkeypatch):
  config = ROOT / 'configs/pretrain.py'
  monkeypatch.chdir(tmp_path)
  line = said(f'--config={config}:test', f'--config.init_from={address}')
  assert f'init_from: {address} cannot be read' in line
  assert 'mount the bucket' in line
  assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_folder(data_dir, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  config = configuration.load(
    f'{ROOT}/configs/vqa.py:test',
    [f'{name}=~/x' for name in ('init_from', 'data.data_dir', 'data.answers', 'text.vocabulary')],
  )
  for value in (config.init_from, config.data.data_dir, config.data.answers):
    assert value == f'{tmp_path}/x'
  assert config.text.vocabulary == f'{tmp_path}/x'
  (tmp_path / 'file').write_text('')
  train = [f'--config={ROOT}/configs/pretrain.py:test', f'--config.data.data_dir={data_dir}']
  assert main([*train, '--workdir=~/file/run']) == 1
  assert f'{tmp_path}/file' in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_workdir_that_cannot_be_written(said, tmp_path):
  (tmp_path / 'file').write_text('')
  line = said(TEST, workdir=tmp_path / 'file/run')
  assert str(tmp_path / 'file') in line
  assert '--workdir' in line
