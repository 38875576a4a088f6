"""Heat maps: the attention and gradients they show, where on the image, and the picture."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pixelbert_jax import UserError
from pixelbert_jax.models.backend import backend
from pixelbert_jax.models.bert import Attention, Encoder
from pixelbert_jax.models.resnet import ResNet
from pixelbert_jax.predict import heatmap
from pixelbert_jax.predict.heatmap import Heatmap

pytestmark = pytest.mark.usefixtures('quick_compiles')


ENCODER = {'layers': 3, 'heads': 2, 'mlp_width': 16, 'dropout': 0.0, 'init_std': 0.5}


def encoded(mutable=(), **options):
  """An encoder's parameters, and what it gives for two sequences with padding."""
  encoder = Encoder(**ENCODER, dtype=jnp.float32, **options)
  x = jax.random.normal(jax.random.key(0), (2, 5, 8))
  mask = jnp.arange(5) < jnp.array([[5], [3]])
  variables = jax.jit(encoder.init, static_argnums=3)(jax.random.key(1), x, mask, True)
  out = jax.jit(lambda v: encoder.apply(v, x, mask, True, mutable=list(mutable)))(variables)
  return x, mask, variables, out


# --- Attention -----------------------------------------------------------------------------


@pytest.mark.parametrize('options', [{'backend': backend('cpu')}, {'remat': True}], ids=str)
def test_the_weights_that_are_kept_are_those_of_each_layer(options):
  x, mask, variables, (out, kept) = encoded(['attention'], **options)
  (weights,) = jax.tree.leaves(kept)
  assert weights.shape == (3, 2, 2, 5, 5)
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
  assert not weights[:, 1, :, :, 3:].any()
  # The first layer's, by hand.
  layer = jax.tree.map(lambda x: x[0], variables['params']['layer']['attention'])
  q, k, _ = np.split(x @ layer['qkv']['kernel'] + layer['qkv']['bias'], 3, axis=-1)
  q, k = (y.reshape(2, 5, 2, 4) for y in (q, k))
  scores = np.einsum('nqhd,nkhd->nhqk', q, k) / 2
  scores = np.where(mask[:, None, None], scores, -np.inf)
  np.testing.assert_allclose(weights[0], jax.nn.softmax(scores), atol=1e-5)
  np.testing.assert_array_equal(out, encoded(**options)[-1][0])


def test_nothing_is_kept_or_computed_unless_asked_for(monkeypatch):
  encoder = Encoder(**ENCODER | {'dropout': 0.1}, dtype=jnp.float32, backend=backend('cpu'))
  x, mask, variables, _ = encoded()
  assert variables.keys() == {'params'}

  def gradient(params):
    rngs = {'dropout': jax.random.key(2)}
    run = lambda p: encoder.apply({'params': p}, x, mask, False, rngs=rngs).sum()  # noqa: E731
    return jax.grad(run)(params)

  def program():
    jax.clear_caches()
    return jax.jit(gradient).lower(variables['params']).as_text()

  with_weights = program()
  monkeypatch.setattr(Attention, 'sow', lambda *_: None)
  monkeypatch.setattr(Attention, 'perturb', lambda self, name, value, collection: value)
  assert program() == with_weights


def literal_encoder(params, x, mask, change):
  """The encoder in NumPy and float64, with `change` [L, N, H, S, S] added to attention weights."""
  erf = np.vectorize(math.erf)

  def norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return (
      x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * p['norm']['scale'] + p['norm']['bias']
    )

  for i, added in enumerate(change):
    p = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], np.float64), params['layer'])
    linear = lambda x, p: x @ p['kernel'] + p['bias']  # noqa: E731
    parts = np.split(linear(x, p['attention']['qkv']), 3, axis=-1)
    q, k, v = (part.reshape(*x.shape[:2], 2, 4) for part in parts)
    weights = np.exp(np.einsum('nqhd,nkhd->nhqk', q, k) / 2) * mask[:, None, None]
    weights = weights / weights.sum(-1, keepdims=True) + added
    y = np.einsum('nhqk,nkhd->nqhd', weights, v).reshape(x.shape)
    x = norm(x + linear(y, p['attention']['output']), p['attention_norm'])
    y = linear(x, p['mlp_in'])
    x = norm(x + linear(0.5 * y * (1 + erf(y / 2**0.5)), p['mlp_out']), p['mlp_norm'])
  return x


