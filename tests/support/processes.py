"""Runs of several processes on this machine: their ends, and what they have in common."""

import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from pixelbert_jax.checkpoints.saved import Manifest
from tests.support.paths import ROOT
from tests.support.runs import metrics, timeless

STEPS = 60  # so that a signal is agreed upon before the last, on a busy machine too
WOVEN = [sys.executable, '-m', 'tests.support.woven']
LOST = 134, -6  # exit codes where another process is gone: of a shell, and of an abort


def free_port() -> int:
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


def spawn(command: Sequence[str], **variables: str) -> subprocess.Popen:
  """Starts a command in the checkout with pipes and more variables in its environment."""
  pipe, environment = subprocess.PIPE, os.environ | variables
  return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def start(
  shape: str, command: Sequence[str], spawn: Callable = spawn, **variables: str
) -> list[subprocess.Popen]:
  """Starts the processes of a run; '4x1' is four of one device each, '1x4' one of four."""
  number, devices = map(int, shape.split('x'))
  own = {
    'JAX_NUM_CPU_DEVICES': str(devices),
    'JAX_COORDINATOR_ADDRESS': f'localhost:{free_port()}',
    'JAX_NUM_PROCESSES': str(number),
    'PIXELBERT_HEARTBEAT_SECONDS': '10',
  }
  command = [*command, *['--distributed'] * (number > 1)]
  return [spawn(command, **own | variables, JAX_PROCESS_ID=str(i)) for i in range(number)]


def ends(group: list[subprocess.Popen]) -> tuple[list[int], list[tuple[str, str]]]:
  """Waits for processes to end: their exit codes, and what each printed to stdout and stderr."""
  outputs = [process.communicate(timeout=300) for process in group]
  return [process.returncode for process in group], outputs


def run(shape: str, command: Sequence[str], spawn: Callable = spawn) -> str:
  """Runs processes to their end, which has to be a good one; returns what the first printed."""
  codes, outputs = ends(start(shape, command, spawn))
  assert set(codes) == {0}, (codes, *(error[-2000:] for _, error in outputs))
  return outputs[0][0]


def assert_ends_as(workdir: pathlib.Path, other: pathlib.Path) -> None:
  """Asserts that two runs of STEPS steps logged the same and ended with the same bits."""
  assert timeless(metrics(workdir)) == timeless(metrics(other))
  ended = [Manifest.read(folder / f'checkpoints/{STEPS}').arrays for folder in (workdir, other)]
  assert ended[0] == ended[1]


def farthest(workdir: pathlib.Path, other: pathlib.Path) -> float:
  """Returns the largest relative difference of the losses of a run from those of another.

  A run that went on beyond an earlier end also has the result of that end.
  """
  logs = [timeless(metrics(folder)) for folder in (workdir, other)]
  lines, expected = ({(x['step'], x['split']): x for x in log} for log in logs)
  assert expected.keys() <= lines.keys()
  return max(
    abs(lines[place][name] - value) / abs(value)
    for place, line in expected.items()
    for name, value in line.items()
    if name.endswith('loss') and value
  )
