"""Retrieval in two stages: the first stage's loss and batches, the evaluation, and runs of it."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch

from configs import pretrain, retrieval
from pixelbert_jax import predict, sharding
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.configuration import ConfigurationError, check
from pixelbert_jax.experiment import Experiment, init_variables, resolve
from pixelbert_jax.input.pipeline import FEW
from pixelbert_jax.loop import DONE
from pixelbert_jax.main import main
from pixelbert_jax.models.forward import forward
from pixelbert_jax.score import matrix, shortlist
from pixelbert_jax.score.partial import PartialMatrix
from pixelbert_jax.tasks import first_stage
from pixelbert_jax.tasks import retrieval as task
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.chunks import packed
from pixelbert_jax.tasks.ranker import Ranker
from pixelbert_jax.tasks.two_stage import TwoStageRanker
from pixelbert_jax.train import train
from tests.support import galleries, tiny
from tests.support.runs import metrics, short_config

STEPS, WIDTH = 4, 8
TASK = task.Retrieval(hardest=2, captions=5, first_stage=WIDTH)

pytestmark = pytest.mark.usefixtures('quick_compiles')


def config_of(few_scenes, **fields):
  return short_config(retrieval, few_scenes, STEPS, first_stage=WIDTH, **fields)


# --- Loss and batches ----------------------------------------------------------------------


def outputs_and_batch():
  """Five images with three captions each; the last image cannot be read."""
  rng = np.random.default_rng(0)
  image, text = rng.normal(size=(5, WIDTH)), rng.normal(size=(5, 3, WIDTH))
  image, text = (
    (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32) for x in (image, text)
  )
  own = np.zeros((5, 5, 3), bool)
  own[:, :, 0] = np.eye(5)
  own[0, 3, 0] = True  # The caption of image 3 is one of image 0, too,
  own[1, 2, 2] = True  # and another that image 2 is shown with is one of image 1.
  weight = np.ones((5, 3), np.float32)
  weight[4] = 0
  outputs = {'image_vector': image, 'text_vector': text, 'scale': np.float32(5)}
  return outputs, {'own': own, 'weight': weight}


def test_the_contrast_is_a_cross_entropy_both_ways_without_other_own_captions():
  outputs, batch = outputs_and_batch()
  logits = 5 * np.einsum('iw,jkw->ijk', outputs['image_vector'], outputs['text_vector'])[:4, :4]
  logits[0, 3, 0] = logits[1, 2, 2] = -np.inf
  entropies = [
    torch.nn.functional.cross_entropy(torch.tensor(x), torch.tensor(own), reduction='none')
    for x, own in (
      (logits.reshape(4, 12), [0, 3, 6, 9]),
      (logits[:, :, 0].T.copy(), [0, 1, 2, 3]),
    )
  ]
  found = first_stage.contrast(outputs, batch)
  np.testing.assert_allclose(found[:4], sum(entropies).numpy() / 2, rtol=1e-5)
  assert float(found[4]) == pytest.approx(0, abs=1e-6)


def test_neither_a_masked_caption_nor_an_unreadable_image_has_a_gradient():
  outputs, batch = outputs_and_batch()
  batch['own'][:] = True  # every caption of every image
  names = ('image_vector', 'text_vector')
  loss = lambda vectors: first_stage.contrast(outputs | vectors, batch).sum()  # noqa: E731
  gradients = jax.grad(loss)({name: outputs[name] for name in names})
  for name in names:
    np.testing.assert_allclose(gradients[name], 0, atol=1e-6)


def test_batches_say_which_captions_are_which_images_own(few_scenes, dataset):
  config = resolve(config_of(few_scenes, batch_size=64))
  batches, sidecar = Experiment.of(config, dataset).batches['train'], dataset['train'].sidecar
  for number in range(4):
    plan, batch = batches.plan(0), batches[number]
    texts = [
      {sidecar.caption(j) for j in range(*sidecar.captions.start[[i, i + 1]])}
      for i in plan.image[number]
    ]
    shown = [[sidecar.caption(j) for j in row] for row in plan.text[number]]
    expected = [[[text in own for text in row] for row in shown] for own in texts]
    assert batch['own'].tolist() == expected
    assert batch['own'][..., 0].diagonal().all()
    assert not batch['own'][..., 1:].diagonal().any()
    assert batch['own'].sum() > len(texts)  # Some are other images' own, too.


def test_the_contrast_of_micro_batches_is_within_each(few_scenes, dataset):
  fields = {'batch_size': 32}
  whole = Experiment.of(resolve(config_of(few_scenes, **fields)), dataset).batches['train']
  parts = dataclasses.replace(whole, micro_batches=2)
  for half in (0, 1):
    rows = slice(4 * half, 4 * half + 4)
    np.testing.assert_array_equal(parts[6 + half]['own'], whole[3]['own'][rows, rows])
    total = whole[3]['weight'][:, 0].sum()
    np.testing.assert_array_equal(parts[6 + half]['first_stage_total'], total)


def test_the_loss_of_the_model_is_that_of_its_vectors(few_scenes, dataset):
  experiment = Experiment.of(resolve(config_of(few_scenes, batch_size=32)), dataset)
  batch, model = experiment.batches['train'][0], experiment.model
  variables = jax.jit(lambda: init_variables(model, 0, batch))()
  rngs = dict(zip(('dropout', 'pixels'), jax.random.split(jax.random.key(0)), strict=True))

  def loss(params):
    used = variables | {'params': params}
    outputs, _ = forward(model, used, batch, train=True, rngs=rngs, mutable=['batch_stats'])
    sums = experiment.task.losses(outputs, batch)
    return sums_lib.loss({'first_stage_loss': sums['first_stage_loss']}, batch, {}), outputs

  gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  for name in ('image_vector', 'text_vector'):
    np.testing.assert_allclose(np.linalg.norm(outputs[name], axis=-1), 1, rtol=1e-4)
  assert float(outputs['scale']) == pytest.approx(1 / 0.07)
  sizes = {name: float(np.abs(x).max()) for name, x in by_name(gradients).items()}
  for part in ('first_stage/log_scale', 'first_stage/text', 'first_stage/image', 'pooler/dense'):
    assert max(x for name, x in sizes.items() if name.startswith(part)) > 0
  assert max(x for name, x in sizes.items() if name.startswith('backbone/encoder')) > 0
  # optimizer.cnn_rule is 'none'; the matching head has no part in it.
  assert max(x for name, x in sizes.items() if name.startswith(('backbone/cnn', 'itm'))) == 0


# --- Evaluation ----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def mixed():
  return galleries.mixed(first_stage=WIDTH)


@pytest.fixture(scope='module')
def ranker(mixed):
  """Makes a ranker of k, once."""
  make = functools.partial(TwoStageRanker, mixed[1], sharding.make_mesh(), FEW, captions=5)
  return functools.cache(lambda k: make(rerank=k))


def reported(ranker, mixed, path):
  found = TASK.report(functools.partial(ranker, mixed[2]), mixed[0], path)
  return found, matrix.read(path.with_suffix('.npz'))[0]


@pytest.fixture(scope='module')
def exact(ranker, mixed, tmp_path_factory):
  """The metrics and scores of all pairs."""
  return reported(ranker(0), mixed, tmp_path_factory.mktemp('exact') / 'test.json')


def test_the_first_stage_scores_are_cosines_of_the_models_vectors(ranker, mixed):
  batches, model, variables = mixed
  found = ranker(0).first(variables, batches)
  ids, mask = batches.tokens(np.arange(21))
  texts = model.apply(variables, ids, mask, False, method=model.text_vector)
  canvases = batches.canvases.choose(batches.split.sidecar.size)
  for number, canvas in enumerate(canvases):
    image = batches._images(np.array([number]), canvas)
    assert batches._load(np.array([number]), image, None) == {}
    one = image | {'token_ids': ids[None, :1], 'token_mask': mask[None, :1]}
    vector = forward(model, variables, one, train=False)['image_vector'][0]
    np.testing.assert_allclose(found[number], texts @ vector, atol=1e-5)
  assert found.max() <= 1
  assert found.std(axis=0).min() > 0.01


def test_a_shortlist_of_all_is_the_exact_ranking_to_the_bit(ranker, mixed, exact, tmp_path):
  found, scores = reported(ranker(21), mixed, tmp_path / 'test.json')
  np.testing.assert_array_equal(scores, exact[1])
  assert found == exact[0]
  # And the same as with a model that ranks in one stage.
  batches, model, variables = mixed
  plain = Ranker(model, sharding.make_mesh(), FEW, captions=5)(variables, batches)
  np.testing.assert_array_equal(scores, plain.matrix.scores)


@pytest.mark.parametrize('k', [1, 2, 5])
def test_a_small_shortlist_has_the_recalls_of_both_matrices_put_together(
  ranker, mixed, exact, tmp_path, k
):
  batches, _, variables = mixed
  first = ranker(0).first(variables, batches)
  listed = shortlist.shortlist(first, k)
  assert not listed.all()
  found, scores = reported(ranker(k), mixed, tmp_path / 'test.json')
  np.testing.assert_allclose(scores[listed], exact[1][listed], atol=1e-5)
  assert scores[~listed].max() < scores[listed].min()
  by_hand = task.recalls(shortlist.composed(exact[1], first, listed), batches.gallery)
  assert {name: found[name] for name in by_hand} == by_hand
  assert found['recall_mean'] == exact[0][f'recall_mean/two_stages_{k}']
  assert found['pairs_scored'] == exact[0][f'pairs_scored/two_stages_{k}'] == listed.sum()
  assert 'text_recall_at_1/image_blind' not in found  # which needs scores of all pairs
  alone = task.recalls(first, batches.gallery)
  assert all(found[f'{name}/first_stage'] == alone[name] for name in task.RECALLS)
  shown = TASK.table('test', found | {'chosen_k': 3.0})
  assert f'{listed.sum()} of 147 pairs were scored exactly' in shown
  assert 'k chosen on validation: 3; --mode=evaluate --config.rerank=3' in shown


def test_a_report_of_all_pairs_says_what_two_stages_would_come_to(exact):
  found, scores = exact
  assert found['pairs_scored'] == scores.size == 147
  shown = TASK.table('test', found)
  assert 'image-blind' in shown
  assert 'k = 5' in shown
  assert found['pairs_scored/two_stages_1'] < found['pairs_scored/two_stages_5'] < 147


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_scores(
  ranker, mixed, tmp_path, monkeypatch, capsys
):
  _, expected = reported(ranker(2), mixed, tmp_path / 'whole' / 'test.json')
  path, write, done = tmp_path / 'killed' / 'test.json', PartialMatrix.write, []

  def killed(self, numbers, scores):
    if len(done) == 2:
      raise KeyboardInterrupt
    done.append(numbers)
    write(self, numbers, scores)

  with monkeypatch.context() as patch:
    patch.setattr(PartialMatrix, 'write', killed)
    with pytest.raises(KeyboardInterrupt):
      reported(ranker(2), mixed, path)
  assert not path.with_suffix('.npz').exists()
  _, found = reported(ranker(2), mixed, path)
  np.testing.assert_array_equal(found, expected)
  number = len(np.concatenate(done))
  assert f'resuming, {number} of 7 images are done' in capsys.readouterr().out
  assert sorted(p.name for p in path.parent.iterdir()) == ['test.json', 'test.npz']


def test_rows_of_another_k_are_not_taken(ranker, mixed, tmp_path, monkeypatch, capsys):
  with monkeypatch.context() as patch:
    patch.setattr(PartialMatrix, 'remove', lambda self: None)  # as if killed at the end
    reported(ranker(2), mixed, tmp_path / 'test.json')
  reported(ranker(1), mixed, tmp_path / 'test.json')
  assert (
    'discarded, its scores come from other weights, data or settings' in capsys.readouterr().out
  )


def test_validation_scores_all_pairs_and_chooses_k(ranker, mixed, exact):
  batches, _, variables = mixed
  found = TASK.evaluate(functools.partial(ranker(1), variables), batches)
  assert found['recall_mean'] == exact[0]['recall_mean']
  first = ranker(0).first(variables, batches)
  row = batches.gallery.row
  assert found['chosen_k'] == shortlist.smallest_k(exact[1], first, row)
  assert found['recall_mean/first_stage'] == shortlist.recall_mean(first, row)


@pytest.mark.parametrize('size', [1, 3, 8])
def test_listed_pairs_are_packed_once_each(size):
  rng = np.random.default_rng(size)
  listed, length = rng.random((5, 40)) < 0.3, rng.integers(3, 12, 40)
  listed[2] = False
  calls = packed(listed, length, size, rows=4)
  found = np.zeros(listed.shape, int)
  for image, text, real in calls:
    assert image.shape == (4,)
    assert text.shape == real.shape == (4, size)
    np.add.at(found, (np.repeat(image, size)[real.ravel()], text[real]), 1)
  np.testing.assert_array_equal(found, listed)
  longest = [length[text].max() for _, text, _ in calls]
  assert longest == sorted(longest)
  assert sum(len(image) for image, *_ in calls) < 4 + sum(-(-listed.sum(1) // size))


# --- Runs ----------------------------------------------------------------------------------


def evaluate(few_scenes, spec, workdir, *flags):
  return main(
    [
      *('--config=configs/retrieval.py:test', '--mode=evaluate', f'--checkpoint={spec}'),
      *(f'--workdir={workdir}', f'--config.data.data_dir={few_scenes}', *flags),
    ]
  )


@pytest.fixture(scope='module')
def finished(few_scenes, tmp_path_factory):
  """The workdir of a run with a first stage, from pre-training, that reports two stages."""
  folder = tmp_path_factory.mktemp('two_stage')
  start = tiny.write_untrained(folder / 'C', resolve(pretrain.get_config('test')))
  config = config_of(few_scenes, init_from=str(start), rerank=3, micro_batches=2, batch_size=16)
  assert train(config, folder / 'run') == DONE
  return folder / 'run'


def test_a_run_learns_the_first_stage_beside_the_matching(finished):
  lines = metrics(finished)
  trained = [line for line in lines if line['split'] == 'train']
  for line in trained:
    assert line['loss'] == pytest.approx(line['retrieval_loss'] + line['first_stage_loss'])
  (validation,) = [line for line in lines if line['split'] == 'val']
  test = lines[-1]
  assert test['split'] == 'test'
  assert test['chosen_k'] == validation['chosen_k']
  assert test['pairs_scored'] < 500
  assert 'pairs_scored' not in validation
  variables = checkpoint.load(finished).variables
  assert set(variables['params']['first_stage']) == {'text', 'image', 'log_scale'}


def test_pre_trainings_arrays_are_taken_and_the_first_stage_starts_at_random(
  few_scenes, tmp_path, capsys
):
  start = tiny.write_untrained(tmp_path / 'C', resolve(pretrain.get_config('test')))
  config = config_of(few_scenes, init_from=str(start))
  config.steps = 1
  assert train(config, tmp_path / 'run') == DONE
  names = [f'params/first_stage/{x}' for x in ('image/bias', 'image/kernel', 'log_scale')]
  assert f'at random: {", ".join(names)}' in capsys.readouterr().out


def test_a_checkpoint_is_evaluated_in_one_stage_in_two_and_by_predict(
  few_scenes, finished, tmp_path, capsys
):
  width = f'--config.first_stage={WIDTH}'
  assert evaluate(few_scenes, finished, tmp_path / 'one') == 0
  assert 'scored exactly' not in capsys.readouterr().out
  assert evaluate(few_scenes, finished, tmp_path / 'two', width, '--config.rerank=2') == 0
  assert 'of 500 pairs were scored exactly' in capsys.readouterr().out
  image = np.zeros((64, 64, 3), np.uint8)
  with pytest.warns(UserWarning, match='rendered scenes'):
    model = predict.load(finished)
  assert model.match([image], ['a red circle']).shape == (1, 1)


def test_a_checkpoint_without_a_first_stage_is_refused(few_scenes, tmp_path, capsys):
  start = tiny.write_untrained(tmp_path / 'C', resolve(retrieval.get_config('test')))
  assert evaluate(few_scenes, start, tmp_path / 'run', '--config.first_stage=8') == 1
  assert 'lacks first_stage: train it for retrieval first' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'rerank': 5}, 'config.rerank 5 needs a first stage'),
    ({'first_stage': 8, 'batch_size': 4}, 'needs two images or more in a micro-batch'),
  ],
)
def test_settings_that_cannot_be_are_refused(fields, words):
  config = retrieval.get_config('test')
  config.update(fields)
  with pytest.raises(ConfigurationError, match=words):
    check(config)


def test_off_by_default_nothing_is_added(few_scenes, dataset):
  experiment = Experiment.of(resolve(short_config(retrieval, few_scenes, STEPS)), dataset)
  batch = experiment.batches['train'][0]
  assert 'own' not in batch
  shapes = jax.eval_shape(lambda: init_variables(experiment.model, 0, batch))
  assert set(shapes['params']) == {'backbone', 'pooler', 'itm'}
  assert experiment.task.logged == ('retrieval_loss', 'retrieval_accuracy')
  assert type(experiment.evaluator(sharding.make_mesh())) is Ranker
  for variant in retrieval.VARIANTS:
    config = retrieval.get_config(variant)
    assert config.first_stage == config.rerank == 0
