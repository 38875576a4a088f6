"""The configurations: the paper's numbers, and the same fields whatever the size."""

import copy
import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks import padding
from configs import labels, nlvr, nlvr2, retrieval, vqa
from configs.pretrain import VARIANTS, get_config
from data.scenes.captions import CAPTIONS_PER_SCENE
from data.scenes.record import SPLITS
from pixelbert_jax import configuration, rules
from pixelbert_jax.checkpoints.starting import BACKBONE
from pixelbert_jax.convert import caffe2
from pixelbert_jax.experiment import init_variables, make_model, resolve
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.image import choose_canvas
from tests.support.paths import ROOT

# shared/paper.md: number by number; what it calls open has the default it gives there.
PAPER = {
  'init_from': '',
  'sampled_pixels': 100,
  'mask_share': 0.15,
  'texts_per_image': 4,
  'batch_size': 4096,
  'epochs': 40,
  'text.length': 40,
  'image.shorter': 800,
  'image.longer': 1333,
  'image.mean': (0.485, 0.456, 0.406),
  'image.deviation': (0.229, 0.224, 0.225),
  'cnn.stages': (3, 4, 6, 3),
  'cnn.width': 64,
  'cnn.groups': 1,
  'cnn.group_width': 0,
  'cnn.stem': '7x7',
  'cnn.total_stride': 64,
  'cnn.batch_norm': '',
  'transformer.layers': 12,
  'transformer.width': 768,
  'transformer.heads': 12,
  'transformer.mlp_width': 3072,
  'transformer.max_positions': 512,
  'transformer.dropout': 0.1,
  'transformer.init_std': 0.02,
  'optimizer.cnn_rule': 'sgd',
  'optimizer.cnn_rate': 1e-2,
  'optimizer.cnn_decay': 5e-4,
  'optimizer.cnn_momentum': 0.9,
  'optimizer.transformer_rate': 1e-4,
  'optimizer.transformer_decay': 1e-2,
  'optimizer.betas': (0.9, 0.999),
  'optimizer.epsilon': 1e-8,
  'optimizer.cnn_warmup_steps': 1000,
  'optimizer.transformer_warmup_steps': 1000,
  'optimizer.clip_norm': 10.0,
  'optimizer.decay_epochs': (25, 35),
  'optimizer.decay_factor': 0.1,
}
RESNEXT = {'cnn.groups': 32, 'cnn.group_width': 8}
DETECTRON = {'image.mean': caffe2.MEAN, 'image.deviation': caffe2.DEVIATION}
SMALLER = {'image.shorter': 600, 'image.longer': 1000}
DIFFERENCES = {
  'r50': {'micro_batches': 1},
  'r50_1gpu': {'micro_batches': 16, **SMALLER},
  'r50_24gb': {'micro_batches': 64, **SMALLER},
  'x101': {'cnn.stages': (3, 4, 23, 3), **RESNEXT},
  'x152': {'cnn.stages': (3, 8, 36, 3), **RESNEXT, **SMALLER, **DETECTRON},
}


VQA = {
  'texts_per_image': 1,
  'batch_size': 256,
  'epochs': 18,
  'sampled_pixels': 0,
  'optimizer.decay_epochs': (12, 16),
  'optimizer.warmup_epochs': 0.1,
  'data.name': 'vqa_v2',
}
# Of pre-training alone; nor does a warm-up in steps count where there is one in epochs.
PRETRAINING = {'mask_share', 'init_from', 'texts_per_image'}
PRETRAINING |= {f'optimizer.{part}_warmup_steps' for part in ('cnn', 'transformer')}


def flat(config, prefix=''):
  fields = {}
  for name, value in config.items():
    deeper = isinstance(value, dict)
    fields |= flat(value, f'{prefix}{name}.') if deeper else {prefix + name: value}
  return fields


@pytest.mark.parametrize('variant', ['r50', 'x101', 'x152'])
def test_numbers_of_the_papers_vqa(variant):
  found = flat(vqa.get_config(variant).to_dict())
  shared = {k: x for k, x in (PAPER | DIFFERENCES[variant]).items() if k not in PRETRAINING}
  expected = shared | {'micro_batches': 1} | VQA
  assert {name: found[name] for name in expected} == expected
  assert found['init_from'] == f'runs/pretrain-{variant}-s0'


