"""The command end to end: all four tasks, JSON and tables, comparisons, and what it refuses."""

import configparser
import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pixelbert_jax.score import __main__ as score
from pixelbert_jax.score import matrix, predictions
from tests.support.paths import ROOT, shared


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The current folder, so that messages name files shortly."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def run(capsys, *arguments) -> str:
  """What a command prints that must succeed, and say nothing else."""
  code = score.main([*map(str, arguments)])
  printed = capsys.readouterr()
  assert (code, printed.err) == (0, '')
  return printed.out


def run_json(capsys, *arguments) -> dict:
  return json.loads(run(capsys, *arguments, '--json'))


def refusal(capsys, *arguments) -> list[str]:
  """The lines of a command that must fail, without a word on stdout."""
  code = score.main([*map(str, arguments)])
  printed = capsys.readouterr()
  assert (code, printed.out) == (1, '')
  lines = printed.err.splitlines()
  assert all(line.startswith('error: ') for line in lines)
  return [line.removeprefix('error: ') for line in lines]


# VQA: three questions on two images.


def annotation(question_id, image_id, kinds, answers):
  question_type, answer_type = kinds
  answers = [{'answer': a, 'answer_id': i + 1} for i, a in enumerate(answers)]
  return {
    'question_id': question_id,
    'image_id': image_id,
    'question_type': question_type,
    'answer_type': answer_type,
    'answers': answers,
  }


@pytest.fixture
def vqa_files(folder):
  annotations = [
    annotation(10, 1, ('what color', 'other'), ['red'] * 3 + ['dark red'] * 7),
    annotation(11, 1, ('is the', 'yes/no'), ['yes'] * 10),
    annotation(20, 2, ('how many', 'number'), ['2'] * 8 + ['two', 'many']),
  ]
  pathlib.Path('val.json').write_text(json.dumps({'annotations': annotations}))
  pathlib.Path('val.json.gz').write_bytes(gzip.compress(pathlib.Path('val.json').read_bytes()))
  questions = [{'question_id': 10, 'image_id': 1}, {'question_id': 20, 'image_id': 2}]
  pathlib.Path('two.json').write_text(json.dumps({'questions': questions}))
  predictions.write_vqa('a.json', {10: 'Red.', 11: 'yes', 20: 'Two'})
  predictions.write_vqa('b.json', {10: 'Red.', 11: 'no', 20: 'many'})


VQA = ('vqa', '--predictions=a.json', '--annotations=val.json')


def test_vqa_as_json(vqa_files, capsys):
  assert run_json(capsys, *VQA, '--per_item') == {
    'accuracy': pytest.approx(2.9 / 3),
    'per_answer_type': {'number': 1.0, 'other': 0.9, 'yes/no': 1.0},
    'per_question_type': {'how many': 1.0, 'is the': 1.0, 'what color': 0.9},
    'per_item': {'10': 0.9, '11': 1.0, '20': 1.0},
  }
  assert 'per_item' not in run_json(capsys, *VQA)


def test_vqa_as_a_table(vqa_files, capsys):
  lines = run(capsys, *VQA, '--per_item').splitlines()
  assert [line.split() for line in lines[:4]] == [
    ['%', 'of'],
    ['accuracy', '96.67', '3'],
    ['per_answer_type'],
    ['number', '100.00', '1'],
  ]
  assert lines[-3:] == ['10 0.9', '11 1', '20 1']
  assert len({len(line) for line in lines[:10] if line.endswith('1')}) == 1


def test_annotations_may_be_gzipped(vqa_files, capsys):
  assert run(capsys, *VQA) == run(
    capsys, 'vqa', '--predictions=a.json', '--annotations=val.json.gz'
  )


def test_vqa_on_the_questions_asked(vqa_files, capsys):
  predictions.write_vqa('c.json', {20: 'Two', 10: 'Red.'})
  arguments = ('vqa', '--predictions=c.json', '--questions=two.json')
  found = run_json(capsys, *arguments, '--annotations=val.json')
  assert found['accuracy'] == pytest.approx(0.95)
  assert found['per_question_type'] == {'how many': 1.0, 'what color': 0.9}
  assert found['scored'] == '2 of 3 questions'
  assert run(capsys, *arguments, '--annotations=val.json').endswith('scored: 2 of 3 questions\n')
  # Without annotations, as on test, the file is checked all the same.
  assert run_json(capsys, *arguments) == {'valid_predictions': 2}
  assert run(capsys, *arguments) == 'valid_predictions: 2\n'
  assert refusal(capsys, 'vqa', '--predictions=a.json', '--questions=two.json') == [
    'a.json: question 11 is not among those to predict: remove it'
  ]


