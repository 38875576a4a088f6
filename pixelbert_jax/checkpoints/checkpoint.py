"""Checkpoints: Orbax steps under `checkpoints/`, and beside them what `workdir.py` lists.

A step has the items `model` (parameters and batch statistics), `manifest` (manifest.py: what is
restored is compared with it) and, in the workdir of a run, `training` (the rest of its state). The
folder loads after moving it alone: nothing in it points outside.
"""

import atexit
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from pixelbert_jax import processes, sharding
from pixelbert_jax.checkpoints.manifest import CheckpointError, DamagedError, Manifest
from pixelbert_jax.checkpoints.workdir import differences, read_config, to_json

Tree = Any


class Checkpoints:
  """Saves and restores the training state of a workdir that was claimed."""

  def __init__(self, workdir: pathlib.Path, files: Iterable[str], keep: int = 2):
    """Keeps the newest `keep` steps, and the one with the best score.

    `files` are the names of the run's own files, which no step can do without.
    """
    self._workdir = epath.Path(workdir.absolute())
    self._config = json.loads((workdir / 'config.json').read_text())
    self._files = _digests(self._workdir, files)
    self._scores = scores(self._workdir)
    self._manager = _manager(self._workdir, keep, lambda: best(self._scores))

  @property
  def latest(self) -> int | None:
    """The newest step, or None."""
    return self._manager.latest_step()

  @property
  def chosen(self) -> tuple[int, float] | None:
    """The step with the best score on validation, and that; None before there is one."""
    step = best(self._scores)
    return None if step is None else (step, self._scores[step])

  def save(self, step: int, state: Tree, score: float | None = None) -> None:
    """Begins to save, with the score on validation if known; goes on in the background."""
    if step != self.latest:
      items = _items(state)
      # Before anything is written, and before the next step is given the memory of this state.
      manifest = Manifest.of(step, self._config, self._files, items, score)
      if score is not None:
        self._scores[step] = score
      self._manager.save(step, args=_save_args(items, manifest), force=True)

  def restore(self, like: Tree) -> Tree:
    """The newest state that is whole, with the shapes and shardings of `like`.

    Newer steps that are damaged are named and set aside, as `checkpoints/STEP.damaged`.

    Raises:
      CheckpointError: there is none that is whole, or it does not fit `like`.
    """
    folder, items = self._workdir, _items(like)

    def read(step: int) -> Tree:
      manifest = Manifest.read(folder / 'checkpoints' / str(step))
      _check_files(folder, manifest)
      misfits = manifest.misfits(items)
      if misfits:
        raise CheckpointError(f'{folder}/checkpoints/{step} does not fit: {"; ".join(misfits[:3])}')
      restored = _read(folder, manifest, items)
      return like._replace(**restored['model'], **restored['training'])

    state, damaged = _first_whole(folder, reversed(steps(folder)), read)
    for number in damaged:
      _set_aside(folder / 'checkpoints' / str(number))
    if damaged:
      processes.wait_for_all('set aside')  # what is listed next decides what is saved
      self._manager.reload()
      self._scores = scores(folder)
    return state

  def load(self, step: int, mesh: Mesh) -> dict[str, Tree]:
    """{'params', 'batch_stats'} of a step that was saved."""
    self.wait()
    return load(f'{self._workdir}@{step}', mesh).variables

  def wait(self) -> None:
    """Returns once everything is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and ends."""
    self.wait()
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


def steps(folder: epath.Path | pathlib.Path) -> list[int]:
  """The steps in a checkpoint or workdir, oldest first; whether they are whole is not known yet."""
  inside = folder / 'checkpoints'
  if not inside.is_dir():
    return []
  return sorted(int(path.name) for path in inside.iterdir() if path.name.isdecimal())


def scores(folder: epath.Path | pathlib.Path) -> dict[int, float]:
  """The scores on validation of the steps that have one."""
  found = {}
  for step in steps(folder):
    with contextlib.suppress(DamagedError):  # which is said when it is restored
      found[step] = Manifest.read(epath.Path(folder) / 'checkpoints' / str(step)).score
  return {step: score for step, score in found.items() if score is not None}


