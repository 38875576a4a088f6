"""The experiments of RELIABILITY.md with few trials each; `python -m tests.reliability` has all."""

import pytest

from tests.reliability.__main__ import conduct, table
from tests.support.paths import ROOT

# Trials, or for a fuzzed format seconds.
FEW = {
  **{'checkpoints': 20, 'datasets': 40, 'workdirs': 5, 'inputs': 40},
  **dict.fromkeys(('csv', 'json', 'archives', 'images', 'vocabularies', 'weights'), 1),
}


@pytest.mark.parametrize('name', FEW)
def test_no_trial_ends_in_a_wrong_value_or_a_traceback(name, tmp_path, quick_compiles):
  outcomes = conduct(name, FEW[name], tmp_path / name, seed=1)
  assert outcomes.wrong == []
  assert sum(outcomes.counts.values()) >= FEW[name]


def test_the_page_has_the_newest_results():
  assert table() in (ROOT / 'RELIABILITY.md').read_text()


@pytest.mark.slow
def test_no_kill_changes_how_a_run_ends(environment, tmp_path, monkeypatch):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert conduct('kills', 3, tmp_path / 'kills').wrong == []
