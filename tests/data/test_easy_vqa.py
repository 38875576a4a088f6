"""easy-VQA, from an installed package, its wheel or its folder, in miniature."""

import pathlib
import sys

import pytest

from data.easy_vqa import vocabulary
from data.easy_vqa.easy_vqa_dataset_builder import validation
from tests.support.builds import built, failure, strings
from tests.support.corpora import Files, as_folder, as_json, as_zip, image

TRAIN, TEST = 20, 5
SHAPES, COLOURS = ('circle', 'rectangle'), ('red', 'teal', 'gray')


def asked(images: int) -> list[list]:
  """The questions of a split, two an image; those of an image need not follow each other."""
  first = [['what shape is present?', SHAPES[i % 2], i] for i in range(images)]
  colours = [['what is the color of the shape?', COLOURS[i % 3], i] for i in range(images)]
  return first + colours + [['is there not a teal shape?', 'yes', 0]]


def package(below: str = 'easy_vqa/') -> Files:
  """The files of the package, in its layout."""
  files = {'__init__.py': b'', 'data/answers.txt': b'yes\nno\n'}
  for split, images in (('train', TRAIN), ('test', TEST)):
    files[f'data/{split}/questions.json'] = as_json(asked(images))
    for i in range(images):
      files[f'data/{split}/images/{i}.png'] = image(1000 * (split == 'test') + i, 'PNG', (8, 8))
  return {below + name: content for name, content in files.items()}


def installed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
  monkeypatch.syspath_prepend(as_folder(package(), tmp_path / 'site-packages'))
  return tmp_path / 'empty'


SOURCES = {
  'installed': installed,
  'wheel': lambda path, _: as_zip(package(), path / 'M/easy_vqa-1.0-py3-none-any.whl'),
  'unpacked': lambda path, _: as_folder(package(), path / 'M'),
  'its own folder': lambda path, _: as_folder(package(''), path / 'easy_vqa'),
  'the repository': lambda path, _: as_zip(package('easy-VQA-master/easy_vqa/'), path / 'M/a.zip'),
}


@pytest.mark.parametrize('source', SOURCES)
def test_every_question_is_there_once_with_its_image(source, tmp_path, monkeypatch, capsys):
  dataset, out = built('easy_vqa', SOURCES[source](tmp_path, monkeypatch), tmp_path, capsys)
  files, found = package(''), {'train': [], 'test': []}
  for name, split in dataset.splits.items():
    table, theirs = split.sidecar.questions, 'test' if name == 'test' else 'train'
    assert split.scoring == 'shares'
    for q in range(len(table)):
      image_id = split.sidecar.image_id[table.image[q]].decode()
      i = int(image_id.removeprefix(f'{theirs}-'))
      assert split.encoded(table.image[q]) == files[f'data/{theirs}/images/{i}.png']
      (answer,) = strings(table, table.answers[q])
      found[theirs].append((int(table.id[q]) % 100_000, [table.text.text(q), answer, i]))
  assert sorted(found['train']) == list(enumerate(asked(TRAIN)))
  assert sorted(found['test']) == list(enumerate(asked(TEST)))
  held_out = {int(i.decode().removeprefix('train-')) for i in dataset['val'].sidecar.image_id}
  assert held_out == validation(list(range(TRAIN)))
  assert len(held_out) == 2
  assert 'warning: test has 5 images in its files, 1,000 were published' in out


def test_types_of_questions_and_answers(tmp_path, capsys):
  dataset, _ = built('easy_vqa', as_folder(package(), tmp_path / 'M'), tmp_path, capsys)
  table = dataset['test'].sidecar.questions
  kinds = {
    table.text.text(q): strings(table, (table.question_type[q], table.answer_type[q]))
    for q in range(len(table))
  }
  assert kinds == {
    'what shape is present?': ['what shape', 'shape'],
    'what is the color of the shape?': ['what is', 'color'],
    'is there not a teal shape?': ['is there', 'yes/no'],
  }


def test_the_held_out_tenth_is_the_same_in_each_build():
  assert len(validation(list(range(4000)))) == 400
  assert validation(list(range(30))) == validation(list(range(30))[::-1]) == {3, 11, 19}


def test_without_the_package_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'path', [p for p in sys.path if 'site-packages' not in p])
  line = failure('easy_vqa', tmp_path / 'M', tmp_path, capsys)
  assert 'pip install easy-vqa' in line
  assert str(tmp_path / 'M') in line


@pytest.mark.parametrize('item', [['what?', 'red'], ['what?', 'red', '0'], [1, 'red', 0], {}, None])
def test_a_question_that_is_none_is_named(item, tmp_path, capsys):
  files = package() | {'easy_vqa/data/train/questions.json': as_json([['what?', 'red', 0], item])}
  line = failure('easy_vqa', as_folder(files, tmp_path / 'M'), tmp_path, capsys)
  assert 'questions.json [1] cannot be read (expected [question, answer, image]' in line


def test_its_vocabulary_has_the_words_of_its_questions():
  words = vocabulary.FILE.read_text().splitlines()
  assert len(set(words)) == len(words)
  assert {'circle', 'gray', 'teal', 'not', 'color', '[MASK]', '##z', '?'} <= set(words)
