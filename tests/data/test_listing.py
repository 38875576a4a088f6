"""Published files with errors in them: each is one line, or is counted and left out."""

import json
from collections.abc import Callable

import pytest

from data.listing import as_read
from tests.support import corpora
from tests.support.builds import built, captions, failure
from tests.support.corpora import as_folder, as_json

QUESTIONS, ANNOTATIONS = (
  'v2_OpenEnded_mscoco_train2014_questions.json',
  ('v2_mscoco_train2014_annotations.json'),
)
COCO, FLICKR30K = 'dataset_coco.json', 'dataset_flickr30k.json'
NLVR, NLVR2 = 'nlvr/dev/dev.json', 'nlvr2/data/train.json'
REGIONS, IMAGES = 'region_descriptions.json', 'image_data.json'
ASKED = 'question_answers.json'
FLICKR_URLS = 'annotations/captions_train2014.json'
# The dataset that reads a file, and the split that is built of it.
READER = {
  QUESTIONS: ('vqa_v2', 'train'),
  ANNOTATIONS: ('vqa_v2', 'train'),
  COCO: ('coco_karpathy', 'train'),
  FLICKR30K: ('flickr30k', 'train'),
  NLVR: ('nlvr', 'dev'),
  NLVR2: ('nlvr2', 'train'),
  REGIONS: ('visual_genome', 'train'),
  IMAGES: ('visual_genome', 'train'),
  ASKED: ('visual_genome_questions', 'train'),
  FLICKR_URLS: ('visual_genome', 'train'),
}
ALIKE = 'captions left out: reads like another of its image: '


@pytest.fixture(scope='module')
def good() -> dict[str, bytes]:
  """Files of all published corpora."""
  splits = {'train': 3, 'restval': 2, 'val': 1, 'test': 1}
  coco_files, coco = corpora.karpathy('coco', splits)
  flickr_files, flickr30k = corpora.karpathy('flickr30k', {'train': 3, 'val': 1, 'test': 1})
  genome, regions = corpora.visual_genome(coco, flickr30k)
  return {
    **coco_files,
    **flickr_files,
    **genome,
    **corpora.visual_genome_questions(regions)[0],
    **corpora.coco_captions(coco, {}),
    **corpora.vqa(coco)[0],
    **corpora.nlvr('dev', 3),
    **corpora.nlvr2({'train': 4})[0],
  }


def changed(files: dict[str, bytes], name: str, change: Callable) -> dict[str, bytes]:
  """The files with a change of the content of one."""
  if name in (NLVR, NLVR2):
    value = [json.loads(line) for line in files[name].splitlines()]
    change(value)
    return files | {name: b'\n'.join(map(as_json, value))}
  value = json.loads(files[name])
  change(value)
  return files | {name: as_json(value)}


def put(*path_and_value) -> Callable:
  """A change that sets what is at a path."""
  *path, last, new = path_and_value

  def change(value):
    for key in path:
      value = value[key]
    value[last] = new

  return change


def remove(*path) -> Callable:
  def change(value):
    for key in path[:-1]:
      value = value[key]
    del value[path[-1]]

  return change


def again(*path, number: int = 0, **other) -> Callable:
  """A change that repeats an object of the list at a path at its end, with other fields."""

  def change(value):
    for key in path:
      value = value[key]
    value.append(value[number] | other)

  return change


def twice(*path) -> Callable:
  """A change that repeats an object of a list right after it."""

  def change(value):
    for key in path[:-1]:
      value = value[key]
    value.insert(path[-1], value[path[-1]])

  return change


