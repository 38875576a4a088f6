"""The models that come with the repository: they are what their page says, and answer rightly."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from benchmarks import scores, study
from pixelbert_jax import predict
from pixelbert_jax.convert.export import CODE
from tests.support.paths import ROOT

FOLDER = ROOT / 'checkpoints'
PRETRAIN = scores.RUNS / 'pretrain.jsonl'
SCENE = ROOT / 'docs/scene.jpg'  # a yellow circle left of a green cross


@pytest.mark.parametrize('name', ['scenes-pretrain', 'scenes-vqa'])
def test_a_model_is_the_one_of_its_page(name):
  folder = FOLDER / name
  digest = hashlib.sha256((folder / 'model.safetensors').read_bytes()).hexdigest()
  assert re.search(rf'^\| \[{name}\].*`{digest}`', (FOLDER / 'README.md').read_text(), re.M)
  for path in CODE:
    assert (folder / path.name).read_text() == path.read_text()
  assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
  report = study.read(scores.RUNS / f'{name.partition("-")[2]}.jsonl')[-1]
  trained = json.loads((folder / 'config.json').read_text())['trained_on']
  assert trained['steps'] == report.get('chosen_step', report['step'])


def test_they_answer_and_say_what_they_are():
  with pytest.warns(UserWarning, match='rendered scenes'):
    asked, matched = (predict.load(FOLDER / f'scenes-{name}') for name in ('vqa', 'pretrain'))
  for question, answer in {
    'what colour is the cross': 'green',
    'what shape is the yellow object': 'circle',
    'how many objects are there': '2',
  }.items():
    assert asked.answer(SCENE, question)[0][0][0] == answer
  true, other, turned = matched.match(
    SCENE,
    [
      'a yellow circle left of a green cross',
      'a yellow cross',
      'a green cross left of a yellow circle',
    ],
  )[0]
  assert true > 0.9
  assert max(other, turned) < 0.1
  assert matched.fill(SCENE, 'a [MASK] cross')[0][0][0] == 'green'


@pytest.mark.slow
def test_the_first_steps_are_trained_again(tmp_path):
  words = ['--config=configs/pretrain.py', '--config.steps=50', f'--workdir={tmp_path}/run']
  own = {'TFDS_DATA_DIR': str(tmp_path), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-m', 'pixelbert_jax.main', '--quiet', *words]
  subprocess.run(command, cwd=ROOT, env=os.environ | own, check=True, timeout=900)
  trained, recorded = (study.read(x)[0] for x in (tmp_path / 'run/metrics.jsonl', PRETRAIN))
  assert trained['step'] == recorded['step'] == 50
  # Other processors round otherwise.
  for name in ('mlm_loss', 'itm_loss', 'gradient_norm'):
    assert trained[name] == pytest.approx(recorded[name], rel=0.02)
