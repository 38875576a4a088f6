"""What several test files share."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from data.build import build
from data.scenes import record

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
  """Compiling takes longer than all else here, and optimised code is no other in meaning."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def compiled_once(tmp_path_factory):
  """Runs of one shape share a program, compiled quickly, which takes longer than all else here."""
  for folder in (str(tmp_path_factory.getbasetemp() / 'compiled'), None):
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_disable_most_optimizations', bool(folder))
    compilation_cache.reset_cache()
    if folder:
      yield


@pytest.fixture(scope='session')
def few_scenes(tmp_path_factory):
  """A folder with the scenes dataset, but small."""
  folder = tmp_path_factory.getbasetemp() / 'few_scenes'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(record, 'SPLITS', {'train': 200, 'val': 10, 'test': 10})
    build('scenes', folder)
  return folder
