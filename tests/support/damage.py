"""Flips bytes of a workdir at random places and reads it; run as a program.

    python -m tests.support.damage FOLDER

prints how often each outcome came, as JSON. A process of its own, since where one of several reads
fails Orbax abandons the others, of which Python complains at any time later.
"""

import collections
import contextlib
import io
import itertools
import json
import pathlib
import random
import re
import shutil
import sys

from pixelbert_jax.checkpoints.checkpoint import CheckpointError, load
from pixelbert_jax.checkpoints.workdir import claim_workdir
from tests.support.states import CONFIG, FILES, bits, make_state, restore


def one_by_one(workdir, copy, chance):
  """Yields again and again where one random byte of a fresh copy of a workdir was changed.

  The first is a byte of the vocabulary, which every step needs: chance might never come to it, as
  Orbax names its files at random, so that their number and order differ from run to run.
  """
  files = sorted(path.relative_to(workdir) for path in workdir.rglob('*') if path.is_file())
  for path in itertools.chain(
    [pathlib.Path('vocab.txt')], iter(lambda: chance.choice(files), None)
  ):
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workdir, copy)
    content = bytearray((workdir / path).read_bytes())
    position = chance.randrange(len(content))
    content[position] ^= chance.randrange(1, 256)
    (copy / path).write_bytes(content)
    yield path, position


def resume(folder):
  claim_workdir(folder, CONFIG, FILES)
  state = restore(folder)
  return int(state.step), state


def read(folder):
  found = load(folder)
  assert found.vocabulary.read_text() == '[PAD]\ncat\n'
  assert found.config == CONFIG
  return found.step, found.variables


def flip_everywhere(folder):
  """Flips a byte of `folder/run` at 100 random places, loads and resumes; counts the outcomes."""
  outcomes, copy = collections.Counter(), folder / 'copy'
  attempts = {read: lambda state: state.variables, resume: lambda state: state}
  for where in itertools.islice(one_by_one(folder / 'run', copy, random.Random(0)), 100):
    for attempt, part in attempts.items():  # To resume may move a step: it comes last.
      said = io.StringIO()
      try:
        with contextlib.redirect_stderr(said):
          step, found = attempt(copy)
      except CheckpointError as error:
        one_line = re.fullmatch(f'.*{copy}.*', str(error))
        outcomes[f'{attempt.__name__} error' if one_line else str(error)] += 1
        continue
      assert bits(found) == bits(part(make_state(step))), where
      assert (f'{copy}/checkpoints/10 is damaged' in said.getvalue()) == (step == 5), where
      outcomes[f'{attempt.__name__} {step}'] += 1
  return outcomes


if __name__ == '__main__':
  print(json.dumps(flip_everywhere(pathlib.Path(sys.argv[1]))))
