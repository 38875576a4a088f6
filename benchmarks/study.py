"""A study: runs of several arms, each with every seed, that go on where they were broken off.

A line for each arm and seed is appended to a file of results. What has a line of the same flags
there is not run again: delete the line to repeat it.
"""

import itertools
import json
import math
import pathlib
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from benchmarks import record
from pixelbert_jax import jsons

Fields = dict[str, Any]
Line = dict[str, Any]  # of a file of results


class Run(NamedTuple):
  """An arm with a seed.

  Attributes:
    arm: its name.
    seed: of weights, order and draws.
    shared: flags of `pixelbert_jax.main` that all arms have.
    own: flags in which it differs from other arms and seeds.
  """

  arm: str
  seed: int
  shared: str
  own: str

  @property
  def words(self) -> list[str]:
    """All its flags; of one that both have, the value of its own."""
    words = [*shlex.split(self.shared), *shlex.split(self.own)]
    return list({word.partition('=')[0]: word for word in words}.values())

  def folder(self, runs: pathlib.Path) -> pathlib.Path:
    """Returns the workdir, which no run with other flags has."""
    digest = jsons.digest([self.shared, self.own])[:8]
    return runs / f'{self.arm.replace(" ", "_")}-s{self.seed}-{digest}'


def flags(fields: Fields) -> list[str]:
  """Formats fields of a configuration as flags."""
  return [f'--config.{name}={value}' for name, value in fields.items()]


def train(*words: str) -> None:
  """Trains or evaluates, by `pixelbert_jax.main` with these flags in a process of its own.

  Raises:
    subprocess.CalledProcessError: it failed, and has said why.
  """
  subprocess.run([sys.executable, '-m', 'pixelbert_jax.main', *words], check=True)


def logged(workdir: pathlib.Path) -> list[Line]:
  """Reads the log of a run that has ended; the last line is its report."""
  return read(workdir / 'metrics.jsonl')


def seconds(workdir: pathlib.Path, lines: Sequence[Line]) -> int:
  """Computes about how long a run trained, by the pace in the lines of its log.

  Start, compilation and evaluation are left out, and so is the time between its calls.
  """
  batch = json.loads((workdir / 'config.json').read_text())['batch_size']
  paces = [(x['step'], x['examples_per_second']) for x in lines if 'examples_per_second' in x]
  steps = itertools.pairwise([(0, math.inf), *paces])
  return round(sum((end - begin) * batch / pace for (begin, _), (end, pace) in steps))


def read(path: pathlib.Path) -> list[Line]:
  """Reads the lines of a file of results, of which there may be none."""
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def waiting(runs: Iterable[Run], path: pathlib.Path) -> list[Run]:
  """Returns the runs that a file of results has no line of."""
  done = {(line['arm'], line['shared'], line['own']) for line in read(path)}
  return [run for run in runs if (run.arm, run.shared, run.own) not in done]


def go(runs: Sequence[Run], execute: Callable[[Run], Any], output: pathlib.Path) -> int:
  """Executes runs and appends the line of each as it ends; returns the exit code."""
  for run in runs:
    print(f'{run.arm}, seed {run.seed}', flush=True)
    try:
      results = execute(run)
    except subprocess.CalledProcessError as error:
      print(f'{run.arm}, seed {run.seed}, stopped as said above; run again to go on')
      return error.returncode
    record.append(output, jax=jax.__version__, **run._asdict(), results=results)
  return 0


def newest(lines: Sequence[Line], arms: Iterable[str]) -> dict[str, dict[int, Any]]:
  """Returns results by arm and seed, of the lines that share their flags with the newest one."""
  found: dict[str, dict[int, Any]] = {arm: {} for arm in arms}
  for line in lines:
    if line['shared'] == lines[-1]['shared']:
      found[line['arm']][line['seed']] = line['results']
  return found


def paired(more: Mapping[int, Any], less: Mapping[int, Any]) -> list[tuple[Any, Any]]:
  """Returns the results of two arms, seed by seed, of the seeds that both have."""
  return [(results, less[seed]) for seed, results in sorted(more.items()) if seed in less]


def spread(values: Sequence[float], form: str = '.3f') -> str:
  """Formats the mean of values with the least and the largest of them; '' if there is none."""
  if not values:
    return ''
  mean, least, most = (f'{x:{form}}' for x in (statistics.mean(values), min(values), max(values)))
  return f'{mean} ({least} to {most})' if len(values) > 1 else mean


def row(cells: Iterable[str]) -> str:
  """Formats a row of a table in Markdown."""
  return f'| {" | ".join(cells)} |'


def head(cells: Sequence[str]) -> list[str]:
  """Formats the head of a table in Markdown."""
  return [row(cells), '|---' * len(cells) + '|']
