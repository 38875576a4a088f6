"""Retrieval: its loss and batches, its evaluation beside the whole model, and runs of it."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict

from configs import pretrain, retrieval, vqa
from pixelbert_jax import UserError, sharding
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import Experiment, make_model, resolve
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.order import Batching
from pixelbert_jax.input.pipeline import FEW
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.loop import DONE, PREEMPTED
from pixelbert_jax.main import main
from pixelbert_jax.models.forward import forward
from pixelbert_jax.score import __main__ as score
from pixelbert_jax.score import matrix, recall
from pixelbert_jax.score.partial import PartialMatrix
from pixelbert_jax.tasks import retrieval as task
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.chunks import chunk_captions
from pixelbert_jax.tasks.gallery import (
  Gallery,
  choose_gallery,
  plan_ranking,
)
from pixelbert_jax.tasks.pretraining import Hiding
from pixelbert_jax.tasks.ranker import Ranker
from pixelbert_jax.train import train
from tests.support import galleries, tiny
from tests.support.runs import assert_same_run, metrics, short_config, stop_in_evaluation

STEPS = 8
SQUARE = Canvases(64, 64, ((64, 64),))

TASK = task.Retrieval(hardest=2, captions=5)

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture
def make(few_scenes, dataset):
  """The batches of a split, with any field changed."""
  made = Experiment.of(resolve(short_config(retrieval, few_scenes, STEPS)), dataset).batches
  return lambda role, **fields: dataclasses.replace(made[role], **fields)


@pytest.fixture(scope='module')
def finished(few_scenes, tmp_path_factory):
  """The workdir of a run that went through without interruption."""
  workdir = tmp_path_factory.mktemp('retrieval') / 'run'
  assert train(short_config(retrieval, few_scenes, STEPS), workdir) == DONE
  return workdir


# --- Loss ----------------------------------------------------------------------------------


def logits_and_batch():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 6)).astype(np.float32)
  weight = np.ones((3, 6), np.float32)
  weight[0, [2, 4]] = 0  # the image's own too
  weight[1, 1:5] = 0  # fewer left than the hardest
  weight[2, 0] = 0  # an image that cannot be read
  return logits, {'weight': weight}


def test_the_loss_is_softmax_cross_entropy_over_the_true_caption_and_the_hardest_others():
  logits, batch = logits_and_batch()
  expected = []
  for row in (0, 1):
    others = logits[row, 1:][batch['weight'][row, 1:] > 0]
    candidates = np.append(logits[row, 0], np.sort(others)[::-1][:2])
    expected.append(
      torch.nn.functional.cross_entropy(torch.from_numpy(candidates), torch.tensor(0)).item()
    )
  sums = task.Retrieval(hardest=2, captions=1).losses({'match_logits': logits}, batch)
  assert float(sums_lib.loss(sums, batch, {})) == pytest.approx(np.mean(expected), rel=1e-6)
  # As a part of a batch with 5 images that count.
  part = batch | {'retrieval_total': np.full(3, 5, np.float32)}
  assert float(sums_lib.loss(sums, part, {})) == pytest.approx(np.sum(expected) / 5, rel=1e-6)


@pytest.mark.parametrize('hardest', [1, 2, 5])
def test_only_the_hardest_have_a_gradient(hardest):
  logits, batch = logits_and_batch()
  losses = task.Retrieval(hardest=hardest, captions=1).losses
  gradient = jax.grad(
    lambda logits: sums_lib.loss(losses({'match_logits': logits}, batch), batch, {})
  )(logits)
  assert np.isfinite(gradient).all()
  for row in (0, 1):
    others = np.flatnonzero(batch['weight'][row, 1:]) + 1
    learnt = others[np.argsort(-logits[row, others])][:hardest]
    assert set(np.flatnonzero(gradient[row])) == {0, *learnt}
    assert gradient[row, 0] < 0 < gradient[row, learnt].min()
  assert not gradient[2].any()


def test_the_true_caption_has_to_score_above_all_that_count():
  logits = np.array([[2, 1, 1], [1, 0, 1], [1, 0, 3], [1, 0, 3], [9, 0, 0]], np.float32)
  weight = np.ones((5, 3), np.float32)
  weight[3, 2], weight[4, 0] = 0, 0
  found = TASK.accuracies({'match_logits': logits}, {'weight': weight})
  np.testing.assert_array_equal(found['retrieval_accuracy'], [2, 4])


# --- Batches -------------------------------------------------------------------------------


def batching(images, texts) -> Batching:
  return Batching(canvases=SQUARE, seed=0, images=images, texts_per_image=texts, training=True)


def test_every_caption_is_the_true_one_once_beside_others_that_its_image_does_not_have(dataset):
  sidecar = dataset['train'].sidecar
  image_of = sidecar.caption_image
  texts = [sidecar.caption(i) for i in range(len(sidecar.text))]
  own = [{texts[i] for i in np.flatnonzero(image_of == image)} for image in range(200)]
  plans = [plan_ranking(sidecar, batching(8, 21), epoch) for epoch in (0, 0, 1)]
  for plan in plans:
    true = plan.text[..., 0].reshape(-1)
    assert len(true) == len(sidecar.text) // 8 * 8 == len(set(true.tolist()))
    np.testing.assert_array_equal(image_of[plan.text[..., 0]], plan.image)
    others = plan.text[..., 1:]
    for place in np.ndindex(plan.image.shape):
      assert not own[plan.image[place]] & {texts[i] for i in others[place]}
    assert plan.weight.all()
    # Drawn from everywhere.
    assert len(np.unique(others)) == len(sidecar.text)
  np.testing.assert_array_equal(plans[0].text, plans[1].text)
  assert (plans[0].text != plans[2].text).mean() > 0.9


def claiming(held, said):
  """Images of which the claims `held` are true; each has the captions `said`."""
  rows = [
    Row(f'{i}', 64, 64, [Caption(c, 10 * i + j, claim=c) for j, c in enumerate(texts)], claims)
    for i, (claims, texts) in enumerate(zip(held, said, strict=True))
  ]
  return Sidecar.of(rows)


def test_an_image_that_has_every_caption_has_no_weight():
  said = [[f'{i}'] for i in range(6)] + [[f'{i}' for i in range(6)]]
  plan = plan_ranking(claiming(said, said), batching(12, 4), epoch=0)
  for image, weight in zip(plan.image[0], plan.weight[0], strict=True):
    assert weight.tolist() == [0.0 if image == 6 else 1.0] * 4


def test_captions_that_every_image_has_are_refused():
  with pytest.raises(UserError, match=r"those of the image, for example 'a'"):
    plan_ranking(claiming([['a']] * 4, [['a']] * 4), batching(2, 4), epoch=0)
  labelled = Sidecar.of([Row('0', 64, 64, [Caption('a', 0), Caption('b', 1, label=False)])])
  with pytest.raises(UserError, match='some captions of the split are false'):
    plan_ranking(labelled, batching(1, 2), epoch=0)


def test_batches_hold_the_plans_captions(make):
  batches = make('train')
  batch, plan = batches[3], batches.plan(0)
  for place in np.ndindex(plan.text[3].shape):
    words = [batches.tokenizer.words[i] for i in batch['token_ids'][place]]
    assert ' '.join(words[1 : words.index('[SEP]')]) == batches.text(plan.text[3][place])
    assert batch['token_mask'][place].tolist() == [word != '[PAD]' for word in words]


def test_micro_batches_make_up_the_batch_and_know_its_weight(make):
  whole, parts = make('train')[3], make('train', micro_batches=2)
  halves = [parts[6], parts[7]]
  for name in ('token_ids', 'weight', 'image'):
    np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), whole[name])
  for half in halves:
    np.testing.assert_array_equal(half['retrieval_total'], whole['weight'][:, 0].sum())


def test_an_unreadable_image_does_not_count(make, monkeypatch):
  batches = make('train')
  bad = int(batches.plan(0).image[0, 1])
  encoded = type(batches.split).encoded
  broken = lambda self, i: b'none' if i == bad else encoded(self, i)  # noqa: E731
  monkeypatch.setattr(type(batches.split), 'encoded', broken)
  np.testing.assert_array_equal(batches[0]['weight'].all(1), batches.plan(0).image[0] != bad)


def test_a_gallery_is_spread_over_the_split_and_has_the_first_captions():
  counts = [5, 7, 6, 5, 5, 6, 5, 5, 5]
  rows = [
    Row(f'{i}', 64, 64, [Caption(f'{i} {j}', 10 * i + j) for j in range(count)])
    for i, count in enumerate(counts)
  ]
  sidecar = Sidecar.of(rows)
  gallery = choose_gallery(sidecar, 3, 5)
  assert gallery.image.tolist() == [0, 4, 8]
  assert [sidecar.caption(i) for i in gallery.caption] == [
    f'{i} {j}' for i in (0, 4, 8) for j in range(5)
  ]
  assert gallery.row.tolist() == [0] * 5 + [1] * 5 + [2] * 5
  whole = choose_gallery(sidecar)
  assert whole.caption.tolist() == list(range(49))
  assert whole.existing == 49
  assert choose_gallery(sidecar, 0, 5).existing == 49
  assert len(choose_gallery(sidecar, 0, 5).caption) == 45


def test_a_split_that_cannot_be_ranked_is_refused_in_a_line():
  bare = [Row('kept', 64, 64, [Caption('a', 0)]), Row('lost', 64, 64)]
  with pytest.raises(UserError, match='1 of 2 images have no caption, for example lost'):
    choose_gallery(Sidecar.of(bare))
  for rows in (bare[1:], []):
    with pytest.raises(UserError, match='the split has no captions to rank'):
      choose_gallery(Sidecar.of(rows))
  with pytest.raises(UserError, match='the split has no captions'):
    plan_ranking(Sidecar.of(bare[1:]), batching(1, 2), epoch=0)


# --- Scores --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def mixed():
  """Batches of images of many sizes with captions of many lengths, and a model, at random."""
  return galleries.mixed()


@pytest.fixture(scope='module')
def ranker(mixed):
  return Ranker(mixed[1], sharding.make_mesh(), FEW, captions=5)


def ranked(ranker, mixed, path):
  TASK.report(functools.partial(ranker, mixed[2]), mixed[0], path)
  return matrix.read(path.with_suffix('.npz'))


def test_scores_are_those_of_the_whole_model_run_pair_by_pair(ranker, mixed, tmp_path):
  batches, model, variables = mixed
  scores, image_ids, text_ids = ranked(ranker, mixed, tmp_path / 'test.json')
  assert scores.dtype == np.float32
  assert image_ids == [f'{i}' for i in range(7)]
  assert text_ids == [f'{100 * i + j}' for i in range(7) for j in range(3)]
  whole = jax.jit(lambda batch: forward(model, variables, batch, train=False)['match_logits'])
  ids, mask = batches.tokens(np.arange(len(text_ids)))
  for number, canvas in enumerate(batches.canvases.choose(batches.split.sidecar.size)):
    image = batches._images(np.array([number]), canvas)
    assert batches._load(np.array([number]), image, None) == {}
    for text in range(len(text_ids)):
      pair = image | {'token_ids': ids[None, [text]], 'token_mask': mask[None, [text]]}
      assert abs(whole(pair)[0, 0] - scores[number, text]) < 1e-5
  assert scores.std(axis=0).min() > 0.01
  assert scores.std(axis=1).min() > 0.01


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_scores(
  ranker, mixed, tmp_path, monkeypatch, capsys
):
  expected, *_ = ranked(ranker, mixed, tmp_path / 'whole' / 'test.json')
  path, write, rows = tmp_path / 'killed' / 'test.json', PartialMatrix.write, []

  def killed(self, numbers, scores):
    if len(rows) == 2:
      self.scores[numbers, :4] = scores[:, :4]  # A half-written row.
      raise KeyboardInterrupt
    rows.append(numbers)
    write(self, numbers, scores)

  with monkeypatch.context() as patch:
    patch.setattr(PartialMatrix, 'write', killed)
    with pytest.raises(KeyboardInterrupt):
      ranked(ranker, mixed, path)
  assert not path.exists()
  assert not path.with_suffix('.npz').exists()
  later = []
  monkeypatch.setattr(
    PartialMatrix, 'write', lambda self, n, s: (later.append(n), write(self, n, s))
  )
  found, *_ = ranked(ranker, mixed, path)
  np.testing.assert_array_equal(found, expected)
  done = np.concatenate(rows)
  assert f'resuming, {len(done)} of 7 images are done' in capsys.readouterr().out
  assert sorted([*done, *np.concatenate(later)]) == list(range(7))
  assert sorted(p.name for p in path.parent.iterdir()) == ['test.json', 'test.npz']


def test_what_another_model_left_is_discarded(ranker, mixed, tmp_path, monkeypatch, capsys):
  batches, model, variables = mixed
  path = tmp_path / 'test.json'
  expected, *_ = ranked(ranker, mixed, tmp_path / 'whole' / 'test.json')
  other = jax.tree.map(lambda x: x.copy(), variables)
  other['params']['itm']['bias'] += 1
  monkeypatch.setattr(PartialMatrix, 'remove', lambda self: None)  # as if killed at the end
  ranked(ranker, (batches, model, other), path)
  capsys.readouterr()
  path.with_suffix('.npz').unlink()
  again, *_ = ranked(ranker, (batches, model, other), path)
  assert '7 of 7 images are done' in capsys.readouterr().out
  np.testing.assert_allclose(again, expected + 1, atol=1e-5)
  found, *_ = ranked(ranker, mixed, path)
  shown = capsys.readouterr().out
  assert 'discarded, its scores come from other weights, data or settings' in shown
  np.testing.assert_array_equal(found, expected)
  assert len(list(tmp_path.glob('.*.rows'))) == 1


def test_what_a_score_depends_on_is_told_apart(ranker, mixed):
  batches, model, variables = mixed
  same = ranker.identity(variables, batches)
  shorter = Tokenizer(resolve(retrieval.get_config('test')).text.vocabulary, 5)
  assert ranker.identity(variables, dataclasses.replace(batches)) == same
  others = [
    (ranker, dataclasses.replace(batches, canvases=Canvases(64, 128, ((128, 128),)))),
    (ranker, dataclasses.replace(batches, most_captions=2)),
    (ranker, dataclasses.replace(batches, tokenizer=shorter)),
    (ranker, dataclasses.replace(batches, most_images=2)),
    (ranker, dataclasses.replace(batches, images=1)),
    (Ranker(model, sharding.make_mesh(), FEW, captions=2), batches),
  ]
  for ranker_, batches_ in others:
    assert ranker_.identity(variables, batches_) != same


def test_a_damaged_file_of_rows_is_not_taken(tmp_path, capsys):
  path, shape = tmp_path / 'test.npz', (3, 4)
  PartialMatrix(path, {}, shape).write(np.array([1]), np.ones((1, 4)))
  assert PartialMatrix(path, {}, shape).finished.tolist() == [False, True, False]
  (file,) = tmp_path.iterdir()
  content = file.read_bytes()
  for damaged in (content[:-8], content[:40], b''):
    file.write_bytes(damaged)
    assert not PartialMatrix(path, {}, shape).finished.any()
    assert 'discarded, the file is damaged' in capsys.readouterr().out


@pytest.mark.parametrize('size', [1, 7, 64])
def test_captions_go_past_in_chunks_of_few_lengths(size):
  rng = np.random.default_rng(size)
  length = rng.integers(3, 17, 50)
  length[7] = 20
  mask = np.arange(24) < length[:, None]
  ids = np.where(mask, rng.integers(1, 99, mask.shape), 0)
  chunks, place = chunk_captions(ids, mask, size)
  assert all(len(x) == size for chunk in chunks for x in chunk)
  assert {chunk[0].shape[1] for chunk in chunks} == {
    *np.quantile(length, [0.5, 0.95, 1], method='higher')
  }
  rows = [row for chunk in chunks for row in zip(*chunk, strict=True)]
  for i, at in enumerate(place):
    found, real = rows[at]
    np.testing.assert_array_equal(found[real], ids[i, mask[i]])


def test_in_training_fewer_images_are_ranked(ranker, mixed):
  batches, model, variables = mixed
  limited = Ranker(model, sharding.make_mesh(), FEW, captions=5, limit=3)

  def recalls(ranker, batches):
    return TASK.evaluate(functools.partial(ranker, variables), batches)

  few = dataclasses.replace(batches, most_images=3)
  assert recalls(limited, batches) == recalls(ranker, few) != recalls(ranker, batches)
  fewer = dataclasses.replace(batches, most_images=2)
  assert recalls(limited, fewer) == recalls(ranker, fewer) != recalls(limited, batches)


# --- Metrics -------------------------------------------------------------------------------


def test_what_stands_beside_the_recalls_by_hand():
  # Caption t is of image t // 2; claims: 'x' is true of all, the others of one.
  sidecar = claiming([['x', f'{i}'] for i in range(4)], [['x', f'{i}'] for i in range(4)])
  gallery = choose_gallery(sidecar)
  scores = np.zeros((4, 8), np.float32)
  scores[np.arange(4), 2 * np.arange(4) + 1] = 2
  scores[0] += 1  # The first image scores high whatever is said,
  scores[:, 4] += 1  # and so does the fifth caption.
  found = task.report(scores, gallery, sidecar)
  assert found['recall_mean'] == np.mean([found[name] for name in task.RECALLS])
  assert found['text_recall_at_1'] == 1
  assert found['image_recall_at_1'] == 5 / 8  # of 'x' that of image 0
  assert found['text_recall_at_1/image_blind'] == 1 / 4
  assert found['image_recall_at_1/image_blind'] == 0
  assert found['image_recall_at_1/text_blind'] == 2 / 8
  assert found['text_recall_at_1/text_blind'] == 0
  assert found['image_recall_at_1/chance'] == pytest.approx(1 / 4)
  assert found['text_recall_at_1/chance'] == pytest.approx(2 / 8)
  assert found['text_recall_at_1/oracle'] == pytest.approx(2 / 5)
  assert found['image_recall_at_1/oracle'] == pytest.approx((1 + 1 / 4) / 2)
  assert found['text_recall_at_1/oracle_rarest'] == 1
  assert (found['images'], found['texts'], found['texts_existing']) == (4, 8, 8)
  assert 'text_recall_at_1_1k' not in found
  shown = TASK.table('test', found)
  assert 'of 4 images with 8 captions: all 8' in shown
  assert 'image-blind' in shown


def test_five_thousand_images_are_also_ranked_in_five_folds():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(recall.COCO_IMAGES, recall.COCO_IMAGES)).astype(np.float32)
  scores[np.diag_indices(len(scores))] += 3
  every = np.arange(len(scores))
  gallery = Gallery(every, every, every, 5010)
  empty = Sidecar.of([])
  found = task.report(scores, gallery, empty)
  folds = [
    recall.recalls(*recall.ranks(scores[f : f + 1000, f : f + 1000], every[:1000]), every[:1000])
    for f in range(0, 5000, 1000)
  ]
  for name in task.RECALLS:
    assert found[f'{name}_1k'] == pytest.approx(np.mean([fold[name] for fold in folds]))
  assert found['text_recall_at_1_1k'] > found['text_recall_at_1'] > found['text_recall_at_1/chance']
  assert 'text_recall_at_1/oracle_rarest' not in found
  shown = TASK.table('test', found)
  assert 'mean of five folds' in shown
  assert 'five an image, 5,000 of 5,010' in shown


def test_top_lists_have_the_best_first():
  scores = np.random.default_rng(0).normal(size=(12, 15)).astype(np.float32)
  lists = task.top_lists(scores, [f'i{i}' for i in range(12)], [*range(15)], [*'abcdefghijklmno'])
  best = np.argsort(-scores[3])[:10]
  assert [(t, text) for t, text, _ in lists['captions']['i3']] == [
    (t, 'abcdefghijklmno'[t]) for t in best
  ]
  assert [s for *_, s in lists['captions']['i3']] == pytest.approx(scores[3, best], abs=1e-4)
  assert [i for i, _ in lists['images']['7']] == [f'i{i}' for i in np.argsort(-scores[:, 7])[:10]]


# --- Runs ----------------------------------------------------------------------------------


def test_a_run_ends_with_scores_that_the_command_takes(finished, dataset, tmp_path, capsys):
  lines = metrics(finished)
  splits = [(line['step'], line['split']) for line in lines if line['split'] != 'train']
  assert splits == [(4, 'val'), (8, 'val'), (STEPS, 'test')]
  assert {'loss', 'retrieval_loss', 'retrieval_accuracy', 'gradient_norm'} <= lines[0].keys()
  last = lines[-1]
  assert last['validation_recall_mean'] == max(
    line['recall_mean'] for line in lines if line['split'] == 'val'
  )
  sidecar = dataset['test'].sidecar
  image_of = {
    int(text): sidecar.image_id[image].decode()
    for text, image in zip(sidecar.captions.values, sidecar.caption_image, strict=True)
  }
  annotations = tmp_path / 'annotations.json'
  annotations.write_text(json.dumps(image_of))
  capsys.readouterr()
  predictions = f'--predictions={finished}/predictions/test.npz'
  assert score.main(['retrieval', predictions, f'--annotations={annotations}', '--json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert {name: found[name] for name in task.RECALLS} == {name: last[name] for name in task.RECALLS}
  assert found['captions'] == 'five an image, 50 of 80'
  lists = json.loads((finished / 'predictions/test.json').read_text())
  assert set(lists['images']) == {str(t) for t in image_of if t % 100 < 5}


@pytest.mark.slow
def test_a_ranking_is_stopped_and_repeated_and_no_line_is_doubled(
  few_scenes, tmp_path, monkeypatch
):
  # Validation, which chooses a step, and the report have the same split.
  config = short_config(retrieval, few_scenes, STEPS)
  config.data.test = config.data.validation
  assert train(config, tmp_path / 'through') == DONE
  # At step 4; at step 8, after that of step 4 was repeated; in the report, after that of step 8.
  for number in (1, 2, 2):
    stop_in_evaluation(monkeypatch, number, Ranker)
    assert train(config, tmp_path / 'stopped') == PREEMPTED
    monkeypatch.undo()
  assert train(config, tmp_path / 'stopped') == DONE
  assert_same_run(tmp_path / 'stopped', tmp_path / 'through')
  lines = [(line['step'], line['split']) for line in metrics(tmp_path / 'stopped')]
  assert len(lines) == len(set(lines))
  for name in ('predictions/val.json', 'checkpoints/scores.json'):
    assert (tmp_path / 'stopped' / name).read_bytes() == (tmp_path / 'through' / name).read_bytes()


def test_the_cnn_stays_as_it_was(few_scenes, finished, pretrained, tmp_path):
  config = short_config(retrieval, few_scenes, 2, init_from=str(pretrained))
  assert train(config, tmp_path / 'run') == DONE
  there, here = (checkpoint.load(x).variables for x in (pretrained, tmp_path / 'run'))
  same = jax.tree.map(
    np.array_equal, there['params']['backbone']['cnn'], here['params']['backbone']['cnn']
  )
  assert all(jax.tree.leaves(same))
  assert all(
    jax.tree.leaves(jax.tree.map(np.array_equal, there['batch_stats'], here['batch_stats']))
  )
  assert not np.array_equal(there['params']['itm']['kernel'], here['params']['itm']['kernel'])


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  """An untrained checkpoint of pre-training."""
  config = resolve(pretrain.get_config('test'))
  return tiny.write_untrained(tmp_path_factory.mktemp('pretrained') / 'C', config)


def evaluate(few_scenes, spec, workdir):
  return main(
    [
      *('--config=configs/retrieval.py:test', '--mode=evaluate', f'--checkpoint={spec}'),
      *(f'--workdir={workdir}', f'--config.data.data_dir={few_scenes}'),
    ]
  )


def test_pre_training_ranks_without_being_tuned(few_scenes, pretrained, dataset, tmp_path, capsys):
  assert evaluate(few_scenes, pretrained, tmp_path) == 0
  assert 'of 10 images with 50 captions: five an image, 50 of 80' in capsys.readouterr().out
  scores, image_ids, text_ids = matrix.read(tmp_path / 'predictions/test.npz')
  # Pre-training's own evaluation gives its first pair, matched or not, the same logit.
  loaded = checkpoint.load(pretrained)
  config = ConfigDict(loaded.config)
  config.data.data_dir = str(few_scenes)
  batches = Experiment.of(config, dataset).batches['test']
  batches = dataclasses.replace(batches, hiding=Hiding(0.15, whole=1.0))
  model = make_model(config, len(batches.tokenizer.words))
  itm = np.asarray(forward(model, loaded.variables, batches[0], train=False)['itm_logits'])
  sidecar, plan, compared = dataset['test'].sidecar, batches.plan(0), 0
  for row, k in np.ndindex(itm.shape):
    text = str(sidecar.captions.values[plan.text[0, row, k]])
    image = sidecar.image_id[plan.image[0, row]].decode()
    if text in text_ids:
      compared += 1
      assert abs(scores[image_ids.index(image), text_ids.index(text)] - itm[row, k]) < 1e-5
  assert compared > 4


def test_a_checkpoint_without_the_matching_head_is_refused(few_scenes, tmp_path, capsys):
  config = resolve(vqa.get_config('test'))
  spec = tiny.write_untrained(tmp_path / 'C', config, ('a', 'b', 'c'))
  assert evaluate(few_scenes, spec, tmp_path / 'run') == 1
  error = capsys.readouterr().err
  assert 'is of vqa and lacks itm: train it for retrieval first' in error
  assert not (tmp_path / 'run').exists()
