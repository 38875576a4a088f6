"""The CNN: padding changes nothing, and the numbers are those of PyTorch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from pixelbert_jax.models.backend import backend
from pixelbert_jax.models.resnet import ResNet

SIZES = ((37, 61), (64, 50), (1, 30))
PLAIN = {'stages': (2, 1, 1, 1), 'total_stride': 64}
GROUPED = {'stages': (1, 3, 1), 'total_stride': 16, 'groups': 4, 'group_width': 2}
PATCHES = {'stages': (2, 1), 'total_stride': 16, 'stem': 'space_to_depth'}
PATCHES_GROUPED = {'stages': (1, 1, 2), 'total_stride': 32, 'stem': 'space_to_depth'}
PATCHES_GROUPED |= {'groups': 2, 'group_width': 4}


pytestmark = pytest.mark.usefixtures('quick_compiles')


def random_variables(model, seed=0):
  """Parameters and statistics drawn at random, so that a padded zero does not stay zero."""
  sizes = jnp.array([[64, 64]])
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), sizes, False)
  )
  rng = np.random.default_rng(seed)

  def draw(path, x):
    name = path[-1].key
    if name == 'kernel':
      return rng.normal(0, np.sqrt(2 / math.prod(x.shape[-4:-1])), x.shape).astype(np.float32)
    low, high = {'scale': (0.5, 1.5), 'var': (0.5, 2.0)}.get(name, (-0.5, 0.5))
    return rng.uniform(low, high, x.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def prepared(train=False, **options):
  """A small ResNet with random variables, and it as a function of (image, size)."""
  model = ResNet(width=8, **options)
  variables = random_variables(model)
  run = jax.jit(lambda image, size: model.apply(variables, image, size, train, mutable=True))
  return model, variables, run


def image(number, size):
  return np.random.default_rng([7, number]).normal(size=(*size, 3)).astype(np.float32)


def on_canvas(images, canvas, seed=0):
  """Images in the top left corners of canvases full of garbage, and their sizes."""
  rng = np.random.default_rng(seed)
  canvases = rng.normal(0, 100, (len(images), *canvas, 3)).astype(np.float32)
  canvases[rng.random(canvases.shape) < 0.1] = np.nan
  for to, x in zip(canvases, images, strict=True):
    to[: x.shape[0], : x.shape[1]] = x
  return canvases, np.array([x.shape[:2] for x in images])


def real(features, mask):
  """The features of real pixels of each image [h, w, C]; the rest must be zero."""
  features, mask = np.asarray(features), np.asarray(mask)
  assert not features[~mask].any()
  found = []
  for x, m in zip(features, mask, strict=True):
    h, w = m.any(1).sum(), m.any(0).sum()
    assert m[:h, :w].all()
    assert m.sum() == h * w
    found.append(x[:h, :w])
  return found


def rounded_up(size, stride):
  return tuple(-(-side // stride) * stride for side in size)


def slow(options, name):
  return pytest.param(options, marks=pytest.mark.slow, id=name)


@pytest.mark.parametrize(
  'options',
  [
    pytest.param(PLAIN, id='plain'),
    slow(GROUPED, 'grouped'),
    slow(PATCHES, 'patches'),
    pytest.param(PATCHES_GROUPED, id='both'),
  ],
)
def test_padding_and_company_change_no_feature(options):
  # Frozen statistics in training are the same as those of evaluation.
  _, _, evaluate = prepared(**options)
  _, variables, train = prepared(train=True, frozen=True, **options)
  images = [image(i, size) for i, size in enumerate(SIZES)]
  together, changed = train(*on_canvas(images, (128, 192)))
  for old, new in zip(
    jax.tree.leaves(variables['batch_stats']),
    jax.tree.leaves(changed['batch_stats']),
    strict=True,
  ):
    np.testing.assert_array_equal(old, new)
  for x, expected in zip(images, real(*together), strict=True):
    assert np.abs(expected).max() > 0.1
    canvases = [x.shape[:2]] + [rounded_up(x.shape[:2], options['total_stride'])] * (x is images[0])
    for canvas in canvases:
      alone, _ = evaluate(*on_canvas([x], canvas))
      np.testing.assert_allclose(real(*alone)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('options', [pytest.param(GROUPED, id='grouped'), slow(PATCHES, 'patches')])
def test_batch_statistics_are_those_of_real_pixels(options):
  images = [image(i, size) for i, size in enumerate(SIZES)]
  _, variables, run = prepared(train=True, **options)
  tight, tight_stats = run(*on_canvas(images, (64, 64)))
  wide, wide_stats = run(*on_canvas(images, (128, 192), seed=1))
  for a, b in zip(real(*tight), real(*wide), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  for name, old in jax.tree_util.tree_leaves_with_path(variables['batch_stats']):
    a, b = (
      functools.reduce(lambda tree, key: tree[key.key], name, stats['batch_stats'])
      for stats in (tight_stats, wide_stats)
    )
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert np.abs(a - old).max() > 1e-3


@pytest.mark.parametrize(
  ('stem', 'stages', 'total_stride'),
  [
    ('7x7', (1, 1, 1), 16),
    ('7x7', (1, 1, 1, 1), 64),
    ('space_to_depth', (1, 1), 16),
  ],
)
def test_feature_maps_are_the_size_over_the_stride_rounded_up(stem, stages, total_stride):
  model = ResNet(stages, total_stride, 8, stem=stem)
  for h, w in [(1, 1), (63, 65), (64, 97), (200, 128), (33, 64)]:
    arguments = (jnp.zeros((2, h, w, 3)), jnp.array([[h, w], [1, 1]]), False)
    (features, mask), _ = jax.eval_shape(
      lambda a=arguments: model.init_with_output(jax.random.key(0), *a)
    )
    expected = (-(-h // total_stride), -(-w // total_stride))
    assert features.shape == (2, *expected, 32 * 2 ** (len(stages) - 1))
    assert mask.shape == (2, *expected)


def test_the_stem_is_one_of_two():
  with pytest.raises(ValueError, match="stem is '3x3', expected '7x7' or 'space_to_depth'"):
    random_variables(ResNet((1, 1), 16, 8, stem='3x3'))


@pytest.mark.parametrize(
  ('total_stride', 'strides'),
  [(8, [1, 1, 1, 1]), (16, [1, 2, 1, 1]), (32, [1, 2, 2, 1]), (64, [1, 2, 2, 2])],
)
def test_less_stride_is_less_in_the_last_stages(total_stride, strides):
  assert ResNet((3, 4, 6, 3), total_stride).stage_strides() == strides


@pytest.mark.parametrize('total_stride', [4, 24, 128])
def test_the_total_stride_is_one_of_those_the_stages_can_give(total_stride):
  with pytest.raises(ValueError, match=rf'{total_stride}, .* one of \[8, 16, 32, 64\]'):
    random_variables(ResNet((1, 1, 1, 1), total_stride, 8))


def test_bfloat16_is_of_the_computation_only():
  options = {'stages': (2,), 'total_stride': 8}
  model = ResNet(width=8, dtype=jnp.bfloat16, **options)
  variables = random_variables(model)
  x = on_canvas([image(0, SIZES[0])], (64, 64))
  (features, _), changed = jax.jit(
    lambda *x: model.apply(variables, *x, True, mutable=['batch_stats'])
  )(*x)
  assert features.dtype == jnp.bfloat16
  for leaf in jax.tree.leaves((variables, changed)):
    assert leaf.dtype == jnp.float32
  expected = np.asarray(prepared(train=True, **options)[2](*x)[0][0])
  difference = np.linalg.norm(np.asarray(features, np.float32) - expected)
  assert difference < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize('options', [PLAIN, GROUPED], ids=['plain', 'grouped'])
def test_a_tpus_ways_change_nothing_but_rounding(options):
  # Sides that no stride divides, and images of one row and of a whole canvas.
  canvas, size = (67, 90), np.array([[67, 90], [1, 30], [38, 61]])
  ours = ResNet(width=8, frozen=True, dtype=jnp.float64, backend=backend('cpu'), **options)
  theirs = ours.clone(backend=backend('tpu')._replace(strips=2))  # Of 16, each would be narrow.
  x = np.random.default_rng(4).normal(size=(3, *canvas, 3))
  with jax.enable_x64(True):
    variables = jax.tree.map(lambda x: x.astype(np.float64), random_variables(ours))

  def run(model):
    @jax.jit
    def outputs_and_gradients(params):
      def loss(params):
        features, mask = model.apply(variables | {'params': params}, x, size, True)
        return (jnp.sin(jnp.arange(features.size)) * features.ravel()).sum(), (features, mask)

      return jax.grad(loss, has_aux=True)(params)

    return outputs_and_gradients(variables['params'])

  with jax.enable_x64(True):
    expected, found = run(ours), run(theirs)
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True
  ):
    scale = 1 + np.abs(a).max()
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-10 * scale, err_msg=jax.tree_util.keystr(path))


def test_remat_changes_nothing():
  x = on_canvas([image(0, SIZES[0])], (64, 64))
  options = {'stages': (2,), 'total_stride': 8}
  _, _, run = prepared(train=True, **options)
  _, _, rematerialised = prepared(train=True, remat=True, **options)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), run(*x), rematerialised(*x)
  )


# --- PyTorch -----------------------------------------------------------------------------


class TorchBottleneck(nn.Module):
  """As in torchvision, with its names."""

  def __init__(self, inputs, width, outputs, stride, groups):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(outputs)
    self.downsample = None
    if stride != 1 or inputs != outputs:
      self.downsample = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
      )

  def forward(self, x):
    y = self.bn1(self.conv1(x)).relu()
    y = self.bn2(self.conv2(y)).relu()
    y = self.bn3(self.conv3(y))
    return (y + (x if self.downsample is None else self.downsample(x))).relu()


class TorchResNet(nn.Module):
  """torchvision's ResNet without its head, and the 2x2 max-pool of Pixel-BERT."""

  def __init__(self, stages, width, groups=1, group_width=None):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    inputs = width
    for i, blocks in enumerate(stages):
      inner, outputs = (groups * group_width if group_width else width) * 2**i, 4 * width * 2**i
      layers = []
      for j in range(blocks):
        layers.append(TorchBottleneck(inputs, inner, outputs, 2 if i and not j else 1, groups))
        inputs = outputs
      self.add_module(f'layer{i + 1}', nn.Sequential(*layers))
    self.stages = len(stages)
    self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)

  def forward(self, x):
    x = self.maxpool(self.bn1(self.conv1(x)).relu())
    for i in range(self.stages):
      x = getattr(self, f'layer{i + 1}')(x)
    return self.pool(x)


