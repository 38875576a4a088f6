"""The wheel: what it holds, and what works where it alone is installed."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

from tests.support import fresh, tiny
from tests.support.paths import ROOT


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The path of a wheel, built from a copy, so that no older build is part of it."""
  copy = tmp_path_factory.mktemp('copy')
  for name in ('pixelbert_jax', 'configs', 'data', 'benchmarks', 'launch'):
    shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copyfile(ROOT / name, copy / name)
  command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation']
  subprocess.run([*command, '--wheel-dir', copy / 'dist', copy], check=True)
  (path,) = copy.glob('dist/*.whl')
  return path


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
  """Runs `python` with arguments where only the wheel is installed; returns the process, ended."""
  base = tmp_path_factory.mktemp('installed')
  executable = fresh.environment(base / 'venv')
  pip = [sys.executable, '-m', 'pip', '--python', executable, 'install', '--quiet', '--no-deps']
  subprocess.run([*pip, wheel], check=True)
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  environment |= {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1', 'JAX_PLATFORMS': 'cpu'}
  (base / 'elsewhere').mkdir()

  def run(*arguments):
    return subprocess.run(
      [executable, *map(str, arguments)],
      cwd=base / 'elsewhere',
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )

  return run


def succeed(process: subprocess.CompletedProcess) -> str:
  assert process.returncode == 0, process.stderr
  return process.stdout


def test_it_holds_the_package_alone(wheel):
  names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
  package = (path for path in (ROOT / 'pixelbert_jax').rglob('*') if path.is_file())
  assert names == {
    str(path.relative_to(ROOT)) for path in package if path.suffix in ('.py', '.json', '.html')
  }
  assert 'pixelbert_jax/score/vqa_normalisation.json' in names


@pytest.mark.slow
def test_the_checkout_is_out_of_reach(python):
  where = succeed(python('-c', 'import pixelbert_jax; print(pixelbert_jax.__file__)')).strip()
  assert not pathlib.Path(where).is_relative_to(ROOT)
  for name in ('data', 'configs', 'benchmarks', 'tests'):
    missing = python('-c', f'import {name}')
    assert missing.returncode == 1
    assert f"No module named '{name}'" in missing.stderr


@pytest.mark.slow
def test_predict(python, tmp_path):
  Image.new('RGB', (70, 60), (200, 30, 30)).save(tmp_path / 'photo.png')
  command = ['-m', 'pixelbert_jax.predict', f'--image={tmp_path}/photo.png', '--json']
  command += [f'--checkpoint={tiny.write(tmp_path / "vqa", "vqa")}']
  said = json.loads(succeed(python(*command, '--question=what colour is the circle')))
  answers = [pair['answer'] for pair in said['answers']]
  assert set(answers) <= set(tiny.ANSWERS)
  assert len(answers) == 5


@pytest.mark.slow
def test_score(python, tmp_path):
  words = ['Two'] * 9 + ['Three']  # Where all agree, the official score normalises nothing.
  answers = [{'answer': word, 'answer_id': i + 1} for i, word in enumerate(words)]
  kinds = {'question_type': 'how many', 'answer_type': 'number'}
  annotations = [{'question_id': 1, 'image_id': 1, 'answers': answers, **kinds}]
  (tmp_path / 'annotations.json').write_text(json.dumps({'annotations': annotations}))
  (tmp_path / 'predictions.json').write_text(json.dumps([{'question_id': 1, 'answer': '2'}]))
  files = [f'--{name}={tmp_path}/{name}.json' for name in ('predictions', 'annotations')]
  scores = json.loads(succeed(python('-m', 'pixelbert_jax.score', 'vqa', *files, '--json')))
  assert scores['accuracy'] == 1.0


@pytest.mark.slow
def test_convert(python, tmp_path):
  command, export = ['-m', 'pixelbert_jax.convert'], tmp_path / 'export'
  checkpoint = tiny.write(tmp_path / 'model', 'pretrain')
  succeed(python(*command, f'--checkpoint={checkpoint}', f'--export={export}'))
  succeed(python(*command, f'--checkpoint={export}', f'--output={tmp_path}/back'))
  assert json.loads((tmp_path / 'back/config.json').read_text())['name'] == 'pretrain'
