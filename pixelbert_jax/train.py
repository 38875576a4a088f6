"""Training: the loop over steps and what happens around it."""

import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import UserError, processes, sharding
from pixelbert_jax.catalogue import TASKS
from pixelbert_jax.checkpoints import checkpoint, provenance, starting
from pixelbert_jax.checkpoints.workdir import check_workdir, claim_workdir
from pixelbert_jax.experiment import (
  choose_answers,
  images_per_batch,
  init_variables,
  make_batches,
  make_evaluator,
  make_model,
  make_optimizer,
  prepare_data,
  resolve,
)
from pixelbert_jax.input import pipeline
from pixelbert_jax.input.pipeline import Batches
from pixelbert_jax.metrics import Metrics, MetricsLog, Progress, logged
from pixelbert_jax.models.heads import Model
from pixelbert_jax.step import Batch, State, Step, no_sums
from pixelbert_jax.tasks.evaluator import Evaluator
from pixelbert_jax.tasks.ranker import Ranker
from pixelbert_jax.tasks.sums import finish

DONE, PREEMPTED = 0, 75


def init_state(
  config: ConfigDict, model: Model, batches: Batches, mesh: Mesh
) -> tuple[State, Step, dict[str, optax.Schedule]]:
  """A fresh state on the mesh, the step (the state is donated to it), and the learning rates."""
  task = TASKS[config.name].module
  make = functools.partial(init_variables, model, config.seed, batches[0])
  optimizer, rates = make_optimizer(config, jax.eval_shape(make)['params'], len(batches))

  def fresh() -> State:
    variables = make()
    params, opt_state = variables['params'], optimizer.init(variables['params'])
    return State(jnp.int32(0), params, variables['batch_stats'], opt_state, no_sums(task))

  places = sharding.state_sharding(mesh, jax.eval_shape(fresh))
  step = Step(task, model, optimizer, config.seed, config.micro_batches, places)
  return jax.jit(fresh, out_shardings=places)(), step, rates


def train(config: ConfigDict, workdir: pathlib.Path) -> int:
  """Trains to the end, or goes on with the run in `workdir`.

  Returns:
    DONE, or PREEMPTED when a SIGTERM or SIGINT came (to one of several processes: SIGTERM):
    everything is saved, run again to go on.

  Raises:
    UserError: something in the configuration, data or workdir has to be mended.
  """
  mesh = sharding.make_mesh(**config.mesh)
  images_per_batch(config)  # Mistakes are told before data is built.
  loaded = starting.starting_point(config.init_from, workdir, mesh)
  there = loaded.vocabulary if loaded else workdir / 'vocab.txt'
  config = resolve(config, there if there.exists() else None)
  dataset = prepare_data(config)
  answers = choose_answers(config, dataset, loaded.answers if loaded else own_answers(workdir))
  batches = make_batches(config, dataset, answers)
  check_plans(config, batches)
  stop = config.steps or max(round(config.epochs * len(batches['train'])), 1)
  identity = config.to_dict(), config.text.vocabulary, answers
  trained_on = provenance.after_training(loaded, config.data.name)
  check_workdir(workdir, *identity)
  model = make_model(config, len(batches['train'].tokenizer.words), len(answers or ()))
  state, step, rates = init_state(config, model, batches['train'], mesh)
  if loaded:
    state = state._replace(**starting.take(loaded, config.to_dict(), state.variables, answers))
  if processes.is_first():
    claim_workdir(workdir, *identity, trained_on)
  processes.wait_for_all('workdir')
  with contextlib.closing(checkpoint.Checkpoints(workdir, config.keep)) as checkpoints:
    if checkpoints.latest is not None:
      state = checkpoints.restore(checkpoint.abstract(state))
      print(f'resuming {workdir} at step {int(state.step)} of {stop}')
    ended = last_result(config, workdir, stop) if int(state.step) >= stop else ''
    if ended or int(state.step) > stop:
      print(f'{workdir} is trained to the end\n{ended}')
      return DONE
    print(summary(config, workdir, mesh, state, batches, stop))
    run = Loop(config, workdir, mesh, model, step, rates, batches, checkpoints, stop)
    with contextlib.closing(
      MetricsLog(workdir, int(state.step), writes=processes.is_first())
    ) as log:
      return run(state, log)


