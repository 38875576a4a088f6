"""The way out to PyTorch and back: what a stranger to JAX gets, and that nothing is lost."""

import contextlib
import dataclasses
import json
import math
import os
import re
import subprocess
import sys

import huggingface_hub
import jax
import numpy as np
import pytest
import torch
from PIL import Image

from configs import labels, nlvr, nlvr2, pretrain, retrieval, vqa
from pixelbert_jax import UserError, jsons, predict
from pixelbert_jax.checkpoints import checkpoint, provenance
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.convert import __main__ as convert
from pixelbert_jax.convert import export as export_lib
from pixelbert_jax.convert import importer
from pixelbert_jax.convert.export import export
from pixelbert_jax.convert.pytorch import modeling_pixelbert
from pixelbert_jax.convert.pytorch.configuration_pixelbert import PixelBertConfig
from pixelbert_jax.experiment import make_task, resolve
from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.text import Tokenizer
from tests.support.paths import ROOT

FILES = {
  *('model.safetensors', 'config.json', 'tokenizer.json', 'tokenizer_config.json', 'vocab.txt'),
  *('README.md', 'modeling_pixelbert.py', 'backbone_pixelbert.py', 'cnn_pixelbert.py'),
  *('configuration_pixelbert.py', 'transformer_pixelbert.py'),
}
POSITION = 'params/backbone/text/position/embedding'
TEXTS = ['A red bus, in the street!', 'cats unplayed on [MASK]', 'zebra', 'the dog' * 10]
ANSWERS = ['yes', 'a "café"', 'no', '2']
# By task: its configuration, fields of it, and our outputs by their names in PyTorch.
TASKS = {
  'pretrain': (pretrain, {}, {'mlm_logits': 'mlm_logits', 'itm_logits': 'itm_logits'}),
  'vqa': (vqa, {'pixel_position': 'sine2d'}, {'logits': 'vqa_logits'}),
  'nlvr2': (nlvr2, {}, {'logits': 'match_logits'}),
  'nlvr': (nlvr, {'pixel_position': 'none'}, {'logits': 'match_logits'}),
  'retrieval': (retrieval, {}, {'logits': 'match_logits'}),
  'two_stage': (
    retrieval,
    {'first_stage': 8},
    {'logits': 'match_logits', 'image_vector': 'image_vector', 'text_vector': 'text_vector'},
  ),
  'labels': (labels, {}, {'logits': 'label_logits'}),
}

STRANGER = """
import importlib.abc, pathlib, sys

class Absent(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'pixelbert_jax'):
      raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoModel, AutoTokenizer

torch.set_num_threads(1)
exports, image, texts, exact, folder = sys.argv[1:]
images = [Image.open(image), Image.open(image).rotate(90, expand=True)]
exact = {name: torch.from_numpy(x) for name, x in np.load(exact).items()}
folder = pathlib.Path(folder)
for export in pathlib.Path(exports).iterdir():
  model = AutoModel.from_pretrained(export, trust_remote_code=True)
  tokenizer = AutoTokenizer.from_pretrained(export, trust_remote_code=True)
  for name, reference in model.config.auto_map.items():  # Each Auto class that the export names.
    assert reference.split('.')[1] in (type(model).__name__, 'PixelBertConfig')
    getattr(transformers, name).from_pretrained(export, trust_remote_code=True)
  given = tokenizer(texts.split('|'), padding='max_length', truncation=True, return_tensors='pt')
  words = {} if export.name == 'labels' else given
  with torch.no_grad():
    outputs = dict(model(**exact, **words))
    if export.name == 'two_stage':
      outputs['image_vector'] = model.get_image_features(**exact)
      outputs['text_vector'] = model.get_text_features(**given)
  np.savez(folder / f'{export.name}.npz', **given, **model.preprocess(images), **outputs)
  model.save_pretrained(folder / export.name)
  tokenizer.save_pretrained(folder / export.name)
  AutoModel.from_pretrained(folder / export.name, trust_remote_code=True)
  if export.name == 'pretrain':
    model.bert.pooler.dense.weight.data += 1
    for name, size in {'tuned': '1GB', 'in_shards': '100KB'}.items():
      model.save_pretrained(folder / name, max_shard_size=size)
      tokenizer.save_pretrained(folder / name)
      model.bert.pooler.dense.weight.data += 1
assert not {'jax', 'flax', 'pixelbert_jax'} & set(sys.modules)
"""


