"""Training: the loop over steps and what happens around it."""

import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import checkpoint, sharding, starting
from pixelbert_jax.evaluate import Evaluator, finish, result_table
from pixelbert_jax.experiment import (
  images_per_batch,
  make_batches,
  make_model,
  make_optimizer,
  prepare_data,
  resolve,
)
from pixelbert_jax.input import pipeline
from pixelbert_jax.input.image import model_canvas
from pixelbert_jax.input.pipeline import PairBatches
from pixelbert_jax.metrics import Metrics, MetricsLog, Progress
from pixelbert_jax.models.heads import PretrainingModel
from pixelbert_jax.step import LOGGED, Batch, State, Step
from pixelbert_jax.workdir import check_workdir, claim_workdir

DONE, PREEMPTED = 0, 75


def init_variables(model: PretrainingModel, seed: int, batch: dict[str, np.ndarray]) -> dict:
  """Random parameters and fresh statistics."""
  keys = jax.random.split(jax.random.key(seed))
  rngs = dict(zip(('params', 'pixels'), keys, strict=True))
  image = jnp.zeros((1, *model_canvas(batch), 3))
  texts = (batch[name][:1] for name in ('token_ids', 'token_mask', 'mlm_position'))
  return model.init(rngs, image, batch['size'][:1], *texts, False)


def init_state(
  config: ConfigDict, model: PretrainingModel, batches: PairBatches, mesh: Mesh
) -> tuple[State, Step, dict[str, optax.Schedule]]:
  """A fresh state on the mesh, the step (the state is donated to it), and the learning rates."""
  make = functools.partial(init_variables, model, config.seed, batches[0])
  optimizer, rates = make_optimizer(config, jax.eval_shape(make)['params'], len(batches))

  def fresh() -> State:
    variables = make()
    params, sums = variables['params'], {name: jnp.zeros(2) for name in LOGGED}
    return State(jnp.int32(0), params, variables['batch_stats'], optimizer.init(params), sums)

  places = sharding.state_sharding(mesh, jax.eval_shape(fresh))
  step = Step(model, optimizer, config.seed, config.micro_batches, places)
  return jax.jit(fresh, out_shardings=places)(), step, rates


def train(config: ConfigDict, workdir: pathlib.Path) -> int:
  """Trains to the end, or goes on with the run in `workdir`.

  Returns:
    DONE, or PREEMPTED when a SIGTERM or SIGINT came: everything is saved, run again to go on.

  Raises:
    UserError: something in the configuration, data or workdir has to be mended.
  """
  mesh = sharding.make_mesh(**config.mesh)
  images_per_batch(config)  # Mistakes are told before data is built.
  loaded = starting.starting_point(config.init_from, workdir, mesh)
  there = loaded.vocabulary if loaded else workdir / 'vocab.txt'
  config = resolve(config, there if there.exists() else None)
  batches = make_batches(config, prepare_data(config))
  stop = config.steps or round(config.epochs * len(batches['train']))
  check_workdir(workdir, config.to_dict(), config.text.vocabulary)
  model = make_model(config, len(batches['train'].tokenizer.words))
  state, step, rates = init_state(config, model, batches['train'], mesh)
  if loaded:
    state = state._replace(**starting.take(loaded, config.to_dict(), state.variables))
  claim_workdir(workdir, config.to_dict(), config.text.vocabulary)
  with contextlib.closing(checkpoint.Checkpoints(workdir, config.keep)) as checkpoints:
    if checkpoints.latest is not None:
      state = checkpoints.restore(checkpoint.abstract(state))
      print(f'resuming {workdir} at step {int(state.step)} of {stop}')
    if int(state.step) >= stop:
      print(f'{workdir} is trained to the end\n{last_result(workdir, config.data.test)}')
      return DONE
    print(summary(config, workdir, mesh, state, batches, stop))
    run = Loop(config, mesh, model, step, rates, batches, checkpoints, stop)
    with contextlib.closing(MetricsLog(workdir, int(state.step))) as log:
      return run(state, log)


def last_result(workdir: pathlib.Path, split: str) -> str:
  """The table of the last line of a finished run's metrics."""
  metrics = json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])
  return result_table(split, metrics)


