"""Random weights in the form of the published ones: Hugging Face's BERT, torchvision's ResNet."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from pixelbert_jax.convert import bert, importer, names
from pixelbert_jax.input.text import word_pieces

Tensors = dict[str, np.ndarray]

# Parts of the model that neither a published BERT nor a published CNN has.
OWN = ('projection', 'semantic', 'cell_position', 'itm')


def draw(config: ConfigDict, vocabulary: bytes) -> Tensors:
  """Draws a BERT with its heads and a CNN, under the names of an export; no array is constant."""
  _, like = importer.build(config, vocabulary)
  shapes = {n: s for n, s in names.expected(like).items() if n.partition('.')[0] not in OWN}
  shapes[names.TOKEN_TYPES] = (2, config.transformer.width)
  draws = np.random.default_rng(0)
  return {name: _tensor(name, shape, draws) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], draws: np.random.Generator) -> np.ndarray:
  """Draws a tensor of about the size that a trained one has, so that activations stay finite."""
  if name.endswith('running_var') or (len(shape) == 1 and name.endswith('weight')):
    return draws.uniform(0.5, 1.5, shape).astype(np.float32)
  deviation = (2 / math.prod(shape[1:])) ** 0.5 if len(shape) == 4 else 0.02
  return draws.standard_normal(shape, np.float32) * np.float32(deviation)


def as_bert(tensors: Tensors) -> Tensors:
  """Returns the BERT with what Hugging Face stores beside it."""
  own = {name: x for name, x in tensors.items() if not name.startswith('cnn.')}
  positions, width = own[names.POSITIONS].shape
  return own | {
    'bert.embeddings.position_ids': np.arange(positions)[None],
    'cls.predictions.decoder.weight': own[bert.WORDS],
    'cls.predictions.decoder.bias': own['cls.predictions.bias'],
    'cls.seq_relationship.weight': np.ones((2, width), np.float32),
    'cls.seq_relationship.bias': np.ones(2, np.float32),
  }


def as_cnn(tensors: Tensors) -> Tensors:
  """Returns the CNN with what torchvision stores beside it."""
  own = {name.removeprefix('cnn.'): x for name, x in tensors.items() if name.startswith('cnn.')}
  counts = [name.replace('running_mean', 'num_batches_tracked') for name in own]
  own |= {name: np.array(7) for name in counts if name.endswith('tracked')}
  features = max(len(x) for name, x in own.items() if name.endswith('conv3.weight'))
  classifier = {'fc.weight': np.ones((1000, features), np.float32)}
  return own | classifier | {'fc.bias': np.ones(1000, np.float32)}


def bert_config(config: ConfigDict, words: int) -> dict[str, Any]:
  """Returns the config.json of a BERT with the sizes of a configuration."""
  sizes = {theirs: config.transformer[ours] for ours, theirs in bert.SIZES.items()}
  plain = {'model_type': 'bert', 'hidden_act': 'gelu', 'layer_norm_eps': 1e-12}
  return plain | sizes | {'vocab_size': words}


def write_bert(
  folder: pathlib.Path, tensors: Tensors, config: Mapping[str, Any], vocabulary: bytes
) -> pathlib.Path:
  """Writes a BERT as Hugging Face does, and returns the folder."""
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'vocab.txt').write_bytes(vocabulary)
  save_file(tensors, folder / 'model.safetensors')
  return folder


def write_tokenizer(folder: pathlib.Path, vocabulary: bytes, length: int) -> None:
  """Writes the files of the fast tokenizer beside a BERT."""
  word_pieces(vocabulary.decode().split('\n')[:-1]).save(str(folder / 'tokenizer.json'))
  settings = {'do_lower_case': True, 'model_max_length': length}
  (folder / 'tokenizer_config.json').write_text(json.dumps(settings))


def vocabulary(entries: int) -> bytes:
  """Makes an uncased vocabulary: special entries, letters, a few words, and made-up ones."""
  special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()] + ['ß']
  words = ['the', 'clock', 'is', 'green', 'in', 'colour', 'how', 'many']
  pieces = [*special, *letters, *(f'##{letter}' for letter in letters), *words]
  made_up = (f'word{number}' for number in range(entries - len(pieces)))
  return ('\n'.join([*pieces, *made_up]) + '\n').encode()
