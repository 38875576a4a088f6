"""Prediction and annotation files: what is written is read back, what is wrong is told by line."""

import gzip
import json
import zipfile

import numpy as np
import pytest

from pixelbert_jax import UserError, files
from pixelbert_jax.score import annotations, matrix, predictions
from pixelbert_jax.score.predictions import PredictionError


@pytest.fixture
def write(tmp_path):
  """Writes a file, values as JSON, and returns its path."""

  def write(content, name='file.json'):
    path = tmp_path / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding='utf-8')
    return path

  return write


def faults_of(path, read, *arguments):
  with pytest.raises(PredictionError) as raised:
    read(path, *arguments)
  assert all(fault.startswith(f'{path}: ') for fault in raised.value.faults)
  return [fault.removeprefix(f'{path}: ') for fault in raised.value.faults]


def test_vqa_is_written_as_the_server_reads_it(tmp_path):
  path = tmp_path / 'new' / 'val.json'
  predictions.write_vqa(path, {np.int64(458752000): 'net', 262148000: 'ünder "x"'})
  assert json.loads(path.read_text()) == [
    {'question_id': 458752000, 'answer': 'net'},
    {'question_id': 262148000, 'answer': 'ünder "x"'},
  ]
  # In the order asked for.
  read = predictions.read_vqa(path, [262148000, 458752000])
  assert list(read.items()) == [(262148000, 'ünder "x"'), (458752000, 'net')]


def test_nlvr2_is_written_as_officially_read(tmp_path):
  path = tmp_path / 'dev.csv'
  predictions.write_nlvr2(path, {'dev-850-0-0': np.True_, 'dev-850-2-0': False})
  assert path.read_bytes() == b'dev-850-0-0,True\ndev-850-2-0,False\n'
  read = predictions.read_nlvr2(path, ['dev-850-0-0', 'dev-850-2-0'])
  assert read == {'dev-850-0-0': True, 'dev-850-2-0': False}


def test_nlvr_is_written_as_officially_read(tmp_path):
  path = tmp_path / 'dev.csv'
  predictions.write_nlvr(path, {'1572-0-3': True, '1572-0-4': np.False_}, split='dev')
  assert path.read_bytes() == b'dev-1572-0-3.png,true\ndev-1572-0-4.png,false\n'
  read = predictions.read_nlvr(path, ['1572-0-3', '1572-0-4'])
  assert read == {'1572-0-3': True, '1572-0-4': False}


def test_what_the_official_programs_allow_is_allowed(write):
  path = write('dev-1-0-0,TRUE\r\ndev-2-0-0,false', 'a.csv')
  assert predictions.read_nlvr2(path, ['dev-1-0-0', 'dev-2-0-0']) == {
    'dev-1-0-0': True,
    'dev-2-0-0': False,
  }
  path = write('dev-1-0-0,False\n', 'b.csv')
  assert predictions.read_nlvr(path, ['1-0-0']) == {'1-0-0': False}
  path = write([{'question_id': 1, 'answer': '', 'confidence': 0.5}])
  assert predictions.read_vqa(path, [1]) == {1: ''}


def test_every_fault_of_a_vqa_file(write):
  entries = [
    {'question_id': 1, 'answer': 'yes'},
    {'question_id': 1, 'answer': 'no'},
    {'question_id': 9, 'answer': 'yes'},
    {'question_id': 2, 'answer': 3},
    {'question_id': 3},
    {'question_id': '4', 'answer': 'yes'},
    {'question_id': True, 'answer': 'yes'},
    {'question_id': 5.0, 'answer': 'yes'},
    ['question_id', 6],
  ]
  path = write(entries)
  assert faults_of(path, predictions.read_vqa, [1, 2, 3, 4]) == [
    'question 1 is predicted more than once: keep one',
    'question 9 is not among those to predict: remove it',
    'question 2: expected a string "answer", got 3',
    'question 3: expected a string "answer", got None',
    'entry 6: expected an integer "question_id", got \'4\'',
    'entry 7: expected an integer "question_id", got True',
    'entry 8: expected an integer "question_id", got 5.0',
    'entry 9: expected an integer "question_id", got None',
    # Not 2 and 3, of which all is said.
    'question 4 has no prediction: add one',
  ]


