"""Rehearses the whole way, from raw files to a score and an export, before it costs money.

    python -m launch.rehearsal --folder=DIR

Every stage is the command that a user types, on generated photographs and random weights in the
form of the published ones; `launch/README.md` says more. Run again, it goes on where it stopped.
"""

import dataclasses
import importlib.util
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from launch.rehearsal.stages import Places, Stage, Way
from pixelbert_jax import UserError, commandline, files, jsons, require_checkout

RECORD = 'rehearsal.json'  # in the folder: what is done
SHOWN = 15  # last lines of a stage that failed
# Both prepare the image for themselves, which moves what a model says of it a little.
CLOSE = 0.1


@dataclasses.dataclass
class Rehearsal:
  """A rehearsal in a folder.

  Attributes:
    folder: holds all files, the output of each stage in `logs/`, and the record of what is done.
    done: of each stage that is done: command, seconds, and GB of memory at the most.
  """

  folder: pathlib.Path
  done: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    record = self.folder / RECORD
    if record.exists():
      self.done = files.read_json(record, dict)

  def run(self, stages: Iterable[Stage]) -> None:
    """Runs the stages that are not done.

    Raises:
      UserError: a stage failed, or was done by another command.
    """
    for stage in stages:
      print(f'$ {stage}', flush=True)
      before = self.done.get(stage.name)
      if before and before['command'] != str(stage):
        raise UserError(
          f'{self.folder} holds another rehearsal, whose stage {stage.name} has another command: '
          'take another --folder'
        )
      if not before:
        self.done[stage.name] = {'command': str(stage), **self.call(stage)}
        files.write_text(self.folder / RECORD, jsons.text(self.done, indent=1))
      print(self.line(stage.name) + ('  (done before)' if before else '') + '\n', flush=True)

  def call(self, stage: Stage) -> dict[str, float]:
    """Runs a stage; returns its seconds and GB of memory, or raises UserError if it fails."""
    if stage.makes:
      files.delete(pathlib.Path(stage.makes))  # of a try that was killed
    log = self.log(stage.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with log.open('wb') as file:
      words = [sys.executable, *stage.words, *stage.shorter]
      process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
      try:
        _, status, usage = os.wait4(process.pid, 0)
      except KeyboardInterrupt:  # which the stage has got, too
        process.wait()
        raise
    process.returncode = code = os.waitstatus_to_exitcode(status)
    if code:
      lines = log.read_text(errors='replace').splitlines()
      print('\n'.join(lines[-SHOWN:]), flush=True)
      raise UserError(
        f'the stage {stage.name} failed with exit code {code}; all that it printed is in {log}: '
        'mend what it says, and give the same command to go on'
      )
    unit = 1 if sys.platform == 'darwin' else 1024  # of ru_maxrss, in bytes
    return {
      'seconds': round(time.perf_counter() - began, 1),
      'gigabytes': round(usage.ru_maxrss * unit / 1e9, 2),
    }

  def log(self, name: str) -> pathlib.Path:
    """Returns the file with all that a stage printed."""
    return self.folder / 'logs' / f'{name.replace(" ", "-")}.log'

  def line(self, name: str) -> str:
    """Formats what a stage took."""
    took = self.done[name]
    return f'{name:<16}{took["seconds"]:>10.1f} s{took["gigabytes"]:>8.2f} GB'

  def table(self) -> str:
    """Formats what all stages took."""
    seconds = sum(took['seconds'] for took in self.done.values())
    most = max(took['gigabytes'] for took in self.done.values())
    lines = [f'{"stage":<16}{"time":>12}{"memory":>11}', *map(self.line, self.done)]
    return '\n'.join([*lines, f'{"all":<16}{seconds:>10.1f} s{most:>8.2f} GB at most'])

  def said(self, name: str, start: str = '') -> str:
    """Returns the last line that a stage printed, of those with this start."""
    lines = self.log(name).read_text().splitlines()
    return [line for line in lines if line.startswith(start)][-1]

  def compare(self) -> str:
    """Compares what the model and its export say; UserError if they do not agree."""
    (ours,) = jsons.parse(self.said('predict', '{'), dict)['texts']
    theirs = float(self.said('pytorch'))
    logits = [math.log(p / (1 - p)) for p in (ours['probability'], theirs)]
    said = 'JAX {:.3g}, PyTorch {:.3g}'.format(*logits)
    if not math.isclose(*logits, rel_tol=CLOSE, abs_tol=1e-6):
      raise UserError(
        f'model and export do not agree; logit of one image and text: {said}; '
        f'{self.log("predict")} and {self.log("pytorch")} have all of it'
      )
    return f'logit of one image and text by the model and its export: {said}'


def for_real() -> str:
  """Says how the same is done for real: the same commands, on the downloads."""
  stages = [s for s in Way(Places()) if s.name != 'inputs']
  return '\n'.join(
    [
      'For real, leave out the overrides and give the downloads: the corpora in M (DATA.md), the',
      'weights of docs/pytorch.md. docs/pod.md says which batches fit which machine.',
      *(str(dataclasses.replace(stage, shorter=())) for stage in stages),
    ]
  )


def command(argv: Sequence[str]) -> None:
  """Rehearses, and prints what it took."""
  require_checkout()
  parser = commandline.Parser('launch.rehearsal', 'Goes the whole way on generated files.')
  parser.add_argument(
    '--folder', type=commandline.path, required=True, help='for all files; the same one goes on'
  )
  parser.add_argument(
    '--images', type=int, default=2, help='in a batch: a multiple of the devices; default 2'
  )
  parser.add_argument('--small', action='store_true', help='a small model, in a minute or two')
  parser.add_argument('--dry_run', action='store_true', help='print the commands only')
  parser.add_argument(
    '--output', type=commandline.path, help='add what it took to this file, as a JSON line'
  )
  flags = parser.parse_args(argv)
  pytorch = importlib.util.find_spec('torch') is not None
  way = Way(Places.below(flags.folder, pytorch), flags.images, flags.small)
  stages = [stage for stage in way if pytorch or stage.name != 'pytorch']
  if flags.dry_run:
    print('\n'.join(map(str, stages)))
    return
  rehearsal = Rehearsal(pathlib.Path(flags.folder))
  rehearsal.folder.mkdir(parents=True, exist_ok=True)
  rehearsal.run(stages)
  print(rehearsal.table())
  accuracy, questions = rehearsal.said('score val', 'accuracy').split()[1:]
  print(f'VQA accuracy on val {accuracy}%, of {questions} questions')
  print(rehearsal.compare() if pytorch else 'PyTorch is not installed: its part was left out')
  print(f'\n{for_real()}')
  if flags.output:
    from benchmarks import record  # JAX: only now, so that no stage waits for a TPU

    took = {
      name: {k: x for k, x in t.items() if k != 'command'} for name, t in rehearsal.done.items()
    }
    record.append(pathlib.Path(flags.output), images=flags.images, small=flags.small, stages=took)


if __name__ == '__main__':
  sys.exit(commandline.answer(command, sys.argv[1:]))