@pytest.mark.parametrize('model', ['r50', 'x101', 'x152'])
def test_any_model_may_train_on_train_and_val_of_vqa(model):
  alone, both = (flat(vqa.get_config(f'{model}{x}').to_dict()) for x in ('', '_trainval'))
  assert {name: both[name] for name in both if both[name] != alone[name]} == {
    'variant': f'{model}_trainval',
    'data.train': 'train+val[!karpathy_val]',
    'data.validation': 'val[karpathy_val]',
  }
  assert both['init_from'] == f'runs/pretrain-{model}-s0'


FINE_TUNED = {m.__name__.removeprefix('configs.'): m for m in (vqa, nlvr2, nlvr, retrieval)}


@pytest.mark.parametrize(
  ('name', 'variant'),
  [(n, variant) for n, module in FINE_TUNED.items() for variant in module.VARIANTS],
)
def test_every_variant_fits_the_pre_training_it_starts_from(name, variant):
  module = FINE_TUNED[name]
  found = flat(module.get_config(variant).to_dict())
  from_default = {'nlvr': ('nlvr', 'corpus'), 'vqa': ('easy_vqa',)}.get(name, ())
  small = variant in ('scratch', *from_default)
  start = fields('' if small else base_variant(variant))
  assert {n: found[n] for n in BACKBONE} == {n: start[n] for n in BACKBONE}
  assert found.keys() == flat(module.get_config('r50').to_dict()).keys()
  assert (found['name'], found['variant']) == (name, variant)
  configuration.check(module.get_config(variant))


def base_variant(variant):
  return variant if variant == 'paper_small' else variant.partition('_')[0]


@pytest.mark.parametrize('name', ['vqa', 'nlvr2', 'retrieval'])
def test_numbers_of_the_paper_on_a_small_model(name):
  found, papers = (flat(FINE_TUNED[name].get_config(x).to_dict()) for x in ('paper_small', 'r50'))
  assert found['init_from'] == 'runs/pretrain-paper_small-s0'
  same = {n: x for n, x in papers.items() if n.startswith('optimizer.')}
  same = {n: x for n, x in same.items() if not n.endswith(('_epochs', 'transformer_rate'))}
  same |= {n: papers[n] for n in ('sampled_pixels', 'pixel_position', 'transformer.dropout')}
  assert {n: found[n] for n in same} == same
  # Rates fall at the same shares of the run.
  if name == 'retrieval':
    shares, steps_per_epoch = (0.6,), CAPTIONS_PER_SCENE * SPLITS['train'] / 16
    assert found['texts_per_image'] == papers['texts_per_image']
    assert found['batch_size'] == 16 * papers['texts_per_image']
    epochs = found['steps'] / steps_per_epoch
  else:
    shares, epochs = (12 / 18, 16 / 18), found['epochs']
  assert found['optimizer.decay_epochs'] == pytest.approx([x * epochs for x in shares])


@pytest.mark.parametrize('variant', labels.VARIANTS)
def test_pre_training_may_start_from_the_cnn_that_was_trained_on_labels(variant):
  config, start = get_config(variant), labels.get_config(variant)
  configuration.check(start)
  found, there = flat(config.to_dict()), flat(start.to_dict())
  assert {n: found[n] for n in BACKBONE} == {n: there[n] for n in BACKBONE}
  assert (there['name'], there['variant'], there['init_from']) == ('labels', variant, 'scratch')
  run = '-'.join(filter(None, ('runs/labels', variant, 's0')))
  assert config.init_from in ('scratch', run)
  # Its statistics are kept, as the paper keeps those of ImageNet.
  for config.init_from, expected in ((run, 'frozen'), ('scratch', 'batch')):
    assert resolve(config).cnn.batch_norm == expected