def best(scores: Mapping[int, float]) -> int | None:
  """The step with the highest score, the first of several."""
  return max(scores, key=lambda step: (scores[step], -step), default=None)


def load(spec: str | os.PathLike, mesh: Mesh | None = None) -> Loaded:
  """The model of a checkpoint, every bit of it compared with what was saved.

  If the step is damaged, another is taken, which is then said.

  Args:
    spec: a folder (a workdir, or the output of `convert`), of which the step chosen on validation
      is taken, or else the newest; or FOLDER@STEP. Local, or whatever else Orbax's file layer reads
      ('gs://...').
    mesh: the arrays are placed on it as a training state is; NumPy arrays without.

  Raises:
    CheckpointError: there is no such checkpoint, or none that is whole.
  """
  folder, step = _parse(spec)
  there = steps(folder)
  if not there:
    raise CheckpointError(
      f'{folder} is not a checkpoint (no step in checkpoints/): '
      'give a workdir, WORKDIR@STEP or the output of convert'
    )
  if step is not None and step not in there:
    raise CheckpointError(f'{folder} has no step {step}: it has {", ".join(map(str, there))}')

  def read(step: int) -> Loaded:
    manifest = Manifest.read(folder / 'checkpoints' / str(step))
    _check_files(folder, manifest)
    shapes = {'params': {}, 'batch_stats': {}} | manifest.shapes('model')
    model = _read(folder, manifest, {'model': _placed(shapes, mesh)})['model']
    return Loaded(
      config=manifest.config,
      variables=model,
      vocabulary=_local(folder / 'vocab.txt'),
      files={name: (folder / name).read_bytes() for name in manifest.files},
      step=step,
      folder=folder,
    )

  if step is not None:
    return _first_whole(folder, [step], read)[0]
  chosen = best(scores(folder))
  return _first_whole(folder, sorted(there, key=lambda s: (s == chosen, s), reverse=True), read)[0]