TORCH_NAMES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}


def torch_state(variables):
  """Flax variables as a PyTorch state dict with torchvision's names."""
  state = {}
  for group in variables.values():
    for path, x in jax.tree_util.tree_leaves_with_path(group):
      *modules, leaf = [key.key for key in path]
      stage, *rest = modules
      leaf = TORCH_NAMES.get(leaf, leaf)
      if stage == 'stem':
        state['.'.join([*rest, leaf])] = x
        continue
      block, name = rest
      name = {'conv_downsample': 'downsample.0', 'bn_downsample': 'downsample.1'}.get(name, name)
      for j, y in enumerate([x] if block == 'first' else x, 0 if block == 'first' else 1):
        state[f'{stage}.{j}.{name}.{leaf}'] = y
  return {
    name: torch.from_numpy(np.array(np.moveaxis(x, (3, 2), (0, 1)) if x.ndim == 4 else x))
    for name, x in state.items()
  }


@pytest.mark.parametrize(
  'options',
  [
    {'stages': (2, 3, 1, 1)},
    {'stages': (1, 2, 1), 'groups': 4, 'group_width': 2},
  ],
  ids=['resnet', 'resnext'],
)
def test_torchs_resnet_gives_the_same(options):
  total_stride = 2 ** (len(options['stages']) + 2)
  _, variables, evaluate = prepared(total_stride=total_stride, **options)
  _, _, train = prepared(train=True, total_stride=total_stride, **options)
  module = TorchResNet(width=8, **options)
  missing, unexpected = module.load_state_dict(torch_state(variables), strict=False)
  assert not unexpected
  assert all(name.endswith('num_batches_tracked') for name in missing)
  # Odd feature maps before the last pool, in both directions.
  x = np.random.default_rng(3).normal(size=(3, 84, 150, 3)).astype(np.float32)
  arguments = x, np.full((3, 2), x.shape[1:3])
  for mode, run in [(False, evaluate), (True, train)]:
    with torch.no_grad():
      expected = module.train(mode)(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    (features, mask), changed = run(*arguments)
    assert np.asarray(mask).all()
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-4)
  expected = module.state_dict()
  found = torch_state({'batch_stats': jax.tree.map(np.asarray, changed['batch_stats'])})
  assert len(found) == sum('running' in name for name in expected)
  for name, value in found.items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
