"""Parts of splits, by name: what is in them, what is joined, and what is no selection."""

import numpy as np
import pytest

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Dataset, Split
from pixelbert_jax.input.rows import Caption, Question, Row, Statement
from pixelbert_jax.input.selection import select
from pixelbert_jax.input.sidecar import Sidecar


class Records(list):
  """Records whose image is a text, for it is not decoded here."""

  def __getitem__(self, i):
    return {'image': super().__getitem__(i)}


def split(prefix, subsets):
  """An image a subset, with two captions in it, a question in the next one, and a statement."""
  rows = [
    Row(
      f'{prefix}{i}',
      4,
      5 + i,
      captions=[
        Caption(f'{prefix} {subset} {k}', 10 * i + k, label=k == 0, subset=subset) for k in (0, 1)
      ],
      questions=[
        Question(f'{prefix} {subset}?', i, [f'{prefix} yes', 'no'], 'no', 'is', 'yes/no', subset)
      ],
      statements=[
        Statement(f'{prefix} {subset}!', f'{i}', True, f'{prefix}0', f'{prefix}{i}', subset)
      ],
    )
    for i, subset in enumerate(subsets)
  ]
  return Split(Records(row.image_id.encode() for row in rows), Sidecar.of(rows))


@pytest.fixture
def dataset(tmp_path):
  return Dataset(
    'mine', tmp_path, {'train': split('t', ['a', 'b', '', 'a']), 'val': split('v', ['b', 'c'])}
  )


def texts(split):
  """All captions, questions and statements, each with the names of its images."""
  sidecar, name = split.sidecar, lambda i: split.encoded(i).decode()
  asked, stated = sidecar.questions, sidecar.statements
  return (
    [(sidecar.caption(i), name(image)) for i, image in enumerate(sidecar.caption_image)],
    [(asked.text.text(i), name(asked.image[i])) for i in range(len(asked))],
    [
      (stated.text.text(i), name(stated.left[i]), name(stated.right[i])) for i in range(len(stated))
    ],
  )


def expected(*parts):
  """What `texts` should be of (prefix, subset, image) parts."""
  return (
    [(f'{p} {s} {k}', f'{p}{i}') for p, s, i in parts for k in (0, 1)],
    [(f'{p} {s}?', f'{p}{i}') for p, s, i in parts],
    [(f'{p} {s}!', f'{p}0', f'{p}{i}') for p, s, i in parts],
  )


T = [('t', 'a', 0), ('t', 'b', 1), ('t', '', 2), ('t', 'a', 3)]
V = [('v', 'b', 0), ('v', 'c', 1)]


@pytest.mark.parametrize(
  ('selection', 'parts'),
  [
    ('train', T),
    ('train[a]', [T[0], T[3]]),
    ('train[!a]', T[1:3]),
    ('train[a,b]', [T[0], T[1], T[3]]),
    ('train[!a,b]', [T[2]]),
    ('train+val', T + V),
    ('train[a]+val[!b]', [T[0], T[3], V[1]]),
  ],
)
def test_a_selection_has_the_texts_it_names_with_their_images(dataset, selection, parts):
  found = select(dataset, selection)
  assert texts(found) == expected(*parts)
  sidecar = found.sidecar
  assert sidecar.label.tolist() == [True, False] * len(parts)
  assert sidecar.captions.values.tolist() == [10 * i + k for _, _, i in parts for k in (0, 1)]
  asked = sidecar.questions
  strings = [asked.strings.text(n) for n in range(len(asked.strings))]
  for q, (prefix, subset, i) in enumerate(parts):
    assert [strings[a] for a in asked.answers[q]] == [f'{prefix} yes', 'no']
    assert strings[asked.multiple_choice_answer[q]] == 'no'
    assert strings[asked.question_type[q]] == 'is'
    assert strings[asked.subset[q]] == subset
    assert asked.id[q] == i
  assert (np.diff(asked.image) >= 0).all()


@pytest.mark.parametrize(
  'selection', ['', 'train[', 'train[]', 'train[a', 'train]a[', '+val', 'a[b]c']
)
def test_what_is_no_selection_is_told(dataset, selection):
  with pytest.raises(UserError, match='is not a selection: write SPLIT'):
    select(dataset, selection)


@pytest.mark.parametrize(
  ('selection', 'said'),
  [
    ('test', "no split 'test', only train, val"),
    ('train[d]', "train has no subset 'd'; its subsets: a, b"),
    ('train[!d]', "train has no subset 'd'; its subsets: a, b"),
    ('train[a]+train[b]', 'names a split twice'),
  ],
)
def test_what_is_not_there_is_told(dataset, selection, said):
  with pytest.raises(UserError) as error:
    select(dataset, selection)
  assert said in str(error.value)
