"""Training: sets a run up or resumes it, and runs the loop over its steps."""

import contextlib
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import (
  UserError,
  commandline,
  jsons,
  processes,
  require_checkout,
  sharding,
)
from pixelbert_jax.bad_batch import BadBatches
from pixelbert_jax.checkpoints import checkpoint, provenance, starting
from pixelbert_jax.checkpoints.workdir import VOCABULARY, check_workdir, claim_workdir, read_files
from pixelbert_jax.compilation import compiled
from pixelbert_jax.experiment import (
  ROLES,
  Experiment,
  images_per_batch,
  init_variables,
  make_optimizer,
  prepare_data,
  resolve,
)
from pixelbert_jax.input import lengths
from pixelbert_jax.input.pipeline import Batches
from pixelbert_jax.input.selection import splits
from pixelbert_jax.loop import DONE, Loop, result
from pixelbert_jax.metrics import MetricsLog, logged
from pixelbert_jax.models.heads import Model
from pixelbert_jax.report import record
from pixelbert_jax.step import State, Step, no_sums
from pixelbert_jax.tasks.base import Task
from pixelbert_jax.tasks.shortfall import remark, shortfall


def init_state(experiment: Experiment, mesh: Mesh) -> tuple[State, Step, dict[str, optax.Schedule]]:
  """Makes a fresh state on the mesh, the step (which donates the state), and learning rates."""
  batches = experiment.batches['train']
  fresh, step, rates = define(
    experiment.config,
    experiment.task,
    experiment.model,
    mesh,
    batch=batches[0],
    steps_per_epoch=len(batches),
  )
  print(
    'programs    XLA compiles each before it runs, in silence: for seconds if the model is small, '
    "for minutes at the paper's size",
    flush=True,
  )
  init = compiled(jax.jit(fresh, out_shardings=step.shardings), title='the initial state')
  return init(), step, rates


def define(
  config: ConfigDict,
  task: Task,
  model: Model,
  mesh: Mesh,
  *,
  batch: dict[str, np.ndarray],
  steps_per_epoch: int,
) -> tuple[Callable[[], State], Step, dict[str, optax.Schedule]]:
  """Defines a run without computing anything: what makes its state, the step, learning rates.

  Of `batch` only the shapes of a row are used.
  """
  make = functools.partial(init_variables, model, config.seed, batch)
  optimizer, rates = make_optimizer(config, jax.eval_shape(make)['params'], steps_per_epoch)

  def fresh() -> State:
    variables = make()
    params, opt_state = variables['params'], optimizer.init(variables['params'])
    return State(jnp.int32(0), params, variables['batch_stats'], opt_state, no_sums(task))

  shardings = sharding.state_sharding(mesh, jax.eval_shape(fresh))
  step = Step(
    task=task,
    model=model,
    optimizer=optimizer,
    seed=config.seed,
    micro_batches=config.micro_batches,
    shardings=shardings,
    skip=config.on_bad_batch == 'skip',
  )
  return fresh, step, rates


def train(config: ConfigDict, workdir: pathlib.Path) -> int:
  """Trains to the end, or resumes the run in `workdir`.

  Returns:
    DONE, or PREEMPTED after a SIGTERM or SIGINT (of several processes, one got a SIGTERM):
    everything is saved, run again to resume.

  Raises:
    UserError: the configuration, data or workdir has a fault that the user has to fix.
  """
  mesh = sharding.make_mesh(**config.mesh)
  images_per_batch(config)  # Reports a mistake before data is built.
  check_names(config)
  loaded = starting.starting_point(config.init_from, workdir, mesh)
  inherited = loaded.files if loaded else read_files(workdir)
  vocabulary = loaded.vocabulary if loaded else workdir / VOCABULARY
  config = resolve(config, vocabulary if vocabulary.exists() else None)
  dataset = prepare_data(config)
  with dataset.verified():
    experiment = Experiment.of(config, dataset, inherited)
    check_plans(config, experiment.batches)
  stop = config.steps or max(round(config.epochs * len(experiment.batches['train'])), 1)
  files = run_files(experiment, inherited)
  used = {name for role in ROLES for name in splits(config.data[role])}
  files[provenance.DATA] = provenance.remember(workdir, dataset.identity, used)
  check_workdir(workdir, config.to_dict(), files)
  state, step, rates = init_state(experiment, mesh)
  if loaded:
    state = state._replace(**starting.take(loaded, config.to_dict(), state.variables))
  if processes.is_first():
    claim_workdir(workdir, config.to_dict(), files)
  processes.wait_for_all('workdir')
  with contextlib.closing(checkpoint.Checkpoints(workdir, files, config.keep)) as checkpoints:
    if checkpoints.latest is not None:
      state = checkpoints.restore(checkpoint.abstract(state))
      print(f'resuming {workdir} at step {int(state.step)} of {stop}')
    ended = last_result(experiment, workdir, stop) if int(state.step) >= stop else ''
    if ended or int(state.step) > stop:
      print(f'{workdir} is trained to the end')
      commandline.result(ended)
      return DONE
    checkpoints.room.check(state)
    announce(summary(experiment, workdir, mesh, state, stop), workdir, stop)
    restored = checkpoints.restored
    mark = restored.log if restored else None
    log = MetricsLog(workdir, int(state.step), writes=processes.is_first(), mark=mark)
    loop = Loop(
      experiment=experiment,
      workdir=workdir,
      mesh=mesh,
      step=step,
      rates=rates,
      checkpoints=checkpoints,
      log=log,
      bad=BadBatches(config, workdir, experiment.batches['train'], checkpoints),
      stop=stop,
    )
    with contextlib.closing(log):
      return loop(state)