def test_every_fault_of_an_nlvr2_file(write):
  lines = 'dev-1-0-0,True\ndev-1-0-0,True\ndev-9-0-0,True\n\ndev-2-0-0\ndev-3-0-0, True\n'
  path = write(lines + 'dev-4-0-0,yes\ndev-5-0-0,True,0.9\n\n', 'dev.csv')
  wanted = [f'dev-{i}-0-0' for i in range(1, 7)]
  assert faults_of(path, predictions.read_nlvr2, wanted) == [
    "example 'dev-1-0-0' is predicted more than once: keep one",
    "example 'dev-9-0-0' is not among those to predict: remove it",
    "line 4 is '': write an id, a comma, and true or false",
    "line 5 is 'dev-2-0-0': write an id, a comma, and true or false",
    "line 6: 'dev-3-0-0' is predicted ' True': write true or false",
    "line 7: 'dev-4-0-0' is predicted 'yes': write true or false",
    "line 8: 'dev-5-0-0' is predicted 'True,0.9': write true or false",
    "line 9 is '': write an id, a comma, and true or false",
    "example 'dev-2-0-0' has no prediction: add one",
    "example 'dev-6-0-0' has no prediction: add one",
  ]


def test_every_fault_of_an_nlvr_file(write):
  path = write('dev-1-0-0.png,true\n1-0-1.png,true\ndev-1-0-2,true\ntest-1-0-0.png,false\n', 'a')
  assert faults_of(path, predictions.read_nlvr, ['1-0-0', '1-0-1', '1-0-2']) == [
    "line 2 names '1-0-1.png': write it as dev-1572-0-3.png",
    "image '1-0-0' is predicted more than once: keep one",
    "image '1-0-1' has no prediction: add one",
  ]


def test_of_many_faults_ten_are_shown(write):
  path = write([])
  with pytest.raises(PredictionError) as raised:
    predictions.read_vqa(path, range(1500))
  assert len(raised.value.faults) == 1500
  lines = str(raised.value).splitlines()
  assert len(lines) == 11
  assert lines[-1] == 'and 1,490 more faults'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"question_id": 1}', 'is not a list'),
    ('[{"question_id": 1,\n  "answer": "y', 'line 2 column 13 is not JSON'),
    ('', 'line 1 column 1 is not JSON'),
  ],
)
def test_a_file_that_is_no_list_of_predictions(write, text, message):
  path = write(text)
  with pytest.raises(UserError, match=message) as raised:
    predictions.read_vqa(path, [1])
  assert str(path) in str(raised.value)


def test_files_that_cannot_be_read(tmp_path):
  (tmp_path / 'latin').write_bytes(b'dev-\xe9,True\n')
  whole = gzip.compress(bytes(range(256)) * 50)
  (tmp_path / 'cut.gz').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'spoilt.gz').write_bytes(whole[:40] + b'\xff' * 40 + whole[80:])
  for name, message in [
    ('none', 'does not exist'),
    ('latin', 'is not UTF-8'),
    ('cut.gz', 'cannot be read'),
    ('spoilt.gz', 'cannot be read'),
    ('.', r'cannot be read \(Is a directory\)'),
  ]:
    with pytest.raises(UserError, match=message) as raised:
      files.read_text(tmp_path / name)
    assert '\n' not in str(raised.value)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'dev.csv'
  predictions.write_nlvr2(path, {'dev-1-0-0': True})

  class Broken(dict):
    def items(self):
      yield 'dev-1-0-0', False
      raise RuntimeError('the model fell over')

  with pytest.raises(RuntimeError):
    predictions.write_nlvr2(path, Broken())
  assert [p.name for p in tmp_path.iterdir()] == ['dev.csv']
  assert path.read_text() == 'dev-1-0-0,True\n'


# Score matrices.

