"""The backbone: drawing pixels, masks, and what each token may depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pixelbert_jax.models.bert import Encoder, TextEmbedding
from pixelbert_jax.models.heads import PretrainingModel
from pixelbert_jax.models.pixelbert import PixelBert, sample_pixels
from pixelbert_jax.models.resnet import ResNet, pixel_mask

VOCAB, WIDTH, T = 23, 16, 6


pytestmark = pytest.mark.usefixtures('quick_compiles')


# --- Drawing pixels ----------------------------------------------------------------------


def draw(mask, count, seed=0, texts=1):
  index, real = sample_pixels(jax.random.key(seed), np.asarray(mask), texts, count)
  return np.asarray(index), np.asarray(real)


def test_drawn_pixels_are_real_and_no_pixel_comes_twice():
  rng = np.random.default_rng(0)
  mask = rng.random((50, 30)) < 0.6
  index, real = draw(mask, 10, texts=3)
  assert index.shape == real.shape == (50, 3, 10)
  assert real.all()
  for b, k in np.ndindex(50, 3):
    assert mask[b, index[b, k]].all()
    assert len(set(index[b, k])) == 10


def test_pixels_are_drawn_uniformly():
  mask = np.arange(20) % 5 != 3
  n, count, pixels = 20_000, 6, np.flatnonzero(mask)
  index, _ = draw(np.tile(mask, (n, 1)), count)
  drawn = np.zeros((n, 20))
  np.put_along_axis(drawn, index[:, 0], 1, axis=1)
  # How often each pixel is drawn, and each pair of pixels together. A pixel's count has variance
  # n p (1 - p), and the counts add up to n * count: chi-square over one degree less.
  p = count / len(pixels)
  frequency = drawn[:, pixels].sum(0)
  chi2 = ((frequency - n * p) ** 2 / (n * p * (1 - p))).sum() * (len(pixels) - 1) / len(pixels)
  assert 2 < chi2 < 40  # 15 degrees: one in a thousand beyond 37.7, one in 5,000 below 3
  together = (drawn.T @ drawn)[np.ix_(pixels, pixels)][np.triu_indices(len(pixels), 1)]
  q = p * (count - 1) / (len(pixels) - 1)
  assert np.abs(together - n * q).max() < 5 * np.sqrt(n * q * (1 - q))
  # And at every place of a draw.
  for place in index[:, 0].T:
    observed = np.bincount(place, minlength=20)[pixels]
    assert 2 < ((observed - n / 16) ** 2 / (n / 16)).sum() < 40


def test_where_pixels_are_few_all_are_taken():
  mask = np.arange(9) < np.array([[4], [0], [9]])
  index, real = draw(mask, 5, texts=2)
  np.testing.assert_array_equal(real.sum(-1), [[4, 4], [0, 0], [5, 5]])
  for k in range(2):
    assert set(index[0, k][real[0, k]]) == {0, 1, 2, 3}
  index, real = draw(mask, 100, texts=2)
  assert index.shape == (3, 2, 9)
  for b, k in np.ndindex(3, 2):
    assert sorted(index[b, k][real[b, k]]) == list(np.flatnonzero(mask[b]))


def test_every_pair_and_every_key_has_a_draw_of_its_own():
  mask = np.ones((6, 50), bool)
  first, second = draw(mask, 10, texts=4)[0], draw(mask, 10, texts=4, seed=1)[0]
  sets = {frozenset(pixels) for index in (first, second) for pixels in index.reshape(-1, 10)}
  assert len(sets) == 2 * 6 * 4
  np.testing.assert_array_equal(first, draw(mask, 10, texts=4)[0])


# --- The whole ---------------------------------------------------------------------------


class Cells(nn.Module):
  """A CNN of stride 1 that sees one cell at a time: the image itself, zero in the padding."""

  def __call__(self, image, size, train):
    mask = pixel_mask(size, *image.shape[1:3])
    return jnp.where(mask, image, 0), mask[..., 0]


def pixel_bert(cnn, sampled_pixels=0, text_dropout=0.0, encoder_dropout=0.0):
  text = TextEmbedding(
    vocab_size=VOCAB,
    width=WIDTH,
    max_positions=T,
    dropout=text_dropout,
    init_std=0.3,
    dtype=jnp.float32,
  )
  encoder = Encoder(
    layers=1,
    heads=2,
    mlp_width=20,
    dropout=encoder_dropout,
    init_std=0.3,
    dtype=jnp.float32,
  )
  return PixelBert(cnn, text, encoder, sampled_pixels)


def texts(b, k, seed=0):
  """Token ids and mask of texts that differ in length."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(1, VOCAB, (b, k, T)).astype(np.int32)
  mask = np.arange(T) < rng.integers(2, T + 1, (b, k, 1))
  return np.where(mask, ids, 0), mask


