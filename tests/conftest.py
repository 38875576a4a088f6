"""Fixtures that several test files share."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from data.builders import open_dataset
from tests.support import processes
from tests.support.processes import STEPS
from tests.support.runs import COMMAND
from tests.support.scenes import build_scenes

# Read by PyTorch when it is imported: its threads wait busily, which slows the other worker.
os.environ.setdefault('OMP_NUM_THREADS', '1')

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


@pytest.fixture(scope='session')
def shared_folder(tmp_path_factory):
  """A temporary folder that the workers of pytest-xdist have in common."""
  own = tmp_path_factory.getbasetemp()
  return own.parent if 'PYTEST_XDIST_WORKER' in os.environ else own


@pytest.fixture(scope='session', autouse=True)
def compiled_programs(shared_folder):
  """The folder of compiled programs; this process and those it starts compile each only once."""
  folder = shared_folder / 'compiled'
  settings = {
    'jax_compilation_cache_dir': str(folder),
    'jax_persistent_cache_min_compile_time_secs': 0,
    'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  with pytest.MonkeyPatch.context() as patch:
    for name, value in settings.items():
      jax.config.update(name, value)
      patch.setenv(name.upper(), str(value))
    compilation_cache.reset_cache()
    yield folder


@pytest.fixture(scope='module')
def quick_compiles():
  """Compiles without most optimisations: compiling takes longer than all else in these tests."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='session')
def few_scenes(shared_folder):
  """The folder of a small scenes dataset."""
  return build_scenes(shared_folder / 'few_scenes', train=200, val=10, test=10)


@pytest.fixture(scope='session')
def dataset(few_scenes):
  """The small scenes dataset, opened."""
  return open_dataset('scenes', few_scenes)


@pytest.fixture(scope='session')
def environment(few_scenes, compiled_programs):
  """The environment of commands: the small scenes dataset, and programs compiled quickly."""
  quick = {'TFDS_DATA_DIR': str(few_scenes), 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
  return os.environ | quick


@pytest.fixture
def spawn(environment):
  """Starts commands in the checkout with pipes, and kills at the end those that still run."""
  started = []

  def spawn(command, **variables):
    started.append(processes.spawn(command, **environment | variables))
    return started[-1]

  yield spawn
  for process in started:
    process.kill()
    process.communicate()


@pytest.fixture
def start_pair(spawn):
  """Starts two processes on a workdir, one device each."""

  def start(workdir, *arguments):
    train = [*COMMAND, f'--workdir={workdir}', f'--config.epochs={STEPS / 100}']
    if not any(word.startswith('--config=') for word in arguments):
      train.append('--config=configs/pretrain.py:test')
    return processes.start('2x1', [*train, *arguments], spawn)

  return start
