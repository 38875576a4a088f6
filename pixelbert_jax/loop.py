"""The training loop: steps, logging, evaluation and checkpoints."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import UserError, commandline, processes, sharding, stopping
from pixelbert_jax.bad_batch import CURE, BadBatches
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import Experiment, images_per_batch
from pixelbert_jax.input import pipeline
from pixelbert_jax.metrics import Metrics, MetricsLog, Progress, logged, not_finite
from pixelbert_jax.step import Batch, State, Step
from pixelbert_jax.tasks.base import Task
from pixelbert_jax.tasks.shortfall import remark, scores, shortfall
from pixelbert_jax.tasks.sums import finish

DONE, PREEMPTED = 0, 75  # exit codes
# The first step that is saved: what saving needs is compiled, and the disk is known to take it,
# before a preemption leaves no time for either. The pace is measured before.
FIRST_SAVED = 2


@dataclasses.dataclass
class Loop:
  """The training loop: steps, with logging, evaluation and checkpoints between them.

  Attributes:
    experiment: what is trained.
    workdir: the run's folder.
    mesh: the devices.
    step: the training step.
    rates: the learning rates to log, by part of the model.
    checkpoints: of the run.
    log: its metrics log.
    bad: its steps that were not finite.
    stop: the number of the last step.
  """

  experiment: Experiment
  workdir: pathlib.Path
  mesh: Mesh
  step: Step
  rates: dict[str, optax.Schedule]
  checkpoints: checkpoint.Checkpoints
  log: MetricsLog
  bad: BadBatches
  stop: int
  # The step up to which unreadable images are counted, and how many since the last line of the log.
  _unreadable: tuple[int, int] = dataclasses.field(default=(0, 0), init=False)

  @property
  def config(self) -> ConfigDict:
    """The configuration."""
    return self.experiment.config

  @property
  def task(self) -> Task:
    """The task that is trained."""
    return self.experiment.task

  @functools.cached_property
  def evaluator(self) -> Any:
    """The evaluator, which takes at most `eval_batches` batches during training."""
    limit = self.config.eval_batches * images_per_batch(self.config)
    return self.experiment.evaluator(self.mesh, limit)

  def __call__(self, state: State) -> int:
    """Trains from the step of `state` to the end; returns an exit code."""
    try:
      with stopping.stop_signal():
        self.report(self.steps(state))
        return DONE
    except stopping.Stopped:
      self.checkpoints.wait()
      step = self.checkpoints.latest
      saved = 'before the first step' if step is None else f'at step {step}, everything is saved'
      commandline.result(f'stopped {saved}: run again to resume')
      return PREEMPTED

  def steps(self, state: State) -> State:
    """Trains to the last step; evaluates and saves on the way, and returns the state.

    A step is saved before it is evaluated, so that an evaluation can be broken off.

    Raises:
      Stopped: a signal asked for it; the last step that was taken is saved, or is being saved.
    """
    config, start = self.config, int(state.step)
    if start and self.validates(start) and not self.validated(start):
      self.validate(start, state)
    if restored := self.checkpoints.restored:
      self._unreadable = start, restored.unreadable
    if start < self.stop:
      self.compile(state)
    progress = Progress(start, self.stop)
    batches = self.training_batches(start)
    for number in range(start + 1, self.stop + 1):
      try:
        state, finite = self.step(state, itertools.islice(batches, config.micro_batches))
      except stopping.Stopped:  # It was still compiling.
        if number > start + 1:
          self.save(number - 1, state)
        raise
      self.bad.add(number, finite)
      if number <= start + 2:
        jax.block_until_ready(state.step)
        progress.show_pace(number)
      last = number == self.stop
      if last or number % config.log_every == 0:
        state = self.log_training(state, number, progress)
      stops, validates = stopping.asked(), self.validates(number)
      due = number == FIRST_SAVED or number % config.save_every == 0
      if not (last or stops or validates or due):
        continue
      jax.block_until_ready(state.step)
      with progress.apart():
        self.save(number, state)
        if stops:
          raise stopping.Stopped
        if validates:
          self.validate(number, state)
    return state

  def compile(self, state: State) -> None:
    """Compiles all programs of the steps after `state` and of evaluations.

    Raises:
      Stopped: a signal asked for it.
    """
    batches, start = self.experiment.batches, int(state.step)
    train, size = batches['train'], len(batches['train'])
    first = start // size * size  # of the epoch
    numbers = range(start if self.stop <= first + size else first, min(self.stop, first + size))
    shapes = [sharding.global_shapes(self.mesh, x) for x in train.shapes(numbers)]
    self.step.compile(state, shapes)
    if any(map(self.validates, range(start + 1, self.stop + 1))):
      self.evaluator.compile(state.variables, batches['validation'])
    self.evaluator.compile(state.variables, batches['test'], whole=True)

  def validates(self, number: int) -> bool:
    """Tells whether a step is evaluated on validation."""
    if number == self.stop:  # The test split is evaluated; the validation split to choose a step.
      return bool(self.task.CHOSEN_BY)
    return number % self.config.eval_every == 0

  def validated(self, number: int) -> bool:
    """Tells whether a step that validates was evaluated before the run was stopped."""
    split = self.config.data.validation
    logged = self.log.has(number, split) or (number, split) == (self.stop, self.config.data.test)
    scored = not self.task.CHOSEN_BY or self.checkpoints.is_scored(number)
    return processes.agree(logged and scored)

  def report(self, state: State) -> None:
    """Evaluates the step chosen on validation (or the last) on test; logs and prints the result."""
    split, variables, chosen = self.config.data.test, state.variables, {}
    if self.checkpoints.chosen:
      step, best = self.checkpoints.chosen
      if step != self.stop:
        step, best, variables = self.checkpoints.load_chosen(self.mesh)
      chosen = {'chosen_step': step, f'validation_{self.task.CHOSEN_BY}': best}
      for line in logged(self.workdir, step, self.config.data.validation):
        chosen |= {name: line[name] for name in self.task.REPEATED if name in line}
    path = self.workdir / 'predictions' / f'{split}.json'
    run = functools.partial(self.evaluator, variables)
    batches = self.experiment.batches['test']
    metrics = stopping.heard(lambda: self.task.report(run, batches, path)) | chosen
    metrics |= shortfall(batches.split)
    self.check(metrics, split, int(chosen.get('chosen_step', self.stop)))
    self.log.write(self.stop, split, metrics)
    commandline.result(result(self.task, split, metrics))

  def save(self, number: int, state: State) -> None:
    """Starts saving a step that is finite, after flushing the log up to it to disk."""
    self.bad.look()
    self.log.sync()
    about = {'skipped': self.bad.skipped, 'unreadable': self.unreadable(number)}
    self.checkpoints.save(number, state, log=self.log.mark(), **about)

  def unreadable(self, number: int) -> int:
    """Counts unreadable images, of all processes, up to a step since the last line of the log."""
    parts, (first, before) = self.config.micro_batches, self._unreadable
    unreadable = self.experiment.batches['train'].unreadable
    return before + processes.total(unreadable.number(range(first * parts, number * parts)))

  def check(self, metrics: Metrics, split: str, step: int) -> None:
    """Checks an evaluation; a step that has none that is finite is not kept as a good one.

    Raises:
      UserError: a metric is not finite.
    """
    names = not_finite(metrics)
    if names:
      self.checkpoints.discard(step)
      raise UserError(
        f'training has diverged: on {split} after step {step} {", ".join(names)} '
        f'{"is" if len(names) == 1 else "are"} not finite. {CURE}{self.bad.keeps()}'
      )

  def validate(self, number: int, state: State) -> None:
    """Evaluates a saved step on validation; keeps its score, logs and prints."""
    run = functools.partial(self.evaluator, state.variables)
    batches = self.experiment.batches['validation']
    metrics = stopping.heard(lambda: self.task.evaluate(run, batches))
    split = self.config.data.validation
    self.check(metrics, split, number)
    if self.task.CHOSEN_BY:
      self.checkpoints.score(number, metrics.get(self.task.CHOSEN_BY))
    if (number, split) != (self.stop, self.config.data.test):  # which has the line of the report
      self.log.write(number, split, metrics)
    values = '  '.join(f'{name} {metrics[name]:.3f}' for name in self.task.SHOWN if name in metrics)
    print(f'{split} at step {number}: {values}', flush=True)

  def training_batches(self, start: int) -> Iterator[Batch]:
    """Yields the (micro-)batches after step `start`, on the devices."""
    train, parts = self.experiment.batches['train'], self.config.micro_batches
    train.unreadable.open(self.workdir / f'unreadable-{jax.process_index()}.jsonl')
    numbers = range(start * parts, self.stop * parts)
    for batch in pipeline.read(train, numbers, self.experiment.threads):
      yield sharding.global_batch(self.mesh, batch)

  def log_training(self, state: State, number: int, progress: Progress) -> State:
    """Logs the means since the last call; returns the state with the sums reset."""
    self.bad.look()
    metrics = finish(jax.device_get(state.sums), self.task.weights)
    main_metrics = {name: metrics[name] for name in self.task.SHOWN if name in metrics}
    speed = progress.examples_per_second(number, self.config.batch_size)
    waiting = self.step.in_flight.waiting()
    with progress.apart():
      for name, rate in self.rates.items():
        # The rate of the step just taken; batches that were left out do not count.
        metrics[f'learning_rate_{name}'] = float(rate(number - 1 - len(self.bad.skipped)))
      if self.config.on_bad_batch == 'skip':
        metrics['skipped'] = len(self.bad.skipped)
      if unreadable := self.unreadable(number):
        metrics['unreadable'] = main_metrics['unreadable'] = unreadable
      self._unreadable = number, 0
      clock = {'examples_per_second': speed, 'waiting_seconds_per_second': waiting}
      self.log.write(number, 'train', metrics | clock)
      progress.show(number, main_metrics | {'examples/s': speed}, waiting)
      return state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums))


def result(task: Task, split: str, metrics: Metrics) -> str:
  """Formats final metrics, what the split lacks, and the step if one was chosen on validation."""
  metrics = dict(metrics)
  step, score = (metrics.pop(x, None) for x in ('chosen_step', f'validation_{task.CHOSEN_BY}'))
  lines = [task.table(split, scores(metrics)), remark(split, metrics)]
  if step is not None:
    lines.append(f'step {step:.0f}, chosen by {task.CHOSEN_BY} {score:.3f} on validation')
  return '\n'.join(filter(None, lines))
