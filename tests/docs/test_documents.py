"""README.md and docs/: every command of theirs runs, small, and every Python block."""

import csv
import importlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from data.scenes import record, vocabulary
from tests.support.paths import ROOT
from tests.support.processes import free_port
from tests.support.published import as_torch, bert_tensors, cnn_tensors, write_bert

PAGES = [
  'README.md',
  'RESULTS.md',
  *sorted(f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md')),
]

# They run as they stand in tests of their own, which count them.
ELSEWHERE = {
  'docs/predict.md': 'test_predict.py: test_the_page_runs_as_it_stands',
  'docs/search.md': 'test_search.py: test_the_page_runs_as_it_stands',
  'docs/add_a_task.md': 'test_add_a_task.py',
  'docs/scores.md': 'test_score_command.py, and below',
  'docs/runs.md': 'test_bad_batch.py',
  'docs/plan.md': 'tests/plan: the real models take minutes',
  'docs/demo.md': 'tests/demo/test_browser.py',
}
# What the checks of the project do as a whole, and what takes the files of others.
NOT_RUN = {
  'git clone': 'a reader has done it',
  'python3 -m venv': 'and this',
  'pip install -e .': 'and this',
  "pip install -e '.[test]'": '.ci/run',
  'python -m data.build nlvr': 'test_nlvr_data.py',
  'python -m pixelbert_jax.main --config=configs/nlvr.py:': 'for these files: test_nlvr.py',
  'python -m data.build boxes': 'test_boxes.py',
  'python -m pixelbert_jax.main --config=configs/pretrain.py:boxes': 'test_boxes.py',
  'python -m pixelbert_jax.main --config=configs/pretrain.py --config.text.vocabulary=data': 'this',
  'python -m benchmarks.ablation': 'test_benchmarks_ablation.py',
  'python -m benchmarks.nlvr': 'test_benchmarks_nlvr.py',
}
# Which page's first command makes what a page takes for granted.
BEFORE = {'docs/own_data.md': 'docs/pytorch.md'}
# Of the weights that `desk` has in place of the published ones.
SMALL = """
from configs import pretrain


def get_config(variant=''):
  c = pretrain.get_config('test')
  c.text.length = 8
  c.cnn.update(stages=(2, 1), stem='7x7', groups=2, group_width=4, batch_norm='frozen')
  c.transformer.update(width=12, layers=3, heads=2, mlp_width=20, max_positions=16)
  return c
"""


def steps(page: str) -> list[str]:
  """What a page would have done, in its order: shell commands, and Python code as a block."""
  block = r'^```python\n(?P<code>.*?)^```$|(?P<typed>(?:^ {4,}\S[^\n]*\n)+)'
  found = []
  for match in re.finditer(block, (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
    if match['code']:
      found.append(match['code'])
      continue
    typed = re.sub(r'\\\n *', '', match['typed']).strip()
    if typed.startswith('for '):
      found.append(typed)
    elif re.match(r'(?:[A-Z_]+=\S+ )*(?:python|pip|git|launch/)', typed):
      found += [line.strip() for line in typed.splitlines()]
  return found


def small(command: str) -> str:
  """The same, as tests run it: the published weights and configurations are small ones."""
  if 'convert' in command or '=C ' in command or command.endswith('=C'):
    command = re.sub(r'configs/pretrain\.py:r50\w*', 'small.py', command)
  command = re.sub(r'(configs/\w+\.py)(:\w+)?', r'\1:test', command)
  command = re.sub(r'runs/(pretrain|vqa)-s0', r'runs/\1-test-s0', command)
  command = re.sub(r' --config\.(epochs|batch_size|micro_batches)=\S+', '', command)
  command = re.sub(r'^(launch/\S+)', r'\1 --dry-run', command)
  command = command.replace('localhost:1234', f'localhost:{free_port()}')
  return re.sub(r'\bpython ', f'{shlex.quote(sys.executable)} ', command)


@pytest.fixture
def desk(tmp_path, monkeypatch, few_scenes):
  """The current folder: like the checkout, with small ones of all files that the pages name."""
  for name in ('checkpoints', 'configs', 'docs', 'launch'):
    (tmp_path / name).symlink_to(ROOT / name)
  monkeypatch.chdir(tmp_path)
  pathlib.Path('datasets').mkdir()
  pathlib.Path('datasets/scenes').symlink_to(few_scenes / 'scenes')
  shutil.copyfile(vocabulary.FILE, 'VOCAB')
  pathlib.Path('PHOTOS').mkdir()
  captions, questions = [('image', 'caption')], [('image', 'question', 'answers')]
  for i in range(40):
    scene, name = record.example(record.Place('easy', 'train', i)), f'{i}.jpg'
    pathlib.Path('PHOTOS', name).write_bytes(scene['image'])
    # Texts that differ in words that the small BERT has, too.
    numbers = (np.base_repr(4 * i + k, 3).zfill(5) for k in range(4))
    captions += [(name, ' '.join(('a', 'red', 'bus')[int(d)] for d in n)) for n in numbers]
    questions += [(name, x['question'], x['multiple_choice_answer']) for x in scene['questions']]
  for name, rows in {'captions.csv': captions, 'questions.csv': questions}.items():
    with open(name, 'w', newline='') as file:
      csv.writer(file).writerows(rows)
  for name in ('photo.jpg', 'bus.jpg'):
    shutil.copyfile('PHOTOS/0.jpg', name)
  pathlib.Path('small.py').write_text(SMALL)
  write_bert(tmp_path / 'bert-base-uncased', bert_tensors())
  torch.save(as_torch(cnn_tensors()), 'resnet50.pth')
  return tmp_path


def run(desk: pathlib.Path, environment: dict[str, str], command: str) -> str:
  """Runs a command, or Python, to its end; what it printed."""
  own = {'TFDS_DATA_DIR': str(desk / 'datasets'), 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    command if isinstance(command, list) else ['bash', '-euc', command],
    env=environment | own,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
  return done.stdout


def trained(command: str) -> bool:
  """Whether the run that a command trains went to its end, the test split included."""
  name = re.search(r'--config=(?:configs/)?(\w+)\.py', command)[1].replace('small', 'pretrain')
  given = re.search(r'--workdir=(\S+)', command)
  workdir = pathlib.Path(given[1] if given else f'runs/{name}-test-s0')
  return json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])['split'] == 'test'


@pytest.mark.slow
@pytest.mark.parametrize('page', [page for page in PAGES if page not in ELSEWHERE])
def test_every_command_of_a_page_runs(page, desk, environment):
  before = [steps(BEFORE[page])[0]] if page in BEFORE else []
  printed = ''
  for step in [*before, *steps(page)]:
    if any(map(step.startswith, NOT_RUN)):
      continue
    if '\n' in step and not step.startswith('for '):
      run(desk, environment, [sys.executable, '-c', step])
      continue
    command = small(step)
    printed += run(desk, environment, command)
    if 'pixelbert_jax.main' in command and 'launch/' not in command:
      assert trained(command), command
  assert 'answer_type/ ' not in printed  # one's own questions have none


def test_what_runs_elsewhere_is_there():
  assert set(ELSEWHERE) < set(PAGES)
  assert len(steps('docs/predict.md')) == len(steps('docs/search.md')) == 3 + 1
  everything = [step for page in PAGES for step in steps(page)]
  for start in NOT_RUN:
    assert any(command.startswith(start) for command in everything), f'{start} is not in a page'
  counted = sum(
    len(re.findall(r'^ {4,}[^$\n]*\bpython3? ', (ROOT / p).read_text(), re.M)) for p in PAGES
  )
  assert counted == sum(len(re.findall(r'\bpython3? ', x)) for x in everything)


def test_every_configuration_that_a_page_names_is_there():
  for page in [*PAGES, 'DATA.md', 'launch/README.md']:
    for name, variant in re.findall(r'\b(\w+)\.py(?::(\w+))?', (ROOT / page).read_text()):
      if (ROOT / f'configs/{name}.py').exists() and name not in ('base', '__init__'):
        importlib.import_module(f'configs.{name}').get_config(variant)


def test_the_scores_of_the_page_are_asked_for_rightly(tmp_path):
  table = re.findall(
    r'`(python -m pixelbert_jax.score .*?)`', (ROOT / 'docs/scores.md').read_text()
  )
  asked = [x for x in table if '=' in x and '=F' not in x]
  assert {x.split()[3] for x in asked} == {'vqa', 'nlvr2', 'nlvr', 'retrieval'}
  for command in asked:
    done = subprocess.run(
      [sys.executable, *shlex.split(command)[1:]],
      cwd=tmp_path,
      env=os.environ | {'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 1
    assert 'does not exist' in done.stderr, done.stderr
