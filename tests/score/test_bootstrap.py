"""The interval of a difference: reproducible, paired, and as wide as clusters make it."""

import numpy as np
import pytest

from pixelbert_jax.score import bootstrap
from pixelbert_jax.score.bootstrap import paired_difference


@pytest.fixture
def systems():
  """Scores of two systems on 60 clusters of 1 to 5 items that succeed or fail much alike."""
  rng = np.random.default_rng(1)
  sizes = rng.integers(1, 6, 60)
  cluster = np.repeat(np.arange(60), sizes)
  ease = rng.random(60)[cluster]
  first = (rng.random(len(cluster)) < np.clip(ease + 0.15, 0, 1)).astype(float)
  second = (rng.random(len(cluster)) < ease).astype(float)
  return first, second, cluster


def test_the_interval_is_that_of_drawing_clusters_one_by_one(systems):
  first, second, cluster = systems
  found = paired_difference(*systems)
  rng = np.random.default_rng(9)
  members = [np.flatnonzero(cluster == c) for c in range(60)]
  means = []
  for _ in range(10_000):
    drawn = np.concatenate([members[c] for c in rng.integers(60, size=60)])
    means.append(first[drawn].mean() - second[drawn].mean())
  assert found.difference == pytest.approx(first.mean() - second.mean(), abs=1e-12)
  assert found.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)
  assert found.clusters == 60


def test_the_same_seed_gives_the_same_interval(systems):
  assert paired_difference(*systems) == paired_difference(*systems)
  assert paired_difference(*systems) != paired_difference(*systems, seed=1)


def test_the_other_way_round_has_the_other_sign(systems):
  first, second, cluster = systems
  one, other = paired_difference(first, second, cluster), paired_difference(second, first, cluster)
  assert one.difference == -other.difference
  low, high = other.interval
  assert one.interval == pytest.approx((-high, -low), abs=0.01)


def test_equal_systems_differ_by_nothing(systems):
  found = paired_difference(systems[0], systems[0], systems[2])
  assert (found.difference, *found.interval) == (0, 0, 0)


def test_items_that_move_together_widen_the_interval():
  change = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 50)
  first, nothing = np.repeat(change, 8), np.zeros(400)
  alone = paired_difference(first, nothing, np.arange(400))
  together = paired_difference(first, nothing, np.repeat(np.arange(50), 8))
  # Eight copies of an item tell no more than one: the interval grows by the root of eight.
  ratio = np.ptp(together.interval) / np.ptp(alone.interval)
  assert ratio == pytest.approx(8**0.5, rel=0.1)
  single = paired_difference(change, np.zeros(50), np.arange(50))
  assert together.interval == pytest.approx(single.interval, abs=0.02)


def test_clusters_may_be_called_anything():
  first, second = np.array([1.0, 0, 1, 1]), np.array([0.0, 0, 1, 0])
  by_name = paired_difference(first, second, np.array(['b', 'a', 'b', 'c']))
  assert by_name.clusters == 3
  assert by_name == paired_difference(first, second, np.array([5, 2, 5, 9]))


def test_it_is_drawn_in_blocks(systems, monkeypatch):
  whole = paired_difference(*systems)
  monkeypatch.setattr(bootstrap, '_BLOCK', 1000)
  parts = paired_difference(*systems)
  assert parts.interval == pytest.approx(whole.interval, abs=0.01)
