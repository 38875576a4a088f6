"""Runs of two processes on this machine: their ends, and what they have in common."""

import pathlib
import socket
import subprocess

from pixelbert_jax.checkpoints.saved import Manifest
from tests.support.runs import metrics, timeless

STEPS = 30


def free_port() -> int:
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


def ends(pair: list[subprocess.Popen]) -> tuple[list[int], list[tuple[str, str]]]:
  """Waits for processes to end: their exit codes, and what each printed to stdout and stderr."""
  outputs = [process.communicate(timeout=300) for process in pair]
  return [process.returncode for process in pair], outputs


def assert_ends_as(workdir: pathlib.Path, other: pathlib.Path) -> None:
  """Asserts that two runs of STEPS steps logged the same and ended with the same bits."""
  assert timeless(metrics(workdir)) == timeless(metrics(other))
  ended = [Manifest.read(folder / f'checkpoints/{STEPS}').arrays for folder in (workdir, other)]
  assert ended[0] == ended[1]