pytestmark = pytest.mark.usefixtures('quick_compiles')


def write(folder, vocabulary, task, **fields):
  """Writes a checkpoint with everything at random; returns its model."""
  kind, more, _ = TASKS[task]
  config = resolve(kind.get_config('test'))
  config.image.mean, config.image.deviation = (0.6, 0.5, 0.3), (0.3, 0.2, 0.25)
  config.text.vocabulary, config.text.length = str(vocabulary), 12
  config.update_from_flattened_dict(more | fields)
  given = {f'{x}.json': jsons.text(ANSWERS).encode() for x in ('answers', 'labels')}
  made = make_task(config, files=given)
  model, like = importer.build(config, vocabulary.read_bytes(), made)
  rng = np.random.default_rng(0)

  def draw(path, x):
    if path[-1].key in ('scale', 'var', 'log_scale'):
      return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    conv = path[-2].key.startswith('conv')
    # Large enough for attention to tell pixels and words apart.
    std = math.prod(x.shape[-4:-1]) ** -0.5 if conv else 2 * math.prod(x.shape[-2:-1]) ** -0.5
    return rng.normal(0, std, x.shape).astype(np.float32)

  variables = jax.tree_util.tree_map_with_path(draw, like)
  if task != 'labels':
    variables['params']['backbone']['text']['position']['embedding'][0, :2] = -0.0, 0.0
  files = {'vocab.txt': vocabulary.read_bytes(), **made.files()}
  checkpoint.write_model(folder, config.to_dict(), variables, files)
  return model


@pytest.fixture(scope='module')
def models(tmp_path_factory, vocabulary):
  """By task: the folder of a checkpoint, and its model."""
  folder = tmp_path_factory.mktemp('checkpoints')
  return {task: (folder / task, write(folder / task, vocabulary, task)) for task in TASKS}


@pytest.fixture(scope='module')
def exports(models, tmp_path_factory):
  """A folder with the exports of all of them, by task."""
  folder = tmp_path_factory.mktemp('exports')
  for task, (place, _) in models.items():
    export(place, folder / task)
  return folder


@pytest.fixture(scope='module')
def saved(models):
  """The checkpoint of pre-training, and its model."""
  return models['pretrain']


@pytest.fixture(scope='module')
def exported(exports):
  """The folder for PyTorch of that checkpoint."""
  return exports / 'pretrain'


def bits(folder):
  """Of each array in a checkpoint: its bytes."""
  return {name: x.tobytes() for name, x in by_name(checkpoint.load(folder).variables).items()}


@pytest.mark.parametrize('task', TASKS)
def test_an_export_comes_back_to_the_bit(task, models, exports, stranger, tmp_path):
  before, folder = models[task][0], exports / task
  assert {path.name for path in folder.iterdir()} == FILES
  assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
  # As it was exported, and as PyTorch saved it.
  for name, place in {'c': folder, 'saved': stranger[1] / task}.items():
    importer.import_export(str(place), tmp_path / name)
    assert bits(tmp_path / name) == bits(before)
    for path in before.glob('*.*'):  # with the vocabulary, and the answers or labels
      if path.name != 'config.json':
        assert (tmp_path / name / path.name).read_bytes() == path.read_bytes()
    config, own = (checkpoint.load(x).config for x in (tmp_path / name, before))
    assert config == export_lib.portable(own)
  if task != 'labels':
    position = np.frombuffer(bits(tmp_path / 'c')[POSITION], np.float32)
    assert {b'\0\0\0\x80', b'\0\0\0\0'} < {x.tobytes() for x in position}
  export(tmp_path / 'c', tmp_path / 'x')
  for name in FILES:
    assert (tmp_path / 'x' / name).read_bytes() == (folder / name).read_bytes()