SCORES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize('save', ['write', 'compressed', 'fortran', 'python'])
def test_a_matrix_is_read_back(tmp_path, save):
  path = tmp_path / 'scores.npz'
  ids = {'image_ids': [7, 5], 'text_ids': np.array(['a', 'b', 'ü'])}
  if save == 'write':
    matrix.write(path, SCORES, **ids)
  elif save == 'compressed':
    np.savez_compressed(path, scores=SCORES, **ids)
  elif save == 'fortran':
    np.savez(path, scores=np.asfortranarray(SCORES), **ids)
  else:
    with zipfile.ZipFile(path, 'w') as archive:  # a local header with an extra field
      for name, values in {
        'text_ids': ids['text_ids'],
        'scores': SCORES,
        'image_ids': [7, 5],
      }.items():
        with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as file:
          np.lib.format.write_array(file, np.asarray(values))
  scores, image_ids, text_ids = matrix.read(path)
  np.testing.assert_array_equal(scores, SCORES)
  assert (image_ids, text_ids) == (['7', '5'], ['a', 'b', 'ü'])
  assert isinstance(scores, np.memmap) == (save != 'compressed')


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'scores': SCORES, 'image_ids': [1, 2]}, 'lacks an array'),
    ({'image_ids': [1, 2], 'text_ids': [1, 2, 3]}, 'lacks an array'),
    ({'scores': SCORES.T, 'image_ids': [1, 2], 'text_ids': [1, 2, 3]}, r'\(3, 2\) for \(2, 3\)'),
    ({'scores': SCORES > 1, 'image_ids': [1, 2], 'text_ids': [1, 2, 3]}, 'scores are bool'),
    ({'scores': SCORES, 'image_ids': [1.0, 2.0], 'text_ids': [1, 2, 3]}, 'image_ids is not'),
    ({'scores': SCORES, 'image_ids': [1, 2], 'text_ids': [[1, 2, 3]]}, 'text_ids is not'),
    (
      {'scores': SCORES, 'image_ids': [1, 2], 'text_ids': np.array([1, None, 3], object)},
      'is not an npz file of plain arrays',
    ),
  ],
)
def test_a_matrix_that_is_not_as_it_should_be(tmp_path, arrays, message):
  path = tmp_path / 'scores.npz'
  np.savez(path, **arrays)
  with pytest.raises(UserError, match=message) as raised:
    matrix.read(path)
  assert str(path) in str(raised.value)


