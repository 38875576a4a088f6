"""Tables of RESULTS.md and README.md are those of recorded runs; figures are in a file."""

import json
import re

import pytest

from benchmarks import scores, study
from tests.support.paths import ROOT

PAGE = (ROOT / 'RESULTS.md').read_text()


@pytest.mark.parametrize('table', scores.tables(), ids=lambda table: table.partition('\n')[0])
def test_a_table_is_that_of_the_recorded_runs(table):
  assert f'\n\n{table}\n\n' in PAGE


def test_every_table_of_scores_is_held():
  tables = re.findall(r'(?:^\|.*\n)+', PAGE, re.M)
  assert sorted(x.strip() for x in tables) == sorted(scores.tables())


def test_the_first_screen_has_the_scores_of_the_recorded_runs():
  page = (ROOT / 'README.md').read_text()
  for cells in [*scores.first_screen(), scores.easy_vqa()]:
    assert cells
    assert cells in page


@pytest.mark.parametrize(('run', 'metric'), [('pretrain', 'itm_accuracy'), ('vqa', 'vqa_accuracy')])
def test_the_first_screen_has_the_spread_of_the_seeds(run, metric):
  found = [report[metric] for report in scores.reports(run)]
  assert f'{min(found):.3f} to {max(found):.3f}' in (ROOT / 'README.md').read_text()
  assert found[0] == max(found)  # which README says of seed 0


def numbers(value):
  """Yields all numbers in a value of JSON."""
  if isinstance(value, dict | list):
    for part in value.values() if isinstance(value, dict) else value:
      yield from numbers(part)
  elif isinstance(value, int | float):
    yield value


def recorded(path):
  """The numbers of a file of results, less the log of training."""
  text = path.read_text()
  lines = [json.loads(text)] if path.suffix == '.json' else study.read(path)
  return {x for line in lines if line.get('split') != 'train' for x in numbers(line)}


@pytest.mark.parametrize('section', re.split(r'^#+ ', PAGE, flags=re.M)[1:], ids=lambda x: x[:20])
def test_a_figure_is_in_a_file_that_its_section_names(section):
  files = set(re.findall(r'\]\((benchmarks/results/[\w/]+\.jsonl?)\)', section))
  found = {f'{x:.3f}' for file in files for x in recorded(ROOT / file)}
  prose = re.sub(r'^(\||    ).*$', '', section, flags=re.M)
  figures = set(re.findall(r'(?<![\d.])[01]\.\d{3}(?!\d)', prose))
  assert figures <= found