def cells(b, side=3, seed=0):
  return np.random.default_rng(seed).normal(size=(b, side, side, 3)).astype(np.float32)


SIZES = np.array([[3, 3], [2, 3]])


def random_variables(model, *arguments):
  """Parameters and statistics at random, large enough for attention to tell pixels apart."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))

  def draw(path, x):
    if path[-1].key in ('var', 'scale'):
      return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    std = 1.5 / np.sqrt(max(x.shape[:-1], default=1))
    return rng.normal(0, std, x.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def with_cells(train=False, **options):
  """PixelBert over cells with random variables, as a function of its inputs and a seed."""
  model = pixel_bert(Cells(), **options)
  arguments = (jnp.zeros((1, 3, 3, 3)), SIZES[:1], *texts(1, 1))
  variables = random_variables(model, *arguments, False)

  @jax.jit
  def run(image, size, ids, mask, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    rngs = dict(zip(('dropout', 'pixels'), keys, strict=True)) if train else None
    return model.apply(variables, image, size, ids, mask, train, rngs=rngs)

  return run


def test_pixels_have_no_position_and_words_have():
  order = np.random.default_rng(0).permutation(9)
  image, (ids, mask), sizes = cells(2), texts(2, 2), np.full((2, 2), 3)
  shuffled = image.reshape(2, 9, 3)[:, order].reshape(image.shape)
  tokens, pixels = with_cells()(image, sizes, ids, mask)
  moved_tokens, moved_pixels = with_cells()(shuffled, sizes, ids, mask)
  np.testing.assert_allclose(moved_tokens, tokens, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(moved_pixels, pixels[:, :, order], rtol=1e-5, atol=1e-5)
  swapped = ids[..., [1, 0, *range(2, T)]]
  assert np.abs(with_cells()(image, sizes, swapped, mask)[1] - pixels).max() > 1e-2


def test_evaluation_sees_every_real_pixel_and_no_other():
  image, (ids, mask) = cells(2), texts(2, 2)
  run = with_cells(sampled_pixels=2)
  expected, pixels = run(image, SIZES, ids, mask)
  assert pixels.shape == (2, 2, 9, WIDTH)
  for b, y, x in np.ndindex(2, 3, 3):
    changed = image.copy()
    changed[b, y, x] += 1
    found, _ = run(changed, SIZES, ids, mask)
    moved = np.abs(found - expected)[:, :, 0].max(-1)  # [CLS]
    assert (moved[1 - b] == 0).all()
    real = y < SIZES[b, 0] and x < SIZES[b, 1]
    assert (moved[b] > 1e-4).all() if real else (moved[b] == 0).all()


def test_training_sees_as_many_pixels_as_are_drawn():
  image, (ids, mask) = cells(2), texts(2, 2)
  run = with_cells(train=True, sampled_pixels=4)
  expected, pixels = run(image, SIZES, ids, mask)
  assert pixels.shape == (2, 2, 4, WIDTH)
  seen = np.zeros((2, 2))
  for y, x in np.ndindex(3, 3):
    changed = image.copy()
    changed[:, y, x] += 1
    seen += np.abs(run(changed, SIZES, ids, mask)[0] - expected)[:, :, 0].max(-1) > 1e-6
  np.testing.assert_array_equal(seen, 4)
  again, _ = run(image, SIZES, ids, mask)
  np.testing.assert_array_equal(again, expected)
  other, _ = run(image, SIZES, ids, mask, 1)
  assert (np.abs(other - expected)[:, :, 0].max(-1) > 1e-4).any()
  # Where all are drawn, the order does not matter: training is evaluation.
  whole, _ = with_cells(train=True, sampled_pixels=9)(image, SIZES, ids, mask)
  evaluated, _ = with_cells()(image, SIZES, ids, mask)
  np.testing.assert_allclose(whole, evaluated, rtol=1e-5, atol=1e-5)


def test_dropout_is_on_in_training_alone():
  arguments = cells(2), SIZES, *texts(2, 2)
  expected, _ = with_cells()(*arguments)
  evaluate = with_cells(text_dropout=0.5, encoder_dropout=0.5)
  np.testing.assert_array_equal(evaluate(*arguments)[0], expected)
  for part in ('text_dropout', 'encoder_dropout'):
    run = with_cells(train=True, **{part: 0.5})
    assert np.abs(run(*arguments)[0] - expected).max() > 0.1
    assert np.abs(run(*arguments, 1)[0] - run(*arguments)[0]).max() > 0.1


def test_texts_of_an_image_and_padding_do_not_see_each_other():
  image, (ids, mask) = cells(2), texts(2, 2)
  assert not mask.all()
  tokens, _ = with_cells()(image, SIZES, ids, mask)
  garbage, _ = with_cells()(image, SIZES, np.where(mask, ids, 7), mask)
  np.testing.assert_array_equal(np.asarray(garbage)[mask], np.asarray(tokens)[mask])
  ids[:, 0], mask[:, 0] = texts(2, 1, seed=1)[0][:, 0], True
  others, _ = with_cells()(image, SIZES, ids, mask)
  np.testing.assert_array_equal(others[:, 1], tokens[:, 1])
  assert np.abs(others - tokens)[:, 0, 0].max(-1).min() > 1e-3


# --- With the CNN and the heads ----------------------------------------------------------

CNNS = {
  'patches': {'stages': (1, 1), 'total_stride': 16, 'stem': 'space_to_depth'},
  '7x7': {'stages': (1, 2), 'total_stride': 16, 'groups': 2, 'group_width': 4},
}


@functools.cache
def pretraining_model(name):
  """A whole model with random variables and BatchNorm statistics, evaluated."""
  model = PretrainingModel(pixel_bert(ResNet(width=8, **CNNS[name])))
  arguments = (jnp.zeros((1, 32, 32, 3)), SIZES[:1], *texts(1, 1), np.zeros((1, 1, 2), np.int32))
  variables = random_variables(model, *arguments, False)
  return jax.jit(lambda *inputs: model.apply(variables, *inputs, False))


@pytest.mark.parametrize('name', [pytest.param('patches', marks=pytest.mark.slow), '7x7'])
def test_canvas_and_company_change_no_logit(name):
  run = pretraining_model(name)
  sizes = np.array([[40, 21], [17, 64], [48, 48]])
  ids, mask = texts(3, 2)
  position = np.random.default_rng(1).integers(0, 2, (3, 2, 2))

  def on(canvas, rows):
    image = np.random.default_rng(len(rows)).normal(0, 50, (len(rows), *canvas, 3))
    for to, b in zip(image, rows, strict=True):
      h, w = sizes[b]
      to[:h, :w] = np.random.default_rng(b).normal(size=(h, w, 3))
    logits = run(image.astype(np.float32), sizes[rows], ids[rows], mask[rows], position[rows])
    assert set(logits) == {'mlm_logits', 'itm_logits'}
    return logits

  together = on((64, 96), [0, 1, 2])
  for found, rows in [(on((48, 64), [2, 0, 1]), [2, 0, 1]), (on((40, 21), [0]), [0])]:
    for task, logits in found.items():
      np.testing.assert_allclose(logits, together[task][np.array(rows)], rtol=1e-5, atol=1e-5)
  # The logits do depend on image and text.
  for axis in (0, 1):
    assert np.ptp(together['itm_logits'], axis=axis).max() > 0.1
