"""VQA: its loss and batches, and a run of `configs/vqa.py:test` from files to predictions."""

import collections
import copy
import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from configs import pretrain, vqa
from data import build
from data.scenes import vocabulary
from pixelbert_jax import UserError, sharding
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import Experiment, prepare_data, resolve
from pixelbert_jax.input.rows import Question, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.loop import DONE, PREEMPTED
from pixelbert_jax.main import main
from pixelbert_jax.score import vqa as official
from pixelbert_jax.score.predictions import read_vqa
from pixelbert_jax.tasks import answers as answers_lib
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.vqa import Vqa, annotated
from pixelbert_jax.train import train
from tests.support import corpora, tiny
from tests.support.paths import ROOT
from tests.support.runs import metrics, short_config, stop_at, timeless

STEPS = 12


pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture
def config(few_scenes):
  return short_config(vqa, few_scenes, STEPS)


@pytest.fixture(scope='module')
def finished(few_scenes, tmp_path_factory):
  """The workdir of a run that went through without interruption."""
  workdir = tmp_path_factory.mktemp('vqa') / 'run'
  assert train(short_config(vqa, few_scenes, STEPS), workdir) == DONE
  return workdir


@pytest.fixture
def make(config, dataset):
  """The batches of a split, with any field changed."""
  made = Experiment.of(resolve(config), dataset).batches
  return lambda role, **fields: dataclasses.replace(made[role], **fields)


# --- Loss and batches ----------------------------------------------------------------------


def random_batch(seed=0, weight=((1, 0.0), (1, 1))):
  rng = np.random.default_rng(seed)
  batch = {
    'vqa_target': rng.choice([0, 0.3, 0.6, 1], (2, 2, 5)).astype(np.float32),
    'weight': np.array(weight, np.float32),
    'question': np.arange(4).reshape(2, 2),
  }
  return {'vqa_logits': rng.normal(size=(2, 2, 5)).astype(np.float32)}, batch


def test_the_loss_is_binary_cross_entropy_summed_over_answers_and_meaned_over_questions():
  outputs, batch = random_batch()
  logits, target = (torch.from_numpy(x) for x in (outputs['vqa_logits'], batch['vqa_target']))
  each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction='none')
  expected = each.sum(-1).reshape(-1)[[0, 2, 3]].mean()
  sums = Vqa([]).losses(outputs, batch)
  assert float(sums_lib.loss(sums, batch)) == pytest.approx(expected.item(), rel=1e-6)
  # As a part of a batch with 6 questions that count.
  part = batch | {'vqa_total': np.full(2, 6, np.float32)}
  assert float(sums_lib.loss(sums, part)) == pytest.approx(expected.item() / 2, rel=1e-6)


def test_accuracy_is_how_right_the_likeliest_answers_are():
  outputs, batch = random_batch()
  best = outputs['vqa_logits'].argmax(-1)
  right = np.take_along_axis(batch['vqa_target'], best[..., None], -1)[..., 0]
  found = Vqa([]).accuracies(outputs, batch)['vqa_accuracy']
  np.testing.assert_allclose(found, [right[0, 0] + right[1].sum(), 3], rtol=1e-6)


@pytest.mark.parametrize('role', ['train', 'test'])
def test_every_question_comes_with_its_image_and_its_answers(make, role):
  batches = make(role)
  questions, seen = batches.table, []
  for number in range(len(batches)):
    batch, plan = batches[number], batches.plan(0)
    for row, k in zip(*np.nonzero(batch['weight']), strict=True):
      q = batch['question'][row, k]
      seen.append(q)
      assert questions.image[q] == plan.image[number, row]
      ten = [questions.strings.text(a) for a in questions.answers[q]]
      expected = {official.normalise(a): official.accuracy(a, ten) for a in ten}
      found = dict(zip(batches.answers, batch['vqa_target'][row, k], strict=True))
      assert {a: x for a, x in found.items() if x} == pytest.approx(
        {a: x for a, x in expected.items() if a in found}
      )
      words = [batches.tokenizer.words[i] for i in batch['token_ids'][row, k]]
      assert ' '.join(words[1 : words.index('[SEP]')]) == batches.text(q)
      assert batch['token_mask'][row, k].tolist() == [word != '[PAD]' for word in words]
  assert len(set(seen)) == len(seen)
  if role == 'test':
    assert sorted(seen) == list(range(len(questions)))