def test_vqa_compared(vqa_files, capsys):
  found = run_json(capsys, *VQA, '--compare=b.json')
  difference = found['compare']['accuracy']
  assert found['accuracy'] == difference['first']
  assert difference['second'] == pytest.approx(0.9 / 3 + 0.1)
  assert difference['difference'] == pytest.approx(difference['first'] - difference['second'])
  # By image, of which there are two: (1, of two questions) and (0.7, of one).
  assert difference['clusters'] == 2
  assert difference['interval'] == pytest.approx([0.5, 0.7])
  text = run(capsys, *VQA, '--compare=b.json')
  assert ['accuracy', '96.67', '40.00', '+56.67', '+50.00', 'to', '+70.00'] in [
    line.split() for line in text.splitlines()
  ]
  assert '10,000 resamples of 2 images' in text


# NLVR2 and NLVR.


@pytest.fixture
def nlvr2_files(folder):
  labels = {
    f'dev-{s}-{p}-{n}': (s + p + n) % 2 == 0 for s in (1, 2) for p in (0, 1) for n in (0, 1)
  }
  lines = [json.dumps({'identifier': i, 'label': str(label)}) for i, label in labels.items()]
  pathlib.Path('dev.json').write_text('\n'.join(lines))
  predictions.write_nlvr2('a.csv', labels | {'dev-1-0-0': True})
  predictions.write_nlvr2('b.csv', dict.fromkeys(labels, True))


def test_nlvr2(nlvr2_files, capsys):
  arguments = ('nlvr2', '--predictions=a.csv', '--annotations=dev.json')
  found = run_json(capsys, *arguments, '--compare=b.csv', '--per_item')
  assert found['accuracy'] == found['balanced_accuracy'] == 7 / 8
  assert found['consistency'] == found['balanced_consistency'] == 3 / 4
  assert found['per_item']['dev-1-0-0'] == 0
  assert sum(found['per_item'].values()) == 7
  assert found['compare'].keys() == {'accuracy', 'consistency'}
  assert found['compare']['accuracy']['clusters'] == 4
  assert found['compare']['accuracy']['difference'] == pytest.approx(3 / 8)
  assert found['compare']['consistency']['second'] == 0
  text = run(capsys, *arguments)
  assert [line.split() for line in text.splitlines()][1:] == [
    ['accuracy', '87.50', '8'],
    ['consistency', '75.00', '4'],
    ['balanced_accuracy', '87.50', '8'],
    ['balanced_consistency', '75.00', '4'],
    ['scored:', '8', 'of', '6,982', 'statements'],
  ]
  assert found['scored'] == '8 of 6,982 statements'


def test_nlvr2_on_the_published_annotations(folder, capsys):
  path = shared('nlvr2_test1.json.gz')
  with gzip.open(path, 'rt') as file:
    examples = [json.loads(line) for line in file]
  pathlib.Path('a.csv').write_text(''.join(f'{e["identifier"]},True\n' for e in examples))
  found = run_json(capsys, 'nlvr2', '--predictions=a.csv', f'--annotations={path}')
  assert found['accuracy'] == 3558 / 6967
  assert found['balanced_accuracy'] == 0.5
  assert 'scored' not in found  # It is all there is.


@pytest.fixture
def nlvr_files(folder):
  lines = [{'identifier': i, 'label': 'true'} for i in ('7-0', '7-1', '8-0')]
  pathlib.Path('dev.json').write_text('\n'.join(map(json.dumps, lines)))
  right = {f'{i}-{k}': True for i in ('7-0', '7-1', '8-0') for k in range(6)}
  predictions.write_nlvr('a.csv', right | {'7-1-5': False}, 'dev')
  predictions.write_nlvr('b.csv', right | {'8-0-0': False}, 'dev')