def summary(
  config: ConfigDict, workdir: pathlib.Path, mesh: Mesh, state: State, batches: dict, stop: int
) -> str:
  """What is about to run: devices, parameters, data, schedule."""

  def millions(tree: Any) -> str:
    return f'{sum(x.size for x in jax.tree.leaves(tree)) / 1e6:.2f} M'

  split, device = batches['train'].split.sidecar, mesh.devices.flat[0]
  return '\n'.join(
    [
      f'workdir     {workdir}',
      f'devices     {mesh.size} x {device.device_kind}, mesh {dict(mesh.shape)}',
      f'parameters  {millions(state.params)}, of them '
      f'{millions(state.params["backbone"]["cnn"])} in the CNN; {config.dtype}',
      f'data        {config.data.name}/{config.data.train}: {len(split.image_id):,} images, '
      f'{len(split.text):,} texts; evaluated on {config.data.validation}, {config.data.test}',
      f'schedule    {stop:,} steps of {config.batch_size} pairs '
      f'({config.texts_per_image} texts an image), '
      f'{stop / len(batches["train"]):.3g} epochs',
    ]
  )


@dataclasses.dataclass
class Loop:
  """Steps, and what happens between them: logging, evaluation, checkpoints, the end."""

  config: ConfigDict
  mesh: Mesh
  model: PretrainingModel
  step: Step
  rates: dict[str, optax.Schedule]
  batches: dict[str, PairBatches]
  checkpoints: checkpoint.Checkpoints
  stop: int

  def __call__(self, state: State, log: MetricsLog) -> int:
    """Runs from the step of `state` to the last; returns an exit code."""
    config, start = self.config, int(state.step)
    progress = Progress(start, self.stop)
    most = config.eval_batches * config.micro_batches
    evaluator = Evaluator(self.model, self.mesh, config.threads, most)
    asked_to_stop = catch_signals()
    batches = self.training_batches(start)
    for number in range(start + 1, self.stop + 1):
      state = self.step(state, itertools.islice(batches, config.micro_batches))
      if number <= start + 2:
        jax.block_until_ready(state.step)
        progress.show_pace(number)
      last = number == self.stop
      if number % config.log_every == 0 or last:
        state = self.log_training(state, number, log, progress)
      if number % config.eval_every == 0 and not last:
        metrics = evaluator(state.variables, self.batches['validation'])
        self.log_evaluation(number, config.data.validation, metrics, log)
      if asked_to_stop.is_set() and not last:
        self.checkpoints.save(number, state)
        print(f'stopped at step {number}, everything is saved: run again to go on', flush=True)
        return PREEMPTED
      if number % config.save_every == 0 and not last:
        self.checkpoints.save(number, state)
    metrics = evaluator.with_swapped(state.variables, self.batches['test'])
    log.write(self.stop, config.data.test, metrics)
    self.checkpoints.save(self.stop, state)
    print(result_table(config.data.test, metrics), flush=True)
    return DONE

  def training_batches(self, start: int) -> Iterator[Batch]:
    """The (micro-)batches on the devices, from the first of step `start` on."""
    parts = self.config.micro_batches
    numbers = range(start * parts, self.stop * parts)
    for batch in pipeline.read(self.batches['train'], numbers, self.config.threads):
      yield sharding.global_batch(self.mesh, batch)

  def log_training(self, state: State, number: int, log: MetricsLog, progress: Progress) -> State:
    """Logs the means since the last time; returns the state with fresh sums."""
    metrics = finish(jax.device_get(state.sums))
    shown = {name: metrics[name] for name in ('loss', 'itm_accuracy', 'mlm_accuracy')}
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
    names = ('loss', 'itm_accuracy', 'mlm_accuracy', 'mlm_visual_accuracy')
    shown = '  '.join(f'{name} {metrics[name]:.3f}' for name in names if name in metrics)
    print(f'{split} at step {number}: {shown}', flush=True)


def catch_signals() -> threading.Event:
  """Set once SIGTERM or SIGINT came; the step in progress is finished first."""
  event = threading.Event()

  def handler(number: int, _) -> None:
    event.set()
    signal.signal(number, signal.SIG_DFL)  # A second one ends the program at once.

  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, handler)
  return event
