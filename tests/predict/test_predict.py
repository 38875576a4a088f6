"""`predict`: what a model says of one's own images, by the API and by the command."""

import collections
import io
import itertools
import json
import re
import shlex
import warnings

import jax
import numpy as np
import pytest
from PIL import Image

from data.builders import open_dataset
from data.scenes import vocabulary
from pixelbert_jax import UserError, predict
from pixelbert_jax.checkpoints import provenance
from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.text import tokens_of
from pixelbert_jax.main import main as train_main
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.predict import FLAGS, HeadError, ImageError, TextError, heatmap, photos
from pixelbert_jax.predict import runner as inference
from pixelbert_jax.predict.__main__ import main
from tests.support import tiny
from tests.support.paths import ROOT

SIZES = ((64, 64), (40, 60), (96, 64), (500, 400), (20, 20), (33, 90), (64, 130), (120, 50))
WORDS = (
  *('a', 'red', 'blue', 'small', 'large', 'circle', 'square', 'star'),
  *('is', 'here', 'left', 'of', 'above', 'with', 'dots'),
)


pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Checkpoints by the names of their tasks, and photographs."""
  folder = tmp_path_factory.mktemp('predict')
  for task in tiny.TASKS:
    tiny.write(folder / task, task)
  for i, size in enumerate(SIZES):
    Image.fromarray(photo(*size)).save(folder / f'{i}.png')
  return folder


@pytest.fixture(scope='module')
def load(folder):
  """Models by the names of their tasks, each loaded once."""
  return tiny.loader(folder)


def photo(height: int, width: int) -> np.ndarray:
  rng = np.random.default_rng([height, width])
  coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
  return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def texts_of(rng: np.random.Generator, count: int) -> list[str]:
  return [' '.join(rng.choice(WORDS, rng.integers(1, 11))) for _ in range(count)]


def logit(probability):
  return np.log(probability / (1 - probability))


# --- What is said, however it is asked for --------------------------------------------------


def test_results_do_not_depend_on_what_else_is_asked(folder, monkeypatch):
  compiled = []

  def traced(name):
    method = getattr(PixelBert, name)

    def call(self, first, *rest):
      compiled.append((name, *(x.shape for x in (first, *rest[:-1]))))
      return method(self, first, *rest)

    return call

  for name in ('embed_pixels', 'join'):
    monkeypatch.setattr(PixelBert, name, traced(name))
  with pytest.warns(UserWarning, match='rendered scenes'):
    model = predict.load(folder / 'pretrain')
  rng = np.random.default_rng(0)
  images, texts = [photo(*size) for size in SIZES], texts_of(rng, 12)
  alone = np.array([[model.match(i, t, logits=True)[0, 0] for t in texts] for i in images])
  assert alone.std(0).mean() > 0.05  # images matter, and texts
  assert alone.std(1).mean() > 0.01
  for _ in range(200):
    n = rng.integers(1, 40)
    image, text = rng.integers(len(images), size=n), rng.integers(len(texts), size=n)
    found = model.match(
      [images[i] for i in image], [texts[t] for t in text], pairs=True, logits=True
    )
    np.testing.assert_allclose(found, alone[image, text], atol=1e-5)
  shapes = collections.Counter(compiled)
  assert set(shapes.values()) <= {1, 2}  # `join` has two shapes of what its rows are taken from
  assert {name: len({s for s in shapes if s[0] == name}) for name in ('embed_pixels', 'join')} == {
    'embed_pixels': 6,  # three canvases; full batches, and one image alone
    'join': 4,  # 16 or 24 pixels; full batches, and one pair alone
  }


def test_all_with_all_pairs_and_one_for_many(load):
  model, texts = load('pretrain'), ['a red circle', 'a blue square', 'a star']
  images = [photo(*size) for size in SIZES[:3]]
  grid = model.match(images, texts)
  assert grid.shape == (3, 3)
  assert grid.dtype == np.float32
  np.testing.assert_allclose(model.match(images, texts, pairs=True), np.diag(grid), atol=1e-6)
  np.testing.assert_allclose(model.match(images[1], texts, pairs=True), grid[1], atol=1e-6)
  np.testing.assert_allclose(model.match(images, texts[2], pairs=True), grid[:, 2], atol=1e-6)
  np.testing.assert_allclose(logit(grid), model.match(images, texts, logits=True), atol=1e-4)
  assert model.match([], texts).shape == (0, 3)
  assert model.match(images, []).shape == (3, 0)
  with pytest.raises(TextError, match='3 images with 2 texts'):
    model.match(images, texts[:2], pairs=True)


def test_paths_pictures_and_arrays_are_one_image(load, folder):
  model, path = load('vqa'), folder / '1.png'
  with Image.open(path) as picture:
    four = [path, str(path), picture.copy(), photo(*SIZES[1])]
  found = model.answer(four, 'what is it', k=3)
  assert [len(answers) for answers in found] == [3] * 4
  for answers in found:
    assert [name for name, _ in answers] == [name for name, _ in found[0]]
    assert dict(answers) == pytest.approx(dict(found[0]), abs=1e-5)
  assert [name for name, _ in model.answer(path, 'what is it', k=100)[0]][:3] == [*dict(found[0])]


def test_an_image_is_read_and_seen_once(load, folder, monkeypatch):
  model, seen = load('vqa'), []
  load_image = image_lib.load
  monkeypatch.setattr(image_lib, 'load', lambda *a: seen.append(a[3]) or load_image(*a))
  path, other = str(folder / '1.png'), str(folder / '0.png')
  questions = ['what is it', 'is it red', 'how many are there']
  several = model.answer([path, other] * 3, [q for q in questions for _ in range(2)])
  assert sorted(seen) == [other, path]
  for answers, q in zip(several[::2], questions, strict=True):
    alone = dict(model.answer(path, q)[0])
    assert dict(answers) == pytest.approx(alone, abs=1e-5)


def test_answers_are_the_likeliest_and_probabilities_are_sigmoids(load):
  model, image = load('vqa'), photo(64, 64)
  found = model.answer(image, 'what colour is it', k=100)[0]
  assert sorted(name for name, _ in found) == sorted(tiny.ANSWERS)
  values = [p for _, p in found]
  assert values == sorted(values, reverse=True)
  # From the tokens, by hand.
  encoded = model.encode(image, 'what colour is it')
  logits = model.module.apply(model.variables, encoded.text, method='answer')[0]
  expected = dict(zip(tiny.ANSWERS, 1 / (1 + np.exp(-np.asarray(logits))), strict=True))
  assert dict(found) == pytest.approx(expected, abs=1e-5)


def test_words_under_the_mask(load):
  model, image, text = load('pretrain'), photo(64, 64), 'here is a [MASK] circle'
  found = dict(model.fill(image, text, k=10_000)[0])
  assert sum(found.values()) == pytest.approx(1, abs=0.2)  # the special tokens are left out
  assert not found.keys() & set(vocabulary.SPECIAL)
  tokens = model.encode(image, text).text[:, 4]  # [CLS] here is a [MASK]
  logits = np.asarray(model.module.apply(model.variables, tokens, method='fill')[0])
  expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
  for word, p in zip(vocabulary.FILE.read_text().split('\n'), expected, strict=False):
    assert word in vocabulary.SPECIAL or found[word] == pytest.approx(p, abs=1e-5)
  best = max(found, key=found.get)
  assert model.fill([image] * 2, [text, 'a [MASK]'], k=1)[0][0][0] == best


# --- As training and evaluation have it ------------------------------------------------------


def test_answers_are_those_of_the_evaluation(few_scenes, folder, load, tmp_path):
  evaluate = ['--config=configs/vqa.py:test', '--mode=evaluate', f'--checkpoint={folder / "vqa"}']
  evaluate += [f'--config.data.data_dir={few_scenes}', f'--workdir={tmp_path}', '--config.seed=0']
  evaluate += ['--config.image.longer=96', f'--config.image.canvases={tiny.CANVASES}']
  evaluate += ['--config.transformer.dropout=0.0']
  assert train_main(evaluate) == 0
  predictions = json.loads((tmp_path / 'predictions/test.json').read_text())
  said = {row['question_id']: row['answer'] for row in predictions}
  split = open_dataset('scenes', few_scenes)['test']
  questions = split.sidecar.questions
  scenes = [Image.open(io.BytesIO(split.encoded(i))) for i in range(10)]
  found = load('vqa').answer(
    [scenes[i] for i in questions.image],
    [questions.text.text(q) for q in range(len(questions))],
    k=1,
  )
  assert len(found) == len(said) > 40
  assert {int(i): a[0][0] for i, a in zip(questions.id, found, strict=True)} == said
  assert len(set(said.values())) > 1


# --- Tokens and pixels -----------------------------------------------------------------------


def test_encoded_pairs_are_padded_with_zeros(load):
  model, images = load('nlvr2'), [photo(*size) for size in SIZES[:3]]
  texts = ['a red circle', 'a star', 'a small blue square is here']
  together = model.encode(images, texts)
  assert together.text.shape == (3, 16, 32)
  assert together.pixels.shape == (3, 24, 32)
  assert together.text_mask.sum(1).tolist() == [5, 4, 8]
  assert together.pixel_mask.sum(1).tolist() == [16, 24, 24]
  assert not together.text[~together.text_mask].any()
  assert not together.pixels[~together.pixel_mask].any()
  for i, (image, text) in enumerate(zip(images, texts, strict=True)):
    alone = model.encode(image, text)
    np.testing.assert_allclose(alone.text[0], together.text[i], atol=1e-5)
    p = alone.pixels.shape[1]
    np.testing.assert_allclose(alone.pixels[0], together.pixels[i, :p], atol=1e-5)


def test_texts_without_an_image(load):
  model = load('pretrain')
  found = model.encode(None, ['a red circle', 'a star'])
  assert found.pixels.shape[1] == found.pixel_mask.shape[1] == 0
  embed = lambda m, ids: m.backbone.text(ids, deterministic=True)  # noqa: E731
  tokens = tokens_of(model.tokenizer, ['a red circle', 'a star'])
  words = model.module.apply(model.variables, tokens.ids, method=embed)
  encode = lambda m, x, mask: m.backbone.encoder(x, mask, True)  # noqa: E731
  expected = model.module.apply(model.variables, words, tokens.mask, method=encode)
  mask = found.text_mask
  np.testing.assert_allclose(found.text[mask], np.asarray(expected)[mask], rtol=1e-5, atol=1e-5)


def test_features_are_of_normalised_floats(load):
  model = load('pretrain')
  image = photo(64, 96)
  normalised = image_lib.normalise(image[None], *image_normalisation(model))
  found = model.pixel_features(normalised)
  assert found.shape == (1, 4, 6, 64)
  # Projected, they are the pixels that the Transformer is given.
  p = model.params['backbone']
  pixels = found @ p['projection']['kernel'] + p['projection']['bias'] + p['semantic']
  pixels += model.module.apply(
    model.variables, np.ones((1, 4, 6), bool), method=lambda m, x: m.backbone.cell_position(x)
  )
  group = [model.runner.reader(image)]
  expected, mask = model.runner._see(group)
  assert np.asarray(mask).all()
  np.testing.assert_allclose(pixels.reshape(1, 24, -1), expected, atol=1e-4)
  for bad in (image, normalised[0], normalised[..., :2]):
    with pytest.raises(ImageError, match=r'pixel_features: expected normalised floats .*, got an'):
      model.pixel_features(bad)


def image_normalisation(model):
  return model.config.image.mean, model.config.image.deviation


# --- Many ------------------------------------------------------------------------------------


def test_many_images_stream_and_show_progress(load, monkeypatch, capfd):
  monkeypatch.setattr(inference, 'QUIET', 0.0)
  model = load('pretrain')
  small = [np.full((8, 8, 3), i % 200, np.uint8) for i in range(400)]
  waiting, most = [0], [0]
  read = photos.Reader.__call__

  def counting(self, *arguments):
    waiting[0] += 1
    most[0] = max(most[0], waiting[0])
    return read(self, *arguments)

  see = model.runner._see
  monkeypatch.setattr(photos.Reader, '__call__', counting)
  monkeypatch.setattr(
    model.runner,
    '_see',
    lambda group: waiting.__setitem__(0, waiting[0] - len(group)) or see(group),
  )
  found = model.match(iter(small), 'a red circle', logits=True)[:, 0]
  assert most[0] <= photos.AHEAD + 16 + photos.THREADS
  np.testing.assert_allclose(found[:200], found[200:], atol=1e-5)
  assert found.std() > 0.001
  assert '/400 [' in capfd.readouterr().err


# --- Heat maps -------------------------------------------------------------------------------


def test_a_heatmap_has_the_shape_of_the_image(load):
  model = load('pretrain')
  for height, width in SIZES:
    found = model.heatmap(photo(height, width), 'A small, Red circle')
    assert list(found.tokens) == ['A', 'small', ',', 'Red', 'circle']
    assert found.values.shape == (5, height, width)
    np.testing.assert_array_equal(found.image, photo(height, width))
    np.testing.assert_allclose(found.cells.mean((1, 2)), 1, rtol=1e-5)
    size = model.runner.reader(photo(height, width)).size
    assert found.cells.shape == (5, *(-(-side // 16) for side in size))


def test_a_heatmap_is_the_attention_of_the_words(load):
  model, image = load('pretrain'), photo(40, 60)
  tokens = tokens_of(model.tokenizer, ['a red circle'])
  watched = model.runner.attention(image, tokens)
  length, mask = tokens.ids.shape[1], watched.mask
  assert watched.weights.shape[2:] == (length + mask.size, length + mask.size)
  weights = watched.weights.mean((0, 1))
  np.testing.assert_allclose(weights.sum(-1)[: length + 1], 1, rtol=1e-5)
  kept = weights[3, length:].reshape(mask.shape)[mask]  # of 'circle', after [CLS] a red
  found = model.heatmap(image, 'a red circle')
  np.testing.assert_allclose(found.cells[2].ravel(), kept / kept.mean(), rtol=1e-5)
  for method in ('rollout', 'gradient'):
    other = model.heatmap(image, 'a red circle', method)
    assert abs(other.cells - found.cells).max() > 1e-3
    np.testing.assert_array_equal(other.score_cells, found.score_cells)


@pytest.mark.parametrize(
  ('task', 'text', 'read'),
  [('vqa', 'what is it', 0), ('pretrain', 'a red star', 0), ('pretrain', 'a red [MASK]', 3)],
)
def test_a_score_comes_from_what_its_gradient_says(load, task, text, read):
  model, image = load(task), photo(40, 60)  # with padding at its bottom and right
  tokens = tokens_of(model.tokenizer, [text])
  head, names = model.score_of(tokens)
  allowed = ~model.tokenizer.special if head == 'fill' else np.ones(len(names), bool)
  watched = model.runner.attention(image, tokens, head, allowed)
  # Along a random direction, the score changes as the gradients say.
  runner, rng = model.runner, np.random.default_rng(0)
  seen, way = runner._see([watched.placed]), rng.normal(size=watched.weights.shape)
  method = inference._joined(inference.LOGITS[head])

  @jax.jit
  def logits(step):
    change = {'attention': {'weights': step * way[:, None].astype(np.float32)}}
    change = {'attention_change': {'backbone': {'encoder': {'layer': change}}}}
    inputs = *seen, np.zeros(1, np.int32), *tokens
    return model.module.apply(model.variables | change, *inputs, method=method)[0]

  step = 1e-3
  slope = (logits(step) - logits(-step))[watched.best] / (2 * step)
  assert slope == pytest.approx((watched.gradients * way).sum(), rel=0.02)
  assert watched.best == np.where(allowed, logits(0.0), -np.inf).argmax()

  found = model.heatmap(image, text, 'gradient')
  results = {'answer': model.answer, 'fill': model.fill}.get(head)
  best = f'"{results(image, text, k=1)[0][0][0]}"' if results else 'match'
  assert found.score.endswith(best)
  relevance = heatmap.relevance(watched.weights, watched.gradients)
  kept = relevance[read, -watched.mask.size :].reshape(watched.mask.shape)
  assert not kept[~watched.mask].any()
  assert not relevance[read, : tokens.ids.shape[1]][~tokens.mask[0]].any()
  kept = kept[watched.mask]
  np.testing.assert_allclose(found.score_cells.ravel(), kept / kept.mean(), rtol=1e-4)


def test_a_model_of_two_images_has_maps_of_words_alone(load):
  model = load('nlvr2')
  found = model.heatmap(photo(64, 64), 'a red star', 'rollout')
  assert (found.score, found.score_cells, found.score_values) == ('', None, None)
  with pytest.raises(UserError, match="method='gradient': this model scores no single image"):
    model.heatmap(photo(64, 64), 'a red star', 'gradient')


def test_what_it_was_trained_on_is_written_below(load, tmp_path):
  found = load('vqa').heatmap(photo(64, 64), 'what is it')
  assert found.note == provenance.SCENES
  found.save(tmp_path / 'heat.png')
  with Image.open(tmp_path / 'heat.png') as picture:
    assert picture.size == found.picture().size


# --- What it was trained on ------------------------------------------------------------------


def test_where_a_model_comes_from(tmp_path):
  coco = tiny.write(tmp_path / 'coco', 'vqa', **{'data.name': 'coco_karpathy+scenes'})
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    model = predict.load(coco)
  assert model.trained_on == ('coco_karpathy', 'scenes')
  assert model.note == ''
  tuned = tiny.write(tmp_path / 'tuned', 'vqa', {'trained_on.json': b'["flickr30k", "scenes"]'})
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert predict.load(tuned).trained_on == ('flickr30k', 'scenes')
  path = tiny.write(tmp_path / 'converted', 'pretrain', {'trained_on.json': b'[]'})
  with pytest.warns(UserWarning, match='not trained yet'):
    model = predict.load(path)
  assert model.trained_on == ()


# --- Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('task', 'call', 'can'),
  [
    ('pretrain', 'answer', r'match \(--text\), fill \(--fill\)'),
    ('vqa', 'match', r'it can answer \(--question\)'),
    ('vqa', 'fill', r'it can answer \(--question\)'),
    ('nlvr2', 'match', 'heat maps and encode'),
  ],
)
def test_a_head_that_is_not_there(load, task, call, can):
  with pytest.raises(HeadError, match=rf'is of {task} and cannot {call} .*{can}') as error:
    getattr(load(task), call)(photo(64, 64), 'a [MASK] circle')
  assert isinstance(error.value, UserError)


@pytest.mark.parametrize('text', ['', '   ', '\n'])
def test_an_empty_text(load, text):
  model = load('pretrain')
  for call in (model.match, model.heatmap, lambda i, t: model.encode(None, t)):
    with pytest.raises(TextError, match='is empty: give a text with words'):
      call(photo(64, 64), text)
  with pytest.raises(TextError, match='is empty'):
    load('vqa').answer(photo(64, 64), ['what is it', text])
  with pytest.raises(TextError, match='expected a text, got NoneType None'):
    model.match(photo(64, 64), [None])


def test_nothing_is_no_text(load):
  for images in (None, [photo(64, 64)]):
    with pytest.raises(TextError, match='nothing to encode'):
      load('pretrain').encode(images, [])


def test_a_long_text_is_cut_as_in_training(load):
  model, image = load('pretrain'), photo(64, 64)
  text = 'a b c d e f g h i j'
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    whole = model.match(image, text)
  with pytest.warns(UserWarning, match="cut to 12 tokens, as in training: 'k l' is not read"):
    longer = model.match(image, f'{text} k l')
  np.testing.assert_array_equal(longer, whole)
  with pytest.warns(UserWarning, match='cut to 12'):
    assert len(model.heatmap(image, f'{text} k l').tokens) == 10


@pytest.mark.filterwarnings('ignore:.*holds')  # [mask] is a word that is spelled
@pytest.mark.parametrize(
  ('text', 'words'),
  [('a star', 'no'), ('a [mask] star', 'no'), ('[MASK] [MASK]', '2')],
)
def test_a_mask_is_missing(load, text, words):
  with pytest.raises(TextError, match=rf'{re.escape(repr(text))} has {words} \[MASK\]: write one'):
    load('pretrain').fill(photo(64, 64), text)


def test_a_mask_beyond_the_cut_is_missing(load):
  with (
    pytest.warns(UserWarning, match='cut to 12'),
    pytest.raises(TextError, match=r'has no \[MASK\]'),
  ):
    load('pretrain').fill(photo(64, 64), 'a ' * 10 + '[MASK]')


def test_one_bad_image_of_many_is_named(load, folder):
  with pytest.raises(ImageError, match=r'gone\.png: No such file'):
    load('pretrain').match([folder / '0.png'] * 3 + [folder / 'gone.png'], 'a star')


# --- The command -----------------------------------------------------------------------------


@pytest.fixture
def said(folder, capsys):
  """What the command prints, and on stderr; its exit code is checked."""

  def said(task, *arguments, code=0, image='1.png'):
    assert main([f'--checkpoint={folder / task}', f'--image={folder / image}', *arguments]) == code
    return capsys.readouterr()

  return said


def test_the_command_answers(said, load, folder):
  lines = said('vqa', '--question=what is it').out.splitlines()
  expected = load('vqa').answer(folder / '1.png', 'what is it')[0]
  assert lines == [
    'answers and their scores from 0 to 1, which need not add up to 1:',
    *(f'{p:.3f}  {name}' for name, p in expected),
    'The first 2 answers nearly tie: the model prefers none of them.',
    f'This model was {provenance.SCENES}.',
  ]
  assert 0.9 * expected[0][1] < expected[1][1] < expected[0][1]
  assert said('vqa', '--question=what is it').err == ''
  two = said('vqa', '--question=what is it', '--json', '--k=2').out
  assert len(json.loads(two)['answers']) == 2
  found = json.loads(said('vqa', '--question=what is it', '--json').out)
  assert found['question'] == 'what is it'
  assert [(r['answer'], r['probability']) for r in found['answers']] == [
    (name, pytest.approx(p, abs=1e-6)) for name, p in expected
  ]
  assert (found['trained_on'], found['note']) == (['scenes'], provenance.SCENES)


@pytest.mark.parametrize('form', [('--text=a star', 'a ring'), ('--text=a star', '--text=a ring')])
def test_the_command_compares_texts(said, load, folder, form):
  found = json.loads(said('pretrain', *form, '--json').out)['texts']
  expected = load('pretrain').match(folder / '1.png', ['a star', 'a ring'])[0]
  assert [row['text'] for row in found] == ['a star', 'a ring']
  np.testing.assert_allclose([row['probability'] for row in found], expected, atol=1e-6)


def test_a_row_that_rests_on_unknown_words_is_marked(said):
  captured = said('pretrain', '--text=a red star', 'a Zebra', 'a yak')
  _, known, unknown, other, legend, *_ = captured.out.splitlines()
  assert re.fullmatch(r'0\.\d{3}  a red star', known)
  assert re.fullmatch(r'0\.\d{3}\* a Zebra', unknown)
  assert re.fullmatch(r'0\.\d{3}\* a yak', other)
  assert legend.startswith('* rests on words that are not in the model')
  assert legend.endswith(": 'Zebra', 'yak'")
  assert captured.err == ''  # It is said once.
  # All answers rest on the question.
  captured = said('vqa', '--question=what zebra is it')
  rows = [line for line in captured.out.splitlines() if line.startswith('0.')]
  assert len(rows) == 5
  assert all(row[5] == '*' for row in rows)
  assert captured.out.count("mean nothing to it: 'zebra'\n") == 1
  found = json.loads(said('pretrain', '--text=a red star', 'a zebra', '--json').out)
  assert [row['unknown_words'] for row in found['texts']] == [[], ['zebra']]


def test_what_is_unlikely_is_said(said, load, folder):
  captured = said('pretrain', '--fill=a [MASK] star')
  best = load('pretrain').fill(folder / '1.png', 'a [MASK] star')[0][0][1]
  assert best < 0.5
  line = 'No word reaches 0.5: to this model none is likely.'
  assert line in captured.out.splitlines()
  found = json.loads(said('pretrain', '--fill=a [MASK] star', '--json').out)
  assert line in found['remarks']
  assert json.loads(said('pretrain', '--text=a red star', '--json').out)['remarks'] == []


def test_the_api_says_which_words_are_not_known(load):
  assert load('vqa').unknown_words('is a zebra or a zebra') == ['zebra']
  assert load('vqa').unknown_words('is a star here') == []


def test_the_command_fills_and_draws(said, tmp_path):
  path = tmp_path / 'heat.png'
  captured = said('pretrain', '--fill=a [MASK] b c d e f g h i j k', f'--heatmap={path}')
  assert captured.err == (
    "note: 'a [MASK] b c d e f g h i j k' is cut to 12 tokens, as in training: 'j k' is not read\n"
  )
  assert f'{path} shows' in captured.out
  # The title, five words, that none is likely, the heat map, and what it was trained on.
  assert len(captured.out.splitlines()) == 9
  with Image.open(path) as picture:
    assert picture.format == 'PNG'
  asked, pictures = ('vqa', '--question=what is it', '--json', f'--heatmap={path}'), []
  for flags in ((), ('--heatmap_method=attention',), ('--heatmap-method=gradient',)):
    assert json.loads(said(*asked, *flags).out)['heatmap'] == str(path)
    pictures.append(path.read_bytes())
  assert pictures[0] == pictures[1] != pictures[2]


def test_every_mistake_is_one_line(said, folder, tmp_path):
  (folder / 'text.png').write_text('no image')
  Image.new('1', (20_000, 5_000)).save(folder / 'huge.png')
  Image.new('1', (20_000, 600)).save(folder / 'panorama.png')
  mistakes = [
    (('vqa', '--question=x'), 'text.png', ['text.png: 8 bytes that are not a whole image']),
    (('vqa', '--question=x'), 'gone.png', ['gone.png: No such file']),
    (('vqa', '--question=x'), 'huge.png', ['huge.png', '89 million pixels', 'reduce']),
    (('vqa', '--question=x'), 'panorama.png', ['panorama.png: 600x20000', 'cut it into parts']),
    (('vqa', '--question='), '1.png', ['--question is empty']),
    (('vqa', '--question= '), '1.png', ["' ' is empty"]),
    (('vqa', '--text=x'), '1.png', ['vqa and cannot match (--text): it can answer (--question)']),
    (('pretrain', '--question=x'), '1.png', ['cannot answer', 'match (--text), fill (--fill)']),
    (('pretrain', '--fill=a star'), '1.png', ['no [MASK]']),
    (('nowhere', '--question=x'), '1.png', ['nowhere', 'checkpoint']),
    (('pretrain@7', '--text=x'), '1.png', ['no step 7']),
    (('vqa',), '1.png', ['give one of --question, --text, --fill']),
    (('vqa', '--question=x', '--fill=y'), '1.png', ['give one of']),
    (('vqa', 'x'), '1.png', ["'x' belongs to no flag"]),
    (('vqa', '--questoin=x'), '1.png', ['--questoin']),
    (('pretrain', '--text=a', '--text=b', '--heatmap=x.png'), '1.png', ['draws one text']),
    (('vqa', '--question=x', '--heatmap_method=rollout'), '1.png', ['--heatmap writes: give both']),
    (
      ('vqa', '--question=x', f'--heatmap={tmp_path}/x.png', '--heatmap_method=best'),
      '1.png',
      ["'best'", 'attention', 'rollout', 'gradient'],
    ),
    (('vqa', '--question=x', '--question=y'), '1.png', ['--question is given 2 times']),
    (('vqa', '--question=x', '--image=y'), '1.png', ['--image is given 2 times']),
    (('vqa', '--question=x', f'--heatmap={tmp_path}/x.doc'), '1.png', ['x.doc', '.png']),
    (('vqa', '--question=x', f'--heatmap={tmp_path}/no/x.png'), '1.png', ['/no does not exist']),
  ]
  for (task, *arguments), image, words in mistakes:
    captured = said(task, *arguments, image=image, code=1)
    assert captured.err.startswith('error: ')
    assert captured.err.count('\n') == 1, captured.err
    assert captured.out == ''
    for word in words:
      assert word in captured.err
  assert not list(tmp_path.iterdir())


def test_the_flags_are_listed(capsys):
  with pytest.raises(SystemExit) as ended:
    main(['--help'])
  assert ended.value.code == 0
  out = capsys.readouterr().out
  for flag in itertools.chain(FLAGS.values(), ('--checkpoint', '--image', '--heatmap')):
    assert flag in out
  assert '0.9 of its number' in out


def test_the_page_runs_as_it_stands(folder, tmp_path, monkeypatch, capsys):
  page = (ROOT / 'docs/predict.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  commands = re.findall(r'^    python -m pixelbert_jax.predict (.*)$', page, re.MULTILINE)
  assert len(commands) == 3
  for name in ('photo', 'a', 'b'):
    Image.fromarray(photo(40, 60)).save(tmp_path / f'{name}.jpg')
  monkeypatch.chdir(tmp_path)
  for task, command in zip(('vqa', 'pretrain', 'pretrain'), commands, strict=True):
    (tmp_path / 'C').unlink(missing_ok=True)
    (tmp_path / 'C').symlink_to(folder / task)
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out.endswith('means nothing.\n')
  (tmp_path / 'runs').mkdir()
  for task in ('vqa', 'pretrain'):
    (tmp_path / f'runs/{task}-s0').symlink_to(folder / task)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    exec(code, {})
  assert (tmp_path / 'heat.png').exists()


# --- Arguments out of range -----------------------------------------------------------------

NUMBERS = (0, -1, 1.5, float('nan'), float('inf'), '2', None, True, [2], 10**30)
ARGUMENTS = {
  'k of answer': ('vqa', lambda m, x: m.answer(photo(64, 64), 'is a star here', k=x), NUMBERS[:9]),
  'k of fill': ('pretrain', lambda m, x: m.fill(photo(64, 64), 'a [MASK]', k=x), NUMBERS[:9]),
  'method': (
    'pretrain',
    lambda m, x: m.heatmap(photo(64, 64), 'a', method=x),
    ('no', 1, None, True, ['attention'], np.ones(2)),
  ),
  'pairs': ('pretrain', lambda m, x: m.match(photo(64, 64), 'a', pairs=x), ('no', 0)),
  'logits': ('pretrain', lambda m, x: m.match(photo(64, 64), 'a', logits=x), ('no', 0)),
  'a text': ('pretrain', lambda m, x: m.match(photo(64, 64), x), (None, 5, [None], b'a', [['a']])),
  'images': ('pretrain', lambda m, x: m.match(x, 'a'), (5, None)),
  'pixel_features': (
    'pretrain',
    lambda m, x: m.pixel_features(x),
    (*(np.full((1, 64, 64, 3), x, np.float32) for x in (np.nan, np.inf)), np.zeros((0, 64, 64, 3))),
  ),
}


@pytest.mark.parametrize('name', ARGUMENTS)
def test_an_argument_out_of_range_is_one_line_that_names_it(name, load):
  task, call, values = ARGUMENTS[name]
  for value in values:
    with pytest.raises(UserError, match=name.partition(' of ')[0]) as raised:
      call(load(task), value)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('size', NUMBERS[:9])
def test_a_batch_size_that_is_none(size, folder):
  with pytest.raises(UserError, match=r'batch_size=.*: give a whole number of at least 1'):
    predict.load(folder / 'vqa', batch_size=size)


def test_arguments_within_range(load):
  model, image = load('pretrain'), photo(64, 64)
  assert len(model.fill(image, 'a [MASK]', k=np.int64(3))[0]) == 3
  assert len(load('vqa').answer(image, 'is a star here', k=10**30)[0]) == len(load('vqa').answers)
