"""Programs are compiled before the first step and kept between runs; a fault in that ends none."""

import subprocess
import sys

import jax
import pytest

from configs import retrieval
from configs.pretrain import get_config
from pixelbert_jax.experiment import resolve
from pixelbert_jax.loop import DONE
from pixelbert_jax.metrics import MetricsLog
from pixelbert_jax.train import train
from tests.support.paths import ROOT
from tests.support.runs import COMMAND, assert_same_run

CODE = """
import pathlib, sys, jax, jax.numpy as jnp
from pixelbert_jax import compilation
compilation.keep(sys.argv[1], pathlib.Path(sys.argv[2]))
print(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(5.0)), jax.jit(jnp.cos)(2.0))
"""


@pytest.fixture
def program(environment, tmp_path):
  """Runs programs with a setting of `compilation_cache`: what they print to stdout and stderr."""

  def run(setting='', given=''):
    done = subprocess.run(
      [sys.executable, '-c', CODE, str(setting), str(tmp_path / 'runs')],
      cwd=ROOT,
      env=environment | {'JAX_COMPILATION_CACHE_DIR': str(given)},
      capture_output=True,
      text=True,
      check=True,
    )
    return done.stdout, done.stderr

  run.folder = tmp_path / 'runs/compilation_cache'
  return run


def test_damaged_programs_are_said_once_and_compiled_again(program):
  first, err = program()
  assert err == ''
  entries = {path: path.read_bytes() for path in program.folder.iterdir()}
  assert len(entries) > 1
  for path, content in entries.items():
    path.write_bytes(content[: len(content) // 2])
  out, err = program()
  assert out == first
  assert err.startswith('compilation cache: ')
  assert f'in {program.folder} cannot be read' in err
  assert err.count('\n') == 1
  assert program() == (first, '')  # They are whole again.
  assert {path.stat().st_size for path in entries} == {len(x) for x in entries.values()}


def test_a_folder_that_cannot_be_written_is_said_once(program, tmp_path):
  (tmp_path / 'file').write_text('')
  out, err = program(tmp_path / 'file/folder')
  assert out
  assert err.startswith(f'compilation cache: {tmp_path}/file/folder cannot be written')
  assert err.count('\n') == 1
  assert not program.folder.exists()


def test_where_programs_are_kept(program, tmp_path):
  for setting, given, kept in [
    ('none', '', None),
    (tmp_path / 'own', '', tmp_path / 'own'),
    ('none', tmp_path / 'given', tmp_path / 'given'),
  ]:
    assert program(setting, given)[1] == ''
    assert kept is None or list(kept.iterdir())
  assert not program.folder.exists()


def test_a_run_from_kept_programs_is_bitwise_the_run_that_compiled_them(spawn, tmp_path):
  folder, kept = tmp_path / 'compilation_cache', []
  for name in ('compiled', 'kept'):
    command = [*COMMAND, '--config=configs/pretrain.py:test', f'--workdir={tmp_path / name}']
    process = spawn([*command, '--config.steps=3'], JAX_COMPILATION_CACHE_DIR='')
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert 'compiling   images 4x64x64 (1 of 1) ...\ncompiled    images 4x64x64 in ' in out
    kept.append({path.name for path in folder.iterdir()})
  assert kept[0] == kept[1]
  assert any(name.startswith('jit_whole-') for name in kept[0])
  assert_same_run(tmp_path / 'compiled', tmp_path / 'kept')


@pytest.fixture
def compiles(monkeypatch):
  """The names of programs that were compiled, or taken from the cache, since step 2 was logged."""
  found, after = [], []

  def listen(event, seconds, fun_name='', **_):
    if after and event == '/jax/core/compile/backend_compile_duration':
      found.append(fun_name)

  write = MetricsLog.write

  def noted(self, step, split, metrics):
    write(self, step, split, metrics)
    after.extend([step] if step == 3 else [])

  monkeypatch.setattr(MetricsLog, 'write', noted)
  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.usefixtures('quick_compiles')
@pytest.mark.parametrize(
  ('module', 'fields'),
  [('pretrain', {'micro_batches': 2}), ('retrieval', {})],
  ids=str,
)
def test_all_is_compiled_before_the_first_step(
  module, fields, few_scenes, tmp_path, compiles, capsys
):
  config = {'pretrain': get_config, 'retrieval': retrieval.get_config}[module]('test')
  config.image.canvases = ((64, 64), (64, 128), (128, 128))  # The second is never used.
  config.data.data_dir, config.steps, config.eval_every = str(few_scenes), 6, 4
  config.update(fields)
  assert train(resolve(config), tmp_path) == DONE
  # Sums over batches and blocks of scores, of a few numbers each.
  assert set(compiles) <= {'jit(add)', 'jit(concatenate)'}
  out = capsys.readouterr().out
  before, _, after = out.partition('step 1/6')
  assert 'compiling   images' in before
  assert 'compiling   evaluation, images' in before
  assert '64x128' not in before
  assert '\ncompil' not in after