@pytest.mark.parametrize('options', [{'backend': backend('cpu')}, {'remat': True}], ids=str)
def test_the_gradient_of_the_weights_is_that_of_a_literal_encoder(options):
  x, mask, variables, (out, kept) = encoded(['attention_change'], **options)
  encoder = Encoder(**ENCODER, dtype=jnp.float32, **options)
  direction = np.random.default_rng(0).normal(size=8)

  @jax.jit
  def gradient(change):
    read = lambda c: encoder.apply(variables | c, x, mask, True)[:, 0] @ direction  # noqa: E731
    return jax.grad(lambda c: read(c).sum())(change)

  (found,) = jax.tree.leaves(gradient(kept))
  x, mask = np.asarray(x, np.float64), np.asarray(mask)
  zero = np.zeros(found.shape)
  np.testing.assert_allclose(literal_encoder(variables['params'], x, mask, zero), out, atol=1e-5)

  def score(change):
    return (literal_encoder(variables['params'], x, mask, change)[:, 0] @ direction).sum()

  step = 1e-5
  for place in np.random.default_rng(1).integers(0, found.shape, (40, 5)):
    change = zero.copy()
    change[tuple(place)] = step
    slope = (score(change) - score(-change)) / (2 * step)
    assert found[tuple(place)] == pytest.approx(slope, rel=1e-3, abs=1e-5)
  assert abs(found[0]).max() > 0.01  # through all that follows


def test_rollout_by_hand():
  weights = np.random.default_rng(0).dirichlet(np.ones(4), (3, 2, 4)).astype(np.float32)
  own = [0.5 * w.mean(0) + 0.5 * np.eye(4) for w in weights]
  found = heatmap.rollout(weights)
  np.testing.assert_allclose(found, own[2] @ own[1] @ own[0], rtol=1e-5)
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_relevance_by_hand():
  """Sums, over all ways down from a position to one of the input, the products of their steps."""
  rng = np.random.default_rng(0)
  weights = rng.dirichlet(np.ones(3), (2, 2, 3))
  gradients = rng.normal(size=weights.shape)
  found = heatmap.relevance(weights, gradients)

  def steps(layer, to, source):
    return (
      sum(abs(weights[layer, h, to, source] * gradients[layer, h, to, source]) for h in (0, 1)) / 2
    )

  for to in range(3):
    for source in range(3):
      whole = float(to == source) + steps(0, to, source) + steps(1, to, source)
      whole += sum(steps(1, to, between) * steps(0, between, source) for between in range(3))
      assert found[to, source] == pytest.approx(whole)


def test_words_get_the_mean_of_their_tokens_relative_to_an_even_share():
  attention = np.zeros((9, 9), np.float32)
  attention[1, 3:] = [1, 1, 9, 4, 2, 9]  # two tokens and [CLS], then cells of 2x3
  attention[2, 3:] = [3, 1, 9, 0, 0, 9]
  mask = np.array([[True, True, False]] * 2)
  found = heatmap.of_words(attention, [[1], [1, 2]], mask)
  np.testing.assert_allclose(found[0], np.array([[1, 1], [4, 2]]) / 2)
  np.testing.assert_allclose(found[1], np.array([[2, 1], [2, 1]]) / 1.5)


