"""The reports of a run: `metrics.jsonl`, TensorBoard, progress lines and tables."""

import contextlib
import hashlib
import itertools
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pixelbert_jax import disk, files, jsons
from pixelbert_jax.checkpoints.workdir import check_owned
from pixelbert_jax.tensorboard import Board

Metrics = dict[str, float]
DAY = 24 * 60 * 60  # seconds


class MetricsLog:
  """The metrics log of a workdir: one JSON object per line with `step`, `split` and metrics.

  No step and split has two lines.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    restored_step: int,
    writes: bool = True,
    mark: Mapping[str, Any] | None = None,
  ):
    """Opens the log and removes lines after `restored_step`, whose steps will be run again.

    A log that is not as it was when that step was saved is said on stderr and kept beside the new
    one, which goes on with those of its lines that can be read.

    Args:
      workdir: of the run.
      restored_step: the step from which the run goes on.
      writes: False for a log that does nothing; only one of several processes writes it.
      mark: what `mark` returned when that step was saved, if it is known.
    """
    self._writes = writes
    self._lines, self._digest = 0, hashlib.sha256()
    self._written = set[tuple[int, str]]()
    if not writes:
      return
    self._workdir, self._path = workdir, workdir / 'metrics.jsonl'
    found = self._path.read_bytes() if self._path.exists() else b''
    lines = _whole_lines(found)
    fault = _fault(lines, mark)
    if fault:
      aside = _set_aside(self._path, found)
      kept_as = f' (as found it is kept in {aside})' if aside else ''
      print(
        f'{self._path} is not what step {restored_step} was saved with: {fault}; '
        f'going on with what is there{kept_as}',
        file=sys.stderr,
      )
    entries = [(line, entry) for line in lines if (entry := _entry(line))]
    kept = [(line, entry) for line, entry in entries if entry['step'] <= restored_step]
    for line, entry in kept:
      self._count(line, entry['step'], entry['split'])
    content = b''.join(line for line, _ in kept)
    if content != found:
      files.write_bytes(self._path, content)
    with self._writing():
      self._file = self._path.open('ab')
      self._board = Board(workdir / 'tensorboard', restored_step + 1)

  def _writing(self) -> contextlib.AbstractContextManager[None]:
    return disk.writing(self._workdir, cure='take another --workdir; the saved steps are whole')

  def write(self, step: int, split: str, metrics: Metrics) -> None:
    """Appends the metrics of a split at a step, unless they are there already.

    Raises:
      ValueError: one of them is not finite.
    """
    if not self._writes or self.has(step, split):
      return
    metrics = {name: float(x) for name, x in metrics.items()}
    line = (jsons.text({'step': step, 'split': split, **metrics}) + '\n').encode()
    check_owned(self._workdir)
    with self._writing():
      self._file.write(line)
      self._file.flush()
      self._board.write(step, {f'{split}/{name}': value for name, value in metrics.items()})
    self._count(line, step, split)

  def has(self, step: int, split: str) -> bool:
    """Tells whether the log has a line of this step and split."""
    return (step, split) in self._written

  def mark(self) -> dict[str, Any] | None:
    """Returns the number of lines so far and their SHA-256; None of a log that does nothing."""
    return {'lines': self._lines, 'sha256': self._digest.hexdigest()} if self._writes else None

  def _count(self, line: bytes, step: int, split: str) -> None:
    self._lines += 1
    self._digest.update(line)
    self._written.add((step, split))

  def sync(self) -> None:
    """Flushes all lines to disk or, if the workdir is a mounted bucket, to the bucket."""
    if self._writes:
      with self._writing():
        os.fsync(self._file.fileno())
        self._board.sync()

  def close(self) -> None:
    """Flushes and closes both files."""
    if self._writes:
      with self._writing():
        self._file.close()
        self._board.close()


def not_finite(metrics: Metrics) -> list[str]:
  """Lists the metrics that are not finite; what could not be measured is absent instead."""
  return [name for name, x in metrics.items() if not math.isfinite(x)]


def entries(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the objects of a workdir's `metrics.jsonl`, in order, less what is none."""
  path = workdir / 'metrics.jsonl'
  lines = _whole_lines(path.read_bytes()) if path.exists() else []
  return list(filter(None, map(_entry, lines)))


def logged(workdir: pathlib.Path, step: int, split: str) -> list[dict]:
  """Reads the objects for a split at a step from a workdir's `metrics.jsonl`, in order."""
  return [entry for entry in entries(workdir) if (entry['step'], entry['split']) == (step, split)]