@pytest.mark.parametrize(
  ('file', 'change', 'message'),
  [
    (
      QUESTIONS,
      put('questions', 1, 'question', None),
      'questions[1] has "question": null, expected',
    ),
    (QUESTIONS, put('questions', 1, 'question', ['why']), 'questions[1] has "question": ["why"]'),
    (
      QUESTIONS,
      put('questions', 1, 'question', '\ud800'),
      'has half a surrogate pair, \\ud800',
    ),
    (QUESTIONS, put('questions', 1, 'question_id', '10'), 'questions[1] has "question_id": "10"'),
    (QUESTIONS, put('questions', 1, 'question_id', 10**30), 'more than 64 bits'),
    (QUESTIONS, put('questions', 1, 'image_id', 1.5), 'questions[1] has "image_id": 1.5'),
    (QUESTIONS, remove('questions', 1, 'image_id'), 'questions[1] has no "image_id", expected an'),
    (
      QUESTIONS,
      again('questions', question='Why?'),
      '] repeats question_id 1000000 of questions[0]',
    ),
    (QUESTIONS, again('questions', question_id=7), 'has no answers to question 7 of'),
    (QUESTIONS, remove('questions', 1), 'answers 1 questions that'),
    (ANNOTATIONS, put('annotations', 1, 'image_id', 7), 'says that question '),
    (ANNOTATIONS, remove('annotations', 1), 'has no answers to question '),
    (ANNOTATIONS, again('annotations', question_id=7), 'lacks, such as 7: get both from'),
    (ANNOTATIONS, again('annotations', answer_type='x'), '] repeats question_id 1000000 of annot'),
    (ANNOTATIONS, put('annotations', 1, 'answers', 'yes'), 'annotations[1] has "answers": "yes"'),
    (ANNOTATIONS, put('annotations', 1, 'answers', []), 'annotations[1] has "answers": []'),
    (ANNOTATIONS, put('annotations', 1, 'answers', ['a']), 'annotations[1].answers[0] is "a"'),
    (ANNOTATIONS, remove('annotations', 1, 'answers', 2, 'answer'), '].answers[2] has no "answer"'),
    (ANNOTATIONS, put('annotations', 1, 'answers', 2, 'answer', 2), '].answers[2] has "answer": 2'),
    (ANNOTATIONS, put('annotations', 1, 'answer_type', None), '[1] has "answer_type": null'),
    (COCO, put('images', 1, 'sentences', 2, 'raw', None), 'images[1].sentences[2] has "raw": null'),
    (COCO, put('images', 1, 'sentences', 2, 'sentid', '7'), '.sentences[2] has "sentid": "7"'),
    (COCO, put('images', 1, 'sentences', {'raw': 'x'}), 'images[1] has "sentences": {"raw": "x"}'),
    (COCO, put('images', 1, 'cocoid', None), 'images[1] has "cocoid": null, expected an integer'),
    (COCO, put('images', 1, 'filename', 7), 'images[1] has "filename": 7, expected a text'),
    (COCO, again('images', split='nowhere'), '] has "split": "nowhere", expected "train"'),
    (
      COCO,
      again('images', filename='x.jpg'),
      'images[7] repeats image 1000 of images[0] with other',
    ),
    (COCO, again('images', cocoid=7), '.sentences[0] repeats sentid 0 of images[0].sentences[0]'),
    (FLICKR30K, put('images', 0, 'filename', None), 'images[0] has "filename": null'),
    (FLICKR30K, put('images', 0, 'sentences', 0, 'raw', 7), '[0].sentences[0] has "raw": 7'),
    (NLVR, put(1, 'sentence', None), 'line 2 has "sentence": null, expected a text'),
    (NLVR, put(1, 'label', True), 'line 2 has "label": true, expected "true" or "false"'),
    (NLVR, put(1, 'label', 'True'), 'line 2 has "label": "True", expected "true" or "false"'),
    (NLVR, put(1, 'identifier', None), 'line 2 has "identifier": null'),
    (NLVR, put(1, 'directory', None), 'line 2 has "directory": null'),
    (NLVR, put(1, ['x']), 'line 2 is ["x"], expected an object'),
    (NLVR, again(sentence='No.'), 'line 4 repeats identifier 100-0 of line 1 with other content'),
    (NLVR2, put(1, 'sentence', None), 'line 2 has "sentence": null, expected a text'),
    (NLVR2, put(1, 'label', 'true'), 'line 2 has "label": "true", expected "True" or "False"'),
    (NLVR2, put(1, 'directory', None), 'line 2 has "directory": null'),
    (NLVR2, put(0, 'directory', 77), 'repeats pair train-0-0 of line 1 with other content'),
    (REGIONS, put(1, 'regions', 0, 'phrase', None), '[1].regions[0] has "phrase": null'),
    (REGIONS, put(1, 'regions', 0, 'region_id', '1'), '[1].regions[0] has "region_id": "1"'),
    (REGIONS, put(1, 'regions', None), '[1] has "regions": null, expected a list'),
    (REGIONS, put(1, 'id', None), '[1] has "id": null, expected an integer'),
    (REGIONS, again(0, 'regions', phrase='x'), '[0].regions[1] repeats region 0 of [0].regions[0]'),
    (REGIONS, again(regions=[]), 'repeats image 1 of [0] with other content'),
    (ASKED, put(1, 'qas', 0, 'question', None), '[1].qas[0] has "question": null, expected'),
    (ASKED, put(1, 'qas', 0, 'answer', 2), '[1].qas[0] has "answer": 2, expected a text'),
    (ASKED, put(1, 'qas', 0, 'qa_id', '1'), '[1].qas[0] has "qa_id": "1", expected an integer'),
    (ASKED, put(1, 'qas', None), '[1] has "qas": null, expected a list'),
    (ASKED, put(1, 'id', None), '[1] has "id": null, expected an integer'),
    (ASKED, put(1, 'id', 77), 'image 77, which '),
    (ASKED, again(0, 'qas', answer='x'), '[0].qas[2] repeats qa_id 986010 of [0].qas[0] with'),
    (ASKED, again(qas=[]), 'repeats image 1 of [0] with other content'),
    (IMAGES, put(1, 'url', None), '[1] has "url": null, expected a text'),
    (
      IMAGES,
      put(1, 'url', 'http://a/b/1.jpg'),
      '[1] has "url": "http://a/b/1.jpg", expected one in',
    ),
    (IMAGES, put(1, 'image_id', '2'), '[1] has "image_id": "2"'),
    # Whether it is a test image of COCO could not be told.
    (IMAGES, put(1, 'coco_id', '1001'), '[1] has "coco_id": "1001", expected an integer'),
    (IMAGES, remove(1, 'flickr_id'), '[1] has no "flickr_id", expected an integer'),
    (IMAGES, again(url='http://a/VG_100K/1.jpg'), 'repeats image 1 of [0] with other content'),
    (FLICKR_URLS, put('images', 0, 'flickr_url', None), 'images[0] has "flickr_url": null'),
    (FLICKR_URLS, put('images', 0, 'id', '7'), 'images[0] has "id": "7", expected an integer'),
  ],
)
def test_an_error_in_a_file_is_named_with_its_place(file, change, message, good, tmp_path, capsys):
  (name, split), manual = READER[file], tmp_path / 'm'
  line = failure(
    name, as_folder(changed(good, file, change), manual), tmp_path, capsys, splits=[split]
  )
  assert str(manual) in line
  assert file in line
  assert message in line