@pytest.fixture(scope='module')
def inputs(models, tmp_path_factory):
  """A picture, and it with TEXTS as the models get them, upright and turned."""
  rng, path = np.random.default_rng(1), tmp_path_factory.mktemp('picture') / 'image.jpg'
  picture = np.kron(rng.integers(0, 256, (12, 9, 3), np.uint8), np.ones((11, 13, 1), np.uint8))
  Image.fromarray(picture).save(path, quality=90)
  folder, model = models['pretrain']
  loaded = checkpoint.load(folder)
  sizes, pixels = [], []
  decoded = image_lib.decode(path.read_bytes())
  for upright in (decoded, np.rot90(decoded)):
    target = image_lib.target_size(np.array(upright.shape[:2]), 64, 64)
    canvas, source = np.zeros((160, 160, 3), np.uint8), np.array([upright.shape[:2]])
    image_lib.place(upright, canvas)
    image = image_lib.resize(canvas[None], source, target[None], (64, 64))
    pixels.append(image_lib.normalise(image, model.backbone.mean, model.backbone.deviation)[0])
    sizes.append(target)
  ids, _ = Tokenizer(loaded.vocabulary, 12)(TEXTS)
  return path, np.stack(pixels), np.stack(sizes), ids


@pytest.fixture(scope='module')
def stranger(exports, inputs, tmp_path_factory):
  """What a process without JAX and this package gets out of each export, and what it saved."""
  path, pixels, sizes, _ = inputs
  folder = tmp_path_factory.mktemp('stranger')
  np.savez(folder / 'exact.npz', pixel_values=pixels.transpose(0, 3, 1, 2), image_size=sizes)
  (folder / 'found').mkdir()
  command = [sys.executable, '-c', STRANGER, exports, path, '|'.join(TEXTS)]
  environment = {k: x for k, x in os.environ.items() if k != 'PYTHONPATH'}
  environment |= {'HF_HOME': str(folder / 'home'), 'HF_HUB_OFFLINE': '1'}
  command += [folder / 'exact.npz', folder / 'found']
  subprocess.run(command, cwd=folder, env=environment, check=True)
  found = {task: dict(np.load(folder / f'found/{task}.npz')) for task in TASKS}
  return found, folder / 'found'


@pytest.mark.parametrize('task', TASKS)
def test_a_stranger_gets_our_answers(task, models, inputs, stranger):
  folder, model = models[task]
  found, (_, pixels, sizes, ids) = stranger[0][task], inputs
  np.testing.assert_array_equal(found['input_ids'], ids)
  np.testing.assert_array_equal(found['attention_mask'], ids > 0)
  ids = ids.reshape(len(pixels) // getattr(model, 'IMAGES', 1), -1, ids.shape[1])
  position = np.broadcast_to(np.arange(ids.shape[-1]), ids.shape)
  texts = {'token_ids': ids, 'token_mask': ids > 0, 'mlm_position': position}
  run = jax.jit(lambda *x: model.apply(checkpoint.load(folder).variables, *x, False))
  ours = run(pixels, sizes, *(texts[name] for name in model.INPUTS))
  for name, own in TASKS[task][2].items():
    expected = np.asarray(ours[own]).reshape(found[name].shape)
    assert expected.std() > 0.05
    np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-4)


def test_a_stranger_prepares_images_as_we_do(saved, inputs, stranger):
  found, (_, pixels, sizes, _) = stranger[0]['pretrain'], inputs
  np.testing.assert_array_equal(found['image_size'], sizes)
  assert found['pixel_values'].shape == (2, 3, 64, 64)
  ours = pixels.transpose(0, 3, 1, 2)
  for theirs, mine, (h, w) in zip(found['pixel_values'], ours, sizes, strict=True):
    difference = np.abs(theirs - mine)[:, :h, :w].mean((1, 2)) * saved[1].backbone.deviation
    assert (difference < 0.5 / 255).all()
    assert not theirs[:, h:].any()
    assert not theirs[:, :, w:].any()


