"""All steps of a checkpoint: saving and restoring those of a run, loading a model from one.

A checkpoint is a folder with the steps in `checkpoints/` (`saved.py`) and the files that
`workdir.py` lists. Nothing in it points outside, so it can be moved.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from pixelbert_jax import commandline, jsons, processes, sharding
from pixelbert_jax.checkpoints import CheckpointError, reachable, saved
from pixelbert_jax.checkpoints.room import Room
from pixelbert_jax.checkpoints.saved import Manifest
from pixelbert_jax.checkpoints.scores import Scores, steps
from pixelbert_jax.checkpoints.workdir import check_empty, to_json
from pixelbert_jax.files import atomic, temporary

Tree = Any


class Checkpoints:
  """The steps of a run in a claimed workdir: saves and restores its training state.

  Attributes:
    restored: the manifest of the step that was restored; None if none was.
  """

  def __init__(self, workdir: pathlib.Path, files: Iterable[str], keep: int = 2):
    """Keeps the newest `keep` steps, and the one with the best score.

    `files` are the names of the run's own files, which no step can do without.
    """
    self._workdir = epath.Path(workdir.absolute())
    self._config = jsons.parse((workdir / 'config.json').read_bytes(), dict)
    self._files = saved.digests(self._workdir, files)
    self._scores, self.room = Scores(self._workdir), Room(self._workdir)
    self._manager = _manager(self._workdir, keep, lambda: self._scores.at_stake)
    self.restored: Manifest | None = None
    if self._scores.unknown and processes.is_first():
      numbers = ', '.join(map(str, self._scores.unknown))
      line = f'{workdir}/checkpoints/{numbers}: damaged manifest, so the score is unknown: kept'
      print(line, file=sys.stderr)

  @property
  def latest(self) -> int | None:
    """The newest step, or None."""
    return self._manager.latest_step()

  @property
  def chosen(self) -> tuple[int, float] | None:
    """The step with the best validation score, and that score; None if no step has one."""
    ranked = self._scores.ranked
    return (ranked[0], self._scores.scored[ranked[0]]) if ranked else None

  def is_scored(self, step: int) -> bool:
    """Tells whether a step was evaluated on validation, even if that gave no score."""
    return step in self._scores.of

  def score(self, step: int, score: float | None) -> None:
    """Keeps the validation score of a step, which may still be being saved."""
    self._scores.add(step, score)

  def save(self, step: int, state: Tree, **about: Any) -> None:
    """Starts saving in the background; `about` are further attributes of the manifest."""
    if step != self.latest:
      items = saved.items_of(state)
      # Computed now: the next training step reuses the memory of this state.
      about['scores'] = self._scores.as_json()
      manifest = Manifest.of(step, self._config, self._files, items, **about)
      with self.room.saving(state):
        self._manager.save(step, args=saved.arguments(manifest, items), force=True)

  def restore(self, like: Tree) -> Tree:
    """Reads the state of the newest undamaged step, with the shapes and shardings of `like`.

    Newer steps that are damaged are reported and renamed to `checkpoints/STEP.damaged`.

    Raises:
      CheckpointError: every step is damaged, or the state does not fit `like`.
    """
    folder = self._workdir

    def read(step: int) -> Tree:
      self.restored = saved.open_step(folder, step)
      items = saved.read(folder, self.restored, saved.items_of(like))
      return like._replace(**items['model'], **items['training'])

    state, damaged = saved.first_whole(folder, reversed(steps(folder)), read)
    if damaged:
      self._set_aside(damaged)
    return state

  def discard(self, step: int) -> None:
    """Renames a step that turned out to be bad, unless it has a score."""
    self.wait()
    if step in steps(self._workdir) and not self.is_scored(step):
      self._set_aside([step])

  def _set_aside(self, numbers: list[int]) -> None:
    if processes.is_first():
      for number in numbers:
        saved.set_aside(self._workdir, number)
    processes.wait_for_all('set aside')  # All list the steps next, and must see the same ones.
    self._manager.reload()
    self._scores = Scores(self._workdir)

  def load_chosen(self, mesh: Mesh) -> tuple[int, float, dict[str, Tree]]:
    """Reads {'params', 'batch_stats'} of the step with the best score; returns all three.

    If that step is damaged, a line on stderr says so and the next best is taken.

    Raises:
      CheckpointError: every step with a score is damaged.
    """
    self.wait()
    order, read = self._scores.ranked, functools.partial(_load_step, self._workdir, mesh)
    loaded, _ = saved.first_whole(self._workdir, order, read)
    return loaded.step, self._scores.scored[loaded.step], loaded.variables

  def wait(self) -> None:
    """Waits until every step is on disk."""
    with self.room.saving():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits until every step is on disk, and ends the threads that save."""
    with self.room.saving():
      self._manager.close()


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model out of a checkpoint, verified.

  Attributes:
    config: as of `config.json`: nested dictionaries.
    variables: {'params', 'batch_stats'}; NumPy arrays, or on the mesh they were loaded to.
    vocabulary: a local file.
    files: the run's own files, by name.
    step: 0 for a converted checkpoint.
    folder: where it was.
  """

  config: dict[str, Any]
  variables: dict[str, Tree]
  vocabulary: pathlib.Path
  files: dict[str, bytes]
  step: int
  folder: epath.Path


def load(spec: str | os.PathLike, mesh: Mesh | None = None) -> Loaded:
  """Loads the model of a checkpoint and compares every bit with what was saved.

  Args:
    spec: FOLDER@STEP; or a folder (a workdir, or the output of `convert`), whose step with the best
      validation score is loaded, or else the newest. If that is damaged, another step is loaded and
      a line on stderr says so. The folder is local or remote ('gs://...'), as Orbax reads it.
    mesh: the arrays are placed on it like those of a training state; without it they are NumPy's.

  Raises:
    CheckpointError: there is no such checkpoint or step, or every step is damaged.
  """
  folder, step = _parse(spec)
  available = steps(folder)
  if not available:
    cure = 'give a workdir, WORKDIR@STEP or the output of convert'
    if is_export(folder):
      cure = f'import it by `python -m pixelbert_jax.convert --checkpoint={folder} --output=C`'
    raise CheckpointError(f'{folder} is not a checkpoint (no step in checkpoints/): {cure}')
  if step is not None and step not in available:
    raise CheckpointError(f'{folder} has no step {step}: it has {", ".join(map(str, available))}')
  if step is None:
    scores = Scores(folder)
    # First those that may have been chosen, but are damaged: it has to be said.
    order = [*scores.unknown, *scores.ranked[:1], *reversed(available)]
  else:
    order = [step]
  read = functools.partial(_load_step, folder, mesh)
  return saved.first_whole(folder, dict.fromkeys(order), read)[0]


def is_export(place: str | os.PathLike) -> bool:
  """Tells a folder that `convert --export` wrote, or an address on the hub, from a checkpoint."""
  place = os.fspath(place)
  return place.startswith('hf://') or any(epath.Path(place).glob('model*.safetensors'))


def _load_step(folder: epath.Path, mesh: Mesh | None, step: int) -> Loaded:
  manifest = saved.open_step(folder, step)
  shapes = {'params': {}, 'batch_stats': {}} | manifest.shapes('model')
  model = saved.read(folder, manifest, {'model': _placed(shapes, mesh)})['model']
  return Loaded(
    config=manifest.config,
    variables=model,
    vocabulary=_local(folder / 'vocab.txt'),
    files={name: (folder / name).read_bytes() for name in manifest.files},
    step=step,
    folder=folder,
  )


def abstract(state: Tree) -> Tree:
  """Returns shapes, dtypes and shardings of a state, for `Checkpoints.restore`."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def write_model(
  folder: str | os.PathLike,
  config: Mapping[str, Any],
  variables: dict[str, Tree],
  files: Mapping[str, bytes],
) -> None:
  """Writes a model as a checkpoint of step 0, whole or not at all.

  Args:
    folder: must not exist, or be empty.
    config: nested dictionaries that JSON can hold.
    variables: {'params', 'batch_stats'} of NumPy or JAX arrays.
    files: its own files by name, `vocab.txt` among them; verified when the model is loaded.

  Raises:
    CheckpointError: the folder is not empty.
  """
  check_empty(folder)
  with atomic(folder) as partial:
    partial.mkdir()
    for name, content in files.items():
      (partial / name).write_bytes(content)
    (partial / 'config.json').write_text(to_json(config))
    items = {'model': variables}
    manifest = Manifest.of(0, json.loads(to_json(config)), saved.digests(partial, files), items)
    with contextlib.closing(_manager(epath.Path(partial), keep=1)) as manager:
      manager.save(0, args=saved.arguments(manifest, items))
      manager.wait_until_finished()