@pytest.mark.parametrize(
  ('file', 'change', 'said', 'lost'),
  [
    (QUESTIONS, again('questions'), '1 of 10 questions left out: listed twice: 1000000', 0),
    (
      QUESTIONS,
      put('questions', 0, 'question', ' '),
      '1 of 9 questions left out: empty: 1000000',
      1,
    ),
    (ANNOTATIONS, again('annotations'), f'1 entries left out: listed twice: {ANNOTATIONS} ann', 0),
    (COCO, again('images'), '1 of 6 images left out: listed twice: 1000', 0),
    (COCO, put('images', 0, 'sentences', []), '1 of 5 images left out: without text: 1000', 5),
    (COCO, twice('images', 0, 'sentences', 2), 'captions left out: listed twice: 2', 0),
    (FLICKR30K, put('images', 0, 'sentences', 2, 'raw', ' '), ' captions left out: empty: 2', 1),
    (NLVR, again(), '6 of 24 images left out: listed twice: dev-100-0-0, dev-100-0-1, dev-', 0),
    (NLVR, put(0, 'sentence', ''), '6 of 18 captions left out: empty: 200100000, 2001', 6),
    (NLVR, put(0, 'sentence', ''), '6 of 18 images left out: without text: dev-100-0-0, dev-', 6),
    (NLVR2, again(), '1 of 8 statements left out: listed twice: train-0-0-0', 0),
    (NLVR2, put(0, 'sentence', ''), '1 of 7 statements left out: empty: train-0-0-0', 1),
    (REGIONS, again(), 'images left out: listed twice: 1', 0),
    (REGIONS, twice(7, 'regions', 0), 'captions left out: listed twice: 70', 0),
    (REGIONS, put(7, 'regions', 0, 'phrase', ' '), 'captions left out: empty: 70', 1),
    (REGIONS, remove(7), 'images left out: without text: 8', 4),
    (ASKED, again(), 'images left out: listed twice: 1', 0),
    (ASKED, twice(7, 'qas', 0), '1 of 33 questions left out: listed twice: 986080', 0),
    (
      ASKED,
      again(8, 'qas', qa_id=5, answer='Yes. '),
      '1 of 33 questions left out: the same question and answer as another of the image: 5',
      0,
    ),
    (ASKED, put(8, 'qas', 0, 'question', ' '), '1 of 32 questions left out: empty: 986090', 1),
    (
      ASKED,
      put(8, 'qas', 0, 'answer', ' '),
      '1 of 32 questions left out: without answer: 986090',
      1,
    ),
    (ASKED, remove(8), 'images left out: without text: 9', 2),
    (IMAGES, again(), '1 entries left out: listed twice: image_data.json [', 0),
    (
      COCO,
      put('images', 0, 'sentences', 2, 'raw', '“a GRÖßER”  train, 0 1'),
      f'{ALIKE}2 of 1000',
      1,
    ),
    (
      FLICKR30K,
      put('images', 0, 'sentences', 4, 'raw', 'A größer train: 0-3!'),
      f'1 of 15 {ALIKE}4 of 36979\n',
      1,
    ),
    (
      REGIONS,
      put(7, 'regions', 3, 'phrase', 'The clock 7.0, is green in colour'),
      f'{ALIKE}73 of 8\n',
      1,
    ),
  ],
)
def test_what_is_repeated_or_empty_is_left_out_and_named(
  file, change, said, lost, good, tmp_path, capsys
):
  (name, split), harmed = READER[file], tmp_path / 'harmed'
  manual = as_folder(changed(good, file, change), harmed / 'm')
  dataset, out = built(name, manual, harmed, capsys, splits=[split])
  lines = out.splitlines(keepends=True)
  assert any(line.startswith(f'  {split}: ') and said in line for line in lines), out
  # All else is there, as it is without the fault, and in this order.
  whole, _ = built(name, as_folder(good, tmp_path / 'm'), tmp_path, capsys, splits=[split])
  found, expected = texts(dataset[split].sidecar), texts(whole[split].sidecar)
  assert found == [text for text in expected if text in found]
  assert len(found) == len(expected) - lost


