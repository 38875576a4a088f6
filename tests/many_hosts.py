"""Tries runs of several processes, on a mesh that is not process by process, as on a TPU slice.

    python -m tests.many_hosts [EXPERIMENT ...]

Experiments: `losses` trains each task as 1 x 4, 2 x 2 and 4 x 1 (processes x devices), `evaluation`
evaluates what came, `resume` goes on from the checkpoint of four processes with fewer, `lost` kills
one of four at each place and runs the same command again. Each appends its figures to a file in
benchmarks/results/; at the end the tables of docs/pod.md are printed. Four devices are simulated on
this machine's CPU.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import record
from pixelbert_jax.checkpoints.checkpoint import steps
from pixelbert_jax.checkpoints.saved import Manifest
from tests.support.processes import LOST, WOVEN, ends, farthest, run, start
from tests.support.runs import metrics, timeless

RESULTS = pathlib.Path(record.__file__).with_name('results') / 'many_hosts.jsonl'
TASKS = 'pretrain', 'vqa', 'nlvr2', 'retrieval'
SHAPES = '1x4', '2x2', '4x1'  # processes x devices of each; the first is the reference
# Wide enough that some parameters are split; dropout and sampled pixels are on.
WIDE = '--config.transformer.width=128', '--config.transformer.mlp_width=512'
MESH = '--config.mesh.data=2', '--config.mesh.fsdp=2'
# Task, process that dies, and where (`woven.PLACES`).
DEATHS = (
  ('pretrain', 2, 'step:6'),
  ('pretrain', 0, 'step:6'),
  ('pretrain', 2, 'save:2'),
  ('pretrain', 0, 'save:2'),
  ('pretrain', 2, 'restore:1'),
  ('pretrain', 0, 'batch:1'),
  ('retrieval', 2, 'batch:1'),
  ('retrieval', 0, 'gathering:2'),
)


def train(task: str, workdir: pathlib.Path, number: int) -> list[str]:
  """Returns the command that trains a task for so many steps."""
  fields = *WIDE, *MESH, '--config.init_from=scratch', f'--config.steps={number}'
  every = '--config.save_every=4', '--config.eval_every=4'
  return [*WOVEN, f'--config=configs/{task}.py:test', *fields, *every, f'--workdir={workdir}']


def losses(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Trains each task on each shape; compares all losses with those of one process."""
  for task in TASKS:
    for shape in SHAPES:
      command, began = train(task, folder / f'{task}-{shape}', 8), time.monotonic()
      run(shape, command)
      seconds = round(time.monotonic() - began, 1)
      difference = farthest(folder / f'{task}-{shape}', folder / f'{task}-{SHAPES[0]}')
      yield {'task': task, 'shape': shape, 'difference': difference, 'seconds': seconds}


