"""The table of weights: every array of ours is PyTorch's tensor of that name, both ways."""

import jax
import numpy as np
import pytest

from configs.pretrain import get_config
from pixelbert_jax.convert import names
from pixelbert_jax.experiment import init_variables, make_model


def shapes(variant='test', words=30, **fields):
  """Shapes of the variables of a variant; `fields` are those of its configuration, '__' for '.'."""
  config = get_config(variant)
  config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in fields.items()})
  texts = {'token_ids': np.int32, 'token_mask': bool, 'mlm_position': np.int32}
  batch = {name: np.zeros((1, 1, 6), dtype) for name, dtype in texts.items()}
  batch |= {'image': np.zeros((1, 64, 64, 3), np.uint8), 'size': np.full((1, 2), 64)}
  model = make_model(config, words)
  return jax.eval_shape(lambda: init_variables(model, 0, batch))


def random_variables(like, seed=0):
  """Every bit pattern that a float32 can have, but for NaN's many."""
  draws = np.random.default_rng(seed)

  def make(x):
    bits = draws.integers(0, 2**32, x.shape, np.uint32).view(np.float32)
    return np.where(np.isnan(bits), np.float32(-0.0), bits)

  return jax.tree.map(make, like)


BOTTLENECKS = {'cnn__stages': (3, 1, 2), 'cnn__stem': '7x7', 'cnn__total_stride': 32}
SIZES = [{}, BOTTLENECKS, {**BOTTLENECKS, 'cnn__groups': 4, 'cnn__group_width': 2}]


@pytest.mark.parametrize('fields', SIZES)
def test_there_and_back_is_the_same_to_the_bit(fields):
  like = shapes(**fields)
  variables = random_variables(like)
  tensors = names.to_torch(variables)
  assert not tensors[names.TOKEN_TYPES].any()
  back = names.from_torch(tensors, like)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a.view('u4'), b.view('u4')), variables, back
  )
  for name, x in names.to_torch(back).items():
    np.testing.assert_array_equal(x.view('u4'), tensors[name].view('u4'), err_msg=name)


def resnet_names(stages):
  """The names of a torchvision ResNet without its last layer, as its code has them."""

  def norm(name):
    return [f'{name}.{x}' for x in ('weight', 'bias', 'running_mean', 'running_var')]

  found = ['conv1.weight', *norm('bn1')]
  for i, blocks in enumerate(stages):
    for j in range(blocks):
      prefix = f'layer{i + 1}.{j}'
      for k in (1, 2, 3):
        found += [f'{prefix}.conv{k}.weight', *norm(f'{prefix}.bn{k}')]
    found += [f'layer{i + 1}.0.downsample.0.weight', *norm(f'layer{i + 1}.0.downsample.1')]
  return found


def bert_names(layers):
  """The names of Hugging Face's BertForMaskedLM with its pooler, but for the tied decoder."""
  found = [f'bert.embeddings.{x}_embeddings.weight' for x in ('word', 'position', 'token_type')]
  modules = ['bert.embeddings.LayerNorm', 'bert.pooler.dense']
  modules += [f'cls.predictions.transform.{x}' for x in ('dense', 'LayerNorm')]
  for i in range(layers):
    inside = [f'attention.self.{x}' for x in ('query', 'key', 'value')]
    inside += ['attention.output.dense', 'attention.output.LayerNorm', 'intermediate.dense']
    inside += ['output.dense', 'output.LayerNorm']
    modules += [f'bert.encoder.layer.{i}.{x}' for x in inside]
  found += [f'{module}.{x}' for module in modules for x in ('weight', 'bias')]
  return [*found, 'cls.predictions.bias']


@pytest.mark.parametrize(
  ('variant', 'stages', 'tensors'),
  # torchvision's ResNet-50 has 320: 53 counts of batches and the last layer's two are left out.
  [('r50', (3, 4, 6, 3), 320 - 53 - 2), ('x101', (3, 4, 23, 3), 520), ('x152', (3, 8, 36, 3), 775)],
)
def test_names_of_the_published_models(variant, stages, tensors):
  found = names.expected(shapes(variant, 30_522))
  cnn = resnet_names(stages)
  assert len(cnn) == tensors
  own = ['projection.weight', 'projection.bias', 'semantic', 'itm.weight', 'itm.bias']
  theirs = {f'cnn.{x}' for x in cnn} | set(bert_names(12)) | set(own)
  assert found.keys() | {names.TOKEN_TYPES} == theirs
  assert len(bert_names(12)) == 199 + 5  # bert-base-uncased, and its head for hidden words
  groups = {'r50': (64, 64), 'x101': (256, 8), 'x152': (256, 8)}[variant]
  assert found['cnn.conv1.weight'] == (64, 3, 7, 7)
  assert found['cnn.layer1.0.conv2.weight'] == (*groups, 3, 3)
  assert found['cnn.layer4.2.conv3.weight'][0] == 2048
  assert found['bert.encoder.layer.11.intermediate.dense.weight'] == (3072, 768)
  assert found['bert.encoder.layer.11.attention.self.value.bias'] == (768,)
  assert found['bert.embeddings.word_embeddings.weight'] == (30_522, 768)
  assert found['itm.weight'] == (1, 768)


def test_numbers_lie_where_pytorch_has_them():
  like = shapes(**BOTTLENECKS)
  variables = random_variables(like)
  params, tensors = variables['params'], names.to_torch(variables)
  kernel = params['backbone']['cnn']['layer1']['rest']['conv2']['kernel']  # [n, h, w, in, out]
  assert tensors['cnn.layer1.2.conv2.weight'][5, 3, 0, 2] == kernel[1, 0, 2, 3, 5]
  qkv = params['backbone']['encoder']['layer']['attention']['qkv']['kernel']  # [n, in, 3 * out]
  assert tensors['bert.encoder.layer.1.attention.self.key.weight'][7, 3] == qkv[1, 3, 32 + 7]
  stats = variables['batch_stats']['backbone']['cnn']['layer3']['first']['bn_downsample']
  np.testing.assert_array_equal(tensors['cnn.layer3.0.downsample.1.running_var'], stats['var'])
  np.testing.assert_array_equal(tensors['semantic'], params['backbone']['semantic'])


def test_token_type_0_goes_into_the_positions():
  like = shapes()
  tensors = names.to_torch(jax.tree.map(lambda x: np.ones(x.shape, np.float32), like))
  tensors[names.TOKEN_TYPES] += np.array([[2], [5]], np.float32)
  text = names.from_torch(tensors, like)['params']['backbone']['text']
  assert np.all(text['position']['embedding'] == 3)
  assert np.all(text['word']['embedding'] == 1)


def test_what_does_not_fit_is_named():
  like = shapes()
  tensors = names.to_torch(random_variables(like))
  del tensors['cnn.layer2.0.bn3.running_var']
  tensors['extra'] = np.zeros(3)
  tensors['semantic'] = np.zeros(3)
  tensors['projection.weight'] = tensors['projection.weight'].T
  with pytest.raises(names.WeightsError) as error:
    names.from_torch(tensors, like)
  message = str(error.value)
  assert '1 missing: cnn.layer2.0.bn3.running_var; 1 unexpected: extra;' in message
  assert '2 of the wrong shape: ' in message
  assert 'semantic is 3, expected 32' in message
  assert 'projection.weight is 64x32, expected 32x64: it is transposed' in message


def test_an_array_that_the_table_does_not_know_is_named():
  with pytest.raises(names.WeightsError, match='params/other/kernel matches 0 rows'):
    names.to_torch({'params': {'other': {'kernel': np.zeros((2, 2))}}})