def test_nlvr(nlvr_files, capsys):
  arguments = ('nlvr', '--predictions=a.csv', '--annotations=dev.json')
  found = run_json(capsys, *arguments, '--per_item', '--compare=b.csv')
  assert found['accuracy'] == 17 / 18
  assert found['consistency'] == 1 / 2
  assert len(found['per_item']) == 18
  assert found['per_item']['7-1-5'] == 0
  assert found['compare']['accuracy']['clusters'] == 2
  assert found['compare']['consistency']['difference'] == 0
  assert found['compare']['consistency']['interval'] == [-1, 1]
  assert ['accuracy', '94.44', '18'] in [
    line.split() for line in run(capsys, *arguments).splitlines()
  ]


# Retrieval.


@pytest.fixture
def retrieval_files(folder):
  """Three images, with one, two and six texts; everything right but for image 'c' and text 4."""
  captions = {str(t): image for t, image in enumerate('abbcccccc')}
  pathlib.Path('captions.json').write_text(json.dumps(captions))
  text_image = np.array([0, 1, 1] + [2] * 6)
  scores = np.where(text_image == np.arange(3)[:, None], 1.0, 0.0)
  scores[2] = 0  # Image c scores all alike: behind the three texts that are wrong.
  scores[1, 4] = 2
  matrix.write('a.npz', scores, list('abc'), np.arange(9))
  return scores


RETRIEVAL = ('retrieval', '--predictions=a.npz', '--annotations=captions.json')


def test_retrieval(retrieval_files, capsys):
  found = run_json(capsys, *RETRIEVAL, '--per_item')
  ranks = found.pop('per_item')
  assert ranks['text_retrieval'] == {'a': 1, 'b': 2, 'c': 4}
  assert ranks['image_retrieval'] == dict(
    zip('012345678', [1, 1, 1, 3, 3, 3, 3, 3, 3], strict=True)
  )
  assert found == {
    'text_recall_at_1': pytest.approx(1 / 3),
    'text_recall_at_5': 1.0,
    'text_recall_at_10': 1.0,
    'image_recall_at_1': pytest.approx(1 / 3),
    'image_recall_at_5': 1.0,
    'image_recall_at_10': 1.0,
    'images': 3,
    'texts': 9,
    'captions': 'all 9',
  }
  text = run(capsys, *RETRIEVAL, '--per_item')
  assert ['image_recall_at_1', '33.33', '9'] in [line.split() for line in text.splitlines()]
  assert 'captions: all 9' in text
  assert 'text_retrieval c 4' in text.splitlines()


def test_five_captions_an_image(retrieval_files, capsys):
  matrix.write('five.npz', retrieval_files[:, :8], list('abc'), np.arange(8))
  arguments = ('retrieval', '--predictions=five.npz', '--annotations=captions.json')
  found = run_json(capsys, *arguments)
  assert (found['texts'], found['captions']) == (8, 'five an image, 8 of 9')
  assert found['image_recall_at_1'] == pytest.approx(3 / 8)
  (line,) = refusal(capsys, *arguments, '--compare=a.npz')
  assert line == (
    '--compare: the files do not score the same captions '
    '(five an image, 8 of 9; all 9; 1 are in one file only, such as 8): '
    'use one split and one convention'
  )


def test_files_of_two_splits_are_not_compared(folder, capsys):
  """Of the same numbers of images and captions, as Karpathy's val and test of COCO are."""
  images = [
    {'split': split, 'cocoid': i, 'filename': f'{i}.jpg', 'sentences': [{'sentid': 10 + i}]}
    for i, split in enumerate(['val', 'test', 'val', 'test'])
  ]
  pathlib.Path('dataset_coco.json').write_text(json.dumps({'images': images}))
  matrix.write('val.npz', np.eye(2), [0, 2], [10, 12])
  matrix.write('test.npz', np.eye(2), [1, 3], [11, 13])
  matrix.write('files.npz', np.eye(2), ['0.jpg', '2.jpg'], [10, 12])
  arguments = ('retrieval', '--predictions=val.npz', '--annotations=dataset_coco.json')
  (line,) = refusal(capsys, *arguments, '--compare=test.npz')
  assert 'the same captions (all 2; all 2; 4 are in one file only, such as 10)' in line
  # Another name for the same image is another matter.
  assert 'compare' in run_json(capsys, *arguments, '--compare=files.npz')


