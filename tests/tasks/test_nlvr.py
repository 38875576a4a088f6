"""NLVR2 and NLVR: loss, batches, the model of pairs, and runs of their `:test` variants."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from configs import nlvr, nlvr2, pretrain
from data import build as build_lib
from data.builders import open_dataset
from pixelbert_jax import UserError
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import Experiment, init_variables, make_model, resolve
from pixelbert_jax.input.image import decode, model_input
from pixelbert_jax.input.sidecar import Statements
from pixelbert_jax.input.truth import Truth
from pixelbert_jax.loop import DONE
from pixelbert_jax.main import main
from pixelbert_jax.models.forward import forward
from pixelbert_jax.score import __main__ as score
from pixelbert_jax.score import nlvr2 as official
from pixelbert_jax.score.predictions import read_nlvr, read_nlvr2
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.nlvr import Nlvr
from pixelbert_jax.tasks.pretraining import Hiding
from pixelbert_jax.train import train
from tests.support import corpora, tiny
from tests.support.runs import metrics, short_config

STEPS = 8

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture
def make(few_scenes, dataset):
  """The batches of a split for a task, with any field changed."""

  def make(module, role, **fields):
    config = resolve(short_config(module, few_scenes, STEPS))
    return dataclasses.replace(Experiment.of(config, dataset).batches[role], **fields)

  return make


@pytest.fixture(scope='module')
def finished(few_scenes, tmp_path_factory):
  """The workdir of a run of NLVR2."""
  workdir = tmp_path_factory.mktemp('nlvr2') / 'run'
  assert train(short_config(nlvr2, few_scenes, STEPS), workdir) == DONE
  return workdir


# --- Loss ----------------------------------------------------------------------------------


def test_the_loss_is_binary_cross_entropy_over_the_texts_that_count():
  logits = np.array([[1.5, -2.0], [0.3, 40.0]], np.float32)
  label, weight = np.array([[True, True], [False, True]]), np.array([[1, 1], [1, 0]], np.float32)
  outputs, batch = {'match_logits': logits}, {'label': label, 'weight': weight}
  expected = torch.nn.functional.binary_cross_entropy_with_logits(
    torch.tensor([1.5, -2.0, 0.3]), torch.tensor([1.0, 1.0, 0.0])
  )
  found = Nlvr().losses(outputs, batch)
  assert float(sums_lib.loss(found, batch)) == pytest.approx(expected.item(), rel=1e-6)
  np.testing.assert_array_equal(Nlvr().accuracies(outputs, batch)['nlvr_accuracy'], [1, 3])


# --- Batches -------------------------------------------------------------------------------


@pytest.mark.parametrize('role', ['train', 'test'])
def test_every_statement_comes_with_its_two_images_in_order(make, dataset, role):
  batches, seen = make(nlvr2, role), []
  stated, split = dataset[role].sidecar.statements, dataset[role]
  for number in range(len(batches)):
    batch = batches[number]
    assert len(batch['image']) == len(batch['size']) == 2 * len(batch['statement'])
    for row, k in zip(*np.nonzero(batch['weight']), strict=True):
      s = batch['statement'][row, k]
      seen.append(s)
      for place, image in enumerate((stated.left[s], stated.right[s])):
        expected = decode(split.encoded(image))
        h, w = expected.shape[:2]
        np.testing.assert_array_equal(batch['image'][2 * row + place, :h, :w], expected)
      words = [batches.tokenizer.words[i] for i in batch['token_ids'][row, k]]
      assert ' '.join(words[1 : words.index('[SEP]')]) == stated.text.text(s)
      assert batch['token_mask'][row, k].tolist() == [word != '[PAD]' for word in words]
      assert batch['label'][row, k] == stated.label[s]
  assert len(set(seen)) == len(seen) == (len(stated) if role == 'test' else len(batches) * 8)


def test_the_captions_of_scenes_are_true_or_false_by_meaning(make, dataset):
  batches, truth = make(nlvr, 'test'), Truth(dataset['test'].sidecar)
  seen, labels = [], []
  for number in range(len(batches)):
    batch, shown = batches[number], batches.plan(0).image[number]
    for row, k in zip(*np.nonzero(batch['weight']), strict=True):
      caption = batch['statement'][row, k]
      seen.append(batches.name(caption))
      labels.append(batch['label'][row, k])
      assert truth(shown[row : row + 1], np.array([caption])) == batch['label'][row, k]
  assert sorted(seen) == sorted({f'{i}-{k}-0' for i in range(10) for k in range(8)})
  assert np.mean(labels) == 0.5


@pytest.mark.parametrize('module', [nlvr2, nlvr])
def test_micro_batches_make_up_the_batch_and_know_its_weight(make, module):
  whole, parts = make(module, 'train')[2], make(module, 'train', micro_batches=2)
  halves = [parts[4], parts[5]]
  for name in ('token_ids', 'label', 'weight', 'statement', 'image', 'size'):
    np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), whole[name])
  for half in halves:
    np.testing.assert_array_equal(half['nlvr_total'], whole['weight'].sum())


def test_a_pair_with_an_unreadable_image_does_not_count(make, monkeypatch):
  batches = make(nlvr2, 'train')
  bad = int(batches.plan(0).image[0, 3, 1])
  shown = batches.plan(0).image[0]
  encoded = type(batches.split).encoded
  broken = lambda self, i: b'none' if i == bad else encoded(self, i)  # noqa: E731
  monkeypatch.setattr(type(batches.split), 'encoded', broken)
  np.testing.assert_array_equal(batches[0]['weight'][:, 0] == 0, (shown == bad).any(1))
  evaluated = dataclasses.replace(batches, training=False)
  with pytest.raises(UserError, match='not a whole image'):
    [evaluated[number] for number in range(len(evaluated))]


def test_statements_about_left_and_right_are_not_mirrored(make):
  batches = make(nlvr2, 'train', flip=1.0)
  batch = batches[0]
  sided = [
    'left' in batches.text(s) or 'right' in batches.text(s) for s in batch['statement'][:, 0]
  ]
  assert 0 < sum(sided) < len(sided)
  np.testing.assert_array_equal(batch['flip'], ~np.repeat(sided, 2))


def test_a_wide_and_a_high_photograph_share_a_square_canvas(tmp_path, capsys, vocabulary):
  files, lines = corpora.nlvr2({'train': 9, 'dev': 6, 'test1': 6})
  wide, high = 'images/train/0/train-0-0-img0.png', 'images/train/0/train-0-0-img1.png'
  files |= {wide: corpora.image(1, 'JPEG', (90, 40)), high: corpora.image(2, 'PNG', (40, 90))}
  manual = corpora.as_folder(files, tmp_path / 'manual')
  assert build_lib.command(['nlvr2'], tmp_path / 'built', manual) == 0
  capsys.readouterr()
  config = nlvr2.get_config('r50')
  config.init_from, config.text.vocabulary = 'scratch', str(vocabulary)
  config.batch_size, config.image.shorter, config.image.longer = 1, 32, 72
  config.image.canvases = ((64, 64), (64, 96), (96, 64), (96, 96))
  config = resolve(config)
  batches = Experiment.of(config, open_dataset('nlvr2', tmp_path / 'built')).batches['train']
  shapes, identifiers = {}, []
  for number in range(len(batches)):
    batch = batches[number]
    (name,) = (batches.name(i) for i in batch['statement'].reshape(-1))
    identifiers.append(name)
    shapes[name] = batch['canvas'].shape[1:3]
    assert model_input(batch, (0.5,) * 3, (0.5,) * 3).shape == (2, *shapes[name], 3)
  expected = [line['identifier'] for line in lines['train']]
  assert sorted(identifiers) == sorted(expected)
  mixed = {shape for name, shape in shapes.items() if name.startswith('train-0-0-')}
  assert mixed == {(96, 96)}
  config.image.canvases = ((64, 64), (64, 96), (96, 64))
  with pytest.raises(UserError, match='hold no image of 72x72: add a canvas'):
    Experiment.of(config, open_dataset('nlvr2', tmp_path / 'built')).batches['train'][0]


def test_images_of_a_pair_on_canvases_of_their_own_mean_the_same(tmp_path, capsys, vocabulary):
  files, _ = corpora.nlvr2({'train': 6, 'dev': 6, 'test1': 6})
  for number in range(2):  # A wide and a high photograph, then the other way round.
    first, second = (f'images/train/{number}/train-0-{number}-img{i}.png' for i in (0, 1))
    sizes = [(90, 40), (40, 90)][:: 1 - 2 * number]
    files |= {first: corpora.image(1, 'JPEG', sizes[0]), second: corpora.image(2, 'PNG', sizes[1])}
  manual = corpora.as_folder(files, tmp_path / 'manual')
  assert build_lib.command(['nlvr2'], tmp_path / 'built', manual) == 0
  capsys.readouterr()
  dataset = open_dataset('nlvr2', tmp_path / 'built')
  config = nlvr2.get_config('test')
  config.init_from, config.text.vocabulary = 'scratch', str(vocabulary)
  config.data.name, config.data.validation, config.data.test = 'nlvr2', 'dev', 'test1'
  config.batch_size, config.image.shorter, config.image.longer = 1, 32, 72
  config.image.flip, config.transformer.dropout = 1.0, 0.0
  logits, canvases, variables = {}, set(), None
  for mixed in ((96, 96),), ((32, 72, 72, 32), (72, 32, 32, 72), (72, 72)):
    config.image.canvases = ((64, 64), (64, 96), (96, 64), *mixed)
    experiment = Experiment.of(resolve(config), dataset)
    batches, model = experiment.batches['train'], experiment.model
    variables = variables or jax.jit(lambda: init_variables(model, 0, batches[0]))()  # noqa: B023
    apply = jax.jit(lambda v, b: forward(model, v, b, train=False)['match_logits'])  # noqa: B023
    for number in range(len(batches)):
      batch = batches[number]
      (name,) = (batches.name(i) for i in batch['statement'].reshape(-1))
      if name.startswith(('train-0-0', 'train-0-1')):
        logits.setdefault(name, []).append(apply(variables, batch).item())
        canvases.add(batch['canvas'].shape[1:-1])
  assert canvases == {(96, 96), (32, 72, 72, 32), (72, 32, 32, 72)}
  assert len({round(x, 4) for x, _ in logits.values()}) == 2  # A pair has one sentence.
  for shared, own in logits.values():
    assert own == pytest.approx(shared, abs=1e-5)


def test_canvases_of_pairs_are_for_pairs(make, few_scenes, dataset):
  config = resolve(short_config(nlvr, few_scenes, STEPS))
  config.image.canvases = ((64, 64), (64, 64, 64, 64))
  with pytest.raises(UserError, match='those of four numbers are for pairs of images'):
    len(Experiment.of(config, dataset).batches['train'])
  config = resolve(short_config(nlvr2, few_scenes, STEPS))
  config.image.canvases = ((32, 32), (64, 32, 64, 64))
  with pytest.raises(UserError, match=r'hold no pair of images of \d+x\d+ and \d+x\d+: add'):
    len(Experiment.of(config, dataset).batches['train'])


# --- The model -----------------------------------------------------------------------------


def test_the_model_sees_the_text_with_either_image_and_both_in_order(make, few_scenes):
  config, batches = resolve(short_config(nlvr2, few_scenes, STEPS)), make(nlvr2, 'test')
  model, batch = make_model(config, len(batches.tokenizer.words)), batches[0]
  variables = jax.jit(lambda: init_variables(model, 0, batch))()
  backbone = model.backbone
  image = model_input(batch, backbone.mean, backbone.deviation)
  texts = batch['token_ids'], batch['token_mask']
  found = jax.jit(lambda v: model.apply(v, image, batch['size'], *texts, False))(variables)

  params = variables['params']
  inner = {'params': params['backbone'], 'batch_stats': variables['batch_stats']['backbone']}
  apply = jax.jit(lambda v, *x: backbone.apply(v, *x, False)[0])
  pooled = [
    torch.tanh(
      dense(
        np.asarray(apply(inner, image[i::2], batch['size'][i::2], *texts))[:, :, 0],
        params['pooler']['dense'],
      )
    )
    for i in (0, 1)
  ]
  for both, same in ((pooled, True), (pooled[::-1], False)):
    x, head = torch.cat(both, -1), params['nlvr2_transform']
    x = torch.nn.functional.gelu(dense(x, head['dense']))
    norm = {name: torch.from_numpy(np.array(p)) for name, p in head['norm']['norm'].items()}
    x = torch.nn.functional.layer_norm(x, x.shape[-1:], norm['scale'], norm['bias'], 1e-12)
    expected = dense(x, params['nlvr2'])[..., 0].numpy()
    assert np.allclose(found['match_logits'], expected, rtol=1e-4, atol=1e-5) == same


def dense(x, p):
  kernel, bias = (torch.from_numpy(np.array(p[name])) for name in ('kernel', 'bias'))
  x = x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))
  return x @ kernel + bias


# --- Runs ----------------------------------------------------------------------------------


def test_a_run_ends_with_predictions_scored_as_officially(finished, dataset, tmp_path, capsys):
  lines = metrics(finished)
  splits = [(line['step'], line['split']) for line in lines if line['split'] != 'train']
  assert splits == [(4, 'val'), (STEPS, 'val'), (STEPS, 'test')]
  stated = dataset['test'].sidecar.statements
  labels = dict(zip((i.decode() for i in stated.identifier), stated.label.tolist(), strict=True))
  said = read_nlvr2(finished / 'predictions/test.csv', labels)
  right = {name: said[name] == label for name, label in labels.items()}
  expected = official.summarise(right, labels)
  for name, value in expected.items():
    assert lines[-1][f'nlvr_{name}'] == value
  logits = json.loads((finished / 'predictions/test_logits.json').read_text())
  assert {name: logit > 0 for name, logit in logits.items()} == said
  assert lines[-1]['nlvr_accuracy/low'] <= expected['accuracy'] <= lines[-1]['nlvr_accuracy/high']
  assert lines[-1]['nlvr_accuracy/majority'] == 0.5
  # And by the command, from annotations in NLVR2's form.
  path = tmp_path / 'test.json'
  entries = ({'identifier': i, 'label': str(label), 'sentence': ''} for i, label in labels.items())
  path.write_text('\n'.join(map(json.dumps, entries)))
  predicted = finished / 'predictions/test.csv'
  assert score.main(['nlvr2', f'--predictions={predicted}', f'--annotations={path}', '--json']) == 0
  assert json.loads(capsys.readouterr().out)['accuracy'] == expected['accuracy']


def test_captions_are_judged_too_and_in_nlvrs_form(few_scenes, dataset, tmp_path, capsys):
  assert train(short_config(nlvr, few_scenes, STEPS), tmp_path / 'run') == DONE
  assert 'majority class' in capsys.readouterr().out
  names = [f'{i}-{k}-0' for i in range(10) for k in range(8)]
  said = read_nlvr(tmp_path / 'run/predictions/test.csv', names)
  with (tmp_path / 'run/predictions/test.csv').open() as file:
    first = next(csv.reader(file))
  assert first == ['test-0-0-0.png', str(said['0-0-0']).lower()]
  last = metrics(tmp_path / 'run')[-1]
  assert last['split'] == 'test'
  assert 0 < last['nlvr_accuracy'] < 1
  # Half of them were shown with the image of another, which a file names.
  pairs = json.loads((tmp_path / 'run/predictions/test_pairs.json').read_text())
  ids = [name.decode() for name in dataset['test'].sidecar.image_id]
  assert list(pairs) == names
  assert all(
    label == (image == ids[int(name.split('-')[0])]) for name, (image, label) in pairs.items()
  )
  right = [said[name] == label for name, (_, label) in pairs.items()]
  assert np.mean(right) == last['nlvr_accuracy']


@pytest.fixture(scope='module')
def pretrained(few_scenes, tmp_path_factory):
  """An untrained checkpoint of pre-training."""
  config = resolve(short_config(pretrain, few_scenes, STEPS))
  return tiny.write_untrained(tmp_path_factory.mktemp('pretrained') / 'C', config)


def test_pre_training_judges_captions_as_it_is_but_not_pairs(
  pretrained, few_scenes, dataset, tmp_path, capsys
):
  data = f'--config.data.data_dir={few_scenes}'
  command = [data, '--mode=evaluate', f'--checkpoint={pretrained}', f'--workdir={tmp_path}']
  assert main(['--config=configs/nlvr.py:test', *command]) == 0
  capsys.readouterr()
  logits = json.loads((tmp_path / 'predictions/test_logits.json').read_text())
  loaded = checkpoint.load(pretrained)
  config = ConfigDict(loaded.config)
  batch = Experiment.of(resolve(config), dataset).batches['test']
  batch = dataclasses.replace(batch, hiding=Hiding(0.0, whole=1.0))[0]
  model = make_model(config, len(loaded.vocabulary.read_text().splitlines()))
  image = model_input(batch, model.backbone.mean, model.backbone.deviation)
  texts = (batch[name] for name in model.INPUTS)
  found = model.apply(loaded.variables, image, batch['size'], *texts, False)['itm_logits']
  ours = np.sort(np.asarray(found).reshape(-1))
  assert np.isclose(ours[:, None], np.array(list(logits.values())), atol=1e-5).any(1).all()

  assert main(['--config=configs/nlvr2.py:test', *command]) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert 'is of pretrain and lacks nlvr2, nlvr2_transform' in line
  assert f'--config.init_from={pretrained}' in line
  assert main(['--config=configs/vqa.py:test', *command]) == 1
  assert 'the checkpoint has no answers.json to choose from' in capsys.readouterr().err


def test_a_split_without_statements_is_told(make):
  batches = make(nlvr2, 'test')
  sidecar = dataclasses.replace(batches.split.sidecar, statements=Statements.of([], {}))
  split = dataclasses.replace(batches.split, sidecar=sidecar)
  with pytest.raises(UserError, match='the split has no statements about two images'):
    len(dataclasses.replace(batches, split=split))