class _Kept(ocp.checkpoint_managers.PreservationPolicy):
  """Keeps the newest steps, and the chosen one."""

  def __init__(self, newest: int, chosen: Callable[[], set[int]]):
    self._newest, self._chosen = newest, chosen

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    kept = {info.step for info in checkpoints[-self._newest :]} | self._chosen()
    return [info.step in kept for info in checkpoints]


def _manager(
  folder: epath.Path, keep: int, chosen: Callable[[], set[int]] = set
) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(
    preservation_policy=_Kept(keep, chosen), lightweight_initialize=True
  )
  return ocp.CheckpointManager(folder / 'checkpoints', options=options)


def _parse(spec: str | os.PathLike) -> tuple[epath.Path, int | None]:
  name, at, step = os.fspath(spec).rpartition('@')
  with reachable(os.fspath(spec)):
    if not (at and step.isdecimal()) or epath.Path(spec).exists():
      name, step = os.fspath(spec), None
    folder = epath.Path(name)
    if not folder.is_dir():
      beside = [] if '://' in name else folder.parent.glob('*/checkpoints')
      near = commandline.near(folder.name, {x.parent.name: str(x.parent) for x in beside})
      cure = (
        'give a checkpoint: the folder of a run, or what `python -m pixelbert_jax.convert` makes'
      )
      fault = 'a file, not a folder' if folder.exists() else 'no such folder'
      raise CheckpointError(f'{name}: {fault}{commandline.did_you_mean(near)}; {cure}')
  return folder if '://' in name else folder.absolute(), None if step is None else int(step)


def _placed(shapes: Tree, mesh: Mesh | None) -> Tree:
  if mesh is None:
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
  shardings = sharding.state_sharding(mesh, shapes)
  return jax.tree.map(
    lambda x, split: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), shapes, shardings
  )


def _local(path: epath.Path) -> pathlib.Path:
  """Returns a local path of a file: its own, or that of a copy which is deleted at exit."""
  remote = '://' in str(path)
  return temporary(path.name, path.read_bytes()) if remote else pathlib.Path(path)