def test_what_was_tuned_in_pytorch_comes_back(saved, stranger, tmp_path):
  tuned, shards = stranger[1] / 'tuned', stranger[1] / 'in_shards'
  assert len(list(shards.glob('model-*.safetensors'))) > 1
  (shards / 'vocab.txt').unlink(missing_ok=True)  # tokenizer.json has it, too
  before = checkpoint.load(saved[0]).variables['params']['pooler']['dense']['kernel']
  for more, folder in enumerate((tuned, shards), 1):
    importer.import_export(str(folder), tmp_path / folder.name)
    own, after = bits(saved[0]), bits(tmp_path / folder.name)
    assert {name for name in own if own[name] != after[name]} == {'params/pooler/dense/kernel'}
    after = checkpoint.load(tmp_path / folder.name).variables['params']['pooler']['dense']['kernel']
    np.testing.assert_allclose(after, before + more, rtol=1e-6)


def test_what_was_tuned_in_pytorch_is_not_of_scenes_alone(saved, exported, stranger, tmp_path):
  for name, folder in {'export': exported, 'same': stranger[1] / 'pretrain'}.items():
    importer.import_export(str(folder), tmp_path / name)
    assert trained_on(tmp_path / name) == (('scenes',), provenance.SCENES)
  importer.import_export(str(stranger[1] / 'tuned'), tmp_path / 'tuned')
  export(tmp_path / 'tuned', tmp_path / 'x')
  importer.import_export(str(tmp_path / 'x'), tmp_path / 'again')
  for name in ('tuned', 'again'):
    assert trained_on(tmp_path / name) == (('scenes', 'pytorch'), '')


@pytest.mark.filterwarnings(
  'ignore:trained on rendered', 'ignore::pixelbert_jax.input.text.UnknownWordsWarning'
)
def test_an_export_answers_as_its_checkpoint(models, exports):
  scene = ROOT / 'docs/scene.jpg'
  for task, ask in {
    'vqa': lambda model: model.answer(scene, 'what colour is the cross'),
    'pretrain': lambda model: model.match(scene, ['a circle', 'a cross']).tolist(),
  }.items():
    checkpoint_, export_ = (predict.load(x) for x in (models[task][0], exports / task))
    assert ask(checkpoint_) == ask(export_)


def trained_on(folder):
  """The datasets of a checkpoint, and the caveat."""
  loaded = checkpoint.load(folder)
  names = provenance.datasets(loaded.files, loaded.config)
  return names, provenance.caveat(names)


# --- What PyTorch's users expect of a model --------------------------------------------------


def twin(exports, task):
  """The class of an export, loaded from it."""
  (name,) = json.loads((exports / task / 'config.json').read_text())['architectures']
  return getattr(modeling_pixelbert, name).from_pretrained(exports / task)


def arguments(task, inputs):
  """Inputs of a twin, with labels."""
  _, pixels, sizes, ids = inputs
  given = {'pixel_values': pixels.transpose(0, 3, 1, 2), 'image_size': sizes}
  many = {'vqa': (len(ids), len(ANSWERS)), 'labels': (len(pixels), len(ANSWERS))}
  given['labels'] = np.random.default_rng(5).integers(0, 2, many.get(task, len(ids)))
  if task == 'pretrain':
    given['itm_labels'], given['labels'] = given['labels'], np.where(ids == 5, 7, -100)
  if task != 'labels':
    given |= {'input_ids': ids.astype(int), 'attention_mask': ids > 0}
  return {name: torch.from_numpy(np.array(x)) for name, x in given.items()}


@pytest.mark.parametrize('task', TASKS)
def test_outputs_are_named_or_a_tuple(task, exports, inputs):
  model, given = twin(exports, task), arguments(task, inputs)
  with torch.no_grad():
    outputs, plain = model(**given), model(**given, return_dict=False)
    model.config.return_dict = False
    configured = model(**given)
  assert isinstance(plain, tuple)
  assert next(iter(outputs)) == 'loss'
  for other in (plain, configured):
    assert len(other) == len(outputs)
    assert all(map(torch.equal, other, outputs.to_tuple()))


