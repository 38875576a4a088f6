"""A checkpoint run on a split: what `--mode=evaluate --checkpoint=C` does."""

import functools
import json
import pathlib

import jax
from ml_collections import ConfigDict

from pixelbert_jax import files, processes, sharding
from pixelbert_jax.catalogue import TASKS
from pixelbert_jax.checkpoints import checkpoint, starting
from pixelbert_jax.experiment import (
  init_variables,
  make_batches,
  make_evaluator,
  make_model,
  prepare_data,
  resolve,
)
from pixelbert_jax.input.selection import splits
from pixelbert_jax.metrics import measured


def evaluate(config: ConfigDict, spec: str, workdir: pathlib.Path) -> None:
  """Runs a checkpoint on all of the split `config.data.test` and prints what it reaches.

  To `predictions/` in `workdir` go its metrics and, where the task has any, predictions. Vocabulary
  and answer list are those of the checkpoint.

  Raises:
    UserError: there is no such checkpoint, or it is of another task or model.
  """
  mesh = sharding.make_mesh(**config.mesh)
  loaded = checkpoint.load(spec, mesh)
  config = resolve(config, loaded.vocabulary)
  config.text.vocabulary = str(loaded.vocabulary)
  if config.name == 'vqa' and loaded.answers is None:
    raise checkpoint.CheckpointError(
      f'--checkpoint={spec} is of {loaded.config["name"]} and has no answers to choose from: '
      'give one that configs/vqa.py has made'
    )
  dataset = prepare_data(config)
  trained = set(splits(config.data.train)) <= dataset.splits.keys()  # else there is no guess
  roles = ('train', 'test') if trained else ('test',)
  batches = make_batches(config, dataset, loaded.answers, roles)['test']
  model = make_model(config, len(batches.tokenizer.words), len(loaded.answers or ()))
  shapes = jax.eval_shape(functools.partial(init_variables, model, config.seed, batches[0]))
  variables = starting.fitted(loaded, config.to_dict(), shapes)
  task, split = TASKS[config.name].module, config.data.test
  path = workdir / 'predictions' / f'{split}.json'
  what = f'{loaded.folder}, step {loaded.step}, on {config.data.name}/{split}'
  print(f'evaluating {what}; what comes of it goes to {path.parent}', flush=True)
  metrics = make_evaluator(config, model, mesh).result(variables, batches, path)
  if processes.is_first():
    found = {'checkpoint': spec, 'step': loaded.step, 'split': split}
    found |= measured(metrics)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + '\n'
    files.write(path.with_name(f'{split}_metrics.json'), lambda file: file.write(text.encode()))
  print(task.table(split, metrics), flush=True)