@pytest.mark.parametrize(('file', 'name'), [(COCO, 'coco_karpathy'), (FLICKR30K, 'flickr30k')])
def test_captions_that_read_alike_stay_where_scores_are_counted(file, name, good, tmp_path, capsys):
  files = dict(good)
  listed = json.loads(files[file])
  for entry in listed['images']:
    entry['sentences'][1]['raw'] = f'({entry["sentences"][0]["raw"].lower()})!'
  files[file] = as_json(listed)
  dataset, out = built(name, as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  number = {'val': 0, 'test': 0, 'train': 0}
  for entry in listed['images']:
    split = entry['split'].replace('restval', 'train')
    number[split] += len(entry['sentences']) - (split == 'train')
  assert {s: len(dataset[s].sidecar.text) for s in number} == number
  assert 'captions left out: reads like' in out
  (line,) = [line for line in out.splitlines() if 'left out' in line and ': ' in line]
  assert line.startswith('  train: ')


@pytest.mark.parametrize(
  ('first', 'second', 'alike'),
  [
    ('A  red t-shirt.', 'a red “T shirt”', True),
    ('A red t-shirt', 'a red tshirt', False),
    ('two dogs', 'two  cats', False),
    ('...', '?!', False),
    ('🐶', '🐱', False),
    ('का', 'की', False),  # they differ in a vowel sign, which is no letter of its own
  ],
)
def test_which_texts_read_alike(first, second, alike):
  assert (as_read(first) == as_read(second)) == alike


def texts(sidecar) -> list[tuple]:
  """Every text of a split with its image and its id."""
  captioned = enumerate(sidecar.image_id)
  asked, said = sidecar.questions, sidecar.statements
  return [
    *((image, *caption) for i, image in captioned for caption in captions(sidecar, i)),
    *((sidecar.image_id[i], n) for i, n in zip(asked.image, asked.id.tolist(), strict=True)),
    *((sidecar.image_id[i], n) for i, n in zip(said.left, said.identifier, strict=True)),
  ]


@pytest.mark.parametrize('file', READER)
def test_a_file_may_begin_with_a_mark_of_the_byte_order(file, good, tmp_path, capsys):
  (name, split), content = READER[file], good[file]
  # Windows' editors end lines with two characters, too.
  marked = b'\xef\xbb\xbf' + content.replace(b'\n', b'\r\n')
  manual = as_folder(good | {file: marked}, tmp_path / 'm')
  dataset, out = built(name, manual, tmp_path, capsys, splits=[split])
  assert texts(dataset[split].sidecar)
  assert 'listed twice' not in out
