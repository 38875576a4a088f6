"""Checkpoints in a workdir: Orbax steps under `checkpoints/`, `config.json` and `vocab.txt` beside.

A workdir loads after moving it alone: nothing in it points outside.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp

from pixelbert_jax import UserError

Tree = Any

# What may differ when a run goes on; all else decides what the next step computes.
MAY_CHANGE = (
  *('data.data_dir', 'epochs', 'steps', 'log_every', 'eval_every', 'eval_batches'),
  *('save_every', 'keep', 'threads'),
  *('mesh.data', 'mesh.fsdp'),  # to the last bit it is the same run on the same mesh only
)


class CheckpointError(UserError):
  """A checkpoint or workdir that cannot be used; one line: what, where, how to mend it."""


class Checkpoints:
  """Saves and restores the training state of a workdir."""

  def __init__(self, workdir: pathlib.Path, keep: int = 2):
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    self._folder = (workdir / 'checkpoints').absolute()
    self._manager = ocp.CheckpointManager(self._folder, options=options)

  @property
  def latest(self) -> int | None:
    """The newest step that is whole, or None."""
    return self._manager.latest_step()

  def save(self, step: int, state: Tree) -> None:
    """Begins to save; the writing goes on in the background."""
    if step != self.latest:
      self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

  def restore(self, like: Tree, step: int | None = None) -> Tree:
    """The state of `step`, or the newest, with the shapes and shardings of `like`."""
    step = self.latest if step is None else step
    try:
      return self._manager.restore(step, args=ocp.args.StandardRestore(like))
    except (ValueError, KeyError, FileNotFoundError) as error:
      first = str(error).strip().splitlines()[0]
      raise CheckpointError(f'{self._folder}/{step} cannot be restored: {first}') from error

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()


def claim_workdir(workdir: pathlib.Path, config: dict[str, Any], vocabulary: pathlib.Path) -> None:
  """Writes the configuration and vocabulary of a run, or checks those of the run that is there.

  Raises:
    CheckpointError: the workdir holds another run; what differs is named.
  """
  path = workdir / 'config.json'
  if path.exists():
    differing = _differences(json.loads(path.read_text()), json.loads(json.dumps(config)))
    if differing:
      raise CheckpointError(
        f'{workdir} holds a run with another configuration ({"; ".join(differing)}): '
        'take another --workdir, or delete that one'
      )
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise CheckpointError(
      f'{workdir} cannot be made ({error.strerror}): take another --workdir'
    ) from error
  shutil.copyfile(vocabulary, workdir / 'vocab.txt')
  _write_whole(path, json.dumps(config, indent=2) + '\n')


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  old, new = _flat(old), _flat(new)
  return [
    f'{name} is {old.get(name, "absent")!r} there and {new.get(name, "absent")!r} here'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name) and name not in MAY_CHANGE
  ]


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
  return flat


def _write_whole(path: pathlib.Path, text: str) -> None:
  partial = path.with_suffix('.partial')
  partial.write_text(text)
  os.replace(partial, path)


def abstract(state: Tree) -> Tree:
  """Shapes, dtypes and shardings of a state, for `Checkpoints.restore`."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
