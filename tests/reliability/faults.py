"""Damages checkpoints and workdirs, and compares what is read or resumed with the undamaged."""

import contextlib
import io
import pathlib
import random
import shutil

from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.checkpoints.workdir import claim_workdir
from pixelbert_jax.main import main
from tests.reliability.damage import damaged
from tests.reliability.outcome import LINES, SILENT, TRACEBACK, Outcomes
from tests.support.runs import assert_same_run
from tests.support.states import CONFIG, FILES, bits, make_state, restore, save

AS_BEFORE, SAID = 'as before', 'said, and went on'


def checkpoints(count: int, seed: int, folder: pathlib.Path) -> Outcomes:
  """Damages a file of a checkpoint with two steps `count` times; loads and resumes from each."""
  chance, outcomes, workdir = random.Random(seed), Outcomes(), folder / 'run'
  folder.mkdir(parents=True, exist_ok=True)
  save(workdir, 5, 10)

  def load() -> str:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
      found = checkpoint.load(workdir)
    same = bits(found.variables) == bits(make_state(found.step).variables)
    whole = found.config == CONFIG and found.vocabulary.read_bytes() == FILES['vocab.txt']
    return _judge(same and whole, found.step == 10, said.getvalue())

  def resume() -> str:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
      claim_workdir(workdir, CONFIG, FILES)
      state = restore(workdir)
    step = int(state.step)
    return _judge(bits(state) == bits(make_state(step)), step == 10, said.getvalue())

  for _ in range(count):
    with damaged(workdir, chance) as what:
      outcomes.observe(f'load, {what}', load)
      outcomes.observe(f'resume, {what}', resume)
  return outcomes


def workdirs(count: int, seed: int, folder: pathlib.Path) -> Outcomes:
  """Damages a file of a stopped run `count` times, and resumes it to its end each time."""
  chance, outcomes = random.Random(seed), Outcomes()
  whole, stopped, workdir = (folder / name for name in ('whole', 'stopped', 'run'))
  # The first run may build the dataset, or wait for another that builds it, and says so.
  code, said = _train(stopped, 4)
  assert code == 0, said
  shutil.copytree(stopped, whole)
  assert _train(whole, 8) == (0, '')

  def resume() -> str:
    code, said = _train(workdir, 8)
    if code:
      line = said.startswith('error: ') and said.count('\n') == 1
      return 'refused' if line else TRACEBACK if 'Traceback' in said else LINES
    try:
      assert_same_run(workdir, whole)
    except (AssertionError, ValueError, OSError):
      return SAID if said else SILENT
    return AS_BEFORE

  for _ in range(count):
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(stopped, workdir)
    with damaged(workdir, chance) as what:
      outcomes.observe(what, resume)
  return outcomes


def _judge(same: bool, newest: bool, said: str) -> str:
  if not same or (not newest and not said):
    return SILENT
  return AS_BEFORE if newest else SAID


def _train(workdir: pathlib.Path, steps: int) -> tuple[int, str]:
  """Runs the command to this step; returns the exit code and what it says on stderr."""
  said = io.StringIO()
  arguments = ['--config=configs/pretrain.py:test', '--config.eval_batches=1']
  arguments += ['--config.save_every=2', f'--config.steps={steps}', f'--workdir={workdir}']
  with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
    return main(arguments), said.getvalue()
