"""The training loop: steps, and what happens between them."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import UserError, processes, sharding
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.experiment import Experiment, images_per_batch
from pixelbert_jax.input import pipeline
from pixelbert_jax.metrics import Metrics, MetricsLog, Progress
from pixelbert_jax.step import Batch, State, Step
from pixelbert_jax.tasks.base import Run, Task
from pixelbert_jax.tasks.sums import finish

DONE, PREEMPTED = 0, 75  # exit codes


@dataclasses.dataclass
class Loop:
  """Steps, and what happens between them: logging, evaluation, checkpoints, the end."""

  experiment: Experiment
  workdir: pathlib.Path
  mesh: Mesh
  step: Step
  rates: dict[str, optax.Schedule]
  checkpoints: checkpoint.Checkpoints
  stop: int

  @property
  def config(self) -> ConfigDict:
    """Returns the configuration."""
    return self.experiment.config

  @property
  def task(self) -> Task:
    """Returns what is trained for."""
    return self.experiment.task

  def __call__(self, state: State, log: MetricsLog) -> int:
    """Runs from the step of `state` to the end; returns an exit code."""
    limit = self.config.eval_batches * images_per_batch(self.config)
    evaluator = self.experiment.evaluator(self.mesh, limit)
    if int(state.step) < self.stop:
      with processes.stop_signal() as asked_to_stop:
        state = self.steps(state, evaluator, log, asked_to_stop)
        self.checkpoints.wait()
      if int(state.step) < self.stop:
        step = int(state.step)
        print(f'stopped at step {step}, everything is saved: run again to resume', flush=True)
        return PREEMPTED
    self.report(state, evaluator, log)
    return DONE

  def steps(
    self,
    state: State,
    evaluator: Run,
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

  def report(self, state: State, evaluator: Run, log: MetricsLog) -> None:
    """Shows what the step chosen on validation, or else the last, does on test."""
    split, variables, chosen = self.config.data.test, state.variables, {}
    if self.checkpoints.chosen:
      step, best = self.checkpoints.chosen
      chosen = {'chosen_step': step, f'validation_{self.task.CHOSEN_BY}': best}
      if step != self.stop:
        variables = self.checkpoints.load(step, self.mesh)
    path = self.workdir / 'predictions' / f'{split}.json'
    run = functools.partial(evaluator, variables)
    metrics = self.task.report(run, self.experiment.batches['test'], path) | chosen
    log.write(self.stop, split, metrics)
    print(result(self.task, split, metrics), flush=True)
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

  def validate(self, number: int, state: State, evaluator: Run, log: MetricsLog) -> float | None:
    """Evaluates on validation and logs it; returns what a step is chosen by, if anything is."""
    run = functools.partial(evaluator, state.variables)
    metrics = self.task.evaluate(run, self.experiment.batches['validation'])
    self.log_evaluation(number, self.config.data.validation, metrics, log)
    return metrics.get(self.task.CHOSEN_BY)

  def training_batches(self, start: int) -> Iterator[Batch]:
    """The (micro-)batches on the devices, from the first of step `start` on."""
    parts = self.config.micro_batches
    numbers = range(start * parts, self.stop * parts)
    for batch in pipeline.read(self.experiment.batches['train'], numbers, self.config.threads):
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


def result(task: Task, split: str, metrics: Metrics) -> str:
  """Formats the metrics that a run ends with, and which step they are of, if one was chosen."""
  if 'chosen_step' not in metrics:
    return task.table(split, metrics)
  score = metrics[f'validation_{task.CHOSEN_BY}']
  chosen = (
    f'step {metrics["chosen_step"]:.0f}, chosen by {task.CHOSEN_BY} {score:.3f} on validation'
  )
  return f'{task.table(split, metrics)}\n{chosen}'
