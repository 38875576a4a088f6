"""Small weights in the form of the published ones: a BERT and a CNN."""

import functools
import json

import numpy as np
import torch
from safetensors.numpy import save_file

from configs.pretrain import get_config
from pixelbert_jax.convert import importer, names

WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] a red bus ##es'.replace(' ', '\n').encode() + b'\n'
BERT = {
  'model_type': 'bert',
  'hidden_act': 'gelu',
  'layer_norm_eps': 1e-12,
  'hidden_size': 12,
  'num_hidden_layers': 3,
  'num_attention_heads': 2,
  'intermediate_size': 20,
  'max_position_embeddings': 16,
  'vocab_size': 9,
}
# Parts of the model that neither a published BERT nor a published CNN has.
OWN = ('projection', 'semantic', 'itm')


def small_config(**cnn):
  """Returns a configuration with a ResNeXt of the published structure and a smaller Transformer."""
  config = get_config('test')
  config.cnn.update(stages=(2, 1), stem='7x7', groups=2, group_width=4, batch_norm='frozen', **cnn)
  return config


@functools.cache
def published():
  """Draws a BERT with all its heads and a CNN, as tensors under the names of an export."""
  config = small_config()
  config.transformer.update(width=12, layers=3, heads=2, mlp_width=20, max_positions=16)
  _, like = importer.build(config, WORDS)
  draws = np.random.default_rng(0)
  tensors = {
    name: draws.normal(size=shape).astype(np.float32)
    for name, shape in names.expected(like).items()
    if name.partition('.')[0] not in OWN
  }
  tensors[names.TOKEN_TYPES] = draws.normal(size=(2, 12)).astype(np.float32)
  # With a variance below 0 nothing could be computed.
  return {name: abs(x) if name.endswith('running_var') else x for name, x in tensors.items()}


def bert_tensors():
  """Returns the BERT with what Hugging Face stores beside it."""
  tensors = {name: x for name, x in published().items() if not name.startswith('cnn.')}
  return tensors | {
    'bert.embeddings.position_ids': np.arange(16)[None],
    'cls.predictions.decoder.weight': tensors['bert.embeddings.word_embeddings.weight'],
    'cls.predictions.decoder.bias': tensors['cls.predictions.bias'],
    'cls.seq_relationship.weight': np.ones((2, 12), np.float32),
    'cls.seq_relationship.bias': np.ones(2, np.float32),
  }


def cnn_tensors():
  """Returns the CNN with what torchvision stores beside it."""
  tensors = {name[4:]: x for name, x in published().items() if name.startswith('cnn.')}
  counts = [name.replace('running_mean', 'num_batches_tracked') for name in tensors]
  tensors |= {name: np.array(7) for name in counts if name.endswith('tracked')}
  return tensors | {'fc.weight': np.ones((10, 64), np.float32), 'fc.bias': np.ones(10, np.float32)}


def as_torch(tensors):
  """Converts NumPy arrays to PyTorch tensors."""
  return {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}


def write_bert(folder, tensors, config=BERT, words=WORDS):
  """Writes a BERT as Hugging Face does, and returns the folder."""
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'vocab.txt').write_bytes(words)
  save_file(tensors, folder / 'model.safetensors')
  return folder