# --- Geometry ------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('stem', 'total'), [('7x7', 16), ('7x7', 8), ('space_to_depth', 16)], ids=str
)
def test_a_cell_lies_in_the_middle_of_what_it_sees(stem, total):
  cnn = ResNet((1, 1), total_stride=total, width=2, stem=stem)
  side = 7 * total
  size = jnp.full((1, 2), side)
  image = jax.random.normal(jax.random.key(0), (1, side, side, 3))
  variables = jax.jit(cnn.init, static_argnums=3)(jax.random.key(1), image, size, False)

  @jax.jit
  def seen(image, row, column):
    cell = lambda x: cnn.apply(variables, x, size, False)[0][0, row, column].sum()  # noqa: E731
    return abs(jax.grad(cell)(image)[0]).sum(-1)

  # Over several images: where a pool looks depends on them.
  images = (jax.random.normal(jax.random.key(i), image.shape) for i in range(12))
  field = sum(seen(image, 3, 4) for image in images)
  for axis, cell in ((1, 3), (0, 4)):
    reached = np.flatnonzero(field.sum(axis))
    middle = (reached[0] + reached[-1] + 1) / 2
    assert middle == pytest.approx(cnn.first_centre + cell * total, abs=2)
    places = heatmap.cell_places(side, side, total, cnn.first_centre)
    assert places[round(middle)] == pytest.approx(cell, abs=3 / total)


def test_pixels_lie_among_cells_as_the_resized_image_does():
  # 200 pixels are seen as 100; cells of 10, the first in the middle of pixels 0 to 9.
  found = heatmap.cell_places(200, 100, 10, 5.0)
  assert found[9] == pytest.approx(-0.025)
  assert found[10] == pytest.approx(0.025)
  assert found[30] == pytest.approx(1.025)


def of_one_hot(cell=(1, 2), grid=(3, 4), size=(30, 80), tokens=('red', 'circle')):
  cells = np.zeros((len(tokens), *grid), np.float32)
  cells[0][cell] = cells[1][cell[0], 0] = 1
  image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  rows = heatmap.cell_places(size[0], 48, 16, 8.0)
  columns = heatmap.cell_places(size[1], 64, 16, 8.0)
  return Heatmap(tokens, cells, image, rows, columns, 'of shapes only')


def test_values_are_highest_in_the_middle_of_the_highest_cell():
  found = of_one_hot()
  assert found.values.shape == (2, 30, 80)
  assert found.values.dtype == np.float32
  y, x = np.unravel_index(found.values[0].argmax(), (30, 80))
  assert (y, x) in {(14, 49), (14, 50), (15, 49), (15, 50)}
  assert found.values[0].max() == pytest.approx(1, abs=0.02)
  assert not found.values[0, :4].any()
  assert not found.values[0, :, :29].any()
  # Beyond the outermost middles it stays as it is.
  np.testing.assert_array_equal(found.values[1, :, 0], found.values[1, :, 5])


def test_between_cells_the_weights_add_up():
  weights = heatmap.between(np.linspace(-1, 5, 61), 4)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
  assert (weights >= 0).all()
  np.testing.assert_array_equal(weights[20], [0, 1, 0, 0])
  np.testing.assert_allclose(weights[25], [0, 0.5, 0.5, 0])


# --- The picture ---------------------------------------------------------------------------


def test_the_picture_has_the_image_and_a_panel_a_word():
  found = of_one_hot()
  found = dataclasses.replace(found, cells=12 * found.cells)  # the mean of a word is 1
  page = np.asarray(found.picture()).astype(int)
  image = Image.fromarray(found.image).resize((224, 84), Image.Resampling.BICUBIC)
  gap, line = heatmap.GAP, heatmap.LINE
  first = page[gap + line :, gap:][:84, :224]
  np.testing.assert_array_equal(first, np.asarray(image))
  second = page[gap + line :, gap + 224 + gap :][:84, :224]
  # Yellow where the word looks, blue elsewhere: brighter, and red above blue.
  warmth = second[..., 0] - second[..., 2]
  there = second[38:46, 136:144], warmth[38:46, 136:144]
  assert there[0].sum(-1).mean() > second[:, :60].sum(-1).mean() + 100
  assert there[1].mean() > 60
  assert warmth[:, :60].mean() < 0


