"""VQA on data of one's own: what is built, asked, scored and left in files, without training."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import pytest

from configs import vqa
from data.build import build
from data.builders import open_dataset
from data.scenes import vocabulary
from pixelbert_jax import UserError
from pixelbert_jax.experiment import Experiment, resolve
from pixelbert_jax.input.selection import select
from pixelbert_jax.score import __main__ as score
from pixelbert_jax.score.vqa import OFFICIAL, SHARES
from pixelbert_jax.tasks.vqa import Vqa
from tests.support.corpora import as_folder, image

# Answers that VQA's rule drops, changes or makes one.
OWN = ('Yes', 'two', '2', 'T-shirt', '-5', '5', 'C++', 'C', 'A', 'yes|YES', 'two|two|two')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A folder with a dataset `folder/own`: each split has each answer once."""
  path = tmp_path_factory.mktemp('own')
  splits = ('train', 'val', 'test')
  asked = [(f'{split}{i}.jpg', a, split) for split in splits for i, a in enumerate(OWN)]
  asked += [('test90.jpg', 'crimson', 'test'), ('test91.jpg', 'Yes|no|Yes|yes', 'test')]
  lines = ['image,question,answers,split', *(f'{i},what is it,{a},{s}' for i, a, s in asked)]
  (path / 'q.csv').write_text('\n'.join(lines) + '\n')
  photos = as_folder({name: image(n) for n, (name, *_) in enumerate(asked)}, path / 'photos')
  build('folder/own', path / 'data', photos, tables={'questions': str(path / 'q.csv')})
  return path / 'data'


def experiment_of(data_dir: pathlib.Path, files: dict | None = None, **fields) -> Experiment:
  config = vqa.get_config('test')
  config.update_from_flattened_dict(
    {'data.name': 'folder/own', 'text.vocabulary': str(vocabulary.FILE), 'batch_size': 8}
    | {'texts_per_image': 1}
    | fields
  )
  return Experiment.of(resolve(config), open_dataset('folder/own', data_dir), files)


def right(answers, batches, whole):
  """Runs, in place of a model, what says the answer of most annotators, if it can be said."""
  keys, table = [SHARES.key(answer) for answer in answers], batches.table
  first = table.answers.values[table.answers.start[:-1]].tolist()
  said = [SHARES.key(table.strings.text(answer)) for answer in first]
  best = np.array([keys.index(key) if key in keys else 0 for key in said])
  items = {'question': np.arange(len(best)), 'answer': best, 'weight': np.ones(len(best))}
  return {'vqa_loss': np.array([0.0, 1.0])}, items


def test_the_dataset_says_how_its_answers_are_scored(data_dir, dataset):
  own = open_dataset('folder/own', data_dir)
  assert {split.scoring for split in own.splits.values()} == {'shares'}
  assert select(own, 'train+val').scoring == 'shares'
  assert experiment_of(data_dir).task.scoring == SHARES
  assert {split.scoring for split in dataset.splits.values()} == {'official'}


def test_every_answer_of_train_can_be_given_and_is_right(data_dir, tmp_path):
  experiment = experiment_of(data_dir)
  task, batches = experiment.task, experiment.batches
  assert sorted(task.answers) == sorted({'two', '2', 'T-shirt', '-5', '5', 'C++', 'C', 'A', 'YES'})
  run = functools.partial(right, task.answers)
  for role in ('train', 'validation'):
    assert task.evaluate(run, batches[role])['vqa_accuracy'] == 1
    best = np.max(
      [batches[role][i]['vqa_target'].max(-1) for i in range(len(batches[role]))], initial=0
    )
    assert best == 1
  metrics = task.report(run, batches['validation'], tmp_path / 'val.json')
  assert (metrics['vqa_accuracy'], metrics['vqa_accuracy/ceiling']) == (1, 1)
  title, row = task.table('val', metrics).splitlines()
  assert title.split()[:5] == ['share', 'of', 'annotators', 'on', 'val']
  assert row.split()[0:3] == ['all', 'questions', '1.000']
  assert len(title) == len(row)


def test_the_run_is_told_first_what_it_cannot_reach(data_dir):
  experiment = experiment_of(data_dir)
  lines = experiment.task.summary(experiment.batches)
  assert lines == [
    'answers     9 to choose from; score: share of annotators',
    'same answer 1 in several forms: "YES" = "Yes" = "yes"',
    'out of reach 1 of 13 questions of test, as answered by "crimson": the ceiling is 0.904',
  ]


def test_files_of_a_run_are_scored_by_the_command_as_by_the_run(
  data_dir, tmp_path, monkeypatch, capsys
):
  experiment = experiment_of(data_dir)
  run = functools.partial(right, experiment.task.answers)
  metrics = experiment.task.report(run, experiment.batches['test'], tmp_path / 'test.json')
  assert metrics['vqa_accuracy'] == metrics['vqa_accuracy/ceiling'] == (11 + 0 + 0.75) / 13
  monkeypatch.chdir(tmp_path)
  command = ['vqa', '--predictions=test.json', '--annotations=test_annotations.json']
  assert score.main([*command, '--json', '--per_item']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found.pop('per_item') == json.loads((tmp_path / 'test_scores.json').read_text())
  assert found == {'accuracy': metrics['vqa_accuracy'], 'scoring': 'share of annotators'}
  assert score.main(command) == 0
  assert capsys.readouterr().out.splitlines()[-1] == 'scoring: share of annotators'
  text = (tmp_path / 'test_annotations.json').read_text()
  (tmp_path / 'test_annotations.json').write_text(text.replace('"shares"', '"other"'))
  assert score.main(command) == 1
  assert "test_annotations.json names the scoring 'other'" in capsys.readouterr().err


def test_the_answers_of_an_older_checkpoint_are_kept_and_what_they_lack_is_told(data_dir):
  older = {'answers.json': b'["yes", "2", "t shirt", "5", "c"]'}
  experiment = experiment_of(data_dir, older)
  assert experiment.task.answers == ['yes', '2', 't shirt', '5', 'c']
  lines = experiment.task.summary(experiment.batches)
  assert any(line.startswith('out of reach 6 of 11 questions of train') for line in lines)


def test_a_dataset_built_before_is_scored_as_it_was(data_dir):
  (path,) = data_dir.rglob('metadata.json')
  saved = path.read_text()
  metadata = json.loads(saved)
  del metadata['scoring']
  path.write_text(json.dumps(metadata))
  path.with_name('digests.json').unlink()  # Datasets of that time have none.
  try:
    old = open_dataset('folder/own', data_dir)
  finally:
    path.write_text(saved)
  assert {split.scoring for split in old.splits.values()} == {'official'}
  config = vqa.get_config('test')
  config.data.name = 'folder/own'
  assert Vqa.of(config, {'test': old['test']}, {'answers.json': b'["yes"]'}).scoring == OFFICIAL
  unknown = dataclasses.replace(old['test'], scoring='best')
  with pytest.raises(UserError, match="folder/own names the scoring 'best'"):
    Vqa.of(config, {'test': unknown}, {'answers.json': b'["yes"]'})
