"""Checkpoints of tiny models with random weights, as a run leaves them."""

import json
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import nlvr2, pretrain, vqa
from data.scenes import vocabulary
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import init_variables, make_model, make_task, resolve
from pixelbert_jax.input.text import Tokenizer

TASKS = {'pretrain': pretrain, 'vqa': vqa, 'nlvr2': nlvr2}
ANSWERS = ('blue', 'circle', 'no', 'red', 'square', 'yes', '2')
CANVASES = ((64, 64), (64, 96), (96, 64))


def config_of(task: str, **fields) -> ConfigDict:
  """That of tests, with canvases of three shapes."""
  config = TASKS[task].get_config('test')
  config.image.longer, config.image.canvases = 96, CANVASES
  config.transformer.dropout = 0.0
  config.text.vocabulary = str(vocabulary.FILE)
  with config.unlocked():
    config.update_from_flattened_dict(fields)
  return resolve(config)


def write(folder: pathlib.Path, task: str, files: dict | None = None, **fields) -> pathlib.Path:
  """Writes a checkpoint; `fields` of its configuration are given by dotted names."""
  config = config_of(task, **fields)
  files = dict(files or {})
  if task == 'vqa':
    files['answers.json'] = json.dumps(ANSWERS).encode()
  words = Tokenizer(vocabulary.FILE, 8).words
  model = make_model(config, len(words), make_task(config, files=files))
  texts = {'token_ids': np.int32, 'token_mask': bool, 'mlm_position': np.int32}
  batch = {name: np.zeros((1, 1, 4), dtype) for name, dtype in texts.items()}
  images = 2 if task == 'nlvr2' else 1
  batch |= {'image': np.zeros((images, 64, 64, 3), np.uint8)}
  batch |= {'size': np.full((images, 2), 64, np.int32)}
  variables = jax.device_get(jax.jit(lambda: init_variables(model, 3, batch))())
  # Larger than at the start of a run, so that words make a difference.
  params = variables['params']
  params['backbone']['encoder'] = jax.tree.map(lambda x: 3 * x, params['backbone']['encoder'])
  checkpoint.write_model(folder, config.to_dict(), variables, vocabulary.FILE, files)
  return folder
