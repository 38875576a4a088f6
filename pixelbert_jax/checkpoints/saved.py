"""One saved step of a checkpoint: its manifest, and how its items are written, read and verified.

A step is the folder `checkpoints/STEP`. Its items are `model` (parameters and batch statistics),
`manifest` and, in the workdir of a run, `training` (the rest of the state). Orbax reads a damaged
array file without an error and returns wrong values. So the manifest holds the shape, dtype and
checksum of every array, computed before anything is written, and all that is read is compared with
it.
"""

import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from pixelbert_jax import first_line, jsons, processes
from pixelbert_jax.checkpoints import CheckpointError, DamagedError
from pixelbert_jax.checkpoints.checksum import by_name, checksums, not_finite
from pixelbert_jax.checkpoints.room import omit_repeated
from pixelbert_jax.checkpoints.workdir import differences, read_config

Folder: TypeAlias = epath.Path | pathlib.Path
Tree = Any


@dataclasses.dataclass(frozen=True)
class Manifest:
  """The description of a saved step.

  Attributes:
    step: its number.
    config: the configuration of the run, as read from JSON.
    files: SHA-256 of each file of the workdir that the model depends on, by name.
    arrays: [shape, dtype, checksum] of each array by name ('model/params/itm/bias').
    score: on the validation split, of steps that earlier versions saved after evaluating them.
    scores: those of the steps before this one, by number (`scores.py`).
    log: number of lines and SHA-256 of `metrics.jsonl` up to this step (`metrics.py`).
    skipped: steps up to this one whose batches were left out, since they were not finite.
    unreadable: number of unreadable images in the steps since the last line of the log.
  """

  step: int
  config: dict[str, Any]
  files: dict[str, str]
  arrays: dict[str, list]
  score: float | None = None
  scores: dict[str, float | None] = dataclasses.field(default_factory=dict)
  log: dict[str, Any] | None = None
  skipped: list[int] = dataclasses.field(default_factory=list)
  unreadable: int = 0

  @classmethod
  def of(
    cls,
    step: int,
    config: dict[str, Any],
    files: dict[str, str],
    items: dict[str, Tree],
    **more: Any,
  ) -> 'Manifest':
    """Describes `items` before they are saved; `more` are the attributes from `score` on."""
    return cls(step, config, files, _described(items), **more)

  def sealed(self) -> dict[str, Any]:
    """Returns the content as JSON objects, with a SHA-256 of it."""
    content = dataclasses.asdict(self)
    return {'manifest': content, 'sha256': jsons.digest(content)}

  @classmethod
  def read(cls, step: Folder) -> 'Manifest':
    """Reads the manifest in the folder of a step; DamagedError if it is missing or damaged."""
    path = step / 'manifest' / 'metadata'  # where Orbax writes JSON
    if not path.exists():
      raise DamagedError('no manifest: saved by an earlier version, or half deleted')
    try:
      manifest = cls.unseal(path.read_text())
    except ValueError as error:
      raise DamagedError(f'its manifest is damaged ({error})') from error
    if str(manifest.step) != step.name:
      raise DamagedError(f'it was saved as step {manifest.step}')
    return manifest

  @classmethod
  def unseal(cls, text: str) -> 'Manifest':
    """Reads the JSON text of `sealed`; ValueError if anything in it has changed."""
    sealed = jsons.parse(text)
    if not isinstance(sealed, dict) or sealed.keys() != {'manifest', 'sha256'}:
      raise ValueError('not a manifest')
    if jsons.digest(sealed['manifest']) != sealed['sha256']:
      raise ValueError('its digest does not match')
    return cls(**sealed['manifest'])

  def shapes(self, item: str) -> Tree:
    """Returns shape and dtype of each array of an item that consists of nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, (shape, dtype, _) in self.arrays.items():
      first, *groups, last = name.split('/')
      if first == item:
        group = tree
        for part in groups:
          group = group.setdefault(part, {})
        group[last] = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    return tree

  def misfits(self, items: dict[str, Tree]) -> list[str]:
    """Lists the arrays of `items` whose names, shapes or dtypes are not those that were saved."""
    saved = {name: form for name, (*form, _) in self.arrays.items() if name.split('/')[0] in items}
    own = {name: _form(x) for name, x in by_name(items).items()}
    return [
      f'{name} is {_words(old)} in the checkpoint and {_words(new)} in this run'
      for name in sorted(saved.keys() | own.keys())
      if (old := saved.get(name)) != (new := own.get(name))
    ]

  def damaged(self, items: dict[str, Tree]) -> list[str]:
    """Lists the arrays of `items` that differ in any bit from those that were saved."""
    return [name for name, found in _described(items).items() if self.arrays.get(name) != found]


def path_of(folder: Folder, step: int) -> Folder:
  """Returns the folder of a step in a checkpoint or workdir."""
  return folder / 'checkpoints' / str(step)


def items_of(state: Tree) -> dict[str, Tree]:
  """Splits a training state into the items `model` and `training`."""
  model = state.variables
  return {'model': model, 'training': {k: x for k, x in state._asdict().items() if k not in model}}


def arguments(manifest: Manifest, items: dict[str, Tree]) -> ocp.args.Composite:
  """Returns what Orbax needs to write `items` with their manifest."""
  trees = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
  return ocp.args.Composite(**trees, manifest=ocp.args.JsonSave(manifest.sealed()))


def open_step(folder: Folder, step: int) -> Manifest:
  """Reads the manifest of a step and compares the files of the checkpoint with it.

  Raises:
    DamagedError: the manifest or a file is missing, damaged, or not the one that was saved.
  """
  manifest = Manifest.read(path_of(folder, step))
  for name in ('config.json', *manifest.files):
    if not (folder / name).exists():
      raise DamagedError(f'{name} is missing')
  for name, digest in digests(folder, manifest.files).items():
    if digest != manifest.files[name]:
      raise DamagedError(f'{name} is not what it was saved with')
  differing = differences(manifest.config, read_config(folder / 'config.json'))
  if differing:
    raise DamagedError(f'config.json is not what it was saved with: {differing[0]}')
  return manifest


def read(folder: Folder, manifest: Manifest, like: dict[str, Tree]) -> dict[str, Tree]:
  """Reads items of a step and compares every bit with what was saved.

  Args:
    folder: of the checkpoint or workdir.
    manifest: of the step.
    like: the items to read; arrays with the shapes, dtypes and shardings wanted.

  Raises:
    CheckpointError: `like` has other names, shapes or dtypes than what was saved.
    DamagedError: an array cannot be read, is not what was saved, or is not finite.
  """
  path = path_of(folder, manifest.step)
  misfits = manifest.misfits(like)
  if misfits:
    raise CheckpointError(f'{path} does not fit: {"; ".join(misfits[:3])}')
  omit_repeated()
  try:
    with ocp.StandardCheckpointer() as reader:
      items = {name: reader.restore(path / name, tree) for name, tree in like.items()}
  except Exception as error:
    if jax.process_count() > 1 and processes.tells_of_a_lost_process(error):
      raise  # The step is as it was.
    # Orbax raises errors of many types for damaged files.
    raise DamagedError(f'cannot be read: {first_line(error)}') from error
  damaged = manifest.damaged(items)
  if damaged:
    more = f' and {len(damaged) - 1} more' if damaged[1:] else ''
    raise DamagedError(f'{damaged[0]}{more} is not what was saved')
  bad = not_finite(items)
  if bad:
    more = f' and {len(bad) - 1} more arrays hold' if bad[1:] else ' holds'
    raise DamagedError(f'{bad[0]}{more} numbers that are not finite')
  return items


def first_whole(
  folder: Folder, steps: Iterable[int], read: Callable[[int], Any]
) -> tuple[Any, list[int]]:
  """Calls `read` for one step after another; returns the first result, and the damaged steps.

  Raises:
    CheckpointError: all are damaged.
  """
  damaged = {}
  for step in steps:
    try:
      result = read(step)
    except DamagedError as error:
      damaged[step] = str(error)
      continue
    if processes.is_first():
      for number, reason in damaged.items():
        line = f'{folder}/checkpoints/{number} is damaged ({reason}): taking step {step}'
        print(line, file=sys.stderr)
    return result, list(damaged)
  reasons = '; '.join(f'step {number}: {reason}' for number, reason in damaged.items())
  raise CheckpointError(f'{folder}/checkpoints has nothing that can be restored: {reasons}')


def set_aside(folder: epath.Path, step: int) -> None:
  """Renames a damaged step to `STEP.damaged`, so that the run can save it again."""
  aside = folder / 'checkpoints' / f'{step}.damaged'
  if aside.exists():
    aside.rmtree()
  path_of(folder, step).rename(aside)


def digests(folder: Folder, names: Iterable[str]) -> dict[str, str]:
  """Computes the SHA-256 of files in `folder`, by name."""
  return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def _described(items: dict[str, Tree]) -> dict[str, list]:
  """Computes shape, dtype and checksum of each array by name."""
  sums = checksums(items)
  return {name: [*_form(x), sums[name]] for name, x in by_name(items).items()}


def _form(x: Any) -> list:
  return [list(x.shape), str(x.dtype)]


def _words(form: list | None) -> str:
  return f'{form[1]} {form[0]}' if form else 'absent'