def announce(described: str, workdir: pathlib.Path, stop: int) -> None:
  """Prints the summary of a run, and keeps it for the run's report."""
  print(described)
  if processes.is_first():
    record.write(workdir, record.RUN, summary=described, stop=stop)


def run_files(experiment: Experiment, inherited: Mapping[str, bytes]) -> dict[str, bytes]:
  """Makes the run's own files, by name, given those of the run it resumes or starts from."""
  config = experiment.config
  trained_on = jsons.parse(inherited.get(provenance.FILE, '[]'), list)
  return {
    VOCABULARY: pathlib.Path(config.text.vocabulary).read_bytes(),
    **experiment.task.files(),
    provenance.FILE: provenance.encode([*trained_on, *config.data.name.split('+')]),
  }


def check_names(config: ConfigDict) -> None:
  """Raises UserError if there is no dataset of a name, before a vocabulary for it is asked for."""
  require_checkout()
  from data.builders import find_builder  # TFDS, which takes seconds to import

  for name in config.data.name.split('+'):
    find_builder(name, config.data.data_dir or None)


def check_plans(config: ConfigDict, batches: Mapping[str, Batches]) -> None:
  """Plans an epoch of each split, so that an unusable split is reported before training.

  Raises:
    UserError: a split cannot be used.
  """
  for role, split_batches in batches.items():
    try:
      len(split_batches)
    except UserError as error:
      raise UserError(f'{config.data.name}, split {config.data[role]}: {error}') from error


def last_result(experiment: Experiment, workdir: pathlib.Path, stop: int) -> str:
  """Formats the final table of a run to step `stop`; returns '' if the run has not ended."""
  data, task = experiment.config.data, experiment.task
  lines = logged(workdir, stop, data.test)
  if task.CHOSEN_BY and data.test == data.validation and len(lines) == 1:
    # Earlier versions logged the validation of the last step too, before the final line.
    lines = [line for line in lines if 'chosen_step' in line]
  if not lines:
    return ''
  metrics = {k: x for k, x in lines[-1].items() if k not in ('step', 'split')}
  return result(task, data.test, metrics)


def summary(
  experiment: Experiment, workdir: pathlib.Path, mesh: Mesh, state: State, stop: int
) -> str:
  """Describes the run that is about to start: devices, parameters, data, schedule."""

  def millions(tree: Any) -> str:
    return f'{sum(x.size for x in jax.tree.leaves(tree)) / 1e6:.2f} M'

  config, train = experiment.config, experiment.batches['train']
  images = len(train.split.sidecar.image_id)
  texts = {config.data[role]: b.table.text for role, b in experiment.batches.items() if b.texts}
  device, plan = mesh.devices.flat[0], train.plan(0)
  named = {config.data[role]: shortfall(b.split) for role, b in experiment.batches.items()}
  lacking = [remark(split, found) for split, found in named.items() if found]
  return '\n'.join(
    [
      f'workdir     {workdir}',
      f'devices     {mesh.size} x {device.device_kind}, mesh {dict(mesh.shape)}',
      f'parameters  {millions(state.params)}, of which '
      f'{millions(state.params["backbone"]["cnn"])} in the CNN; {config.dtype}',
      f'data        {config.data.name}/{config.data.train}: {images:,} images, '
      f'{train.texts:,} texts; evaluated on {config.data.validation}, {config.data.test}',
      f'epoch       {np.count_nonzero(plan.weight):,} pairs of {len(np.unique(plan.image)):,} '
      f'images, in {plan.image.size:,} passes of the CNN',
      *[f'never shown {plan.missed:,} images or pairs: fewer than a batch on their canvas']
      * bool(plan.missed),
      *[f'left out    {line}' for line in lacking],
      *experiment.task.summary(experiment.batches),
      f'schedule    {stop:,} steps of {config.batch_size} pairs '
      f'({config.texts_per_image} texts per image), '
      f'{stop / len(train):.3g} epochs',
      *[lengths.summary(texts, train.tokenizer, config.transformer.max_positions)] * bool(texts),
    ]
  )


if __name__ == '__main__':
  sys.exit('the command is: python -m pixelbert_jax.main --config=configs/pretrain.py')
