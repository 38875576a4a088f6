"""Evaluation of a checkpoint on a split, `--mode=evaluate --checkpoint=C`."""

import functools
import pathlib

import jax
from ml_collections import ConfigDict

from pixelbert_jax import UserError, files, jsons, processes, sharding
from pixelbert_jax.checkpoints import checkpoint, provenance, starting
from pixelbert_jax.experiment import Experiment, init_variables, prepare_data, resolve
from pixelbert_jax.input.selection import splits
from pixelbert_jax.metrics import not_finite


def evaluate(config: ConfigDict, spec: str, workdir: pathlib.Path) -> None:
  """Evaluates a checkpoint on the whole split `config.data.test` and prints its metrics.

  Writes the metrics and, if the task has any, predictions to `predictions/` in `workdir`.
  Vocabulary and the task's files are those of the checkpoint.

  Raises:
    UserError: the checkpoint does not exist, belongs to another task or model, or a metric is not
      finite.
  """
  mesh = sharding.make_mesh(**config.mesh)
  loaded = checkpoint.load(spec, mesh)
  config = resolve(config, loaded.vocabulary)
  config.text.vocabulary = str(loaded.vocabulary)
  dataset = prepare_data(config)
  has_train = set(splits(config.data.train)) <= dataset.splits.keys()
  roles = ('train', 'test') if has_train else ('test',)
  with dataset.verified():
    experiment = Experiment.of(config, dataset, loaded.files, roles)
    task, batches, split = experiment.task, experiment.batches['test'], config.data.test
    first = batches[0]
  make = functools.partial(init_variables, experiment.model, config.seed, first)
  variables = starting.fitted(loaded, config.to_dict(), jax.eval_shape(make))
  path = workdir / 'predictions' / f'{split}.json'
  title = f'{loaded.folder}, step {loaded.step}, on {config.data.name}/{split}'
  print(f'evaluating {title}; predictions and metrics go to {path.parent}', flush=True)
  trained = provenance.data_changes(loaded.files.get(provenance.DATA, b'{}'), dataset.identity)
  for name, change in trained.items():
    print(
      f'{name} was built again since this model was trained on it ({change}): scores are not '
      'comparable with its own, and images it was trained on may be among those of the split',
      flush=True,
    )
  run = functools.partial(experiment.evaluator(mesh), variables)
  metrics = task.report(run, batches, path)
  if names := not_finite(metrics):
    raise UserError(f'{title}: {", ".join(names)} not finite: take another step or checkpoint')
  if processes.is_first():
    about = {'checkpoint': spec, 'step': loaded.step, 'split': split}
    text = jsons.text(about | metrics, indent=1) + '\n'
    files.write_text(path.with_name(f'{split}_metrics.json'), text)
  print(task.table(split, metrics), flush=True)
