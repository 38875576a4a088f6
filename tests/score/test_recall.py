"""Recall at K against sorting by hand, with ties and unequal numbers of texts; its memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_jax import UserError
from pixelbert_jax.score import recall


def literal_ranks(scores, text_image, fold=None):
  """Lists each query's candidates in order, what is wrong first where scores tie."""
  images, texts = scores.shape
  fold = [0] * images if fold is None else list(fold)
  image_ranks, text_ranks = [], []
  for i in range(images):
    candidates = [t for t in range(texts) if fold[text_image[t]] == fold[i]]
    candidates.sort(key=lambda t: (-scores[i, t], text_image[t] == i))
    image_ranks.append(1 + [text_image[t] == i for t in candidates].index(True))
  for t in range(texts):
    candidates = [i for i in range(images) if fold[i] == fold[text_image[t]]]
    candidates.sort(key=lambda i: (-scores[i, t], text_image[t] == i))
    text_ranks.append(1 + candidates.index(text_image[t]))
  return image_ranks, text_ranks


@st.composite
def matrices(draw):
  """Few different scores, one to four texts an image in any order, sometimes folds."""
  counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=9))
  rng = np.random.default_rng(draw(st.integers(0, 2**32)))
  text_image = rng.permutation(np.repeat(np.arange(len(counts)), counts))
  dtype = draw(st.sampled_from(['float16', 'float32', 'float64', 'int8']))
  levels = draw(st.sampled_from([1, 2, 5, 100]))
  scores = rng.integers(-levels, levels, (len(counts), len(text_image))).astype(dtype)
  fold = rng.integers(0, 3, len(counts)) if draw(st.booleans()) else None
  return scores, text_image, fold


@given(matrices(), st.sampled_from([1, 20, 1 << 23]))
@settings(max_examples=300, deadline=None)
def test_ranks_against_sorting(matrix, block):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(recall, '_BLOCK', block)
    image_ranks, text_ranks = recall.ranks(*matrix)
  expected = literal_ranks(*matrix)
  assert (image_ranks.tolist(), text_ranks.tolist()) == expected


def test_ties_count_against_us():
  text_image = np.array([0, 0, 1, 1])
  image_ranks, text_ranks = recall.ranks(np.zeros((2, 4)), text_image)
  # Two wrong texts come before the right ones, and one wrong image.
  assert image_ranks.tolist() == [3, 3]
  assert text_ranks.tolist() == [2] * 4
  found = recall.recalls(image_ranks, text_ranks, text_image)
  assert found['text_recall_at_1'] == found['image_recall_at_1'] == 0
  assert found['text_recall_at_5'] == found['image_recall_at_5'] == 1


def test_right_texts_that_tie_do_not_hinder_each_other():
  scores = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
  image_ranks, text_ranks = recall.ranks(scores, np.array([0, 0, 1]))
  assert image_ranks.tolist() == [1, 1]
  assert text_ranks.tolist() == [1, 1, 1]


def test_any_right_text_will_do_but_each_text_counts():
  #        image 0's texts: one on top, one at the bottom
  scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4]])
  text_image = np.array([0, 0, 1])
  image_ranks, text_ranks = recall.ranks(scores, text_image)
  assert image_ranks.tolist() == [1, 1]
  assert text_ranks.tolist() == [1, 2, 2]
  found = recall.recalls(image_ranks, text_ranks, text_image)
  assert found['text_recall_at_1'] == 1
  assert found['image_recall_at_1'] == pytest.approx(1 / 3)


def test_folds_have_candidates_of_their_own_and_count_the_same():
  text_image = np.array([0, 1, 2, 3, 3, 3])
  fold = recall.consecutive_folds(4, 2)
  assert fold.tolist() == [0, 0, 1, 1]
  scores = np.full((4, 6), -1.0)
  scores[2:, :2] = 5  # Of the other fold: no rivals.
  scores[0, 0] = scores[1, 1] = 1
  scores[2, 2], scores[3, 2] = 0, 1  # Text 2 finds image 3 first.
  scores[3, 3:] = -2  # The texts of image 3 find image 2 first.
  image_ranks, text_ranks = recall.ranks(scores, text_image, fold)
  assert text_ranks.tolist() == [1, 1, 2, 2, 2, 2]
  found = recall.recalls(image_ranks, text_ranks, text_image, fold)
  # 1 in the first fold, 0 in the second, whatever their numbers of texts (2 and 4).
  assert found['image_recall_at_1'] == 0.5
  with pytest.raises(UserError, match='7 images'):
    recall.consecutive_folds(7, 2)


def test_small_differences_are_no_ties():
  scores = np.array([[1.0, 1.0 - 1e-15], [1.0 - 1e-15, 1.0]])
  image_ranks, text_ranks = recall.ranks(scores, np.array([0, 1]))
  assert image_ranks.tolist() == text_ranks.tolist() == [1, 1]
  large = np.array([[2**60 + 1, 2**60], [2**60, 2**60 + 1]])  # the same as float64
  assert recall.ranks(large, np.array([0, 1]))[0].tolist() == [1, 1]


@pytest.mark.parametrize(('row', 'column'), [(1, 2), (2, 1), (1, 1), (2, 3)])
def test_what_is_no_number_has_a_place(row, column):
  scores = np.zeros((3, 4), np.float32)
  scores[row, column] = np.nan
  with pytest.raises(UserError, match=f'row {row}, column {column} is not a number'):
    recall.ranks(scores, np.array([0, 1, 2, 2]))
  scores[row, column] = -np.inf
  recall.ranks(scores, np.array([0, 1, 2, 2]))


def test_an_image_without_a_text_has_a_row():
  with pytest.raises(UserError, match='row 1 has no text'):
    recall.ranks(np.zeros((3, 2)), np.array([0, 2]))


def test_memory_is_that_of_a_block_and_not_of_the_matrix(tmp_path, monkeypatch):
  monkeypatch.setattr(recall, '_BLOCK', 1 << 16)
  images, texts = 1000, 5000
  np.save(tmp_path / 'scores.npy', np.random.default_rng(0).random((images, texts)))
  scores = np.load(tmp_path / 'scores.npy', mmap_mode='r')
  text_image = np.repeat(np.arange(images), 5)
  recall.ranks(scores[:10, :50], text_image[:50])
  tracemalloc.start()
  recall.ranks(scores, text_image, recall.consecutive_folds(images, 200))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < scores.nbytes / 8


@pytest.mark.parametrize(
  ('used', 'text'), [(25_010, 'all 25,010'), (25_000, 'five an image, 25,000 of 25,010')]
)
def test_the_convention_is_told(used, text):
  assert recall.convention(used, 25_010) == text