def test_a_matrix_file_that_is_none(tmp_path):
  path = tmp_path / 'scores.npz'
  with pytest.raises(UserError, match='does not exist'):
    matrix.read(path)
  matrix.write(path, SCORES, [1, 2], [1, 2, 3])
  content = path.read_bytes()
  for broken in (content[:-30], content[: len(content) // 2], b'', b'text', b'\x93NUMPY'):
    path.write_bytes(broken)
    with pytest.raises(UserError, match='is not a whole npz file'):
      matrix.read(path)
  np.save(path.with_suffix('.npy'), SCORES)
  with pytest.raises(UserError, match='is not a whole npz file'):
    matrix.read(path.with_suffix('.npy'))


def npz(path, headers, compression=zipfile.ZIP_STORED):
  """A matrix file of arrays of int32 with these headers before one number."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, header in headers.items():
      text = header.encode() + b'\n'
      begin = b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little')
      archive.writestr(f'{name}.npy', begin + text + bytes(4))


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
  'header',
  [
    "{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000,)}",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (-1, -1)}",
    "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    '(' * 5000,
    '{' * 9000,
    "{'descr': '<i4', ",
  ],
)
def test_a_header_that_claims_what_is_not_there(tmp_path, header, compression):
  path, right = tmp_path / 'scores.npz', "{'descr': '<i4', 'fortran_order': False, 'shape': (1,)}"
  headers = dict.fromkeys(('scores', 'image_ids', 'text_ids'), right)
  for name in headers:
    npz(path, headers | {name: header}, compression)
    with pytest.raises(UserError, match='not an npz file of plain arrays') as raised:
      matrix.read(path)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('side', [3, 200])
def test_a_flipped_bit_of_a_matrix_is_noticed(tmp_path, side):
  path, scores = tmp_path / 'scores.npz', np.arange(side * side).reshape(side, side)
  matrix.write(path, scores, range(side), range(side))
  content = path.read_bytes()
  at = content.index(scores.tobytes()) + 9
  path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
  with pytest.raises(UserError, match=r"Bad CRC-32 for file 'scores\.npy'\): write it again"):
    matrix.read(path)


CAPTIONS = {'8': ['a', 'b'], '9': ['c'], '7': ['d', 'e', 'f', 'g', 'h', 'i', 'j']}


def test_rows_and_columns_may_be_in_any_order():
  texts = list('jabcdefghi')
  text_image, place = matrix.match('f', ['9', '7', '8'], texts, CAPTIONS)
  assert text_image.tolist() == [1, 2, 2, 0, 1, 1, 1, 1, 1, 1]
  assert place.tolist() == [1, 2, 0]


def test_either_all_captions_or_the_first_five():
  text_image, _ = matrix.match('f', ['8', '9', '7'], list('abcdefgh'), CAPTIONS)
  assert text_image.tolist() == [0, 0, 1, 2, 2, 2, 2, 2]
  # Five, but not the first.
  assert faults_of(
    'f', lambda path: matrix.match(path, ['8', '9', '7'], list('abcdefgj'), CAPTIONS)
  ) == [
    "text 'j' is not among those to predict: remove it",
    "text 'h' has no prediction: add one",
  ]
  # Neither number.
  assert faults_of(
    'f', lambda path: matrix.match(path, ['8', '9', '7'], list('abcdefghi'), CAPTIONS)
  ) == [
    "text 'j' has no prediction: add one",
  ]


def test_faults_of_rows():
  assert faults_of(
    'f', lambda path: matrix.match(path, ['8', '8', '6'], list('abcdefghij'), CAPTIONS)
  ) == [
    "image '8' is predicted more than once: keep one",
    "image '6' is not among those to predict: remove it",
    "image '9' has no prediction: add one",
    "image '7' has no prediction: add one",
  ]


# Annotations.

ANNOTATION = {
  'question_id': 1,
  'image_id': 2,
  'question_type': 'is the',
  'answer_type': 'yes/no',
  'answers': [{'answer': 'yes', 'answer_id': 1, 'answer_confidence': 'yes'}],
  'multiple_choice_answer': 'yes',
}


def test_vqa_annotations(write):
  (question,) = annotations.read_vqa(write({'info': {}, 'annotations': [ANNOTATION]}))
  assert (question.question_id, question.image_id) == (1, 2)
  assert (question.question_type, question.answer_type) == ('is the', 'yes/no')
  assert question.answers == ('yes',)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ({'annotations': []}, 'is empty'),
    ({'questions': []}, 'no list of "annotations"'),
    ([ANNOTATION], 'no list of "annotations"'),
    ({'annotations': [ANNOTATION, ANNOTATION]}, 'question 1 is annotated twice'),
    ({'annotations': [ANNOTATION | {'answers': []}]}, 'question 1 has no answers'),
    ({'annotations': [ANNOTATION, {'question_id': 2}]}, r'annotations\[1\] has no "image_id"'),
    ({'annotations': [7]}, r'annotations\[0\] is 7, expected an object'),
    ({'annotations': [ANNOTATION | {'question_id': '1'}]}, r'\[0\] has "question_id": "1"'),
    ({'annotations': [ANNOTATION | {'question_type': None}]}, r'\[0\] has "question_type": null'),
    ({'annotations': [ANNOTATION | {'answers': 'yes'}]}, r'\[0\] has "answers": "yes"'),
    ({'annotations': [ANNOTATION | {'answers': [{'answer': None}]}]}, r'answers\[0\] has "answer"'),
  ],
)
def test_vqa_annotations_that_are_none(write, content, message):
  path = write(content)
  with pytest.raises(UserError, match=message) as raised:
    annotations.read_vqa(path)
  assert str(path) in str(raised.value)


def test_labels(tmp_path):
  path = tmp_path / 'dev.json.gz'
  lines = [
    {'identifier': 'dev-1-0-0', 'label': 'True'},
    {'identifier': 'dev-2-0-1', 'label': 'False'},
  ]
  # A sentence may hold what looks like the end of a line.
  text = json.dumps(lines[0] | {'sentence': 'x\u2028y'}, ensure_ascii=False)
  path.write_bytes(gzip.compress(f'{text}\n\n{json.dumps(lines[1])}\n'.encode()))
  assert annotations.read_nlvr2(path) == {'dev-1-0-0': True, 'dev-2-0-1': False}
  # Some editors begin a file with a mark of the byte order.
  path.write_text('\ufeff{"identifier": "12-0", "label": "true"}\n')
  assert annotations.read_nlvr(path) == {f'12-0-{k}': True for k in range(6)}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('\n', 'is empty'),
    ('{"identifier": "dev-1-0-0"', 'line 1 column 27 is not JSON'),
    ('[1]', 'line 1 is not a JSON object'),
    ('{"identifier": "1572-0", "label": "true"}', "'1572-0' does not have 4 fields"),
    ('{"label": "true"}', 'line 1 has no "identifier"'),
    ('{"identifier": "dev-1-0-0"}', 'line 1 has no "label", expected "true" or "false"'),
    ('{"identifier": "dev-1-0-0", "label": true}', 'line 1 has "label": true, expected "true"'),
    ('{"identifier": "dev-1-0-0", "label": "True"}\n' * 2, 'line 2 repeats'),
  ],
)
def test_labels_that_are_none(write, text, message):
  path = write(text)
  with pytest.raises(UserError, match=message) as raised:
    annotations.read_nlvr2(path)
  assert str(path) in str(raised.value)


def captions_of(path, image_ids):
  return annotations.captions_of(path, annotations.read_captions(path), image_ids)


def karpathy(split, number, sentences, **more):
  name = f'COCO_val2014_{number:012}.jpg'
  sentences = [{'sentid': s, 'raw': 'A man . ', 'tokens': []} for s in sentences]
  return {'split': split, 'imgid': number - 100, 'filename': name, 'sentences': sentences, **more}


COCO = {
  'dataset': 'coco',
  'images': [
    karpathy('test', 105, [3, 1], cocoid=105),
    karpathy('val', 5, [4], cocoid=5),
    karpathy('test', 101, [7, 9, 8], cocoid=101),
  ],
}


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    (['101', '105'], ['105', '101']),
    (
      ['COCO_val2014_000000000105.jpg'],
      ['COCO_val2014_000000000105.jpg', 'COCO_val2014_000000000101.jpg'],
    ),
    (['COCO_val2014_000000000101'], ['COCO_val2014_000000000105', 'COCO_val2014_000000000101']),
  ],
)
def test_captions_of_the_split_that_the_images_are_from(write, names, expected):
  captions = captions_of(write(COCO), names)
  # In the order of the file, which makes the folds; not in that of the numbers.
  assert list(captions.items()) == list(zip(expected, [['3', '1'], ['7', '9', '8']], strict=True))


def test_cocoid_is_not_mistaken_for_imgid(write):
  # 5 is an image of val by its cocoid; by imgid it would be one of test.
  assert captions_of(write(COCO), ['5']) == {'5': ['4']}
  flickr = {'images': [karpathy('test', 105, [1]), karpathy('test', 101, [2])]}
  assert captions_of(write(flickr), ['1']) == {'5': ['1'], '1': ['2']}


def test_plain_captions(write):
  path = write({'t1': 'b', 't2': 7, 't3': 'b'})
  assert captions_of(path, ['b']) == {'b': ['t1', 't3'], '7': ['t2']}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ([], 'is neither'),
    ({}, 'is neither'),
    ({'t': None}, "text 't' has no image id"),
    ({'images': [{'split': 'test'}]}, r'images\[0\] has no "filename"'),
    ({'images': [karpathy('test', 5, ['1'])]}, r'sentences\[0\] has "sentid": "1"'),
    ({'images': 2 * [karpathy('test', 5, [1])]}, r'images\[1\] repeats the file .* of images\[0\]'),
    (
      {'images': [karpathy('val', 5, [1]), karpathy('test', 6, [1])]},
      r'images\[1\].sentences\[0\] repeats the sentid 1 of images\[0\].sentences\[0\]',
    ),
    ({'images': []}, 'holds none of the images'),
    ({'images': [karpathy('test', 5, [1])]}, 'holds none of the images'),
  ],
)
def test_captions_that_are_none(write, content, message):
  path = write(content)
  with pytest.raises(UserError, match=message) as raised:
    captions_of(path, ['77'])
  assert str(path) in str(raised.value)
