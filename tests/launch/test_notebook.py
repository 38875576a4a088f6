"""The notebook, launch/colab_evaluate.ipynb: run from its top, from a clone, as a reader would."""

import base64
import configparser
import io
import json
import os
import re
import subprocess

import jupytext
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.support import fresh
from tests.support.paths import ROOT

NOTEBOOK = ROOT / 'launch/colab_evaluate.ipynb'


def parameters(source: str) -> dict[str, str]:
  return dict(re.findall(r"^(\w+) = '(.*)'  # @param", source, re.MULTILINE))


def first_cell() -> dict[str, str]:
  """The parameters of the notebook."""
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  return parameters(next(c.source for c in notebook.cells if c.cell_type == 'code'))


def test_the_pair_says_the_same():
  script = jupytext.read(NOTEBOOK.with_suffix('.py'))
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  cells = [[(c.cell_type, c.source) for c in pair.cells] for pair in (script, notebook)]
  assert cells[0] == cells[1], 'run `jupytext --sync launch/colab_evaluate.py`'
  assert not any(c.get('outputs') for c in notebook.cells)


def test_it_clones_the_released_version_and_the_badge_opens_it():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  url, version = setup['metadata']['url'], setup['metadata']['version']
  # A version has a tag once it is released; until then what is shown is the default branch.
  unreleased = f'\n## {version} (unreleased)\n' in (ROOT / 'CHANGELOG.md').read_text()
  shown = 'main' if unreleased else f'v{version}'
  assert first_cell()['REPOSITORY'] == url
  assert first_cell()['VERSION'] == shown
  colab = url.replace('https://github.com', 'https://colab.research.google.com/github')
  badge = f'({colab}/blob/{shown}/launch/colab_evaluate.ipynb)'
  assert badge in (ROOT / 'README.md').read_text()


@pytest.fixture
def published(tmp_path):
  """A repository that holds this tree under the name that the notebook clones."""
  identity = [x for name in ('name', 'email') for x in ('-c', f'user.{name}=tests')]

  def git(*arguments):
    command = 'git', '-C', ROOT, *identity, *arguments
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

  commit = git('stash', 'create') or git('rev-parse', 'HEAD')  # what is not committed, too
  subprocess.run(['git', 'init', '--quiet', '--bare', tmp_path / 'published'], check=True)
  git('push', '--quiet', tmp_path / 'published', f'{commit}:refs/heads/{first_cell()["VERSION"]}')
  return f'file://{tmp_path}/published'


@pytest.fixture
def kernel(tmp_path, monkeypatch, few_scenes):
  """A fresh environment that has what this one has, but for the package; its kernel's name."""
  python = fresh.environment(tmp_path / 'venv')
  spec = {'argv': [str(python), '-m', 'ipykernel_launcher', '-f', '{connection_file}']}
  (tmp_path / 'jupyter/kernels/fresh').mkdir(parents=True)
  (tmp_path / 'jupyter/kernels/fresh/kernel.json').write_text(
    json.dumps(spec | {'display_name': 'fresh', 'language': 'python'})
  )
  monkeypatch.setenv('JUPYTER_PATH', str(tmp_path / 'jupyter'))
  monkeypatch.setenv('PATH', f'{python.parent}{os.pathsep}{os.environ["PATH"]}')
  monkeypatch.setenv('TFDS_DATA_DIR', str(few_scenes))
  monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')  # which compiles sooner
  monkeypatch.setenv('PYDEVD_DISABLE_FILE_VALIDATION', '1')
  return 'fresh'


def pictures(cell) -> list[np.ndarray]:
  shown = [out.data['image/png'] for out in cell.outputs if 'image/png' in out.get('data', {})]
  return [np.asarray(Image.open(io.BytesIO(base64.b64decode(x))).convert('RGB')) for x in shown]


def printed(cell) -> str:
  return ''.join(out.get('text', '') for out in cell.outputs)


@pytest.mark.slow
def test_it_runs_from_the_top(published, kernel, tmp_path):
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  Image.new('RGB', (300, 200), (200, 30, 30)).save(tmp_path / 'photo.png')
  new = {'REPOSITORY': published, 'VARIANT': ':test', 'PHOTO': str(tmp_path / 'photo.png')}
  for cell in notebook.cells:
    for name in parameters(cell.source).keys() & new:
      cell.source = re.sub(rf"^{name} = '.*?'", f'{name} = {new[name]!r}', cell.source, flags=re.M)
  NotebookClient(
    notebook, timeout=600, kernel_name=kernel, resources={'metadata': {'path': tmp_path}}
  ).execute()

  installing, first, training, evaluating, answers, looking, photo = [
    c for c in notebook.cells if c.cell_type == 'code'
  ][1:]
  assert (tmp_path / 'pixelbert_jax/runs/pretrain-test-s0/checkpoints').is_dir(), printed(
    installing
  )
  assert re.search(r'0\.\d+  green', printed(first)), printed(first)
  assert 'questions' in printed(training)
  (scored,) = tmp_path.glob('pixelbert_jax/runs/scored-*/predictions/test.json')
  scored = json.loads(scored.read_text())
  assert len(scored) > 50
  assert 'accuracy' in printed(evaluating)
  (figure,) = pictures(answers)
  assert figure.shape[0] > 500
  assert figure.std() > 20
  assert len(pictures(looking)) == 3
  (heat,) = pictures(photo)
  assert heat.std() > 20
  assert 'rendered scenes' in printed(looking)
