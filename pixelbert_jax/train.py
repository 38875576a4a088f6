"""Training: the state, the step, the loop and what happens around it."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import UserError, checkpoint, sharding
from pixelbert_jax.evaluate import Evaluator, finish, result_table
from pixelbert_jax.experiment import make_batches, make_model, make_optimizer, prepare_data
from pixelbert_jax.input import pipeline
from pixelbert_jax.input.pipeline import PairBatches
from pixelbert_jax.metrics import Metrics, MetricsLog, Progress
from pixelbert_jax.models.heads import PretrainingModel
from pixelbert_jax.tasks import pretraining

DONE, PREEMPTED = 0, 75
LOGGED = ('mlm_loss', 'itm_loss', 'mlm_accuracy', 'itm_accuracy', 'gradient_norm')


class State(NamedTuple):
  """All that a step changes. Chance and data follow from `step`, so this is the checkpoint."""

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  sums: dict[str, jax.Array]  # since the last line of the log

  @property
  def variables(self) -> dict[str, Any]:
    """What Flax applies a model to."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


Step = Callable[[State, dict[str, jax.Array]], State]


def train_step(
  state: State,
  batch: dict[str, jax.Array],
  *,
  model: PretrainingModel,
  optimizer: optax.GradientTransformation,
  seed: int,
) -> State:
  """One update from one global batch."""
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  rngs = dict(zip(('dropout', 'pixels'), jax.random.split(key), strict=True))

  def loss(params):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    outputs, changed = pretraining.forward(
      model, variables, batch, train=True, rngs=rngs, mutable=['batch_stats']
    )
    sums = pretraining.losses(outputs, batch)
    return pretraining.loss(sums), (sums | pretraining.accuracies(outputs, batch), changed)

  gradients, (sums, changed) = jax.grad(loss, has_aux=True)(state.params)
  sums['gradient_norm'] = jnp.stack([optax.tree.norm(gradients), jnp.float32(1)])
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  return State(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=changed['batch_stats'],
    opt_state=opt_state,
    sums={name: state.sums[name] + sums[name] for name in LOGGED},
  )


def init_variables(model: PretrainingModel, seed: int, batch: dict[str, np.ndarray]) -> dict:
  """Random parameters and fresh statistics."""
  keys = jax.random.split(jax.random.key(seed))
  rngs = dict(zip(('params', 'pixels'), keys, strict=True))
  image = jnp.zeros(batch['image'].shape[1:], jnp.float32)[None]
  texts = (batch[name][:1] for name in ('token_ids', 'token_mask', 'mlm_position'))
  return model.init(rngs, image, batch['size'][:1], *texts, False)


def init_state(
  config: ConfigDict, model: PretrainingModel, batches: PairBatches, mesh: Mesh
) -> tuple[State, Step, dict[str, optax.Schedule]]:
  """A fresh state on the mesh, the jitted step (the state donated), and the learning rates."""
  make = functools.partial(init_variables, model, config.seed, batches[0])
  optimizer, rates = make_optimizer(config, jax.eval_shape(make)['params'], len(batches))

  def fresh() -> State:
    variables = make()
    params, sums = variables['params'], {name: jnp.zeros(2) for name in LOGGED}
    return State(jnp.int32(0), params, variables['batch_stats'], optimizer.init(params), sums)

  whole = sharding.replicated(mesh)
  step = functools.partial(train_step, model=model, optimizer=optimizer, seed=config.seed)
  return (
    jax.jit(fresh, out_shardings=whole)(),
    jax.jit(step, donate_argnums=0, out_shardings=whole),
    rates,
  )


def train(config: ConfigDict, workdir: pathlib.Path) -> int:
  """Trains to the end, or goes on with the run in `workdir`.

  Returns:
    DONE, or PREEMPTED when a SIGTERM or SIGINT came: everything is saved, run again to go on.

  Raises:
    UserError: something in the configuration, data or workdir has to be mended.
  """
  check_start(config)
  batches = make_batches(config, prepare_data(config))
  checkpoint.claim_workdir(workdir, config.to_dict(), config.text.vocabulary)
  mesh = sharding.make_mesh()
  model = make_model(config, len(batches['train'].tokenizer.words))
  state, step, rates = init_state(config, model, batches['train'], mesh)
  stop = round(config.epochs * len(batches['train']))
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


def check_start(config: ConfigDict) -> None:
  """Training starts from a checkpoint or, when that is said, from scratch; never by accident."""
  if config.init_from != 'scratch':
    raise UserError(
      'init_from: starting from a checkpoint is not built yet; '
      'say --config.init_from=scratch to train from random weights'
    )


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
      f'({config.texts_per_image} texts an image), {config.epochs:g} epochs',
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
  compiled: dict[tuple[int, ...], Step] = dataclasses.field(default_factory=dict)

  def __call__(self, state: State, log: MetricsLog) -> int:
    """Runs from the step of `state` to the last; returns an exit code."""
    config, start = self.config, int(state.step)
    progress = Progress(start, self.stop)
    evaluator = Evaluator(self.model, self.mesh, config.threads)
    asked_to_stop = catch_signals()
    batches = pipeline.read(self.batches['train'], start, self.stop, config.threads)
    for number, batch in enumerate(batches, start + 1):
      batch = sharding.global_batch(self.mesh, batch)
      state = self.compiled_step(state, batch)(state, batch)
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

  def compiled_step(self, state: State, batch: dict[str, jax.Array]) -> Step:
    """The step for this shape of batch, compiled ahead; says what it took and will take."""
    shape = batch['image'].shape
    if shape not in self.compiled:
      began = time.perf_counter()
      self.compiled[shape] = compiled = self.step.lower(state, batch).compile()
      memory = compiled.memory_analysis()
      total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
      print(
        f'compiled    images {"x".join(map(str, shape[:3]))} in '
        f'{time.perf_counter() - began:.0f} s; {total / 2**20:,.0f} MiB a device',
        flush=True,
      )
    return self.compiled[shape]

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