def test_images_are_not_mirrored_whose_answers_name_a_side(make):
  batches = make('train', flip=1.0)
  for word, flipped in {'left': False, 'lettuce': True}.items():
    asked = [Question('where is it', i, [word] * 10, word) for i in range(200)]
    ids = batches.split.sidecar.image_id
    rows = [Row(i.decode(), 64, 64, questions=[q]) for i, q in zip(ids, asked, strict=True)]
    split = dataclasses.replace(batches.split, sidecar=Sidecar.of(rows))
    found = dataclasses.replace(batches, split=split)[0]['flip']
    assert found.all() if flipped else not found.any()


def test_questions_without_an_answer_of_the_list_teach_nothing_but_count(make):
  known = ['yes', 'no']
  training, test = make('train', answers=known), make('test', answers=known)
  batch = training[0]
  answerable = batch['vqa_target'].any(-1)
  assert 0 < answerable.sum() < answerable.size
  assert not batch['weight'][~answerable].any()
  total = sum(test[i]['weight'].sum() for i in range(len(test)))
  assert total == len(test.table)


def test_micro_batches_make_up_the_batch_and_know_its_weight(make):
  whole, parts = make('train')[3], make('train', micro_batches=2)
  halves = [parts[6], parts[7]]
  for name in ('token_ids', 'vqa_target', 'weight', 'question', 'image'):
    np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), whole[name])
  for half in halves:
    np.testing.assert_array_equal(half['vqa_total'], whole['weight'].sum())


def test_an_unreadable_image_does_not_count(make, monkeypatch):
  batches = make('train')
  bad = int(batches.plan(0).image[0, 1])
  encoded = type(batches.split).encoded
  broken = lambda self, i: b'none' if i == bad else encoded(self, i)  # noqa: E731
  before = batches[0]['weight']
  monkeypatch.setattr(type(batches.split), 'encoded', broken)
  after = batches[0]['weight']
  assert before[1].any()
  assert not after[1].any()
  np.testing.assert_array_equal(np.delete(after, 1, 0), np.delete(before, 1, 0))


def test_the_guess_is_the_best_one_for_each_type(config, dataset):
  experiment = Experiment.of(resolve(config), dataset)
  batches, task = experiment.batches['train'], experiment.task
  questions = annotated(batches.table, range(len(batches.table)))
  for kind, guess in task.guess.items():
    asked = [q for q in questions if kind in ('', q.question_type)]
    means = {a: np.mean([official.accuracy(a, q.answers) for q in asked]) for a in task.answers}
    assert means[guess] == pytest.approx(max(means.values()))


def test_answer_files(tmp_path):
  path = tmp_path / 'answers.json'
  path.write_text('{"no": 1, "yes": 0}')
  assert answers_lib.read_answers(path) == ['yes', 'no']
  path.write_text('["no", "yes"]')
  assert answers_lib.read_answers(path) == ['no', 'yes']
  for text in ('["no", "no"]', '{"no": 1, "yes": 1}', '[]', '["no", 1]', 'no', '3'):
    path.write_text(text)
    with pytest.raises(UserError, match=r'data\.answers: .*answers\.json'):
      answers_lib.read_answers(path)


# --- Runs ----------------------------------------------------------------------------------


def test_a_run_ends_with_predictions_scored_as_officially(finished, dataset):
  lines = timeless(metrics(finished))
  splits = [(line['step'], line['split']) for line in lines if line['split'] != 'train']
  assert splits == [(4, 'val'), (8, 'val'), (STEPS, 'val'), (STEPS, 'test')]
  assert {'loss', 'vqa_loss', 'vqa_accuracy', 'gradient_norm'} <= lines[0].keys()
  answers = json.loads((finished / 'answers.json').read_text())
  questions = dataset['test'].sidecar.questions
  said = read_vqa(finished / 'predictions/test.json', questions.id.tolist())
  assert set(said.values()) <= set(answers)
  asked = annotated(questions, range(len(questions)))
  scores = official.per_question(said, asked)
  beside = json.loads((finished / 'predictions/test_scores.json').read_text())
  assert beside == {str(q): score for q, score in scores.items()}
  expected = official.summarise(scores, asked)
  assert lines[-1]['vqa_accuracy'] == expected['accuracy']
  for kind in ('answer_type', 'question_type'):
    for name, score in expected[f'per_{kind}'].items():
      assert lines[-1][f'vqa_accuracy/{kind}/{name}'] == score
  assert 0 < lines[-1]['vqa_accuracy/guess'] < lines[-1]['vqa_accuracy/ceiling'] <= 1


