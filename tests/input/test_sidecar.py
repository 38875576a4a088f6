"""The sidecar: what is written comes back, and half of it never passes for the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.rows import Caption, Question, Row, Statement
from pixelbert_jax.input.sidecar import Sidecar, arrays

FULL = [
  Row(
    'eins',
    480,
    640,
    [
      Caption('a red cat', 7, claim='red cat', kinds='.cs', rivals=(2, 6)),
      Caption('größer als 象 ß', 8, claim='big', kinds='z...'),
    ],
    claims=('red cat', 'big', 'unsaid', 'big'),
  ),
  Row('leer', 1, 2**20, [], claims=('unsaid',)),
  Row(
    'zwei-ü',
    333,
    500,
    [Caption('', 2**40, claim='red cat', kinds='', rivals=(2**63,))],
    ['red cat'],
  ),
]
PLAIN = [
  Row('a', 3, 4, [Caption('one', 1), Caption('two', 2, label=False)]),
  Row('bcd', 5, 6, [Caption('three', 3)]),
]
ASKED = [
  Row('eins', 3, 4, questions=[Question('what?', 5, ['no', 'yes', 'no'], 'no', 'what', 'yes/no')]),
  Row('leer', 3, 4),
  Row(
    'zwei',
    3,
    4,
    questions=[Question('wohin, ü', 2**40, subset='test-dev'), Question('', 7, [''], '', 'what')],
  ),
]
STATED = [
  Row('left-ü', 3, 4, statements=[Statement('both', 'dev-1-0-0', True, 'left-ü', 'right')]),
  Row('right', 5, 6),
  Row('other', 5, 6, statements=[Statement('ü', 'dev-1-0-11', False, 'right', 'left-ü', 'even')]),
]
ROWS = {
  'full': FULL,
  'asked': ASKED,
  'stated': STATED,
  'plain': PLAIN,
  'no captions': [Row('a', 3, 4, [])],
  'nothing': [],
}


def assert_same(left: Sidecar, right: Sidecar) -> None:
  left, right = arrays(left), arrays(right)
  assert left.keys() == right.keys()
  for name, array in left.items():
    assert array.dtype == right[name].dtype, name
    np.testing.assert_array_equal(array, right[name], name)


@pytest.mark.parametrize('rows', ROWS.values(), ids=ROWS)
def test_comes_back_as_written(rows, tmp_path):
  sidecar = Sidecar.of(rows)
  sidecar.write(tmp_path / 'train')
  assert_same(Sidecar.open(tmp_path / 'train'), sidecar)
  assert [path.name for path in tmp_path.iterdir()] == ['train']


def test_holds_what_the_rows_say(tmp_path):
  Sidecar.of(FULL).write(tmp_path / 'train')
  sidecar = Sidecar.open(tmp_path / 'train')
  assert [name.decode() for name in sidecar.image_id] == ['eins', 'leer', 'zwei-ü']
  assert sidecar.size.tolist() == [[480, 640], [1, 2**20], [333, 500]]
  assert [row.tolist() for row in sidecar.captions] == [[7, 8], [], [2**40]]
  assert sidecar.caption_image.tolist() == [0, 0, 2]
  assert [sidecar.caption(i) for i in range(3)] == ['a red cat', 'größer als 象 ß', '']
  assert sidecar.label.tolist() == [True] * 3
  assert [row.tobytes().decode() for row in sidecar.kinds] == ['.cs', 'z...', '']
  assert [row.tolist() for row in sidecar.rivals] == [[2, 6], [], [2**63]]
  # Claims become numbers, the same wherever the same claim is said or true.
  big, red, unsaid = sidecar.claim[1], sidecar.claim[0], sidecar.claims[1][0]
  assert sidecar.claim[2] == red
  assert len({big, red, unsaid}) == 3
  assert sidecar.claims[0].tolist() == sorted([big, red, unsaid])
  assert sidecar.claims[2].tolist() == [red]


def test_what_a_dataset_does_not_know_is_empty():
  sidecar = Sidecar.of(PLAIN)
  assert sidecar.label.tolist() == [True, False, True]
  assert len(sidecar.claim) == len(sidecar.claims.values) == len(sidecar.kinds.values) == 0


def test_questions_say_what_was_asked_of_which_image(tmp_path):
  Sidecar.of(ASKED).write(tmp_path / 'val')
  questions = Sidecar.open(tmp_path / 'val').questions
  assert len(questions) == 3
  assert [questions.text.text(i) for i in range(3)] == ['what?', 'wohin, ü', '']
  assert questions.id.tolist() == [5, 2**40, 7]
  assert questions.image.tolist() == [0, 2, 2]

  def said(numbers):
    return [questions.strings.text(n) for n in numbers]

  assert [said(row) for row in questions.answers] == [['no', 'yes', 'no'], [], ['']]
  assert said(questions.multiple_choice_answer) == ['no', '', '']
  assert said(questions.question_type) == ['what', '', 'what']
  assert said(questions.answer_type) == ['yes/no', '', '']
  assert said(questions.subset) == ['', 'test-dev', '']
  # A string comes once, so that its number stands for it.
  assert len(set(said(range(len(questions.strings))))) == len(questions.strings)


def test_statements_are_about_image_numbers(tmp_path):
  Sidecar.of(STATED).write(tmp_path / 'dev')
  statements = Sidecar.open(tmp_path / 'dev').statements
  assert len(statements) == 2
  assert [statements.text.text(i) for i in range(2)] == ['both', 'ü']
  assert statements.identifier.tolist() == [b'dev-1-0-0', b'dev-1-0-11']
  assert statements.label.tolist() == [True, False]
  assert statements.left.tolist() == [0, 1]
  assert statements.right.tolist() == [1, 0]
  assert [statements.strings.text(n) for n in statements.subset] == ['', 'even']


def test_a_statement_about_no_image_of_the_split_is_refused():
  rows = [Row('a', 3, 4, statements=[Statement('both', 'dev-7-0-0', True, 'a', 'b')])]
  with pytest.raises(ValueError, match='dev-7-0-0 is about an image that is not in the split'):
    Sidecar.of(rows)


def test_opening_reads_nothing_until_it_is_used(tmp_path):
  rows = [Row(f'{i:04d}', 10, 10, [Caption('some text', i)]) for i in range(100)]
  Sidecar.of(rows).write(tmp_path / 'train')
  sidecar = Sidecar.open(tmp_path / 'train')
  for values in (sidecar.image_id, sidecar.size, sidecar.text.values, sidecar.captions.values):
    assert isinstance(values, np.memmap)
    assert not values.flags.writeable


def test_a_folder_that_lacks_any_file_is_not_opened(tmp_path):
  Sidecar.of(FULL).write(tmp_path / 'train')
  files = sorted((tmp_path / 'train').iterdir())
  assert len(files) == len(arrays(Sidecar.of(FULL)))
  for file in files:
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(FileNotFoundError, match=file.name):
      Sidecar.open(tmp_path / 'train')
    file.write_bytes(content)
  Sidecar.open(tmp_path / 'train')


@pytest.mark.parametrize('there_before', [False, True])
def test_a_write_that_dies_leaves_what_was_there(there_before, tmp_path, monkeypatch):
  if there_before:
    Sidecar.of(PLAIN).write(tmp_path / 'train')
  save, names = np.save, []

  def dying(path, array):
    if len(names) == 5:
      raise KeyboardInterrupt
    names.append(path)
    save(path, array)

  with monkeypatch.context() as patch:
    patch.setattr(np, 'save', dying)
    with pytest.raises(KeyboardInterrupt):
      Sidecar.of(FULL).write(tmp_path / 'train')
  assert len(names) == 5
  if there_before:
    assert_same(Sidecar.open(tmp_path / 'train'), Sidecar.of(PLAIN))
  else:
    with pytest.raises(FileNotFoundError):
      Sidecar.open(tmp_path / 'train')
  # What it left does not get into the next one.
  Sidecar.of(FULL).write(tmp_path / 'train')
  assert_same(Sidecar.open(tmp_path / 'train'), Sidecar.of(FULL))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), max_size=4), max_size=6))
def test_ragged_gives_its_rows_back(rows):
  ragged = Ragged.of(rows, np.uint8)
  assert len(ragged) == len(rows)
  assert [ragged[i].tolist() for i in range(len(rows))] == rows
  assert ragged.values.dtype == np.uint8


@pytest.mark.parametrize(
  ('caption', 'message'),
  [
    (Caption('red', 1), 'have a claim, or none'),
    (Caption('red', 1, claim='blue', kinds='c'), "'blue' is not a claim of b"),
    (Caption('red', 1, claim='red'), 'have kinds, or none'),
    (Caption('red, blue', 1, claim='red', kinds='cc'), 'at most 64 plain words'),
    (Caption('red blue', 1, claim='red', kinds='c'), 'kinds must be one for each word'),
    (Caption('a ' * 65, 1, claim='red', kinds='.' * 65), 'at most 64'),
  ],
)
def test_captions_that_contradict_themselves_are_refused(caption, message):
  good = Row('a', 3, 4, [Caption('red', 1, claim='red', kinds='c')], ['red'])
  with pytest.raises(ValueError, match=message):
    Sidecar.of([good, Row('b', 3, 4, [caption], ['red'])])
