"""Shortlists: which pairs two stages score, how the rest ranks, and the k that is chosen."""

import numpy as np
import pytest

from pixelbert_jax.score import recall, shortlist

IMAGES, EACH = 40, 3
ROW = np.repeat(np.arange(IMAGES), EACH)


@pytest.fixture
def scores():
  """Exact scores that mostly find the own texts, and those of a first stage that finds fewer."""
  rng = np.random.default_rng(0)
  own = np.arange(IMAGES)[:, None] == ROW
  exact, first = (
    (rng.normal(size=own.shape) + gain * own).astype(np.float32) for gain in (3.0, 2.7)
  )
  return exact, first / np.abs(first).max()


def in_order(exact, first, k):
  """Ranks by hand: the pairs among the best k of a row or a column, then the others."""
  listed = np.zeros(exact.shape, bool)
  for i in range(len(first)):
    listed[i, np.argsort(-first[i])[:k]] = True
  for t in range(first.shape[1]):
    listed[np.argsort(-first[:, t])[:k], t] = True
  pairs = sorted(
    np.ndindex(exact.shape), key=lambda p: (listed[p], exact[p] if listed[p] else first[p])
  )
  place = np.empty(exact.shape)
  for number, pair in enumerate(pairs):
    place[pair] = number
  return listed, place


@pytest.mark.parametrize('k', [1, 3, 12])
def test_two_stages_rank_as_by_hand(scores, k):
  exact, first = scores
  listed, place = in_order(exact, first, k)
  np.testing.assert_array_equal(shortlist.shortlist(first, k), listed)
  mean, pairs = shortlist.two_stages(exact, first, ROW, k)
  by_hand = recall.recalls(*recall.ranks(place, ROW), ROW)
  assert mean == pytest.approx(np.mean(list(by_hand.values())), abs=1e-12)
  assert pairs == listed.sum()
  found = shortlist.composed(np.where(listed, exact, -np.inf), first, listed)
  np.testing.assert_array_equal(found[listed], exact[listed])
  assert np.diff(found.ravel()[np.argsort(place.ravel())]).min() >= 0  # but for ties of rounding


def test_a_shortlist_is_the_same_in_blocks(scores, monkeypatch):
  _, first = scores
  whole = shortlist.shortlist(first, 4)
  monkeypatch.setattr(shortlist, '_BLOCK', 300)
  np.testing.assert_array_equal(shortlist.shortlist(first, 4), whole)


def test_ties_with_the_last_are_listed_and_a_large_k_lists_all(scores):
  _, first = scores
  tied = np.round(first, 1)
  listed = shortlist.shortlist(tied, 5)
  for i, row in enumerate(tied):
    assert listed[i, row >= np.sort(row)[-5]].all()
  assert not listed.all()
  assert shortlist.shortlist(first, IMAGES * EACH).all()


def test_the_chosen_k_is_the_smallest_that_keeps_99_hundredths(scores):
  exact, first = scores
  wanted = 0.99 * shortlist.recall_mean(exact, ROW)
  k = shortlist.smallest_k(exact, first, ROW)
  means = [shortlist.two_stages(exact, first, ROW, n)[0] for n in range(1, k + 1)]
  assert 1 < k <= 10
  assert means[-1] >= wanted > max(means[:-1])


def test_a_first_stage_that_knows_nothing_needs_more(scores):
  exact, first = scores
  blind = shortlist.image_blind(exact)
  chosen = shortlist.smallest_k(exact, first, ROW)
  assert shortlist.smallest_k(exact, blind, ROW) > chosen
  # No image is told from another; each text's own place is that of its mean score.
  order = np.argsort(exact.mean(axis=0))
  np.testing.assert_array_equal(np.argsort(blind, axis=1), np.tile(order, (IMAGES, 1)))
  seen, _ = shortlist.two_stages(exact, first, ROW, chosen)
  assert seen > 2 * shortlist.two_stages(exact, blind, ROW, chosen)[0]
