"""Small weights in the form of the published ones: a BERT and a CNN."""

import functools

import numpy as np
import torch

from configs.pretrain import get_config
from launch.rehearsal import weights

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
  return weights.draw(config, WORDS)


def bert_tensors():
  """Returns the BERT with what Hugging Face stores beside it."""
  return weights.as_bert(published())


def cnn_tensors():
  """Returns the CNN with what torchvision stores beside it."""
  return weights.as_cnn(published())


def as_torch(tensors):
  """Converts NumPy arrays to PyTorch tensors."""
  return {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}


def write_bert(folder, tensors, config=BERT, words=WORDS):
  """Writes a BERT as Hugging Face does, and returns the folder."""
  return weights.write_bert(folder, tensors, config, words)