def evaluation(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Evaluates the checkpoints of `losses` on each shape; compares metrics and predictions."""
  for task in TASKS:
    found = {}
    for shape in SHAPES:
      workdir = folder / f'evaluate-{task}-{shape}'
      checkpoint = folder / f'{task}-{SHAPES[0]}'
      flags = f'--config=configs/{task}.py:test', *WIDE, *MESH, f'--workdir={workdir}'
      run(shape, [*WOVEN, *flags, '--mode=evaluate', f'--checkpoint={checkpoint}'])
      found[shape] = numbers(workdir / 'predictions')
      assert found[shape].keys() == found[SHAPES[0]].keys()
      difference = max(
        float(np.abs(x - found[SHAPES[0]][name]).max()) for name, x in found[shape].items()
      )
      yield {'task': task, 'shape': shape, 'arrays': len(found[shape]), 'difference': difference}


def numbers(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads all numbers in a folder of predictions."""
  found = {}
  for path in sorted(folder.iterdir()):
    if path.suffix == '.npz':
      with np.load(path, allow_pickle=False) as archive:
        found |= {f'{path.name}/{k}': x for k, x in archive.items() if x.dtype.kind in 'iuf'}
    elif path.name.endswith('_metrics.json'):
      for name, x in json.loads(path.read_text()).items():
        if isinstance(x, float):
          found[name] = np.array(x)
  return found


def resume(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Goes on from step 4 of four processes with two and with one; compares with `losses`."""
  run('4x1', train('pretrain', folder / 'four', 4))
  saved = Manifest.read(folder / 'four/checkpoints/4').arrays
  for shape in SHAPES:
    workdir = folder / f'resumed-{shape}'
    shutil.copytree(folder / 'four', workdir)
    said = run(shape, train('pretrain', workdir, 8))
    # A step that is restored is compared with its checksums to the last bit.
    assert f'resuming {workdir} at step 4 of 8' in said
    assert Manifest.read(workdir / 'checkpoints/4').arrays == saved
    difference = farthest(workdir, folder / 'pretrain-1x4')
    yield {'shape': shape, 'arrays': len(saved), 'difference': difference}


def lost(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Kills one of four processes at each place; compares with the run that lost none."""
  for task, process, place in DEATHS:
    workdir = folder / f'lost-{task}-{place.replace(":", "")}-{process}'
    whole = folder / f'{task}-4x1'
    if place.startswith('restore'):
      run('4x1', train(task, workdir, 4))
    began = time.monotonic()
    os.environ['DIES'] = f'{process}:{place}'
    codes, said = ends(start('4x1', train(task, workdir, 8)))
    del os.environ['DIES']
    seconds, saved = round(time.monotonic() - began, 1), steps(workdir)
    others = codes[:process] + codes[process + 1 :]
    assert codes[process] == -9, (codes, said)
    again = run('4x1', train(task, workdir, 8))
    at = int(again.split('at step ')[1].split()[0]) if 'resuming' in again else 0
    ended = [Manifest.read(x / 'checkpoints/8').arrays for x in (workdir, whole)]
    yield {
      'task': task,
      'dies': f'{process}:{place}',
      'codes': codes,
      'lost': all(code in LOST for code in others),
      'seconds': seconds,
      'saved': saved,
      'resumed_at': at,
      'same_log': timeless(metrics(workdir)) == timeless(metrics(whole)),
      'same_bits': ended[0] == ended[1],
    }


def tables(path: pathlib.Path = RESULTS) -> str:
  """Formats the newest figures: differences by number of processes, and what deaths led to."""
  newest: dict[str, dict[tuple, dict[str, Any]]] = {name: {} for name in EXPERIMENTS}
  for x in map(json.loads, path.read_text().splitlines()):
    key = x.get('task'), x.get('shape'), x.get('dies')
    newest[x['experiment']][key] = x
  rows = ['| | one process | two | four |', '|---|---|---|---|']
  words = {'losses': 'losses of 8 steps', 'evaluation': 'evaluation', 'resume': 'resumed from four'}
  for name, title in words.items():
    for task in dict.fromkeys(task for task, _, _ in newest[name]):
      found = [newest[name][task, shape, None]['difference'] for shape in SHAPES]
      cells = [f'{x:.1e}' if x else '0' for x in found]
      rows.append(f'| {task or TASKS[0]}: {title} | {" | ".join(cells)} |')
  rows += ['', '| dies | the others end with | saved | goes on at | ends with the same bits |']
  rows.append('|---|---|---|---|---|')
  for x in newest['lost'].values():
    process, place = x['dies'].split(':', 1)
    others = [code for n, code in enumerate(x['codes']) if n != int(process)]
    codes = sorted({LOST[0] if code in LOST else code for code in others})
    cells = [
      f'{x["task"]}: process {process}, {place}',
      ', '.join(map(str, codes)),
      ', '.join(map(str, x['saved'])) or 'none',
      f'step {x["resumed_at"]}' if x['resumed_at'] else 'the start',
      'yes' if x['same_bits'] else 'no',
    ]
    rows.append(f'| {" | ".join(cells)} |')
  return '\n'.join(rows)


EXPERIMENTS = {x.__name__: x for x in (losses, evaluation, resume, lost)}


def main(*names: str) -> None:
  """Conducts experiments one after the other; those after `losses` use its runs."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='many-hosts-'))
  os.environ |= {
    'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
  }
  for name in names or EXPERIMENTS:
    for figures in EXPERIMENTS[name](folder):
      print(name, json.dumps(figures), flush=True)
      record.append(RESULTS, experiment=name, **figures)
  shutil.rmtree(folder)
  print(tables())


if __name__ == '__main__':
  main(*sys.argv[1:])
