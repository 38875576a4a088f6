"""Short runs of training: their configuration, their command and what they leave."""

import json
import os
import pathlib
import signal
import sys
import time
from types import ModuleType

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from pixelbert_jax.metrics import MetricsLog
from pixelbert_jax.tasks.evaluator import Evaluator

COMMAND = [sys.executable, '-m', 'pixelbert_jax.main']
ITEMS = ocp.args.Composite(model=ocp.args.StandardRestore(), training=ocp.args.StandardRestore())


def short_config(module: ModuleType, data_dir: pathlib.Path, steps: int, **fields) -> ConfigDict:
  """Returns the `test` variant of a module of configs/, evaluated every 4 steps."""
  config = module.get_config('test')
  config.data.data_dir = str(data_dir)
  config.steps, config.eval_every = steps, 4
  config.update(fields)
  return config


def stop_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> list[int]:
  """Sends this process a SIGTERM when it first logs each of these steps; returns those left."""
  write, left = MetricsLog.write, list(steps)

  def stop(self, step, split, metrics):
    write(self, step, split, metrics)
    if split == 'train' and step in left:
      left.remove(step)
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(MetricsLog, 'write', stop)
  return left


def stop_in_evaluation(
  monkeypatch: pytest.MonkeyPatch, number: int, evaluator: type = Evaluator
) -> list[int]:
  """Sends this process a SIGTERM as the evaluator is called; returns how many calls are left."""
  call, left = evaluator.__call__, [number]

  def stop(self, *arguments, **options):
    left[0] -= 1
    if left[0] == 0:
      os.kill(os.getpid(), signal.SIGTERM)  # which the main thread hears
      time.sleep(0.2)
    return call(self, *arguments, **options)

  monkeypatch.setattr(evaluator, '__call__', stop)
  return left


def metrics(workdir: pathlib.Path) -> list[dict]:
  """Reads the lines of a run's log."""
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def timeless(lines: list[dict]) -> list[dict]:
  """Drops from lines of a log what depends on the clock."""
  return [{k: x for k, x in line.items() if 'second' not in k} for line in lines]


def last_state(workdir: pathlib.Path) -> dict[str, tuple]:
  """Reads the newest checkpoint: by path, each array's type, shape and bytes."""
  with ocp.CheckpointManager(workdir / 'checkpoints') as manager:
    state = manager.restore(manager.latest_step(), args=ITEMS)
  return {
    jax.tree_util.keystr(path): (str(x.dtype), x.shape, np.asarray(x).tobytes())
    for path, x in jax.tree_util.tree_leaves_with_path(dict(state))
  }


def assert_same_run(workdir: pathlib.Path, other: pathlib.Path) -> None:
  """Asserts that two runs logged the same and ended with the same state, to the bit."""
  assert timeless(metrics(workdir)) == timeless(metrics(other))
  assert last_state(workdir) == last_state(other)