def test_attention_that_is_nearly_even_looks_even():
  found = of_one_hot()
  found = dataclasses.replace(found, cells=1 + 0.5 * found.cells)
  page = np.asarray(found.picture()).astype(int)
  panel = page[heatmap.GAP + heatmap.LINE :, 2 * heatmap.GAP + 224 :][:84, :224]
  warmth = panel[..., 0] - panel[..., 2]
  assert warmth.max() < 10


def test_a_score_has_the_first_panel():
  plain = of_one_hot()
  scored = dataclasses.replace(plain, score='answer "red"', score_cells=plain.cells[0])
  np.testing.assert_array_equal(scored.score_values, plain.values[0])
  assert plain.score_values is None
  page, before = (np.asarray(found.picture()) for found in (scored, plain))
  side, top = heatmap.GAP + 224, heatmap.GAP + heatmap.LINE
  panel = np.s_[top : top + 84, side + heatmap.GAP : 2 * side]
  np.testing.assert_array_equal(page[panel], before[panel])  # that of the first word in `plain`
  title = np.s_[heatmap.GAP : top, side + heatmap.GAP : 2 * side]
  assert (page[title] != before[title]).any()


def test_a_title_stands_above_all():
  plain = np.asarray(of_one_hot().picture())
  titled = np.asarray(dataclasses.replace(of_one_hot(), title='what is it:  red 0.9').picture())
  shift = heatmap.LINE + heatmap.GAP
  assert titled.shape[0] == plain.shape[0] + shift
  assert (titled[: heatmap.GAP + shift] < 100).any()
  np.testing.assert_array_equal(titled[heatmap.GAP + shift :], plain[heatmap.GAP :])


def test_the_colours_differ_in_brightness_alone_for_those_who_see_fewer():
  ramp = heatmap.colour(np.linspace(0, 1, 50))
  luminance = ramp @ [0.2126, 0.7152, 0.0722]
  assert (np.diff(luminance) > 0).all()
  # Red and green never part: what cannot be told apart is not told by them.
  assert abs(ramp[:, 0] - ramp[:, 1]).max() < 45


@pytest.mark.parametrize('name', ['heat.png', 'heat.jpg', 'HEAT.PNG'])
def test_it_is_saved_whole(name, tmp_path):
  of_one_hot().save(tmp_path / name)
  with Image.open(tmp_path / name) as picture:
    assert picture.size == of_one_hot().picture().size
  assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('name', ['heat.txt', 'heat', 'nowhere/heat.png'])
def test_where_it_cannot_be_saved(name, tmp_path):
  with pytest.raises(UserError, match=name):
    of_one_hot().save(tmp_path / name)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [(4, 400), (400, 4), (1, 1), (3000, 2000)])
@pytest.mark.parametrize('words', [1, 9, 38])
def test_any_shape_and_number_fits_on_a_page(size, words):
  tokens = [f'{"extraordinarily-" * (i % 3)}word' for i in range(words)]
  cells = np.ones((words, 2, 2), np.float32)
  rows, columns = (heatmap.cell_places(n, 32, 16, 8.0) for n in size)
  found = Heatmap(tokens, cells, np.zeros((*size, 3), np.uint8), rows, columns, 'note ' * 100)
  width, height = found.picture().size
  assert width < 8000
  assert height < 8000


def test_long_titles_are_shortened():
  font = heatmap.ImageFont.load_default(15)
  assert heatmap.shortened('cat', 100, font) == 'cat'
  short = heatmap.shortened('extraordinarily', 60, font)
  assert short.endswith('…')
  assert short[:-1] == 'extraordinarily'[: len(short) - 1]
  assert font.getlength(short) <= 60
  assert heatmap.shortened('cat', 0, font) == ''
