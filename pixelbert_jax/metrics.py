"""The reports of a run: `metrics.jsonl`, TensorBoard, progress lines and tables."""

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from pixelbert_jax import files

# tensorboardX imports PyTorch where it is installed, which takes seconds and is not needed here.
modules: dict[str, Any] = sys.modules
modules.setdefault('torch', None)
import tensorboardX  # noqa: E402

if modules['torch'] is None:
  del modules['torch']

Metrics = dict[str, float]
DAY = 24 * 60 * 60  # seconds


class MetricsLog:
  """The metrics log of a workdir: one JSON object per line with `step`, `split` and metrics."""

  def __init__(self, workdir: pathlib.Path, restored_step: int, writes: bool = True):
    """Opens the log and removes lines after `restored_step`, whose steps will be run again.

    With `writes` False the log does nothing; only one of several processes writes it.
    """
    self._writes = writes
    if not writes:
      return
    self._path = workdir / 'metrics.jsonl'
    if self._path.exists():
      kept = [
        line for line in _whole_lines(self._path) if json.loads(line)['step'] <= restored_step
      ]
      files.write_text(self._path, ''.join(kept))
    self._file = self._path.open('a', encoding='utf-8')
    self._board = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=restored_step + 1
    )

  def write(self, step: int, split: str, metrics: Metrics) -> None:
    """Appends the metrics of a split at a step; values that are not finite are omitted."""
    if not self._writes:
      return
    metrics = measured(metrics)
    self._file.write(json.dumps({'step': step, 'split': split, **metrics}) + '\n')
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(f'{split}/{name}', value, step)

  def sync(self) -> None:
    """Flushes all lines to disk or, if the workdir is a mounted bucket, to the bucket."""
    if self._writes:
      os.fsync(self._file.fileno())

  def close(self) -> None:
    """Flushes and closes both files."""
    if self._writes:
      self._file.close()
      self._board.close()


def measured(metrics: Metrics) -> dict[str, float]:
  """Drops the metrics that are not finite, since nothing was measured for them."""
  return {name: float(x) for name, x in metrics.items() if math.isfinite(x)}


def logged(workdir: pathlib.Path, step: int, split: str) -> list[dict]:
  """Reads the objects for a split at a step from a workdir's `metrics.jsonl`, in order."""
  path = workdir / 'metrics.jsonl'
  lines = map(json.loads, _whole_lines(path) if path.exists() else [])
  return [line for line in lines if (line['step'], line['split']) == (step, split)]


def _whole_lines(path: pathlib.Path) -> list[str]:
  # A killed run may leave half a line at the end.
  return [line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]


def duration(seconds: float) -> str:
  """Formats seconds as '2:05', '1:02:05' or '3 days 4 h'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, rest = divmod(hours, 24)
  if days:
    return f'{days} day{"s" * (days > 1)} {rest} h'
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Progress:
  """Progress lines with step, metrics, and the time left at the pace since the first line."""

  def __init__(self, start: int, stop: int, noun: str = 'step'):
    """Starts the clock; counts from `start` to `stop` in units of `noun`."""
    self._stop, self._noun = stop, noun
    self._first: tuple[float, int] | None = None
    self._ended: float | None = None
    self._last = (time.perf_counter(), start)

  def examples_per_second(self, step: int, batch_size: int) -> float:
    """Computes examples per second since the last call, including evaluation and compilation."""
    (then, last_step), self._last = self._last, (time.perf_counter(), step)
    # Time left is measured from the first report on, since only that one includes compilation.
    self._first = self._first or self._last
    return (step - last_step) * batch_size / max(self._last[0] - then, 1e-9)

  def show_pace(self, step: int) -> None:
    """Prints the pace; call it after each of the first two steps.

    Only the second call prints, since the first step includes compilation.
    """
    ended, self._ended = self._ended, time.perf_counter()
    if ended is None:
      return
    pace = self._ended - ended
    print(
      f'pace        {pace:.3g} s per step: {DAY / pace:,.0f} steps per day, '
      f'{duration(pace * (self._stop - step))} left',
      flush=True,
    )

  def show(self, step: int, metrics: Metrics) -> None:
    """Prints the line of a step, with the time left from the second line on."""
    first, first_step = self._first or self._last
    parts = [f'{self._noun} {step}/{self._stop}', *(f'{k} {_short(v)}' for k, v in metrics.items())]
    if step > first_step:
      pace = (time.perf_counter() - first) / (step - first_step)
      parts.append(f'left {duration(pace * (self._stop - step))}')
    print('  '.join(parts), flush=True)


def _short(value: float) -> str:
  return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def compare(
  title: str, columns: Mapping[str, str], rows: Mapping[str, str], metrics: Metrics
) -> str:
  """Formats metrics as a table: of each row, those whose names end as the columns say.

  Args:
    title: of the table.
    columns: what to add to a metric's name for each column, by the column's title.
    rows: the name of a metric for each row, by the row's title.
    metrics: missing ones show as '-'.
  """
  values = [
    (row, [metrics.get(name + end, math.nan) for end in columns.values()])
    for row, name in rows.items()
  ]
  return table(title, list(columns), values)


def table(title: str, columns: list[str], rows: list[tuple[str, list[float]]]) -> str:
  """Formats a table as plain text; a value that is not finite shows as '-'."""
  width = max(len(name) for name, _ in rows) + 2
  lines = [f'{title:<{width}}' + ''.join(f'{column:>16}' for column in columns)]
  for name, values in rows:
    cells = (f'{v:.3f}' if math.isfinite(v) else '-' for v in values)
    lines.append(f'{name:<{width}}' + ''.join(f'{cell:>16}' for cell in cells))
  return '\n'.join(lines)
