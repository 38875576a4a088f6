"""Fixtures that several test files share."""

import os
import subprocess

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from data.builders import open_dataset
from tests.support.paths import ROOT
from tests.support.processes import STEPS, free_port
from tests.support.runs import COMMAND
from tests.support.scenes import build_scenes

VOCABULARY = (
  '[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] '
  'a the red blue green cat dog bus on in street , . ! ##s ##es un ##play ##ed '
)


@pytest.fixture(scope='session')
def vocabulary(tmp_path_factory):
  """The path of a small BERT vocabulary."""
  path = tmp_path_factory.mktemp('vocabulary') / 'vocab.txt'
  path.write_text(VOCABULARY.replace(' ', '\n'), encoding='utf-8')
  return path


@pytest.fixture(scope='module')
def quick_compiles():
  """Compiles without most optimisations: compiling takes longer than all else in these tests."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def compiled_once(tmp_path_factory):
  """Compiles quickly, and each program once: runs of the same shapes share it."""
  for folder in (str(tmp_path_factory.getbasetemp() / 'compiled'), None):
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_disable_most_optimizations', bool(folder))
    compilation_cache.reset_cache()
    if folder:
      yield


@pytest.fixture(scope='session')
def few_scenes(tmp_path_factory):
  """The folder of a small scenes dataset."""
  return build_scenes(tmp_path_factory.getbasetemp() / 'few_scenes', train=200, val=10, test=10)


@pytest.fixture(scope='session')
def dataset(few_scenes):
  """The small scenes dataset, opened."""
  return open_dataset('scenes', few_scenes)


@pytest.fixture(scope='session')
def environment(few_scenes, tmp_path_factory):
  """The environment of commands: the small scenes dataset, and programs compiled once, quickly."""
  return os.environ | {
    'TFDS_DATA_DIR': str(few_scenes),
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path_factory.getbasetemp() / 'compiled'),
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
  }


@pytest.fixture
def spawn(environment):
  """Starts commands in the checkout with pipes, and kills at the end those that still run."""
  started = []

  def spawn(command, **variables):
    process = subprocess.Popen(
      command,
      cwd=ROOT,
      env=environment | variables,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    return process

  yield spawn
  for process in started:
    process.kill()
    process.communicate()


@pytest.fixture
def start_pair(spawn):
  """Starts two processes on a workdir, one device each."""

  def start(workdir, *arguments, command=(), **more):
    address = f'localhost:{free_port()}'
    train = [*COMMAND, '--distributed', f'--workdir={workdir}', f'--config.epochs={STEPS / 100}']
    if not any(word.startswith('--config=') for word in arguments):
      train.append('--config=configs/pretrain.py:test')
    own = {'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': '2'}
    own |= {'PIXELBERT_HEARTBEAT_SECONDS': '10'} | more
    return [spawn(command or [*train, *arguments], **own, JAX_PROCESS_ID=str(i)) for i in range(2)]

  return start
