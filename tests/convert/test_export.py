"""The way out to PyTorch and back: what a stranger to JAX gets, and that nothing is lost."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from configs.pretrain import get_config
from pixelbert_jax import UserError
from pixelbert_jax.checkpoints import checkpoint, provenance
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.convert import export as export_lib
from pixelbert_jax.convert import importer
from pixelbert_jax.convert.export import export
from pixelbert_jax.convert.modeling_pixelbert import PixelBertConfig
from pixelbert_jax.experiment import resolve
from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.text import Tokenizer

FILES = {
  *('model.safetensors', 'config.json', 'tokenizer.json', 'tokenizer_config.json', 'vocab.txt'),
  *('modeling_pixelbert.py', 'README.md'),
}
POSITION = 'params/backbone/text/position/embedding'
TEXTS = ['A red bus, in the street!', 'cats unplayed on [MASK]', 'zebra', 'the dog' * 10]

STRANGER = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'pixelbert_jax'):
      raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer

torch.set_num_threads(1)
export, image, texts, exact, found, saved = sys.argv[1:]
model = AutoModel.from_pretrained(export, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(export, trust_remote_code=True)
texts = tokenizer(texts.split('|'), padding='max_length', truncation=True, return_tensors='pt')
seen = model.preprocess([Image.open(image), Image.open(image).rotate(90, expand=True)])
exact = {name: torch.from_numpy(x) for name, x in np.load(exact).items()}
with torch.no_grad():
  outputs = model(**exact, **texts)
np.savez(found, **texts, **seen, **outputs)
for folder in (saved, f'{saved}_and_tuned'):
  model.save_pretrained(folder)
  tokenizer.save_pretrained(folder)
  model.bert.pooler.dense.weight.data += 1
model.save_pretrained(f'{saved}_in_shards', max_shard_size='100KB')
tokenizer.save_pretrained(f'{saved}_in_shards')
assert not {'jax', 'flax', 'pixelbert_jax'} & set(sys.modules)
"""


pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture(scope='module')
def saved(tmp_path_factory, vocabulary):
  """A checkpoint with everything at random, and its model."""
  config = resolve(get_config('test'))
  config.image.mean, config.image.deviation = (0.6, 0.5, 0.3), (0.3, 0.2, 0.25)
  model, like = importer.build(config, vocabulary.read_bytes())
  rng = np.random.default_rng(0)

  def draw(path, x):
    if path[-1].key in ('scale', 'var'):
      return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    conv = path[-2].key.startswith('conv')
    # Large enough for attention to tell pixels and words apart.
    std = math.prod(x.shape[-4:-1]) ** -0.5 if conv else 2 * math.prod(x.shape[-2:-1]) ** -0.5
    return rng.normal(0, std, x.shape).astype(np.float32)

  variables = jax.tree_util.tree_map_with_path(draw, like)
  variables['params']['backbone']['text']['position']['embedding'][0, :2] = -0.0, 0.0
  folder = tmp_path_factory.mktemp('checkpoint') / 'c'
  checkpoint.write_model(
    folder, config.to_dict(), variables, {'vocab.txt': vocabulary.read_bytes()}
  )
  return folder, model


@pytest.fixture(scope='module')
def exported(saved, tmp_path_factory):
  """The checkpoint as a folder for PyTorch."""
  folder = tmp_path_factory.mktemp('export') / 'x'
  export(saved[0], folder)
  return folder


def bits(folder):
  """Of each array in a checkpoint: its bytes."""
  return {name: x.tobytes() for name, x in by_name(checkpoint.load(folder).variables).items()}


def test_an_export_comes_back_to_the_bit(saved, exported, tmp_path):
  assert {path.name for path in exported.iterdir()} == FILES
  assert len({path.stat().st_mode for path in exported.iterdir()}) == 1
  importer.import_export(str(exported), tmp_path / 'c')
  assert bits(tmp_path / 'c') == bits(saved[0])
  assert {b'\0\0\0\x80', b'\0\0\0\0'} < {
    x.tobytes() for x in np.frombuffer(bits(tmp_path / 'c')[POSITION], np.float32)
  }
  for name in ('config.json', 'vocab.txt'):
    assert (tmp_path / 'c' / name).read_bytes() == (saved[0] / name).read_bytes()
  export(tmp_path / 'c', tmp_path / 'x')
  for name in FILES:
    assert (tmp_path / 'x' / name).read_bytes() == (exported / name).read_bytes()


