"""What a run reports: `metrics.jsonl`, TensorBoard, a progress line and tables."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping

import tensorboardX

Metrics = Mapping[str, float]


class MetricsLog:
  """Appends metrics to a workdir, one JSON object a line: `step`, `split`, then plain names."""

  def __init__(self, workdir: pathlib.Path, restored_step: int):
    """Opens the log and cuts lines after `restored_step`: those steps will be run again."""
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
      str(workdir / 'tensorboard'), purge_step=restored_step + 1 if restored_step else None
    )

  def write(self, step: int, split: str, metrics: Metrics) -> None:
    """Records the metrics of a split at a step; numbers that were never measured are left out."""
    metrics = {name: float(x) for name, x in metrics.items() if math.isfinite(x)}
    self._file.write(json.dumps({'step': step, 'split': split, **metrics}) + '\n')
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(f'{split}/{name}', value, step)

  def close(self) -> None:
    """Flushes and closes both files."""
    self._file.close()
    self._board.close()


def _whole_lines(path: pathlib.Path) -> list[str]:
  # A killed run may leave half a line at the end.
  return [line for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]


def duration(seconds: float) -> str:
  """'2:05' or '1:02:05'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Progress:
  """One line a report with step, metrics, speed and time left."""

  def __init__(self, start: int, stop: int):
    self._start, self._stop = start, stop
    self._began = self._last = time.perf_counter()
    self._last_step = start

  def examples_per_second(self, step: int, batch_size: int) -> float:
    """Pairs a second since the last call."""
    now = time.perf_counter()
    rate = (step - self._last_step) * batch_size / max(now - self._last, 1e-9)
    self._last, self._last_step = now, step
    return rate

  def show(self, step: int, metrics: Metrics) -> None:
    """Prints the line; time left is from the mean speed of this session, evaluations included."""
    spent = time.perf_counter() - self._began
    left = spent / max(step - self._start, 1) * (self._stop - step)
    shown = '  '.join(f'{name} {_short(value)}' for name, value in metrics.items())
    print(f'step {step}/{self._stop}  {shown}  left {duration(left)}', flush=True)


def _short(value: float) -> str:
  return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def table(title: str, columns: list[str], rows: list[tuple[str, list[float]]]) -> str:
  """A table of plain text; a value that is not finite shows as '-'."""
  wide = max(len(name) for name, _ in rows) + 2
  lines = [f'{title:<{wide}}' + ''.join(f'{column:>16}' for column in columns)]
  for name, values in rows:
    cells = (f'{v:.3f}' if math.isfinite(v) else '-' for v in values)
    lines.append(f'{name:<{wide}}' + ''.join(f'{cell:>16}' for cell in cells))
  return '\n'.join(lines)


def warn(message: str) -> None:
  """Prints a line to stderr."""
  print(f'warning: {message}', file=sys.stderr, flush=True)
