"""The record of a run in its folder `report/`: what no other file of the run says."""

import pathlib
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from pixelbert_jax import files, jsons

RUN = 'run'  # the name of the record that training writes; one of an evaluation is named by split
PACKAGES = ('pixelbert_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


def write(workdir: pathlib.Path, name: str, **content: Any) -> None:
  """Writes a record, of `versions` and what else is given."""
  record = {'versions': versions(), **content}
  files.write_text(_path(workdir, name), jsons.text(record, indent=1) + '\n')


def read(workdir: pathlib.Path, name: str) -> dict[str, Any]:
  """Reads a record; it is empty where none was written.

  Raises:
    UserError: it is damaged.
  """
  path = _path(workdir, name)
  return files.read_json(path, dict) if path.exists() else {}


def _path(workdir: pathlib.Path, name: str) -> pathlib.Path:
  return workdir / 'report' / f'{name}.json'


def versions() -> Mapping[str, str]:
  """Returns the versions of Python and packages, the devices, and the commit where it is known."""
  import jax  # which `read` does not need

  found = {'python': platform.python_version()}
  for name in PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue  # on PYTHONPATH alone
  found['devices'] = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  if commit := _commit():
    found['commit'] = commit
  return found


def _commit() -> str:
  """Returns the commit of the checkout, with `-dirty` if files differ from it; '' without one."""
  root = pathlib.Path(__file__).parents[2]
  command = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12']
  try:
    return subprocess.run(
      command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return ''