@pytest.fixture(scope='module')
def stranger(saved, exported, tmp_path_factory):
  """What a process without JAX and this package gets out of the export, and ours beside it."""
  folder, model = tmp_path_factory.mktemp('stranger'), saved[1]
  rng = np.random.default_rng(1)
  picture = np.kron(rng.integers(0, 256, (12, 9, 3), np.uint8), np.ones((11, 13, 1), np.uint8))
  Image.fromarray(picture).save(folder / 'image.jpg', quality=90)
  loaded = checkpoint.load(saved[0])
  sizes, pixels = [], []
  decoded = image_lib.decode((folder / 'image.jpg').read_bytes())
  for upright in (decoded, np.rot90(decoded)):
    target = image_lib.target_size(np.array(upright.shape[:2]), 64, 64)
    canvas, source = np.zeros((160, 160, 3), np.uint8), np.array([upright.shape[:2]])
    image_lib.place(upright, canvas)
    image = image_lib.resize(canvas[None], source, target[None], (64, 64))
    pixels.append(image_lib.normalise(image, model.backbone.mean, model.backbone.deviation)[0])
    sizes.append(target)
  ids, _ = Tokenizer(loaded.vocabulary, loaded.config['text']['length'])(TEXTS)
  inputs = np.stack(pixels), np.stack(sizes), ids.reshape(2, 2, -1), ids.reshape(2, 2, -1) > 0
  exact = {'pixel_values': inputs[0].transpose(0, 3, 1, 2), 'image_size': inputs[1]}
  np.savez(folder / 'exact.npz', **exact)
  command = [sys.executable, '-c', STRANGER, exported, folder / 'image.jpg', '|'.join(TEXTS)]
  command += [folder / 'exact.npz', folder / 'found.npz', folder / 'saved']
  environment = {k: x for k, x in os.environ.items() if k != 'PYTHONPATH'}
  environment |= {'HF_HOME': str(folder / 'home'), 'HF_HUB_OFFLINE': '1'}
  subprocess.run(command, cwd=folder, env=environment, check=True)
  position = np.broadcast_to(np.arange(ids.shape[1]), inputs[2].shape)
  ours = jax.jit(lambda *x: model.apply(loaded.variables, *x, False))(*inputs, position)
  found = dict(np.load(folder / 'found.npz'))
  return found, {'input_ids': ids, **exact, **ours}, folder / 'saved_and_tuned'


def test_a_stranger_gets_our_answers(stranger):
  found, ours, _ = stranger
  np.testing.assert_array_equal(found['input_ids'], ours['input_ids'])
  np.testing.assert_array_equal(found['attention_mask'], ours['input_ids'] > 0)
  for name in ('mlm_logits', 'itm_logits'):
    expected = np.asarray(ours[name]).reshape(found[name].shape)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-4)


def test_a_stranger_prepares_images_as_we_do(saved, stranger):
  found, ours, _ = stranger
  np.testing.assert_array_equal(found['image_size'], ours['image_size'])
  assert found['pixel_values'].shape == (2, 3, 64, 64)
  for theirs, mine, (h, w) in zip(
    found['pixel_values'], ours['pixel_values'], ours['image_size'], strict=True
  ):
    difference = np.abs(theirs - mine)[:, :h, :w].mean((1, 2)) * saved[1].backbone.deviation
    assert (difference < 0.5 / 255).all()
    assert not theirs[:, h:].any()
    assert not theirs[:, :, w:].any()


