"""What a run reports: `metrics.jsonl`, TensorBoard, a progress line and tables."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping

import tensorboardX

Metrics = Mapping[str, float]
DAY = 24 * 60 * 60  # seconds


class MetricsLog:
  """Appends metrics to a workdir, one JSON object a line: `step`, `split`, then plain names."""

  def __init__(self, workdir: pathlib.Path, restored_step: int, writes: bool = True):
    """Opens the log and cuts lines after `restored_step`: those steps will be run again.

    With `writes` False it does nothing: of several processes one keeps the log.
    """
    self._writes = writes
    if not writes:
      return
    self._path = workdir / 'metrics.jsonl'
    if self._path.exists():
      kept = [
        line for line in _whole_lines(self._path) if json.loads(line)['step'] <= restored_step
      ]
      partial = self._path.with_suffix('.partial')
      partial.write_text(''.join(kept))
      partial.replace(self._path)
    self._file = self._path.open('a', encoding='utf-8')
    self._board = tensorboardX.SummaryWriter(
      str(workdir / 'tensorboard'), purge_step=restored_step + 1
    )

  def write(self, step: int, split: str, metrics: Metrics) -> None:
    """Records the metrics of a split at a step; numbers that were never measured are left out."""
    if not self._writes:
      return
    metrics = measured(metrics)
    self._file.write(json.dumps({'step': step, 'split': split, **metrics}) + '\n')
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(f'{split}/{name}', value, step)

  def sync(self) -> None:
    """Returns once all lines are on disk or, where that is a mounted bucket, in the bucket."""
    if self._writes:
      os.fsync(self._file.fileno())

  def close(self) -> None:
    """Flushes and closes both files."""
    if self._writes:
      self._file.close()
      self._board.close()


def measured(metrics: Metrics) -> dict[str, float]:
  """The metrics without numbers that were never measured."""
  return {name: float(x) for name, x in metrics.items() if math.isfinite(x)}


def logged(workdir: pathlib.Path, step: int, split: str) -> list[dict]:
  """The objects of a workdir's `metrics.jsonl` for a split at a step, in order."""
  path = workdir / 'metrics.jsonl'
  found = map(json.loads, _whole_lines(path) if path.exists() else [])
  return [line for line in found if (line['step'], line['split']) == (step, split)]


def _whole_lines(path: pathlib.Path) -> list[str]:
  # A killed run may leave half a line at the end.
  return [line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]


def duration(seconds: float) -> str:
  """'2:05', '1:02:05' or '3 days 4 h'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, rest = divmod(hours, 24)
  if days:
    return f'{days} day{"s" * (days > 1)} {rest} h'
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Progress:
  """One line a report with step, metrics, and time left by the speed since the first report."""

  def __init__(self, start: int, stop: int, noun: str = 'step'):
    """From `start` to `stop` of what `noun` says."""
    self._stop, self._noun = stop, noun
    self._first: tuple[float, int] | None = None
    self._ended: float | None = None
    self._last = (time.perf_counter(), start)

  def examples_per_second(self, step: int, batch_size: int) -> float:
    """Pairs a second since the last call, evaluation and compilation included."""
    (then, last_step), self._last = self._last, (time.perf_counter(), step)
    # The first report is late by the compilation, which no later one is.
    self._first = self._first or self._last
    return (step - last_step) * batch_size / max(self._last[0] - then, 1e-9)

  def show_pace(self, step: int) -> None:
    """Called at the end of the first two steps: prints the second has no compilation."""
    ended, self._ended = self._ended, time.perf_counter()
    if ended is None:
      return
    pace = self._ended - ended
    print(
      f'pace        {pace:.3g} s a step: {DAY / pace:,.0f} steps a day, '
      f'{duration(pace * (self._stop - step))} to go',
      flush=True,
    )

  def show(self, step: int, metrics: Metrics) -> None:
    """Prints the line."""
    first, first_step = self._first or self._last
    shown = [f'{self._noun} {step}/{self._stop}', *(f'{k} {_short(v)}' for k, v in metrics.items())]
    if step > first_step:
      pace = (time.perf_counter() - first) / (step - first_step)
      shown.append(f'left {duration(pace * (self._stop - step))}')
    print('  '.join(shown), flush=True)


def _short(value: float) -> str:
  return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def choice(metrics: Metrics, by: str, noun: str = '') -> str:
  """The line that says which step a run chose by its metric `by`; '' if it chose none."""
  if 'chosen_step' not in metrics:
    return ''
  score = metrics[f'validation_{by}']
  step = metrics['chosen_step']
  return f'\nof step {step:.0f}, chosen by its {noun}{score:.3f} on validation'


def table(title: str, columns: list[str], rows: list[tuple[str, list[float]]]) -> str:
  """A table of plain text; a value that is not finite shows as '-'."""
  wide = max(len(name) for name, _ in rows) + 2
  lines = [f'{title:<{wide}}' + ''.join(f'{column:>16}' for column in columns)]
  for name, values in rows:
    cells = (f'{v:.3f}' if math.isfinite(v) else '-' for v in values)
    lines.append(f'{name:<{wide}}' + ''.join(f'{cell:>16}' for cell in cells))
  return '\n'.join(lines)