def test_numbers_of_the_paper_for_nlvr2_and_retrieval():
  found = flat(nlvr2.get_config('x152').to_dict())
  expected = {'batch_size': 128, 'epochs': 18.0, 'optimizer.decay_epochs': (12.0, 16.0)}
  expected |= {'optimizer.cnn_rate': 1e-2, 'optimizer.transformer_rate': 1e-4, 'sampled_pixels': 0}
  assert {name: found[name] for name in expected} == expected
  for variant, data, epochs, decay in (
    ('r50_f30k', 'flickr30k', 10.0, 6.0),
    ('r50_coco', 'coco_karpathy/all', 4.0, 2.0),
    ('r50', 'coco_karpathy/all', 4.0, 2.0),
  ):
    found = flat(retrieval.get_config(variant).to_dict())
    expected = {'data.name': data, 'epochs': epochs, 'optimizer.decay_epochs': (decay,)}
    expected |= {'texts_per_image': 21, 'batch_size': 512 * 21, 'hardest': 5, 'sampled_pixels': 0}
    expected |= {'optimizer.cnn_rule': 'none', 'optimizer.transformer_rate': 1e-4}
    expected |= {'optimizer.transformer_decay': 1e-2}
    assert {name: found[name] for name in expected} == expected


def test_retrieval_needs_a_caption_beside_the_images_own():
  config = retrieval.get_config('test')
  config.texts_per_image = 1
  with pytest.raises(
    configuration.ConfigurationError,
    match="texts_per_image must be at least 2, an image's own caption and others, not 1",
  ):
    configuration.check(config)


def test_a_field_keeps_its_rule_when_it_is_set_or_copied_and_takes_another_with_another_field():
  config = ConfigDict({'part': {}})
  config.part.share = rules.Field(0.5, rules.SHARE)
  config.part.share = 1
  assert config.to_dict() == {'part': {'share': 1.0}}
  ((name, field),) = configuration.flat(copy.deepcopy(config))
  assert (name, field.rule, field.get()) == ('part.share', rules.SHARE, 1.0)
  config.part.share = rules.Field(2.0, rules.ABOVE_0)
  ((name, field),) = configuration.flat(config)
  assert (name, field.rule, config.part.share) == ('part.share', rules.ABOVE_0, 2.0)
  with pytest.raises(TypeError, match='share'):
    config.part.share = 'half'


@pytest.mark.parametrize('name', FINE_TUNED)
def test_a_fine_tuning_without_a_start_names_the_command_that_makes_one(name):
  config = FINE_TUNED[name].get_config('x101')
  config.init_from = ''
  with pytest.raises(
    configuration.ConfigurationError,
    match=r'init_from must be a checkpoint, made by `python -m pixelbert_jax\.main '
    r'--config=configs/pretrain\.py:x101`, or .*--config\.init_from=scratch',
  ):
    configuration.check(config)


def fields(variant):
  return flat(get_config(variant).to_dict())


@pytest.mark.parametrize('variant', DIFFERENCES)
def test_numbers_of_the_paper(variant):
  found = fields(variant)
  expected = PAPER | DIFFERENCES[variant]
  assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize('variant', ['r50_1gpu', 'r50_24gb', 'x101', 'x152'])
def test_others_differ_from_resnet50_in_little(variant):
  found, base = fields(variant), fields('r50')
  allowed = {'variant', 'image.canvases'} | DIFFERENCES[variant].keys()
  assert {name for name in found if found[name] != base[name]} <= allowed


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_has_the_same_fields_of_the_same_types(variant):
  found, paper = fields(variant), fields('r50')
  assert found.keys() == paper.keys()
  assert {n: type(x) for n, x in found.items()} == {n: type(x) for n, x in paper.items()}
  assert (found['name'], found['variant']) == ('pretrain', variant)


@pytest.mark.parametrize('variant', VARIANTS)
def test_canvases_hold_every_image(variant):
  config = get_config(variant)
  canvases = Canvases(config.image.shorter, config.image.longer, tuple(config.image.canvases))
  if variant in ('nlvr', 'boxes', 'test', ''):
    sizes = {'nlvr': (100, 400), 'boxes': (100, 400)}.get(variant, (64, 64))
    assert choose_canvas(canvases.target(np.array([sizes])), canvases.shapes) == [0]
    return
  sizes = np.stack(np.meshgrid(np.arange(40, 2000, 37), np.arange(40, 2000, 31)), -1)
  target = canvases.target(sizes.reshape(-1, 2))
  chosen = np.array(canvases.shapes)[choose_canvas(target, canvases.shapes)]
  assert (chosen >= target).all()


@pytest.mark.parametrize('spec', padding.CASES)
def test_little_of_a_canvas_is_padding(spec):
  found, _ = padding.of(str(ROOT / 'configs' / spec), padding.published(padding.CASES[spec]))
  assert found < (0.15 if spec.startswith('nlvr2') else 0.06)


