"""Checkpoints of tiny models with random weights, as a run leaves them."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import nlvr2, pretrain, vqa
from data.scenes import vocabulary
from pixelbert_jax import predict
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import init_variables, make_model, make_task, resolve
from pixelbert_jax.input.text import Tokenizer

TASKS = {'pretrain': pretrain, 'vqa': vqa, 'nlvr2': nlvr2}
ANSWERS = ('blue', 'circle', 'no', 'red', 'square', 'yes', '2')
CANVASES = ((64, 64), (64, 96), (96, 64))


def config_of(task: str, **fields) -> ConfigDict:
  """Returns the `test` variant of a task's configuration with canvases of three shapes."""
  config = TASKS[task].get_config('test')
  config.image.longer, config.image.canvases = 96, CANVASES
  config.transformer.dropout = 0.0
  config.text.vocabulary = str(vocabulary.FILE)
  with config.unlocked():
    config.update_from_flattened_dict(fields)
  return resolve(config)


def write(folder: pathlib.Path, task: str, files: dict | None = None, **fields) -> pathlib.Path:
  """Writes a checkpoint of `config_of`; `fields` of it are given by dotted names."""
  # Larger weights than at the start of a run, so that words make a difference.
  return write_untrained(folder, config_of(task, **fields), ANSWERS, files, encoder_scale=3)


def write_untrained(
  folder: pathlib.Path,
  config: ConfigDict,
  answers: tuple[str, ...] = (),
  files: dict | None = None,
  encoder_scale: float = 1,
) -> pathlib.Path:
  """Writes the checkpoint of a model as it is before training, and returns its folder."""
  files = {'vocab.txt': pathlib.Path(config.text.vocabulary).read_bytes(), **(files or {})}
  if config.name == 'vqa':
    files['answers.json'] = json.dumps(answers).encode()
  words = Tokenizer(config.text.vocabulary, 8).words
  model = make_model(config, len(words), make_task(config, files=files))
  texts = {'token_ids': np.int32, 'token_mask': bool, 'mlm_position': np.int32}
  batch = {name: np.zeros((1, 1, 4), dtype) for name, dtype in texts.items()}
  images = 2 if config.name == 'nlvr2' else 1
  batch |= {'image': np.zeros((images, 64, 64, 3), np.uint8)}
  batch |= {'size': np.full((images, 2), 64, np.int32)}
  variables = jax.device_get(jax.jit(lambda: init_variables(model, 3, batch))())
  backbone = variables['params']['backbone']
  backbone['encoder'] = jax.tree.map(lambda x: encoder_scale * x, backbone['encoder'])
  checkpoint.write_model(folder, config.to_dict(), variables, files)
  return folder


def loader(folder: pathlib.Path):
  """Loads the models in a folder by the names of their tasks, each once."""

  @functools.cache
  def load(task):
    with pytest.warns(UserWarning, match='rendered scenes'):
      return predict.load(folder / task)

  return load
