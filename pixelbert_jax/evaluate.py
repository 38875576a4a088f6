"""Evaluation of a checkpoint on a split, `--mode=evaluate --checkpoint=C`."""

import functools
import os
import pathlib
import re
import sys

import jax
from ml_collections import ConfigDict

from pixelbert_jax import UserError, commandline, files, jsons, processes, sharding
from pixelbert_jax.checkpoints import checkpoint, provenance, starting
from pixelbert_jax.checkpoints.workdir import default, owned
from pixelbert_jax.experiment import Experiment, init_variables, prepare_data, resolve
from pixelbert_jax.input.selection import exists
from pixelbert_jax.loop import result
from pixelbert_jax.metrics import not_finite
from pixelbert_jax.report import record
from pixelbert_jax.tasks.shortfall import shortfall


def evaluate(config: ConfigDict, spec: str, workdir: pathlib.Path | None = None) -> pathlib.Path:
  """Evaluates a checkpoint on the whole split `config.data.test` and prints its metrics.

  Writes the metrics and, if the task has any, predictions to `predictions/` in `workdir`: by
  default a folder of this step's own, beside that of the run. Vocabulary and the task's files are
  those of the checkpoint.

  Returns:
    The workdir.

  Raises:
    UserError: the checkpoint does not exist, or belongs to another task or model; a metric is not
      finite; or `workdir` holds an evaluation of another checkpoint or step.
  """
  mesh = sharding.make_mesh(**config.mesh)
  loaded = checkpoint.load(spec, mesh)
  workdir = workdir or default(config, 'evaluate', str(loaded.step))
  path = workdir / 'predictions' / f'{config.data.test}.json'
  with owned(workdir):
    check_new(path, spec, loaded.step)
    evaluate_loaded(config, spec, loaded, path)
  return workdir


def evaluate_loaded(
  config: ConfigDict, spec: str, loaded: checkpoint.Loaded, path: pathlib.Path
) -> None:
  """Evaluates a loaded checkpoint; `path` is for its predictions, with the metrics beside it."""
  config = resolve(config, loaded.vocabulary)
  config.text.vocabulary = str(loaded.vocabulary)
  dataset = prepare_data(config)
  roles = ('train', 'test') if exists(dataset, config.data.train) else ('test',)
  with dataset.verified():
    experiment = Experiment.of(config, dataset, loaded.files, roles)
    task, batches, split = experiment.task, experiment.batches['test'], config.data.test
    first = batches[0]
  make = functools.partial(init_variables, experiment.model, config.seed, first)
  variables = starting.fitted(loaded, config.to_dict(), jax.eval_shape(make))
  title = f'{loaded.folder}, step {loaded.step}, on {config.data.name}/{split}'
  print(f'evaluating {title}; predictions and metrics go to {path.parent}', flush=True)
  trained = provenance.data_changes(loaded.files.get(provenance.DATA, b'{}'), dataset.identity)
  for name, change in trained.items() if processes.is_first() else ():
    print(
      f'{name} was built again since this model was trained on it ({change}): scores are not '
      'comparable with its own, and images it was trained on may be among those of the split',
      file=sys.stderr,
    )
  run = functools.partial(experiment.evaluator(sharding.make_mesh(**config.mesh)), variables)
  metrics = task.report(run, batches, path) | shortfall(batches.split)
  if names := not_finite(metrics):
    raise UserError(f'{title}: {", ".join(names)} not finite: take another step or checkpoint')
  shown = result(task, split, metrics)
  if processes.is_first():
    about = {'checkpoint': spec, 'step': loaded.step, 'split': split}
    text = jsons.text(about | metrics, indent=1) + '\n'
    files.write_text(metrics_file(path), text)
    trained_on = provenance.datasets(loaded.files, loaded.config)
    about = {'config': config.to_dict(), 'data': dataset.identity, 'trained_on': trained_on}
    record.write(path.parents[1], split, table=shown, **about)
  commandline.result(shown)


def metrics_file(path: pathlib.Path) -> pathlib.Path:
  """Returns the path of the metrics of the predictions in `path`."""
  return path.with_name(f'{path.stem}_metrics.json')


def check_new(path: pathlib.Path, spec: str, step: int) -> None:
  """Raises UserError if `path` is for predictions, and has those of another checkpoint or step."""
  if not metrics_file(path).exists():
    return
  before = files.read_json(metrics_file(path))
  there = str(before.get('checkpoint'))
  if before.get('step') != step or _folder(there) != _folder(spec):
    raise UserError(
      f'{path.parent} holds the evaluation of {there}, step {before.get("step")}, which that of '
      f'{spec}, step {step}, would replace: take another --workdir, or delete that one'
    )


def _folder(spec: str) -> str:
  return os.path.realpath(re.sub(r'@\d+$', '', spec))
