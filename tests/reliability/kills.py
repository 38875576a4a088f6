"""Kills a training run at random moments again and again, and compares its end with a whole run's.

Each life of the run is ended by SIGKILL (or now and then SIGTERM or SIGINT) after some steps and a
random delay, so that kills fall on start-up, steps, saves, evaluations and the final report.
"""

import os
import pathlib
import random
import re
import signal
import subprocess
import time

from tests.reliability.outcome import SILENT, TRACEBACK, Outcomes
from tests.support.paths import ROOT
from tests.support.runs import COMMAND, assert_same_run

STEPS = 60
ARGUMENTS = (
  '--config=configs/pretrain.py:test',
  f'--config.steps={STEPS}',
  '--config.save_every=2',
  '--config.eval_every=5',
  '--config.eval_batches=2',
  '--config.log_every=1',
)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def run(count: int, seed: int, folder: pathlib.Path) -> Outcomes:
  """Kills runs `count` times; a run that ends is compared, and another one begins."""
  chance, outcomes, killed = random.Random(seed), Outcomes(), 0
  _live(folder / 'whole', None, chance)
  number = 0
  while killed < count:
    workdir = folder / f'run{number}'
    code, saved = None, 0
    while code != 0:
      # The last life of the last run is not killed.
      kill = chance.choice(SIGNALS) if killed < count else None
      code, resumed, error = _live(workdir, kill, chance)
      trial = f'run {number}, kill {killed}'
      if 'Traceback' in error or (code not in (0, 75) and code != -(kill or 0)):
        outcomes.add(TRACEBACK, trial, error[-400:])
        return outcomes
      if resumed < saved:
        outcomes.add(SILENT, trial, f'step {saved} was saved, and step {resumed} restored')
      saved = max(_newest(workdir), resumed)
      if code:
        killed += 1
        outcomes.add(f'went on after {signal.Signals(kill).name}', trial)
    try:
      assert_same_run(workdir, folder / 'whole')
      outcomes.add('runs that ended as one never killed', f'run {number}')
    except AssertionError as error:
      outcomes.add(SILENT, f'run {number}', str(error)[:400])
    number += 1
  return outcomes


def _live(workdir: pathlib.Path, kill: int | None, chance: random.Random) -> tuple[int, int, str]:
  """Starts the run, and kills it if so asked; returns exit code, step it resumed at, and stderr."""
  process = subprocess.Popen(
    [*COMMAND, *ARGUMENTS, f'--workdir={workdir}'],
    cwd=ROOT,
    env=os.environ | {'PYTHONUNBUFFERED': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  lines, said = chance.randrange(20), []
  if kill:
    for line in process.stdout:
      said.append(line)
      lines -= line.startswith(('step ', 'val ', 'test '))
      if lines <= 0:
        break
    time.sleep(chance.uniform(0, 0.5))
    process.send_signal(kill)
  out, error = process.communicate(timeout=600)
  resumed = re.search(r'^resuming .* at step (\d+)', ''.join(said) + out, re.MULTILINE)
  return process.returncode, int(resumed[1]) if resumed else 0, error


def _newest(workdir: pathlib.Path) -> int:
  """Returns the newest step whose save was acknowledged: Orbax renames a step when it is whole."""
  steps = (workdir / 'checkpoints').glob('*')
  return max((int(path.name) for path in steps if path.name.isdecimal()), default=0)
