"""Reports in a browser, those of all five tasks, against the prediction files."""

import json
import os
import pathlib

import numpy as np
import pytest

from pixelbert_jax.main import main
from pixelbert_jax.report import page
from pixelbert_jax.score import matrix
from tests.support.browser import browser, complaints
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_compiles')]
TASKS = ('pretrain', 'vqa', 'nlvr2', 'nlvr', 'retrieval')
RUNS = pathlib.Path(os.environ.get('PIXELBERT_RUNS', ROOT / 'runs'))
EXAMPLES = """
return [...document.querySelectorAll('.example')].map(x => [
  x.dataset.id, x.querySelector('.given').innerText, x.querySelector('.score').innerText])
"""
QUERIES = """
return [...document.querySelectorAll('.query')].map(x => [x.dataset.id,
  [...x.querySelectorAll('.hit')].map(y => [
    y.dataset.id, y.querySelector('.score').innerText, y.querySelector('.note').innerText])])
"""
COUNTS = """
return [...document.querySelectorAll('.confusion tr')].slice(1).map(
  x => [...x.querySelectorAll('td')].map(y => Number(y.innerText.replaceAll(',', ''))))
"""
BROKEN = 'return [...document.images].filter(x => !x.complete || !x.naturalWidth).length'
SIZES = 'return [document.documentElement.scrollWidth, window.innerWidth, document.images.length]'
PAPER = 'return getComputedStyle(document.body).backgroundColor'


def predicted(folder: pathlib.Path, split: str) -> dict[str, tuple[str, str]]:
  """Reads answers and scores of a run by id, as they are to be shown; {} where it has none."""
  path = folder / 'predictions' / f'{split}.json'
  if (logits := path.with_name(f'{split}_logits.json')).exists():
    logits = json.loads(logits.read_text())
    lines = path.with_suffix('.csv').read_text().splitlines()
    given = dict(line.split(',') for line in lines)
    names = {x: x if x in given else f'{split}-{x}.png' for x in logits}
    return {x: (given[name].title(), f'{logits[x]:.3f}') for x, name in names.items()}
  if (scores := path.with_name(f'{split}_scores.json')).exists():
    scores = json.loads(scores.read_text())
    entries = {str(x['question_id']): x['answer'] for x in json.loads(path.read_text())}
    return {x: (answer, f'{scores[x]:.3g}') for x, answer in entries.items()}
  return {}


def check_ranking(queries: list, path: pathlib.Path) -> None:
  """Checks that what was found is the best, with its scores, by the matrix of all scores."""
  scores, images, texts = matrix.read(path)
  assert 4 <= len(queries) <= 8  # Fewer where only one caption has its own image first.
  for query, hits in queries:
    row = scores[images.index(query)] if query in images else scores[:, texts.index(query)]
    names = texts if query in images else images
    for name, score, shown in hits:
      assert (shown, score) == (name, f'{row[names.index(name)]:.4f}')
    best = sorted(row.tolist(), reverse=True)[: len(hits)]
    assert [score for _, score, _ in hits] == [f'{x:.4f}' for x in best]


def check(opened, folder: pathlib.Path, task: str, split: str = 'test') -> None:
  """Opens the report of a run and compares all that it shows of predictions with their files."""
  opened.get((folder / page.FILE).as_uri())
  assert complaints(opened) == []
  assert opened.execute_script(BROKEN) == 0
  width, inside, pictures = opened.execute_script(SIZES)
  assert width <= inside
  assert pictures >= 4
  examples = opened.execute_script(EXAMPLES)
  answers = predicted(folder, split)
  assert bool(examples) == bool(answers) == (task in ('vqa', 'nlvr2', 'nlvr'))
  for name, *shown in examples:
    assert tuple(shown) == answers[name]
  if task in ('nlvr2', 'nlvr'):
    counts = np.array(opened.execute_script(COUNTS))
    last = json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])
    assert counts.trace() / counts.sum() == pytest.approx(last['nlvr_accuracy'])
  queries = opened.execute_script(QUERIES)
  if task == 'retrieval':
    check_ranking(queries, folder / f'predictions/{split}.npz')
  else:
    assert not queries


@pytest.fixture(scope='module')
def trained(few_scenes, tmp_path_factory):
  """The folder of a run of each task, by the command."""
  folder = tmp_path_factory.mktemp('runs')
  for task in TASKS:
    words = [f'--config={ROOT}/configs/{task}.py:test', f'--config.data.data_dir={few_scenes}']
    words += [f'--workdir={folder / task}', '--config.steps=4', '--config.eval_every=4']
    words += ['--config.init_from=scratch']
    assert main(words) == 0
  return folder


@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('width', [1200, 390])
def test_reports_of_all_tasks_show_what_was_predicted(trained, width, dark):
  with browser(width, dark) as opened:
    for task in TASKS:
      check(opened, trained / task, task)
    red = int(opened.execute_script(PAPER).split('(')[1].split(',')[0])
    assert (red < 60) == dark


def test_reports_of_trained_default_runs_show_what_was_predicted():
  """Takes reports as they are in PIXELBERT_RUNS, or runs/: `python -m pixelbert_jax.report RUN`."""
  there = {task: RUNS / f'{task}-s0' for task in TASKS}
  there = {task: folder for task, folder in there.items() if (folder / page.FILE).exists()}
  if not there:
    pytest.skip(f'{RUNS} has no reports of default runs: train them, or set PIXELBERT_RUNS')
  with browser() as opened:
    for task, folder in there.items():
      check(opened, folder, task)
