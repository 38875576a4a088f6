"""A model as a folder for PyTorch: written from a checkpoint, and read back.

The folder loads with `transformers.AutoModel` and `AutoTokenizer` where neither JAX nor this
package is installed: the model's code, `modeling_pixelbert.py`, lies inside.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import jax
import safetensors.numpy
from tokenizers import BertWordPieceTokenizer

from pixelbert_jax import UserError, files
from pixelbert_jax.checkpoints import checkpoint, provenance
from pixelbert_jax.convert import names
from pixelbert_jax.convert.model_card import model_card
from pixelbert_jax.convert.tensors import check_empty, digest_of_tensors

CODE = pathlib.Path(__file__).with_name('modeling_pixelbert.py')


class ExportError(UserError):
  """A folder that cannot be written to or read from; the message says which and why."""


def export(spec: str | os.PathLike, folder: str | os.PathLike) -> None:
  """Writes the model of a checkpoint to a folder, whole or not at all.

  Args:
    spec: a checkpoint, as of `checkpoint.load`.
    folder: that does not exist yet, or is empty.

  Raises:
    UserError: there is no such checkpoint, it is of another task, or the folder is not empty.
  """
  check_empty(folder)
  loaded = checkpoint.load(spec)
  if loaded.variables['params'].keys() != {ours.split('/')[0] for ours, *_ in names.TABLE}:
    raise ExportError(
      f'{spec} is of {loaded.config["name"]}: only models of pre-training can be exported yet'
    )
  with files.atomic(folder) as partial:
    partial.mkdir()
    write(loaded, partial)


def write(loaded: checkpoint.Loaded, folder: pathlib.Path) -> None:
  """Writes the files of an export into `folder`."""
  tensors = names.to_torch(loaded.variables)
  # transformers wants to be told what wrote the tensors.
  safetensors.numpy.save_file(tensors, folder / 'model.safetensors', {'format': 'pt'})
  config = {
    **model_config(loaded.config, len(tensors['cls.predictions.bias'])),
    'trained_on': trained_on(loaded),
    'tensors_sha256': digest_of_tensors(tensors),  # tells whether they were tuned in PyTorch
    'training_config': loaded.config,
  }
  (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
  # safetensors writes for the owner alone; a model is there to be given away.
  shutil.copymode(folder / 'config.json', folder / 'model.safetensors')
  write_tokenizer(loaded.vocabulary, loaded.config['text']['length'], folder)
  shutil.copyfile(CODE, folder / CODE.name)
  parameters = sum(x.size for x in jax.tree.leaves(loaded.variables['params']))
  (folder / 'README.md').write_text(model_card(config, parameters), encoding='utf-8')


def trained_on(loaded: checkpoint.Loaded) -> dict[str, Any]:
  """What a model learnt from, in short; of a converted one only what it had seen before."""
  found = {'steps': loaded.step, 'datasets': list(provenance.datasets(loaded))}
  if not loaded.step:
    return found
  config = loaded.config
  return found | {
    'batch_size': config['batch_size'],
    'data': f'{config["data"]["name"]}/{config["data"]["train"]}',
    'init_from': config['init_from'],
  }


def model_config(config: dict[str, Any], vocab_size: int) -> dict[str, Any]:
  """The numbers of a model under the names of `modeling_pixelbert.PixelBertConfig` and of BERT."""
  cnn, t, image = config['cnn'], config['transformer'], config['image']
  return {
    'model_type': 'pixelbert',
    'architectures': ['PixelBert'],
    'auto_map': {
      'AutoConfig': f'{CODE.stem}.PixelBertConfig',
      'AutoModel': f'{CODE.stem}.PixelBert',
    },
    'dtype': 'float32',
    'stages': list(cnn['stages']),
    'total_stride': cnn['total_stride'],
    'cnn_width': cnn['width'],
    'groups': cnn['groups'],
    'group_width': cnn['group_width'],
    'stem': cnn['stem'],
    'batch_norm': cnn['batch_norm'],
    'vocab_size': vocab_size,
    'max_position_embeddings': t['max_positions'],
    'hidden_size': t['width'],
    'num_hidden_layers': t['layers'],
    'num_attention_heads': t['heads'],
    'intermediate_size': t['mlp_width'],
    'hidden_act': 'gelu',
    'layer_norm_eps': 1e-12,
    'type_vocab_size': 2,
    'dropout': t['dropout'],
    'initializer_range': t['init_std'],
    'image_mean': list(image['mean']),
    'image_deviation': list(image['deviation']),
    'image_shorter': image['shorter'],
    'image_longer': image['longer'],
  }


def write_tokenizer(vocabulary: pathlib.Path, length: int, folder: pathlib.Path) -> None:
  """Writes what `transformers.AutoTokenizer` loads; texts are cut to `length` if it truncates."""
  tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
  tokenizer.save(str(folder / 'tokenizer.json'))
  shutil.copyfile(vocabulary, folder / 'vocab.txt')
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'do_lower_case': True,
    'model_max_length': length,
    'model_input_names': ['input_ids', 'attention_mask'],
    **{f'{name}_token': f'[{name.upper()}]' for name in ('pad', 'unk', 'cls', 'sep', 'mask')},
  }
  (folder / 'tokenizer_config.json').write_text(json.dumps(config, indent=2) + '\n')
