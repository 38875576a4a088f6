"""Faults in a built dataset, a few of those that `benchmarks.reliability` counts."""

from benchmarks.reliability.dataset_faults import HARMLESS, MENDED, NAMED, run


def test_no_fault_of_a_dataset_passes_unnoticed():
  counts = run(count=30, seed=0)
  for step, outcomes in {'read': {NAMED, HARMLESS}, 'build': {NAMED, HARMLESS, MENDED}}.items():
    assert counts[step].keys() <= outcomes
    assert sum(counts[step].values()) == 30
  assert counts['read'][NAMED] > 20
  assert counts['build'][MENDED] > 15