def _whole_lines(content: bytes) -> list[bytes]:
  # A killed run may leave half a line at the end.
  return [line + b'\n' for line in content.split(b'\n')[:-1]]


def _entry(line: bytes) -> dict[str, Any] | None:
  """Reads a line of a log; None if it is none."""
  try:
    entry = jsons.parse(line, dict)
    return entry if isinstance(entry['step'], int) and isinstance(entry['split'], str) else None
  except (ValueError, KeyError, TypeError):
    return None


def _fault(lines: list[bytes], mark: Mapping[str, Any] | None) -> str:
  """Returns in words how a log differs from its mark; '' if it does not."""
  if mark:
    if len(lines) < mark['lines']:
      return f'it has {len(lines)} of {mark["lines"]} lines'
    if hashlib.sha256(b''.join(lines[: mark['lines']])).hexdigest() != mark['sha256']:
      return f'its first {mark["lines"]} lines have changed'
  bad = [number for number, line in enumerate(lines, 1) if not _entry(line)]
  return f'line {bad[0]} is none of a log' if bad else ''


def _set_aside(path: pathlib.Path, content: bytes) -> pathlib.Path | None:
  """Copies an altered log to the first free of `metrics.jsonl.altered`, `...-2`, `...-3`."""
  if not content:
    return None
  names = (f'{path.name}.altered{"" if n == 1 else f"-{n}"}' for n in itertools.count(1))
  aside = next(p for p in map(path.with_name, names) if not p.exists())
  files.write_bytes(aside, content)
  return aside


def duration(seconds: float) -> str:
  """Formats seconds as '2:05', '1:02:05' or '3 days 4 h'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, rest = divmod(hours, 24)
  if days:
    return f'{days} day{"s" * (days > 1)} {rest} h'
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Progress:
  """Progress lines with step, metrics, and the time left at the pace since the first line.

  The pace of steps and the examples per second leave out what is done `apart`; the time left does
  not.
  """

  def __init__(self, start: int, stop: int, noun: str = 'step'):
    """Starts the clock; counts from `start` to `stop` in units of `noun`."""
    self._stop, self._noun = stop, noun
    self._first: tuple[float, int] | None = None
    self._ended: float | None = None
    self._apart = 0.0  # seconds
    self._last = (self._clock(), start)

  def _clock(self) -> float:
    return time.perf_counter() - self._apart

  @contextlib.contextmanager
  def apart(self) -> Iterator[None]:
    """Does not count the time inside, in which a run logs, saves or evaluates."""
    began = time.perf_counter()
    yield
    self._apart += time.perf_counter() - began

  def examples_per_second(self, step: int, batch_size: int) -> float:
    """Computes examples per second of training since the last call."""
    (then, last_step), self._last = self._last, (self._clock(), step)
    # Time left is measured from the first report on, before which steps are slower.
    self._first = self._first or (time.perf_counter(), step)
    return (step - last_step) * batch_size / max(self._last[0] - then, 1e-9)

  def show_pace(self, step: int) -> None:
    """Prints the pace; call it after each of the first two steps.

    Only the second call prints, since the first step starts slowly.
    """
    ended, self._ended = self._ended, self._clock()
    if ended is None:
      return
    pace = self._ended - ended
    print(
      f'pace        {pace:.3g} s per step: {DAY / pace:,.0f} steps per day, '
      f'about {duration(pace * (self._stop - step))} left',
      flush=True,
    )

  def show(self, step: int, metrics: Metrics, waiting: float | None = None) -> None:
    """Prints the line of a step, with the time left from the second line on.

    `waiting` is the share of the time in which the devices waited for data.
    """
    first, first_step = self._first or self._last
    parts = [f'{self._noun} {step}/{self._stop}', *(f'{k} {_short(v)}' for k, v in metrics.items())]
    if waiting is not None:
      parts.append(f'waits {waiting:.0%}')
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
  width = max(len(title), *(len(name) for name, _ in rows)) + 2
  lines = [f'{title:<{width}}' + ''.join(f'{column:>16}' for column in columns)]
  for name, values in rows:
    cells = (f'{v:.3f}' if math.isfinite(v) else '-' for v in values)
    lines.append(f'{name:<{width}}' + ''.join(f'{cell:>16}' for cell in cells))
  return '\n'.join(lines)