def test_the_step_is_chosen_on_validation_and_kept(finished, few_scenes, capsys):
  lines = timeless(metrics(finished))
  scores = {line['step']: line['vqa_accuracy'] for line in lines if line['split'] == 'val'}
  best = max(scores, key=lambda step: (scores[step], -step))
  assert lines[-1]['chosen_step'] == best
  assert lines[-1]['validation_vqa_accuracy'] == scores[best]
  assert best in checkpoint.steps(finished)
  assert checkpoint.load(finished).step == best
  assert train(short_config(vqa, few_scenes, STEPS), finished) == DONE
  out = capsys.readouterr().out
  assert f'step {best}, chosen by vqa_accuracy {scores[best]:.3f} on validation' in out
  assert 'image-blind' in out


def test_what_is_loaded_from_a_moved_folder_answers_as_the_run_did(finished, dataset, tmp_path):
  loaded = checkpoint.load(shutil.copytree(finished, tmp_path / 'moved'))
  config = ConfigDict(loaded.config)
  config.text.vocabulary = str(loaded.vocabulary)
  experiment = Experiment.of(config, dataset, loaded.files)
  run = functools.partial(experiment.evaluator(sharding.make_mesh()), loaded.variables)
  found = experiment.task.evaluate(run, experiment.batches['test'])
  last = timeless(metrics(finished))[-1]
  assert found['vqa_accuracy'] == last['vqa_accuracy']
  assert found['vqa_loss'] == pytest.approx(last['vqa_loss'], rel=1e-6)


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_never_was(config, finished, tmp_path, monkeypatch):
  left = stop_at(monkeypatch, 4, 9)
  assert train(config, tmp_path) == PREEMPTED
  assert train(config, tmp_path) == PREEMPTED
  assert train(config, tmp_path) == DONE
  assert not left
  assert timeless(metrics(tmp_path)) == timeless(metrics(finished))
  newest = [w / f'checkpoints/{STEPS}/manifest/metadata' for w in (tmp_path, finished)]
  arrays = [json.loads(path.read_text())['manifest']['arrays'] for path in newest]
  assert arrays[0] == arrays[1]
  assert checkpoint.load(tmp_path).step == checkpoint.load(finished).step
  for name in ('test.json', 'test_scores.json'):
    assert (tmp_path / 'predictions' / name).read_bytes() == (
      finished / 'predictions' / name
    ).read_bytes()


@pytest.fixture
def pretrained(tmp_path):
  """An untrained checkpoint of pre-training that names photographs as its data."""
  seen = {'trained_on.json': b'["coco_karpathy", "visual_genome"]'}
  return tiny.write_untrained(tmp_path / 'C', resolve(pretrain.get_config('test')), files=seen)


def test_it_starts_from_pre_training_with_a_new_head(config, pretrained, tmp_path, capsys):
  config.init_from, config.steps, config.optimizer.transformer_rate = str(pretrained), 1, 0.0
  config.optimizer.cnn_rate = 0.0
  assert train(config, tmp_path / 'run') == DONE
  out = capsys.readouterr().out
  assert f'starting from {pretrained}, step 0' in out
  at_random, not_taken = (
    next(line for line in out.splitlines() if line.startswith(f'  {title}:'))
    for title in ('at random', 'not taken')
  )
  names = at_random.partition(': ')[2].split(', ')
  assert all(name.startswith(('params/vqa/', 'params/vqa_transform/')) for name in names)
  assert {name.split('/')[1] for name in not_taken.partition(': ')[2].split(', ')} == {
    'itm',
    'mlm_bias',
    'mlm_transform',
  }
  there, here = (checkpoint.load(x).variables['params'] for x in (pretrained, tmp_path / 'run'))
  np.testing.assert_array_equal(
    there['pooler']['dense']['kernel'], here['pooler']['dense']['kernel']
  )
  seen = json.loads((tmp_path / 'run/trained_on.json').read_text())
  assert seen == ['coco_karpathy', 'visual_genome', 'scenes']


# --- Mixtures ------------------------------------------------------------------------------

GENOME = 'visual_genome_questions/all'


@pytest.fixture(scope='module')
def both(few_scenes, tmp_path_factory):
  """The folder of scenes and of questions of Visual Genome, which has fewer splits."""
  folder = tmp_path_factory.mktemp('both')
  (folder / 'scenes').symlink_to(few_scenes / 'scenes')
  files, regions = corpora.visual_genome([], [{'filename': '7.jpg'}])
  asked, _ = corpora.visual_genome_questions(range(1, len(regions) + 1))
  manual = corpora.as_folder(files | asked, folder / 'm')
  assert build.command([GENOME], folder, manual) == 0
  return folder