@pytest.mark.filterwarnings('ignore:`gradient_checkpointing_enable` is deprecated')
@pytest.mark.parametrize('task', [task for task in TASKS if task != 'labels'])
def test_gradient_checkpointing_changes_no_gradient_and_keeps_less(task, exports, inputs):
  given, gradients, kept = arguments(task, inputs), [], []
  model = twin(exports, task).train()
  start = {name: x.clone() for name, x in model.state_dict().items()}
  for checkpointing in (False, True):
    model.load_state_dict(start)
    if checkpointing:
      model.gradient_checkpointing_enable()
    model.zero_grad()
    torch.manual_seed(0)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
      lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x
    ):
      loss = model(**given).loss
    loss.backward()
    kept.append(sum(sizes))
    gradients.append({n: x.grad for n, x in model.named_parameters() if x.grad is not None})
    statistics = model.state_dict()
  assert kept[1] < kept[0]
  assert gradients[0].keys() == gradients[1].keys()
  for name, gradient in gradients[0].items():
    torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0, msg=name)
  moved = any(not torch.equal(x, start[name]) for name, x in statistics.items())
  assert moved == (model.config.batch_norm == 'batch')


@pytest.mark.parametrize('words', [32, 20])
def test_the_vocabulary_can_be_resized(words, exports, inputs, tmp_path):
  model, given = twin(exports, 'pretrain'), arguments('pretrain', inputs)
  given['input_ids'] = given['input_ids'] % 20
  del given['labels']
  vocabulary = model.config.vocab_size
  assert 20 < vocabulary < 32
  with torch.no_grad():
    before = model(**given)
    embeddings = model.resize_token_embeddings(words)
    assert embeddings.num_embeddings == words
    model.save_pretrained(tmp_path)
    for resized in (model, type(model).from_pretrained(tmp_path)):
      after = resized(**given)
      same = min(words, vocabulary)
      assert resized.config.vocab_size == words
      assert after.mlm_logits.shape[-1] == words
      torch.testing.assert_close(after.mlm_logits[..., :same], before.mlm_logits[..., :same])
      torch.testing.assert_close(after.itm_logits, before.itm_logits)
      assert not resized.cls.predictions.bias[vocabulary:].any()
  # The decoder is the embeddings: what trains one moves the other.
  labels = torch.full_like(given['input_ids'], words - 1)
  model(**given, labels=labels).loss.backward()
  assert model.get_input_embeddings().weight.grad[-1].norm() > 0
  assert model.cls.predictions.bias.grad[-1] != 0
  other = twin(exports, 'vqa')
  other.resize_token_embeddings(words)
  assert other.get_input_embeddings().num_embeddings == other.config.vocab_size == words


def test_the_answers_travel_in_the_configuration(exports):
  config = PixelBertConfig.from_pretrained(exports / 'vqa')
  assert config.id2label == dict(enumerate(ANSWERS))
  assert config.label2id == {answer: i for i, answer in enumerate(ANSWERS)}


def test_texts_that_do_not_divide_among_images_are_refused(exports, inputs):
  given = arguments('vqa', inputs)
  given = {'input_ids': given['input_ids'][:3], 'pixel_values': given['pixel_values']}
  with pytest.raises(ValueError, match='3 texts for 2 images: give the same number for each'):
    twin(exports, 'vqa')(**given)


# --- From the hub, and the card --------------------------------------------------------------


def test_an_export_on_the_hub_comes_back(models, exports, tmp_path, monkeypatch):
  snapshot, blobs = tmp_path / 'hub/snapshots/abc', tmp_path / 'hub/blobs'
  asked = []

  def download(repo_id, *, revision=None, allow_patterns=None):
    """Fills a folder as huggingface_hub does, with the files that are asked for."""
    asked.append((repo_id, revision))
    snapshot.mkdir(parents=True, exist_ok=True)
    blobs.mkdir(exist_ok=True)
    wanted = huggingface_hub.utils.filter_repo_objects(FILES, allow_patterns=allow_patterns)
    for number, name in enumerate(wanted):
      (blobs / str(number)).write_bytes((exports / 'vqa' / name).read_bytes())
      (snapshot / name).unlink(missing_ok=True)
      (snapshot / name).symlink_to(blobs / str(number))
    return str(snapshot)

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
  for place, output in {'hf://user/name': 'c', 'hf://user/name@refs/pr/1': 'd'}.items():
    with contextlib.chdir(tmp_path):
      assert convert.main([f'--checkpoint={place}', f'--output={output}']) == 0
    assert bits(tmp_path / output) == bits(models['vqa'][0])
    assert json.loads((tmp_path / output / 'answers.json').read_text()) == ANSWERS
    assert (
      json.loads((tmp_path / output / 'conversion.json').read_text())['export']['source'] == place
    )
  assert asked == [('user/name', None), ('user/name', 'refs/pr/1')]
  assert not {path.name for path in snapshot.iterdir() if path.suffix == '.py'}


