"""Bad batches: steps whose loss, gradient or update is not finite. Found, left out, replayed.

The first bad batch of a run is written to `bad_batch.npz` in its workdir. Its losses and gradients
at the newest step that was saved before it are printed by

    python -m pixelbert_jax.bad_batch WORKDIR

A run is bitwise reproducible: with `--config.save_every=1` it comes to the same batch again, with
the step before it saved.
"""

import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from pixelbert_jax import UserError, commandline, files, processes
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.experiment import make_model, make_task
from pixelbert_jax.input.pipeline import Batches
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.step import Gradients, State, add_gradients, no_sums, nothing_yet
from pixelbert_jax.tasks.sums import finish

FILE = 'bad_batch.npz'
CURE = (
  'Start again in another --workdir with a lower --config.optimizer.transformer_rate or cnn_rate, '
  'or a lower clip_norm (0 turns clipping off)'
)


class BadBatches:
  """The steps of a run that were not finite.

  Whether a step was is a flag on the devices, which is fetched only when someone looks.

  Attributes:
    skipped: numbers of the steps whose batches were left out.
  """

  def __init__(
    self,
    config: ConfigDict,
    workdir: pathlib.Path,
    batches: Batches,
    checkpoints: checkpoint.Checkpoints,
  ):
    """Starts with the steps that were skipped before the one that was restored."""
    self._config, self._workdir, self._batches = config, workdir, batches
    self._checkpoints, restored = checkpoints, checkpoints.restored
    self.skipped = list(restored.skipped) if restored else []
    self._flags: dict[int, jax.Array] = {}

  def add(self, number: int, finite: jax.Array) -> None:
    """Remembers the flag of a step; does not wait for it."""
    self._flags[number] = finite

  def look(self) -> None:
    """Fetches the flags; writes the first bad batch to the workdir, and counts those left out.

    Raises:
      UserError: a step was not finite and is not to be skipped, or too many are.
    """
    flags, self._flags = jax.device_get(self._flags), {}
    bad = [number for number, finite in flags.items() if not finite]
    if not bad:
      return
    path = self._workdir / FILE
    if processes.is_first() and not path.exists():
      write(path, self._batches, bad[0], self._config.micro_batches)
    if self._config.on_bad_batch == 'stop':
      raise UserError(
        f'training has diverged: at step {bad[0]} the loss, the gradient or the update is not '
        f'finite. {CURE}, or leave such batches out by --config.on_bad_batch=skip; '
        f'`python -m pixelbert_jax.bad_batch {self._workdir}` replays this one{self.keeps()}'
      )
    self.skipped += bad
    steps = ', '.join(map(str, bad))
    if processes.is_first():
      print(f'not finite, left out: step {steps}; {len(self.skipped)} so far', file=sys.stderr)
    if len(self.skipped) > self._config.most_skipped:
      raise UserError(
        f'training has diverged: {len(self.skipped)} steps were not finite, the last of them '
        f'{bad[-1]}, and config.most_skipped is {self._config.most_skipped}. {CURE}{self.keeps()}'
      )

  def keeps(self) -> str:
    """Returns words for the step that the workdir keeps; '' if none is saved yet."""
    self._checkpoints.wait()
    saved = self._checkpoints.latest
    return '' if saved is None else f'; {self._workdir} keeps step {saved}'


def write(path: pathlib.Path, batches: Batches, number: int, parts: int) -> None:
  """Writes the batch of step `number`, this process's rows of it, as an npz file.

  It holds `step`; the arrays of micro-batch i as `i/NAME`; and the images of its rows, in
  their order, as `image_id`.
  """
  epoch, place = divmod(number - 1, len(batches))
  made = [batches.make((number - 1) * parts + part) for part in range(parts)]
  arrays = dict[str, Any]()
  for i, batch in enumerate(made):
    arrays |= {f'{i}/{name}': x for name, x in batch.items()}
  shown = batches.plan(epoch).image[place]
  mine = np.concatenate([shown[batches.mine(part)].reshape(-1) for part in range(parts)])
  names = np.array([batches.split.sidecar.image_id[i].decode() for i in mine])
  files.write(path, lambda file: np.savez(file, step=number, image_id=names, **arrays))


def replay(workdir: pathlib.Path) -> str:
  """Computes losses and gradients of the bad batch at the newest saved step before it.

  Returns:
    A report: the steps, each mean, and the parameters whose gradient is not finite.

  Raises:
    UserError: there is no bad batch, or no step before it.
  """
  if not (workdir / FILE).exists():
    raise UserError(f'{workdir} has no {FILE}: no batch of this run was bad')
  with np.load(workdir / FILE, allow_pickle=False) as archive:
    arrays = dict(archive)
  step = int(arrays['step'])
  before = [number for number in checkpoint.steps(workdir) if number < step]
  if not before:
    raise UserError(f'{workdir} has no step before {step}: run it again with --config.save_every=1')
  loaded = checkpoint.load(f'{workdir}@{before[-1]}')
  config = ConfigDict(loaded.config)
  task = make_task(config, files=loaded.files)
  model = make_model(config, len(Tokenizer(loaded.vocabulary, config.text.length).words), task)
  variables = jax.device_put(loaded.variables)
  # The step decides what chance draws.
  state = State(jnp.int32(step - 1), **variables, opt_state=(), sums=no_sums(task))
  add = jax.jit(functools.partial(add_gradients, task=task, model=model, seed=config.seed))
  gradients = nothing_yet(state)
  for part in range(config.micro_batches):
    names = [name for name in arrays if name.startswith(f'{part}/')]
    gradients = add(gradients, state, {name.partition('/')[2]: arrays[name] for name in names})
  of = f'the batch of step {step} at the parameters of step {before[-1]}'
  return f'{of}\n{_report(jax.device_get(gradients))}'


def _report(gradients: Gradients) -> str:
  arrays = by_name(gradients.params)
  bad = [name for name, x in arrays.items() if not np.isfinite(x).all()]
  norm = np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in arrays.values()))
  means = finish(gradients.sums) | {'gradient_norm': float(norm)}
  lines = [f'{name:<20}{value:.6g}' for name, value in means.items()]
  if bad:
    lines.append(f'not finite are the gradients of {len(bad)} of {len(arrays)} arrays:')
    lines += [f'  {name}' for name in bad]
  elif np.isfinite(list(means.values())).all():
    lines.append('loss and gradient are finite: the update is not, so a rate is too large')
  return '\n'.join(lines)


def command(argv: Sequence[str]) -> None:
  """Parses the flags and prints the report."""
  parser = commandline.Parser('pixelbert_jax.bad_batch', __doc__)
  parser.add_argument('workdir', type=pathlib.Path)
  print(replay(parser.parse_args(argv).workdir))


def main(argv: Sequence[str]) -> int:
  """Runs the command, prints an error as one line, and returns the exit code."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