def test_retrieval_compared_whatever_the_order(retrieval_files, capsys):
  rng = np.random.default_rng(0)
  rows, columns = rng.permutation(3), rng.permutation(9)
  shuffled = retrieval_files[rows][:, columns]
  matrix.write('b.npz', shuffled, np.array(list('abc'))[rows], columns)
  found = run_json(capsys, *RETRIEVAL, '--compare=b.npz')
  assert len(found['compare']) == 6
  for difference in found['compare'].values():
    assert difference['first'] == difference['second']
    assert (difference['interval'], difference['clusters']) == ([0, 0], 3)


def test_5_000_images_are_also_scored_in_folds(folder, capsys):
  """Karpathy's file with images and texts in another order than the matrix."""
  rng = np.random.default_rng(0)
  image_ids = rng.permutation(100_000)[:5000].tolist()
  images = [
    {'split': 'test', 'cocoid': i, 'filename': f'{i}.jpg', 'sentences': [{'sentid': i + 7}]}
    for i in image_ids
  ]
  pathlib.Path('dataset_coco.json').write_text(json.dumps({'images': images}))
  scores = rng.random((5000, 5000), np.float32)
  scores[np.arange(5000), np.arange(5000)] += 0.9
  # Rivals from other folds are harder: folds of other images would be found out.
  fold = np.arange(5000) // 1000
  scores[fold[:, None] != fold] += 0.5
  rows, columns = rng.permutation(5000), rng.permutation(5000)
  ids = np.array(image_ids)
  matrix.write('a.npz', scores[rows][:, columns], ids[rows], ids[columns] + 7)
  found = run_json(capsys, 'retrieval', '--predictions=a.npz', '--annotations=dataset_coco.json')
  hits = []
  for start in range(0, 5000, 1000):
    fold = scores[start : start + 1000, start : start + 1000]
    first = np.argsort(-fold, axis=1)[:, :5]
    hits.append((first == np.arange(1000)[:, None]).any(axis=1).mean())
  assert found['text_recall_at_5_1k'] == pytest.approx(np.mean(hits), abs=1e-12)
  first = np.argsort(-scores, axis=0)[:5]
  assert found['image_recall_at_5'] == pytest.approx((first == np.arange(5000)).any(axis=0).mean())
  assert found['image_recall_at_5'] < found['image_recall_at_5_1k'] < 1


# What it refuses.


def test_a_score_that_is_no_number(retrieval_files, capsys):
  retrieval_files[2, 4] = np.nan
  matrix.write('a.npz', retrieval_files, list('abc'), np.arange(9))
  (line,) = refusal(capsys, *RETRIEVAL)
  assert line == 'a.npz: the score of row 2, column 4 is not a number'


def test_judgements_are_of_cocos_test_split(retrieval_files, capsys):
  (line,) = refusal(capsys, *RETRIEVAL, '--eccv')
  assert line == (
    "a.npz: --eccv is for COCO's test split, of whose 25,000 judged captions 25,000 are missing, "
    'such as 770337: leave the flag out'
  )


def test_judgements_are_in_a_package(retrieval_files, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'eccv_caption', None)  # as if not installed
  (line,) = refusal(capsys, *RETRIEVAL, '--eccv')
  assert line == (
    '--eccv needs the package eccv-caption, which has the judgements: pip install eccv-caption, '
    "or pip install -e '.[eccv]'"
  )
  run(capsys, *RETRIEVAL)


def test_faults_are_a_line_each(vqa_files, capsys):
  pathlib.Path('bad.json').write_text('[{"question_id": 10, "answer": 1}]')
  assert refusal(capsys, 'vqa', '--predictions=bad.json', '--annotations=val.json') == [
    'bad.json: question 10: expected a string "answer", got 1',
    'bad.json: question 11 has no prediction: add one',
    'bad.json: question 20 has no prediction: add one',
  ]
  # Also of the second file, which is the one that is named.
  lines = refusal(capsys, *VQA, '--compare=bad.json', '--json')
  assert lines[0].startswith('bad.json: ')