def test_padding_is_that_of_canvases_and_images_as_they_are_counted_by_hand():
  canvases = Canvases(100, 200, ((100, 150), (200, 100), (100, 150, 200, 100)))
  size, count = np.array([[100, 150], [10, 10]]), np.array([3, 1])
  found, shares = padding.padding(dataclasses.replace(canvases, shapes=((100, 150),)), size, count)
  assert found == pytest.approx((3 * 15 + 15) / (3 * 15 + 10) - 1)
  assert shares.tolist() == [1]
  size = np.array([[[100, 150], [200, 100]], [[150, 100], [10, 10]]])
  found, shares = padding.padding(canvases, size, count)
  assert found == pytest.approx((3 * 35 + 2 * 20) / (3 * 35 + 25) - 1)
  assert shares.tolist() == [0, 0.25, 0.75]


@pytest.mark.parametrize('variant', ['r50', 'x101', 'x152'])
def test_any_pair_of_photographs_has_a_canvas(variant):
  config = nlvr2.get_config(variant)
  canvases = Canvases(config.image.shorter, config.image.longer, tuple(config.image.canvases))
  sizes = np.stack(np.meshgrid(np.arange(40, 2000, 83), np.arange(40, 2000, 79)), -1)
  sizes = sizes.reshape(-1, 2)
  size = sizes[np.random.default_rng(0).integers(len(sizes), size=(5000, 2))]
  assert (canvases.target(size) <= canvases.sides[canvases.choose(size)]).all()


@pytest.mark.parametrize('variant', ['r50', 'x101', 'x152'])
def test_images_of_nlvr_keep_their_shape(variant):
  config = nlvr.get_config(variant)
  canvases = Canvases(config.image.shorter, config.image.longer, tuple(config.image.canvases))
  assert canvases.target(np.array([100, 400])).tolist() == [200, 800]
  assert canvases.shapes == ((200, 800),)


@pytest.mark.parametrize('variant', ['r50', 'x101', 'x152', 'r50_1gpu', 'r50_24gb'])
def test_an_image_may_have_one_text_as_in_the_paper(variant):
  config = get_config(variant)
  config.init_from, config.texts_per_image = 'scratch', 1
  configuration.check(config)


@functools.cache
def parameters(variant):
  """Shapes of the parameters of a variant, by path."""
  config = get_config(variant)
  batch = {
    'image': np.zeros((1, *config.image.canvases[0], 3), np.uint8),
    'size': np.array(config.image.canvases[:1]),
    'token_ids': np.zeros((1, 1, config.text.length), np.int32),
    'token_mask': np.ones((1, 1, config.text.length), bool),
    'mlm_position': np.zeros((1, 1, 2), np.int32),
  }
  model = make_model(config, 30_522)
  shapes = jax.eval_shape(lambda: init_variables(model, 0, batch))['params']
  return {
    '/'.join(key.key for key in path): x.shape
    for path, x in jax.tree_util.tree_leaves_with_path(shapes)
  }


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_variant_makes_a_model_and_a_config_file(variant):
  assert json.loads(json.dumps(get_config(variant).to_dict()))
  assert {name.split('/')[0] for name in parameters(variant)} == {
    'backbone',
    'itm',
    'mlm_bias',
    'mlm_transform',
    'pooler',
  }


@pytest.mark.parametrize(
  ('variant', 'layers', 'cnn'),
  # torchvision's counts, less the 2,049,000 of the head; it has no ResNeXt-152.
  [('r50', 50, 25_557_032 - 2_049_000), ('x101', 101, 88_791_336 - 2_049_000), ('x152', 152, None)],
)
def test_parameters_are_as_many_as_published(variant, layers, cnn):
  count = {name: math.prod(shape) for name, shape in parameters(variant).items()}

  def total(prefix):
    return sum(n for name, n in count.items() if name.startswith(prefix))

  assert 3 * sum(get_config(variant).cnn.stages) + 2 == layers
  if cnn:
    assert total('backbone/cnn/') == cnn
  # BERT-base without its token types.
  assert total('backbone/encoder/') == 85_054_464
  assert total('backbone/text/') == (30_522 + 512 + 2) * 768


def test_an_unknown_variant_is_told_the_known_ones():
  with pytest.raises(ValueError, match=r"no variant 'r101': test, nlvr, boxes, paper_small, r50, "):
    get_config('r101')
