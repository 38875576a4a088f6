"""Measures how long commands take to start.

    python -m benchmarks.start [--rounds=3]

Seconds, as medians over rounds, of what answers at once (`--help` of each command, a score); of the
default run of configs/pretrain.py from its start to the end of its second step, with an empty
compilation cache and with a filled one; and of a prediction by what it trained, after a first one.
The dataset `scenes` is built before.

Appends one line to benchmarks/results/start.jsonl, and prints the table of BENCHMARKS.md.
"""

import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags

from benchmarks import record
from data.miniatures import photograph

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = pathlib.Path(__file__).with_name('results') / 'start.jsonl'
COMMANDS = ('pixelbert_jax.main', 'pixelbert_jax.score', 'pixelbert_jax.predict', 'data.build')
TRAIN = ('-m', 'pixelbert_jax.main', '--config=configs/pretrain.py')


def until(words: Sequence[str], start: str = '') -> float:
  """Runs Python with these words; returns the seconds to its end, or to a line that starts so."""
  began, said = time.perf_counter(), []
  with subprocess.Popen(
    [sys.executable, *words],
    cwd=ROOT,
    env=os.environ | {'PYTHONUNBUFFERED': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as process:
    for line in process.stdout or ():
      said.append(line)
      if start and line.startswith(start):
        process.kill()
        return time.perf_counter() - began
  if process.returncode or start:
    raise RuntimeError(f'{" ".join(words)}: {"".join(said)}')
  return time.perf_counter() - began


def cases(folder: pathlib.Path) -> Iterator[tuple[str, Callable[[], float]]]:
  """Yields what is measured, by name; the folder is empty."""
  for module in COMMANDS:
    yield f'{module} --help', lambda module=module: until(['-m', module, '--help'])
  truth = [{'identifier': f'dev-{i}-0-0', 'label': 'True'} for i in range(7000)]
  (folder / 'truth.json').write_text('\n'.join(map(json.dumps, truth)))
  (folder / 'said.csv').write_text('\n'.join(f'{x["identifier"]},True' for x in truth))
  score = [f'--annotations={folder}/truth.json', f'--predictions={folder}/said.csv']
  yield 'score of 7,000 statements', lambda: until(['-m', 'pixelbert_jax.score', 'nlvr2', *score])
  yield 'data.build of what is built', lambda: until(['-m', 'data.build', 'scenes'])
  numbers = itertools.count()

  def start(runs: str) -> float:
    return until([*TRAIN, f'--workdir={folder}/{runs}/{next(numbers)}'], 'pace')

  yield 'second step, nothing compiled yet', lambda: start(f'cold{next(numbers)}')
  start('warm')
  yield 'second step, compiled before', lambda: start('warm')
  until([*TRAIN, f'--workdir={folder}/warm/model', '--config.epochs=0.01'])
  (folder / 'photo.jpg').write_bytes(photograph(480, 640, 0))
  asked = [f'--checkpoint={folder}/warm/model', f'--image={folder}/photo.jpg', '--text=a circle']
  yield 'prediction', lambda: until(['-m', 'pixelbert_jax.predict', *asked])


def page() -> str:
  """Formats the newest line, as in BENCHMARKS.md."""
  results = json.loads(RESULTS.read_text().splitlines()[-1])['results']
  rows = [f'| {name} | {seconds:.1f} |' for name, seconds in results.items()]
  return '\n'.join(['| from the start to the end, or to | s |', '|---|---|', *rows])


def main(_: Sequence[str]) -> None:
  values = flags.FLAGS
  until(['-m', 'data.build', 'scenes'])
  with tempfile.TemporaryDirectory() as folder:
    results = {}
    for name, call in cases(pathlib.Path(folder)):
      call()  # reads the files from disk
      results[name] = round(statistics.median(call() for _ in range(values.rounds)), 2)
  record.append(RESULTS, results=results)
  print(page())


if __name__ == '__main__':
  flags.DEFINE_integer('rounds', 3, 'Runs of each case, after a first one.')
  app.run(main)