@pytest.mark.parametrize(
  ('arguments', 'line'),
  [
    ((), 'the following arguments are required: task, --predictions; --help lists the flags'),
    (('vqa', '--predictions=a.json'), 'name the annotations with --annotations=F'),
    ((*VQA, '--questions=none.json'), 'none.json does not exist: name a file that does'),
    (('vqa', '--predictions=a.json', '--annotations=two.json'), 'no list of "annotations"'),
    ((*VQA, '--questions=val.json'), 'val.json has no list of "questions"'),
    (('nlvr', '--predictions=a.csv'), 'name the annotations with --annotations=F'),
    (('nlvr2', '--predictions=a', '--annotations=b', '--questions=c'), 'is for vqa only'),
    ((*VQA, '--eccv'), '--eccv is for retrieval only'),
    ((*VQA, '--prediction=x'), 'unknown flag --prediction: did you mean --predictions?'),
    (
      ('vqa', '--predictions=a.json', '--questions=two.json', '--compare=a.json'),
      '--compare needs --annotations=F',
    ),
  ],
)
def test_wrong_arguments(vqa_files, capsys, arguments, line):
  (found,) = refusal(capsys, *arguments)
  assert line in found


def test_questions_that_are_not_annotated(vqa_files, capsys):
  pathlib.Path('other.json').write_text('{"questions": [{"question_id": 99}]}')
  (line,) = refusal(capsys, *VQA, '--questions=other.json')
  assert line == 'val.json lacks question 99 of other.json: do the files belong together?'
  pathlib.Path('other.json').write_text('{"questions": [{"question_id": 10}, {"question_id": 10}]}')
  (line,) = refusal(capsys, *VQA, '--questions=other.json')
  assert line == 'other.json: question 10 is listed more than once'


# As a process.


def test_it_starts_quickly_and_imports_nothing_else(vqa_files):
  program = (
    'import runpy, sys, time\n'
    f"sys.argv = ['score', *{list(VQA)!r}, '--json']\n"
    'try:\n'
    "  runpy.run_module('pixelbert_jax.score', run_name='__main__', alter_sys=True)\n"
    'except SystemExit as stop:\n'
    '  assert stop.code == 0\n'
    'spent = time.process_time()\n'
    "own = {m for m in sys.modules if m.split('.')[0] in ('pixelbert_jax', 'data', 'configs')}\n"
    "known = {f'pixelbert_jax.{x}' for x in ('commandline', 'disk', 'fields', 'files', 'jsons')}\n"
    "known.add('pixelbert_jax')\n"
    "rest = {m for m in own - known if not m.startswith('pixelbert_jax.score')}\n"
    'assert not rest, rest\n'
    "heavy = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'tensorflow', 'torch', 'absl', 'grain',\n"
    "         'tensorflow_datasets', 'tensorboardX', 'PIL', 'cv2', 'ml_collections', 'tqdm'}\n"
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
    'assert spent < 1, spent\n'
  )
  environment = {'PYTHONPATH': str(ROOT), 'PATH': '', 'OPENBLAS_NUM_THREADS': '1'}
  done = subprocess.run(
    [sys.executable, '-c', program], env=environment, capture_output=True, text=True, check=False
  )
  assert (done.returncode, done.stderr) == (0, '')
  # One object and nothing else.
  assert json.loads(done.stdout)['accuracy'] == pytest.approx(2.9 / 3)


def test_exit_codes(vqa_files):
  command = [sys.executable, '-m', 'pixelbert_jax.score']
  environment = {'PYTHONPATH': str(ROOT), 'PATH': ''}

  def code(*arguments):
    done = subprocess.run(
      [*command, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, 'Traceback' in done.stderr

  assert code(*VQA) == (0, False)
  assert code(*VQA, '--compare=none.json') == (1, False)
  assert code(*VQA, '--compare=none.json', '--debug') == (1, True)
  assert code('--help') == (0, False)


def test_the_tables_are_part_of_a_built_package():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  patterns = setup['options.package_data']['pixelbert_jax'].split()
  package = ROOT / 'pixelbert_jax'
  packaged = {path for pattern in patterns for path in package.glob(pattern)}
  assert package / 'score' / 'vqa_normalisation.json' in packaged
