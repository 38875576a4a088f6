"""What makes a workdir this run's: `config.json`, and the run's own files beside it.

These are `vocab.txt`, `trained_on.json` (`provenance.py`), and what the task keeps (`Task.files`).
A run that starts from another inherits them.
"""

import contextlib
import itertools
import json
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from etils import epath

from pixelbert_jax import disk, jsons, lock, processes
from pixelbert_jax.checkpoints import CheckpointError, DamagedError
from pixelbert_jax.files import delete, delete_partial, write_bytes, write_text

VOCABULARY = 'vocab.txt'

# What may differ when a run goes on; all else decides what the next step computes.
MAY_CHANGE = (
  *('data.data_dir', 'epochs', 'steps', 'log_every', 'eval_every', 'eval_batches'),
  *('eval_images', 'eval_captions', 'rerank'),
  *('save_every', 'keep', 'on_bad_batch', 'most_skipped'),
  *('threads', 'reading_threads', 'compilation_cache'),
  *('mesh.data', 'mesh.fsdp'),  # to the last bit it is the same run on the same mesh only
  *('text.vocabulary', 'data.answers'),  # paths; the contents are files of the run, and may not
)


LOCK = '.lock'


def default(config: Mapping[str, Any], *ends: str) -> pathlib.Path:
  """Returns the workdir of a run that names none, or of what its name `ends` with."""
  names = [config['name'], config['variant'], f's{config["seed"]}', *ends]
  return pathlib.Path('runs', '-'.join(filter(None, names))).absolute()


@contextlib.contextmanager
def owned(workdir: pathlib.Path) -> Iterator[None]:
  """Holds a workdir: no other run or evaluation writes into it meanwhile.

  Deletes what killed processes left there half-written. Of several processes of a run the first
  holds it, and the others wait until it does.

  Raises:
    LockError: another process holds it.
    UserError: it cannot be written.
  """
  cure = 'take another --workdir'
  with contextlib.ExitStack() as stack:
    if processes.is_first():
      hold = lock.held(workdir / LOCK, str(workdir), cure, tidy=lambda: delete_unfinished(workdir))
      stack.enter_context(hold)
    processes.wait_for_first('workdir', seconds=3 * lock.STALE)
    yield


def check_owned(workdir: epath.Path | pathlib.Path) -> None:
  """Raises LockError if another process has taken the workdir."""
  if processes.is_first():
    lock.check(workdir / LOCK)


def delete_unfinished(workdir: pathlib.Path) -> None:
  """Deletes steps and files of a workdir that killed processes left half-written."""
  for folder in (workdir, workdir / 'checkpoints', workdir / 'predictions'):
    delete_partial(folder)
  for step in (workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*'):
    delete(step)


def check_workdir(
  workdir: pathlib.Path, config: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
  """Checks that `workdir` holds no other run.

  Args:
    workdir: may not exist yet.
    config: nested dictionaries that JSON can hold.
    files: the run's own files, by name.

  Raises:
    CheckpointError: it does; what differs is named.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return
  try:
    saved = read_config(path)
  except DamagedError as error:
    # Every step holds the configuration too, and is compared with it when it is restored.
    raise CheckpointError(f'{error}: delete it, and the run writes it again') from error
  changes = {'configuration': '; '.join(differences(saved, json.loads(to_json(config))))}
  for name, content in files.items():
    if (workdir / name).exists():
      changes[name] = difference((workdir / name).read_bytes(), content)
  for what, change in changes.items():
    if change:
      raise CheckpointError(
        f'{workdir} holds a run with another {what} ({change}): '
        'take another --workdir, or delete that one'
      )


def claim_workdir(
  workdir: pathlib.Path, config: Mapping[str, Any], files: Mapping[str, bytes]
) -> None:
  """Checks like `check_workdir`, then writes `config.json` and the files that are missing."""
  check_workdir(workdir, config, files)
  with disk.writing(workdir, cure='take another --workdir'):
    workdir.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    if not (workdir / name).exists():
      write_bytes(workdir / name, content)
  write_text(workdir / 'config.json', to_json(config))


def read_files(workdir: pathlib.Path) -> dict[str, bytes]:
  """Reads the run's own files in a workdir, by name; DamagedError for one that is not JSON."""
  files = {}
  for path in [*workdir.glob('*.txt'), *workdir.glob('*.json')]:
    if path.name == 'config.json':
      continue
    files[path.name] = path.read_bytes()
    try:
      if path.suffix == '.json':
        jsons.parse(files[path.name])
    except ValueError as error:
      raise DamagedError(
        f'{path} is damaged ({error}): restore that file, or take another --workdir'
      ) from error
  return files


def difference(old: bytes, new: bytes) -> str:
  """Describes how many lines of two files differ, and the first of them; '' if none does."""
  lines = (x.decode(errors='backslashreplace').removesuffix('\n').split('\n') for x in (old, new))
  pairs = enumerate(itertools.zip_longest(*lines), 1)
  differing = [(number, *pair) for number, pair in pairs if pair[0] != pair[1]]
  if not differing:
    return ''
  number, old_line, new_line = differing[0]
  count = f'{len(differing):,} line{"s differ" if differing[1:] else " differs"}'
  return f'{count}, the first is line {number}: {old_line!r} there and {new_line!r} here'


def check_empty(folder: str | os.PathLike) -> None:
  """Raises CheckpointError if the folder to write exists and is not empty."""
  folder = pathlib.Path(folder).absolute()
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise CheckpointError(f'{folder} is not empty: give a folder that does not exist yet')


def read_config(path: epath.Path | pathlib.Path) -> dict[str, Any]:
  """Reads `config.json`; DamagedError if that is not what it is."""
  try:
    config = jsons.parse(path.read_bytes())
  except ValueError as error:
    raise DamagedError(f'{path} is damaged ({error})') from error
  if not isinstance(config, dict):
    raise DamagedError(f'{path} is damaged')
  return config


def to_json(config: Mapping[str, Any]) -> str:
  """Formats `config.json`."""
  return jsons.text(config, indent=2) + '\n'


def differences(
  old: dict[str, Any], new: dict[str, Any], only: Collection[str] | None = None
) -> list[str]:
  """Lists the fields in which two configurations differ: of `only`, else all but MAY_CHANGE."""
  old, new = _flat(old), _flat(new)
  return [
    f'{name} is {old.get(name, "absent")!r} there and {new.get(name, "absent")!r} here'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name) and (name not in MAY_CHANGE if only is None else name in only)
  ]


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
  return flat