def check_plans(config: ConfigDict, batches: dict[str, Batches]) -> None:
  """UserError if a split cannot be trained or evaluated on, before hours of work."""
  for role, found in batches.items():
    try:
      len(found)
    except UserError as error:
      raise UserError(f'{config.data.name}, split {config.data[role]}: {error}') from error


def own_answers(workdir: pathlib.Path) -> list[str] | None:
  """The answer list of the run in a workdir, if there is one."""
  path = workdir / 'answers.json'
  return json.loads(path.read_text()) if path.exists() else None


def last_result(config: ConfigDict, workdir: pathlib.Path, stop: int) -> str:
  """The table that a run to step `stop` ended with; '' if it has not come to that."""
  split, task = config.data.test, TASKS[config.name].module
  lines = logged(workdir, stop, split)
  # The split may be that of validation too, which comes first.
  validated = bool(task.CHOSEN_BY) and split == config.data.validation
  return task.table(split, lines[-1]) if len(lines) > validated else ''


def summary(
  config: ConfigDict, workdir: pathlib.Path, mesh: Mesh, state: State, batches: dict, stop: int
) -> str:
  """What is about to run: devices, parameters, data, schedule."""

  def millions(tree: Any) -> str:
    return f'{sum(x.size for x in jax.tree.leaves(tree)) / 1e6:.2f} M'

  train, images = batches['train'], len(batches['train'].split.sidecar.image_id)
  device, missed = mesh.devices.flat[0], train.plan(0).missed
  return '\n'.join(
    [
      f'workdir     {workdir}',
      f'devices     {mesh.size} x {device.device_kind}, mesh {dict(mesh.shape)}',
      f'parameters  {millions(state.params)}, of them '
      f'{millions(state.params["backbone"]["cnn"])} in the CNN; {config.dtype}',
      f'data        {config.data.name}/{config.data.train}: {images:,} images, '
      f'{train.texts:,} texts; evaluated on {config.data.validation}, {config.data.test}',
      *[f'never shown {missed:,} images: or pairs: fewer than a batch on their canvas']
      * bool(missed),
      f'schedule    {stop:,} steps of {config.batch_size} pairs '
      f'({config.texts_per_image} texts an image), '
      f'{stop / len(batches["train"]):.3g} epochs',
    ]
  )