@pytest.fixture
def mixed(both):
  """A configuration that trains on train and val of scenes, and on Visual Genome's questions."""
  config = short_config(vqa, both, 2)
  config.data.name, config.data.train = f'scenes+{GENOME}', 'train+val'
  config.text.vocabulary = str(vocabulary.FILE)
  return config


def test_a_mixture_adds_questions_and_no_answers(mixed, dataset, capsys):
  experiment = Experiment.of(resolve(mixed), prepare_data(mixed))
  out = capsys.readouterr().out
  assert 'mixture     train+val of scenes 210 images with ' in out
  assert f' + {GENOME} 6 images with 15 questions; val of scenes, test of scenes' in out
  alone = copy.deepcopy(mixed)
  alone.data.name = 'scenes'
  expected = Experiment.of(resolve(alone), dataset)
  task, batches = experiment.task, experiment.batches['train']
  assert (task.answers, task.guess) == (expected.task.answers, expected.task.guess)
  for role in ('validation', 'test'):
    np.testing.assert_array_equal(
      experiment.batches[role].table.id, expected.batches[role].table.id
    )
  table, added = batches.table, len(expected.batches['train'].table)
  listed = {'Green.': 'green', 'Yes.': 'yes', 'Two.': '2', 'A größer clock.': None}
  seen = collections.Counter()
  for number in range(len(batches)):
    batch, plan = batches[number], batches.plan(0)
    for row, k in zip(*np.nonzero(plan.weight[number]), strict=True):
      q = batch['question'][row, k]
      if q >= added:
        (answer,) = (table.strings.text(a) for a in table.answers[q])
        right = dict(zip(task.answers, batch['vqa_target'][row, k].tolist(), strict=True))
        assert {a: x for a, x in right.items() if x} == (
          {listed[answer]: 1.0} if listed[answer] else {}
        )
        assert batch['weight'][row, k] == bool(listed[answer])
        seen[answer] += 1
  assert seen.keys() == listed.keys()
  lost = [
    int(line.split()[3].replace(',', ''))
    for made in (expected, experiment)
    for line in made.task.summary(made.batches)
    if line.startswith('out of reach') and ' of train, ' in line
  ]
  assert lost[-1] - sum(lost[:-1]) == seen['A größer clock.']


def test_a_run_on_a_mixture_is_scored_on_its_first_dataset(mixed, dataset, tmp_path, capsys):
  assert train(mixed, tmp_path / 'run') == DONE
  seen = json.loads((tmp_path / 'run/trained_on.json').read_text())
  assert seen == ['scenes', GENOME]
  last = timeless(metrics(tmp_path / 'run'))[-1]
  said = json.loads((tmp_path / 'run/predictions/test.json').read_text())
  assert len(said) == len(dataset['test'].sidecar.questions)
  command = ['--config=configs/vqa.py:test', '--mode=evaluate', f'--workdir={tmp_path / "e"}']
  command += [f'--config.data.{name}={mixed.data[name]}' for name in ('name', 'train', 'data_dir')]
  capsys.readouterr()
  assert main([*command, f'--checkpoint={tmp_path / "run"}']) == 0
  (row,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith('all questions'))
  measured = [last[f'vqa_accuracy{kind}'] for kind in ('', '/guess', '/ceiling')]
  assert row.split()[2:] == [f'{x:.3f}' for x in measured]
  assert main([*command, f'--checkpoint={tmp_path / "run"}', '--config.data.test=train+val']) == 1
  assert 'data.test: a mixture cannot be scored' in capsys.readouterr().err


# --- Answer lists --------------------------------------------------------------------------


@pytest.mark.parametrize('change', ['fewer', 'another order'])
def test_another_answer_list_is_refused(change, config, finished, tmp_path):
  answers = json.loads((finished / 'answers.json').read_text())
  answers = answers[1:] if change == 'fewer' else answers[::-1]
  (tmp_path / 'answers.json').write_text(json.dumps(answers))
  config.data.answers = str(tmp_path / 'answers.json')
  with pytest.raises(UserError, match=rf'data\.answers: .* has {len(answers)} answers'):
    train(config, finished)
  config.init_from = str(finished)
  with pytest.raises(
    UserError, match=rf'data\.answers: .* has {len(answers)} answers and the checkpoint'
  ) as error:
    train(config, tmp_path / 'run')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_a_model_without_its_data_needs_no_list_of_its_run(config):
  config.data.answers = 'gone.json'
  assert Vqa.of(config, {}, {'answers.json': b'["yes", "no"]'}).answers == ['yes', 'no']
  with pytest.raises(UserError, match=r'gone\.json cannot be read'):
    Vqa.of(config, {}, {})