def test_what_was_tuned_in_pytorch_comes_back(saved, stranger, tmp_path):
  importer.import_export(str(stranger[2]), tmp_path / 'c')
  before, after = bits(saved[0]), bits(tmp_path / 'c')
  (changed,) = {name for name in before if before[name] != after[name]}
  assert changed == 'params/pooler/dense/kernel'
  shards = stranger[2].with_name('saved_in_shards')
  assert len(list(shards.glob('model-*.safetensors'))) > 1
  (shards / 'vocab.txt').unlink(missing_ok=True)  # tokenizer.json has it, too
  importer.import_export(str(shards), tmp_path / 'of_shards')
  pooler = bits(tmp_path / 'of_shards').pop('params/pooler/dense/kernel')
  assert pooler != after['params/pooler/dense/kernel']  # Tuned once more.
  assert bits(tmp_path / 'of_shards') == after | {'params/pooler/dense/kernel': pooler}
  old, new = (checkpoint.load(x).variables['params']['pooler'] for x in (saved[0], tmp_path / 'c'))
  np.testing.assert_array_equal(new['dense']['kernel'], old['dense']['kernel'] + 1)


def test_what_was_tuned_in_pytorch_is_not_of_scenes_alone(saved, exported, stranger, tmp_path):
  for name, folder in {'export': exported, 'same': stranger[2].with_name('saved')}.items():
    importer.import_export(str(folder), tmp_path / name)
    assert bits(tmp_path / name) == bits(saved[0])
    assert trained_on(tmp_path / name) == (('scenes',), provenance.SCENES)
  importer.import_export(str(stranger[2]), tmp_path / 'tuned')
  export(tmp_path / 'tuned', tmp_path / 'x')
  importer.import_export(str(tmp_path / 'x'), tmp_path / 'again')
  for name in ('tuned', 'again'):
    assert trained_on(tmp_path / name) == (('scenes', 'pytorch'), '')


def trained_on(folder):
  """The datasets of a checkpoint, and the caveat."""
  loaded = checkpoint.load(folder)
  names = provenance.datasets(loaded.files, loaded.config)
  return names, provenance.caveat(names)


def test_the_card_says_what_it_was_trained_on(saved, tmp_path):
  loaded = checkpoint.load(saved[0])
  files = loaded.files | {'trained_on.json': b'[]'}
  untrained = dataclasses.replace(loaded, step=0, files=files)
  (tmp_path / 'x').mkdir()
  export_lib.write(untrained, tmp_path / 'x')
  assert 'Nothing yet' in (tmp_path / 'x/README.md').read_text()
  for step, said in [(0, '\n`scenes`.\n'), (1500, '`scenes/train`: 1,500 steps of 16 image-text')]:
    folder = tmp_path / str(step)
    folder.mkdir()
    export_lib.write(dataclasses.replace(loaded, step=step), folder)
    card = (folder / 'README.md').read_text()
    assert said in card
    assert '2 layers, width 32, 2 heads' in card
    assert 'from_pretrained' in card
    assert '{' not in card
    config = json.loads((folder / 'config.json').read_text())
    assert config.keys() > PixelBertConfig.defaults.keys()
    assert config['trained_on']['steps'] == step
    assert config['training_config'] == loaded.config


def test_what_cannot_be_exported_leaves_nothing(saved, exported, vocabulary, tmp_path):
  before = sorted(exported.iterdir())
  with pytest.raises(UserError, match=r'x is not empty: give a folder that does not exist yet'):
    export(saved[0], exported)
  assert sorted(exported.iterdir()) == before
  loaded = checkpoint.load(saved[0])
  params = loaded.variables['params']
  heads = {
    'vqa': {'vqa': np.ones(3), 'vqa_transform': np.ones(3)},
    'retrieval': {'itm': params['itm']},
    'nlvr2': {'nlvr2': np.ones(3), 'nlvr2_transform': np.ones(3)},
  }
  for name, head in heads.items():
    variables = loaded.variables | {'params': {x: params[x] for x in ('backbone', 'pooler')} | head}
    checkpoint.write_model(tmp_path / name, loaded.config | {'name': name}, variables, loaded.files)
    with pytest.raises(UserError, match=f'{name} is a model of {name}: only pre-training models'):
      export(tmp_path / name, tmp_path / 'x')
  with pytest.raises(UserError, match='no such folder'):
    export(tmp_path / 'd', tmp_path / 'x')
  assert {path.name for path in tmp_path.iterdir()} == heads.keys()