@dataclasses.dataclass
class Loop:
  """Steps, and what happens between them: logging, evaluation, checkpoints, the end."""

  config: ConfigDict
  workdir: pathlib.Path
  mesh: Mesh
  model: Model
  step: Step
  rates: dict[str, optax.Schedule]
  batches: dict[str, Batches]
  checkpoints: checkpoint.Checkpoints
  stop: int

  @property
  def task(self) -> ModuleType:
    """What is trained for."""
    return TASKS[self.config.name].module

  def __call__(self, state: State, log: MetricsLog) -> int:
    """Runs from the step of `state` to the end; returns an exit code."""
    most = self.config.eval_batches * self.config.micro_batches
    evaluator = make_evaluator(self.config, self.model, self.mesh, most)
    if int(state.step) < self.stop:
      with processes.stop_signal() as asked_to_stop:
        state = self.steps(state, evaluator, log, asked_to_stop)
        self.checkpoints.wait()
      if int(state.step) < self.stop:
        step = int(state.step)
        print(f'stopped at step {step}, everything is saved: run again to go on', flush=True)
        return PREEMPTED
    self.report(state, evaluator, log)
    return DONE

  def steps(
    self,
    state: State,
    evaluator: Evaluator | Ranker,
    log: MetricsLog,
    asked_to_stop: Callable[[int], bool],
  ) -> State:
    """The state after the last step, or after that at which it is asked to stop: it is saved."""
    config, start = self.config, int(state.step)
    progress = Progress(start, self.stop)
    batches = self.training_batches(start)
    for number in range(start + 1, self.stop + 1):
      state = self.step(state, itertools.islice(batches, config.micro_batches))
      if number <= start + 2:
        jax.block_until_ready(state.step)
        progress.show_pace(number)
      last, score = number == self.stop, None
      if number % config.log_every == 0 or last:
        state = self.log_training(state, number, log, progress)
      if number % config.eval_every == 0 and not last:
        score = self.validate(number, state, evaluator, log)
      if asked_to_stop(number) and not last:
        self.save(number, state, score, log)
        return state
      if (number % config.save_every == 0 or self.is_best(score)) and not last:
        self.save(number, state, score, log)
    score = self.validate(self.stop, state, evaluator, log) if self.task.CHOSEN_BY else None
    self.save(self.stop, state, score, log)
    return state

  def report(self, state: State, evaluator: Evaluator | Ranker, log: MetricsLog) -> None:
    """Shows what the step chosen on validation, or else the last, does on test."""
    split, variables, chosen = self.config.data.test, state.variables, {}
    if self.checkpoints.chosen:
      step, best = self.checkpoints.chosen
      chosen = {'chosen_step': step, f'validation_{self.task.CHOSEN_BY}': best}
      if step != self.stop:
        variables = self.checkpoints.load(step, self.mesh)
    path = self.workdir / 'predictions' / f'{split}.json'
    metrics = evaluator.result(variables, self.batches['test'], path) | chosen
    log.write(self.stop, split, metrics)
    print(self.task.table(split, metrics), flush=True)
    print(f'the model is in {self.workdir}; docs/predict.md says how to ask it', flush=True)

  def save(self, number: int, state: State, score: float | None, log: MetricsLog) -> None:
    """Begins to save a step; the log up to it is on disk first."""
    self.check(state, number)
    log.sync()
    self.checkpoints.save(number, state, score)

  def check(self, state: State, number: int) -> None:
    """UserError if training has diverged: no step like that is saved in the place of a good one."""
    if not all(np.isfinite(x).all() for x in jax.device_get(state.sums).values()):
      saved = self.checkpoints.latest
      kept = '' if saved is None else f'; {self.workdir} keeps step {saved}'
      raise UserError(
        f'training has diverged: by step {number} a loss or the gradient is no number. Start again '
        'in another --workdir with a lower --config.optimizer.transformer_rate or cnn_rate, or a '
        f'lower clip_norm (0 is none){kept}'
      )

  def is_best(self, score: float | None) -> bool:
    """Whether a score on validation is higher than that of each step before."""
    before = self.checkpoints.chosen
    return score is not None and (before is None or score > before[1])

  def validate(
    self, number: int, state: State, evaluator: Evaluator | Ranker, log: MetricsLog
  ) -> float | None:
    """Evaluates on validation and logs it; returns what a step is chosen by, if anything is."""
    metrics = evaluator(state.variables, self.batches['validation'])
    self.log_evaluation(number, self.config.data.validation, metrics, log)
    return metrics.get(self.task.CHOSEN_BY)

  def training_batches(self, start: int) -> Iterator[Batch]:
    """The (micro-)batches on the devices, from the first of step `start` on."""
    parts = self.config.micro_batches
    numbers = range(start * parts, self.stop * parts)
    for batch in pipeline.read(self.batches['train'], numbers, self.config.threads):
      yield sharding.global_batch(self.mesh, batch)

  def log_training(self, state: State, number: int, log: MetricsLog, progress: Progress) -> State:
    """Logs the means since the last time; returns the state with fresh sums."""
    self.check(state, number)
    metrics = finish(jax.device_get(state.sums))
    shown = {name: metrics[name] for name in self.task.SHOWN if name in metrics}
    speed = progress.examples_per_second(number, self.config.batch_size)
    for name, rate in self.rates.items():
      # The rate of the step just taken.
      metrics[f'learning_rate_{name}'] = float(rate(number - 1))
    log.write(number, 'train', metrics | {'examples_per_second': speed})
    progress.show(number, shown | {'examples/s': speed})
    return state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))

  def log_evaluation(self, number: int, split: str, metrics: Metrics, log: MetricsLog) -> None:
    """Logs the metrics of a split and shows the main ones."""
    log.write(number, split, metrics)
    shown = '  '.join(f'{name} {metrics[name]:.3f}' for name in self.task.SHOWN if name in metrics)
    print(f'{split} at step {number}: {shown}', flush=True)
