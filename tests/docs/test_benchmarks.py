"""BENCHMARKS.md has the newest of what its commands wrote."""

import json

import pytest

from benchmarks import (
  counts,
  curves,
  effects,
  findings,
  mixtures,
  models,
  pictures,
  planning,
  predict,
  search,
  stages,
  start,
  train,
)
from tests import many_hosts
from tests.support.paths import ROOT

PAGE = (ROOT / 'BENCHMARKS.md').read_text()
STEPS = (ROOT / 'benchmarks/results/plan_steps.jsonl').read_text().splitlines()


def test_the_table_of_parts():
  assert stages.table() in PAGE


def test_the_table_of_steps_beside_pytorchs():
  assert train.page() in PAGE


def test_the_table_of_starts():
  assert start.page() in PAGE


def test_the_table_of_planning():
  assert planning.page() in PAGE


def test_the_tables_of_mixtures():
  for table in mixtures.page().split('\n\n'):
    assert table in PAGE


def test_the_table_of_heat_maps():
  assert predict.table() in (ROOT / 'docs/predict.md').read_text()
  found = json.loads(predict.RESULTS.read_text().splitlines()[-2])
  assert found['task'] == 'vqa'
  pointed = found['pointing on test']
  figures = f'{pointed["attention"]:.3f} of {pointed["phrases"]} cases'
  assert figures in ' '.join((ROOT / 'README.md').read_text().split())


def test_the_time_of_the_host():
  found = json.loads(counts.RESULTS.read_text())
  assert f'{found["host_ms"]:.1f} ms' in PAGE
  assert f'{found["host_ms_r50"]:.1f} ms' in PAGE
  assert found['compilations_in_2000_steps'] == 0


@pytest.mark.parametrize('run', curves.DRAWN)
def test_curves_are_those_of_the_recorded_run(run):
  assert curves.digest(run) in curves.drawing(run).read_text()


def test_effects_are_those_of_the_recorded_pieces():
  assert effects.digest(findings.RESULTS) in effects.DRAWING.read_text()


def test_the_table_of_models():
  assert models.page() in (ROOT / 'README.md').read_text()


def test_the_picture_of_scenes_is_of_todays():
  assert pictures.digest() in pictures.PICTURE.read_text()


@pytest.mark.parametrize('line', list(map(json.loads, STEPS)), ids=lambda x: x['config'])
def test_steps(line):
  (program,) = line['programs']
  milliseconds = [1e3 * program['seconds'][name] for name in ('cycles', 'bytes')]
  moved, temporaries = program['bytes'] / 1e9, program['programs']['step']['temporaries'] / 1e9
  row = f'{milliseconds[0]:.0f} | {moved:.1f} | {milliseconds[1]:.0f} | {temporaries:.2f} |'
  assert row in PAGE


def test_the_page_on_pods_has_the_newest_figures_of_many_hosts():
  page = (ROOT / 'docs/pod.md').read_text()
  for table in many_hosts.tables().split('\n\n'):
    assert table in page


def test_the_page_on_searching_has_the_newest_figures():
  assert search.page() in (ROOT / 'docs/search.md').read_text()
