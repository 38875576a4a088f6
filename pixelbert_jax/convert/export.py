"""Exports a checkpoint as a folder for PyTorch.

The folder contains the code of the model (`pytorch/`), so it loads with `transformers.AutoModel`
and `AutoTokenizer` where neither JAX nor this package is installed.
"""

import os
import pathlib
import shutil
from typing import Any

import jax
import safetensors.numpy
from ml_collections import ConfigDict

from pixelbert_jax import UserError, files
from pixelbert_jax.checkpoints import checkpoint, provenance
from pixelbert_jax.checkpoints.workdir import check_empty, to_json
from pixelbert_jax.convert import bert, names
from pixelbert_jax.convert.model_card import model_card
from pixelbert_jax.convert.tensors import digest_of_tensors
from pixelbert_jax.convert.twins import TWINS
from pixelbert_jax.experiment import make_model, make_task
from pixelbert_jax.input.text import word_pieces
from pixelbert_jax.input.vocabulary import read_vocabulary
from pixelbert_jax.tasks.base import Task
from pixelbert_jax.tasks.labels import Labels
from pixelbert_jax.tasks.vqa import Vqa

# Fields of the configuration that keep their names in an export; those of `image` after 'image_'.
CNN = ('stages', 'total_stride', 'groups', 'group_width', 'stem', 'batch_norm')
IMAGE = ('mean', 'deviation', 'shorter', 'longer')

# Fields with paths, by part.
LOCAL = ('text', 'vocabulary'), ('data', 'answers'), ('data', 'data_dir')

CODE = sorted(pathlib.Path(__file__).with_name('pytorch').glob('*_pixelbert.py'))


def export(spec: str | os.PathLike, folder: str | os.PathLike) -> None:
  """Writes the model of a checkpoint to a folder, atomically.

  Args:
    spec: a checkpoint, as for `checkpoint.load`.
    folder: does not exist yet, or is empty.

  Raises:
    UserError: the checkpoint does not exist, its model has no class in PyTorch, or the folder is
      not empty.
  """
  check_empty(folder)
  loaded = checkpoint.load(spec)
  with files.atomic(folder) as partial:
    partial.mkdir()
    write(loaded, partial)


def write(loaded: checkpoint.Loaded, folder: pathlib.Path) -> None:
  """Writes the files of an export into `folder`; UserError if its model has no class in PyTorch."""
  training, words = ConfigDict(loaded.config), read_vocabulary(loaded.vocabulary, 'vocab.txt')[1]
  task = make_task(training, files=loaded.files)
  model = make_model(training, len(words), task)
  twin = TWINS.get(type(model))
  if twin is None:
    raise UserError(
      f'{loaded.folder} is of {training.name}, whose {type(model).__name__} has no class in '
      'PyTorch: add one to pixelbert_jax/convert/pytorch/modeling_pixelbert.py, and to twins.py'
    )
  tensors = names.to_torch(loaded.variables)
  # transformers requires this metadata.
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})
  labels = list(enumerate(labels_of(task)))
  config = {
    **model_config(loaded.config, len(words)),
    'architectures': [twin.name],
    'auto_map': {
      'AutoConfig': 'configuration_pixelbert.PixelBertConfig',
      **{auto: f'modeling_pixelbert.{twin.name}' for auto in ('AutoModel', twin.auto) if auto},
    },
    'first_stage': getattr(model, 'first_stage_width', 0),
    **({'id2label': dict(labels), 'label2id': {x: i for i, x in labels}} if labels else {}),
    'trained_on': trained_on(loaded),
    'tensors_sha256': digest_of_tensors(tensors),  # shows whether they were tuned in PyTorch
    'training_config': portable(loaded.config),
  }
  (folder / 'config.json').write_text(to_json(config))
  # safetensors makes files readable by their owner only; models are shared.
  shutil.copymode(folder / 'config.json', folder / 'model.safetensors')
  write_tokenizer(loaded.vocabulary, loaded.config['text']['length'], folder)
  for path in CODE:
    shutil.copyfile(path, folder / path.name)
  parameters = sum(x.size for x in jax.tree.leaves(loaded.variables['params']))
  (folder / 'README.md').write_text(model_card(config, twin, parameters), encoding='utf-8')


def labels_of(task: Task) -> list[str]:
  """Lists the answers or labels that the model of a task chooses from, if it does."""
  if isinstance(task, Vqa):
    return list(task.answers)
  return list(task.labels) if isinstance(task, Labels) else []


def trained_on(loaded: checkpoint.Loaded) -> dict[str, Any]:
  """Summarises what a model was trained on; before step 0 only the datasets of its weights."""
  summary = {
    'steps': loaded.step,
    'datasets': list(provenance.datasets(loaded.files, loaded.config)),
  }
  if not loaded.step:
    return summary
  config = loaded.config
  return summary | {
    'batch_size': config['batch_size'],
    'data': f'{config["data"]["name"]}/{config["data"]["train"]}',
    'init_from': portable(config)['init_from'],
  }


def portable(config: dict[str, Any]) -> dict[str, Any]:
  """Returns a configuration without paths of the machine that it was trained on.

  An export has the vocabulary and the answers itself.
  """
  start = pathlib.Path(config['init_from'])
  config = config | {'init_from': start.name if start.is_absolute() else config['init_from']}
  for part, field in LOCAL:
    if field in config[part]:
      config[part] = config[part] | {field: ''}
  return config


def model_config(config: dict[str, Any], vocab_size: int) -> dict[str, Any]:
  """Returns the sizes of a model under the names of `PixelBertConfig` and BERT."""
  cnn, transformer = config['cnn'], config['transformer']
  return {
    'model_type': 'pixelbert',
    'dtype': 'float32',
    'cnn_width': cnn['width'],
    **{name: cnn[name] for name in CNN},
    'pixel_position': config.get('pixel_position', 'none'),
    'vocab_size': vocab_size,
    **{name: transformer[field] for field, name in bert.SIZES.items()},
    'hidden_act': bert.PLAIN['hidden_act'],
    'layer_norm_eps': bert.PLAIN['layer_norm_eps'],
    'type_vocab_size': 2,
    'dropout': transformer['dropout'],
    'initializer_range': transformer['init_std'],
    **{f'image_{name}': config['image'][name] for name in IMAGE},
  }


def write_tokenizer(vocabulary: pathlib.Path, length: int, folder: pathlib.Path) -> None:
  """Writes the files of `transformers.AutoTokenizer`, which truncates texts to `length` tokens."""
  _, words = read_vocabulary(vocabulary, str(vocabulary))
  word_pieces(words).save(str(folder / 'tokenizer.json'))
  shutil.copyfile(vocabulary, folder / 'vocab.txt')
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'do_lower_case': True,
    'model_max_length': length,
    'model_input_names': ['input_ids', 'attention_mask'],
    **{f'{name}_token': f'[{name.upper()}]' for name in ('pad', 'unk', 'cls', 'sep', 'mask')},
  }
  (folder / 'tokenizer_config.json').write_text(to_json(config))