def write_model(
  folder: str | os.PathLike,
  config: Mapping[str, Any],
  variables: dict[str, Tree],
  vocabulary: str | os.PathLike,
  files: Mapping[str, bytes] | None = None,
) -> None:
  """Writes a model as a checkpoint of step 0, whole or not at all.

  Args:
    folder: that does not exist yet, or is empty.
    config: nested dictionaries that JSON can hold.
    variables: {'params', 'batch_stats'} of NumPy or JAX arrays.
    vocabulary: a file that becomes `vocab.txt`.
    files: more files by name, kept and verified with the rest.

  Raises:
    CheckpointError: the folder is not empty.
  """
  folder = pathlib.Path(folder).absolute()
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise CheckpointError(f'{folder} is not empty: give a folder that does not exist yet')
  partial = folder.with_name(f'.{folder.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
  partial.mkdir(parents=True)
  try:
    for name, content in (files or {}).items():
      (partial / name).write_bytes(content)
    shutil.copyfile(vocabulary, partial / 'vocab.txt')
    (partial / 'config.json').write_text(to_json(config))
    digests = _digests(epath.Path(partial), ['vocab.txt', *(files or {})])
    items = {'model': variables}
    manifest = Manifest.of(0, json.loads(to_json(config)), digests, items)
    with contextlib.closing(_manager(epath.Path(partial), keep=1)) as manager:
      manager.save(0, args=_save_args(items, manifest))
      manager.wait_until_finished()
    os.replace(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


# --- A step --------------------------------------------------------------------------------


class _Kept(ocp.checkpoint_managers.PreservationPolicy):
  """The newest steps and the chosen one."""

  def __init__(self, newest: int, chosen: Callable[[], int | None]):
    self._newest, self._chosen = newest, chosen

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    kept = {*(info.step for info in checkpoints[-self._newest :]), self._chosen()}
    return [info.step in kept for info in checkpoints]


def _manager(
  folder: epath.Path, keep: int, chosen: Callable[[], int | None] = lambda: None
) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(
    preservation_policy=_Kept(keep, chosen), lightweight_initialize=True
  )
  return ocp.CheckpointManager(folder / 'checkpoints', options=options)


def _items(state: Tree) -> dict[str, Tree]:
  model = state.variables
  return {'model': model, 'training': {k: x for k, x in state._asdict().items() if k not in model}}


def _save_args(items: dict[str, Tree], manifest: Manifest) -> ocp.args.Composite:
  trees = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
  return ocp.args.Composite(**trees, manifest=ocp.args.JsonSave(manifest.sealed()))


def _read(folder: epath.Path, manifest: Manifest, items: dict[str, Tree]) -> dict[str, Tree]:
  path = folder / 'checkpoints' / str(manifest.step)
  try:
    with ocp.StandardCheckpointer() as reader:
      restored = {name: reader.restore(path / name, like) for name, like in items.items()}
  except Exception as error:
    # Whatever Orbax raises on damaged files, and it raises much, says that they are damaged.
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise DamagedError(f'cannot be read: {first[:200]}') from error
  damaged = manifest.damaged(restored)
  if damaged:
    more = f' and {len(damaged) - 1} more' if damaged[1:] else ''
    raise DamagedError(f'{damaged[0]}{more} is not what was saved')
  return restored


def _first_whole(
  folder: epath.Path, steps: Iterable[int], read: Callable[[int], Any]
) -> tuple[Any, list[int]]:
  """What `read` gives for the first step that is not damaged, and those before that are."""
  damaged = {}
  for step in steps:
    try:
      found = read(step)
    except DamagedError as error:
      damaged[step] = str(error)
      continue
    if processes.is_first():
      for number, error in damaged.items():
        what = f'{folder}/checkpoints/{number} is damaged ({error}): taking step {step}'
        print(what, file=sys.stderr)
    return found, list(damaged)
  reasons = '; '.join(f'step {number}: {error}' for number, error in damaged.items())
  raise CheckpointError(f'{folder}/checkpoints has nothing that can be restored: {reasons}')


def _set_aside(path: epath.Path) -> None:
  # The run will save that step again. No number, so it is no step any more.
  if processes.is_first():
    aside = path.with_name(f'{path.name}.damaged')
    if aside.exists():
      aside.rmtree()
    path.rename(aside)


# --- A folder ------------------------------------------------------------------------------


def _parse(spec: str | os.PathLike) -> tuple[epath.Path, int | None]:
  name, at, step = os.fspath(spec).rpartition('@')
  if not (at and step.isdecimal()) or epath.Path(spec).exists():
    name, step = os.fspath(spec), None
  folder = epath.Path(name)
  if not folder.is_dir():
    raise CheckpointError(f'{name}: no such folder; give a checkpoint')
  return folder if '://' in name else folder.absolute(), None if step is None else int(step)


def _placed(shapes: Tree, mesh: Mesh | None) -> Tree:
  if mesh is None:
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
  places = sharding.state_sharding(mesh, shapes)
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
  )


def _digests(folder: epath.Path, names: Iterable[str]) -> dict[str, str]:
  return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def _check_files(folder: epath.Path, manifest: Manifest) -> None:
  for name in ('config.json', *manifest.files):
    if not (folder / name).exists():
      raise DamagedError(f'{name} is missing')
  for name, digest in _digests(folder, manifest.files).items():
    if digest != manifest.files[name]:
      raise DamagedError(f'{name} is not what it was saved with')
  differing = differences(manifest.config, read_config(folder / 'config.json'))
  if differing:
    raise DamagedError(f'config.json is not what it was saved with: {differing[0]}')


def _local(path: epath.Path) -> pathlib.Path:
  """A file that ordinary code can open: the file itself, or a copy for as long as we run."""
  if '://' not in str(path):
    return pathlib.Path(path)
  folder = pathlib.Path(tempfile.mkdtemp(prefix='pixelbert-'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  copy = folder / path.name
  copy.write_bytes(path.read_bytes())
  return copy


def abstract(state: Tree) -> Tree:
  """Shapes, dtypes and shardings of a state, for `Checkpoints.restore`."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
