"""Conducts the experiments of RELIABILITY.md, one after the other.

    python -m tests.reliability [EXPERIMENT ...] [--share=1.0]
    python -m tests.reliability --table

Each appends its outcomes to benchmarks/results/reliability.jsonl. The exit code is 1 if a trial
ended in a wrong value, a traceback, or a message of several lines; these are printed, and the files
that caused them stay. `--share=0.1` makes a tenth of the trials.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from benchmarks import record
from tests.reliability.outcome import WRONG, Outcomes

RESULTS = pathlib.Path(record.__file__).with_name('results') / 'reliability.jsonl'
SECONDS = 300  # of fuzzing each format
# By experiment: the number of trials, or `SECONDS`.
AMOUNTS = {
  'kills': 50,
  'checkpoints': 200,
  'datasets': 200,
  'workdirs': 100,
  'inputs': 200,
  **dict.fromkeys(('csv', 'json', 'archives', 'images', 'vocabularies', 'weights'), SECONDS),
}


def conduct(name: str, amount: float, folder: pathlib.Path, seed: int = 0) -> Outcomes:
  """Conducts one experiment in this process; `amount` is as in `AMOUNTS`."""
  match name:
    case 'kills':
      from tests.reliability import kills

      return kills.run(round(amount), seed, folder)
    case 'inputs':
      from tests.reliability import inputs

      return inputs.run(round(amount), seed, folder)
    case 'checkpoints':
      from tests.reliability import faults

      return faults.checkpoints(round(amount), seed, folder)
    case 'workdirs':
      from tests.reliability import faults

      return faults.workdirs(round(amount), seed, folder)
    case 'datasets':
      from tests.reliability import datasets

      return datasets.run(round(amount), seed, folder)
    case _:
      from tests.reliability import fuzz

      return fuzz.run(name, amount, seed, folder)


def table() -> str:
  """Formats the newest result of each experiment as the table of RELIABILITY.md."""
  newest = {x['experiment']: x for x in map(json.loads, RESULTS.read_text().splitlines())}
  rows = ['| experiment | trials | outcomes | wrong | seconds |', '|---|---|---|---|---|']
  for name in AMOUNTS:
    if name in newest:
      outcomes, seconds = newest[name]['outcomes'], newest[name]['seconds']
      wrong = sum(outcomes.get(outcome, 0) for outcome in WRONG)
      words = ', '.join(f'{n:,} {what}' for what, n in outcomes.items() if what not in WRONG)
      rows.append(f'| `{name}` | {sum(outcomes.values()):,} | {words} | {wrong} | {seconds:,.0f} |')
  return '\n'.join(rows)


def main() -> int:
  """Runs each experiment in a process of its own, so that a crash ends that one alone."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('experiments', nargs='*', metavar='EXPERIMENT', help=', '.join(AMOUNTS))
  parser.add_argument('--share', type=float, default=1.0, help='of the trials')
  parser.add_argument('--here', action='store_true', help='in this process')
  parser.add_argument('--table', action='store_true', help='print the newest results alone')
  flags = parser.parse_args()
  if flags.table:
    print(table())
    return 0
  names = flags.experiments or list(AMOUNTS)
  if flags.here:
    return max([_record(name, flags.share) for name in names])
  command = [sys.executable, '-m', __spec__.name, '--here', f'--share={flags.share}']
  return max([abs(subprocess.run([*command, name]).returncode) for name in names])


def _record(name: str, share: float) -> int:
  """Conducts an experiment, prints and appends what came; returns 1 if a trial went wrong."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix=f'reliability-{name}-'))
  began = time.monotonic()
  outcomes = conduct(name, share * AMOUNTS[name], folder)
  seconds = round(time.monotonic() - began, 1)
  counts = dict(sorted(outcomes.counts.items()))
  print(f'{name}: {json.dumps(counts)} in {seconds} s', flush=True)
  record.append(RESULTS, experiment=name, outcomes=counts, seconds=seconds)
  if not outcomes.wrong:
    shutil.rmtree(folder, ignore_errors=True)
    return 0
  print('\n'.join(outcomes.wrong[:50]), f'\nthe files are in {folder}', flush=True)
  return 1


if __name__ == '__main__':
  sys.exit(main())