@pytest.mark.slow
def test_with_none_named_the_answers_of_the_checkpoint_are_taken(config, finished, tmp_path):
  config.init_from, config.steps = str(finished), 1
  assert train(config, tmp_path / 'run') == DONE
  assert (tmp_path / 'run/answers.json').read_bytes() == (finished / 'answers.json').read_bytes()


def test_the_command_evaluates_any_step_on_any_split(finished, few_scenes, tmp_path, capsys):
  data = (f'--config.data.data_dir={few_scenes}', '--config.data.test=val')
  command = ['--config=configs/vqa.py:test', *data, '--mode=evaluate', f'--workdir={tmp_path}']
  assert main([*command, f'--checkpoint={finished}@{STEPS}']) == 0
  out = capsys.readouterr().out
  (logged,) = (x for x in timeless(metrics(finished)) if (x['step'], x['split']) == (STEPS, 'val'))
  (row,) = (line for line in out.splitlines() if line.startswith('all questions'))
  assert row.split()[2] == f'{logged["vqa_accuracy"]:.3f}'
  assert json.loads((tmp_path / 'predictions/val.json').read_text())
  # The training split need not be there; only what it makes guess is not there either.
  assert main([*command, f'--checkpoint={finished}@{STEPS}', '--config.data.train=absent']) == 0
  (alone,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith('all questions'))
  assert alone.split() == [*row.split()[:3], '-', row.split()[-1]]
  command[-1] += '/other'
  assert main([*command, f'--checkpoint={finished}', '--config.transformer.layers=3']) == 1
  assert 'transformer.layers is 2 there and 3 here' in capsys.readouterr().err
  assert main(['--config=configs/pretrain.py:test', *command[1:], f'--checkpoint={finished}']) == 1
  assert 'is of vqa and lacks itm, mlm_bias, mlm_transform' in capsys.readouterr().err
  assert main(command) == 1
  assert '--checkpoint=C go together' in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_reports_its_validation_split_is_not_ended_before_that(
  config, tmp_path, monkeypatch, capsys
):
  def killed(*_):
    raise KeyboardInterrupt

  config.steps, config.data.test = 2, config.data.validation
  monkeypatch.setattr(Vqa, 'report', killed)
  with pytest.raises(KeyboardInterrupt):
    train(config, tmp_path / 'run')
  monkeypatch.undo()
  assert train(config, tmp_path / 'run') == DONE
  assert (tmp_path / 'run/predictions/val.json').exists()
  assert 'is trained to the end' not in capsys.readouterr().out
  assert train(config, tmp_path / 'run') == DONE
  assert 'is trained to the end' in capsys.readouterr().out


def test_an_evaluation_leaves_the_run_of_its_name_alone(
  finished, few_scenes, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(finished, 'runs/vqa-test-s0')
  before = (tmp_path / 'runs/vqa-test-s0/predictions/test.json').read_bytes()
  command = [f'--config={ROOT}/configs/vqa.py:test', f'--config.data.data_dir={few_scenes}']
  assert main([*command, '--mode=evaluate', f'--checkpoint={finished}@8']) == 0
  assert (tmp_path / 'runs/vqa-test-s0/predictions/test.json').read_bytes() == before
  assert (tmp_path / 'runs/vqa-test-s0-evaluate-8/predictions/test.json').exists()
  # Another step has a folder of its own; where it is given one that is taken, it is refused.
  again = [*command, '--mode=evaluate', f'--checkpoint={finished}@12']
  assert main([*again, '--workdir=runs/vqa-test-s0-evaluate-8']) == 1
  said = capsys.readouterr().err
  assert (
    f'holds the evaluation of {finished}@8, step 8, which that of {finished}@12, step 12' in said
  )
  assert main(again) == 0
  for step in (8, 12):
    path = tmp_path / f'runs/vqa-test-s0-evaluate-{step}/predictions/test_metrics.json'
    assert json.loads(path.read_text())['step'] == step


def test_a_changed_answer_list_is_noticed(finished, tmp_path):
  moved = shutil.copytree(finished, tmp_path / 'moved')
  answers = json.loads((moved / 'answers.json').read_text())
  (moved / 'answers.json').write_text(json.dumps(answers[::-1]))
  with pytest.raises(checkpoint.CheckpointError, match=r'answers\.json is not what it was saved'):
    checkpoint.load(moved)