def test_what_is_no_export_on_the_hub_leaves_nothing(tmp_path, monkeypatch, capsys):
  def absent(*args, **kwargs):
    raise OSError('404: no such repository')

  monkeypatch.setattr(huggingface_hub, 'snapshot_download', absent)
  for place, said in {
    'hf://user/name@v1': r'hub does not give it \(404.*huggingface.co/user/name/tree/v1',
    'gs://bucket/name': 'no such folder',
    'hf://user/name/more': 'no such folder',
  }.items():
    assert convert.main([f'--checkpoint={place}', f'--output={tmp_path}/c']) == 1
    assert re.search(said, capsys.readouterr().err)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('id2label', ['yes']),
    ('id2label', {'first': 'yes'}),
    ('trained_on', None),
    ('training_config', {'name': 'vqa'}),
    ('training_config', {'name': 'nlvr', 'data': {'name': 'scenes'}}),
    ('training_config', [1]),
  ],
)
def test_a_damaged_configuration_is_one_line(field, value, exports, tmp_path):
  damaged = tmp_path / 'export'
  damaged.mkdir()
  for path in (exports / 'vqa').iterdir():
    (damaged / path.name).write_bytes(path.read_bytes())
  config = json.loads((damaged / 'config.json').read_text())
  (damaged / 'config.json').write_text(json.dumps(config | {field: value}))
  with pytest.raises(UserError, match=r'config.json is not as --export wrote it'):
    importer.import_export(str(damaged), tmp_path / 'c')
  assert not (tmp_path / 'c').exists()


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_the_example_of_the_card_runs_as_printed(task, exports, inputs, tmp_path):
  (code,) = re.findall(r'```python\n(.*?)```', (exports / task / 'README.md').read_text(), re.S)
  (tmp_path / 'THIS_FOLDER').symlink_to(exports / task)
  for name in ('image', 'left', 'right'):
    (tmp_path / f'{name}.jpg').symlink_to(inputs[0])
  environment = {k: x for k, x in os.environ.items() if k != 'PYTHONPATH'}
  environment |= {'HF_HOME': str(tmp_path / 'home'), 'HF_HUB_OFFLINE': '1'}
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  lines = len(ANSWERS) if task in ('vqa', 'labels') else 1
  assert len(done.stdout.splitlines()) >= lines
  if task in ('vqa', 'labels'):
    assert {line.rsplit(' ', 1)[0] for line in done.stdout.splitlines()} == set(ANSWERS)


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
    assert config['training_config'] == export_lib.portable(loaded.config)
    assert '": "/' not in (folder / 'config.json').read_text()  # a path of this machine


def test_what_cannot_be_exported_leaves_nothing(saved, exported, tmp_path, monkeypatch):
  before = sorted(exported.iterdir())
  with pytest.raises(UserError, match=r'pretrain is not empty: give a folder that does not'):
    export(saved[0], exported)
  assert sorted(exported.iterdir()) == before
  monkeypatch.setattr(export_lib, 'TWINS', {})  # as for a task of one's own
  with pytest.raises(UserError, match='is of pretrain, whose PretrainingModel has no class in'):
    export(saved[0], tmp_path / 'x')
  with pytest.raises(UserError, match='no such folder'):
    export(tmp_path / 'd', tmp_path / 'x')
  assert not list(tmp_path.iterdir())
