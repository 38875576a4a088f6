"""Reads the weights in a folder of Hugging Face: one file, or shards with their index."""

import pathlib
import re
from typing import Any

from pixelbert_jax import files
from pixelbert_jax.convert.names import WeightsError, some
from pixelbert_jax.convert.tensors import read_file

WHOLE = (
  *('model.safetensors', 'model.safetensors.index.json'),
  *('pytorch_model.bin', 'pytorch_model.bin.index.json'),
)


def read(folder: pathlib.Path, place: str) -> tuple[dict[str, Any], list[str]]:
  """Reads the tensors in a folder by name; returns them and the names of the files.

  Of several formats safetensors are read.

  Raises:
    WeightsError: there are no weights, a file is missing or cannot be read, or the index and its
      shards disagree.
  """
  name = next((name for name in WHOLE if (folder / name).is_file()), None)
  if name is None:
    raise WeightsError(
      f'{place}: {folder} has no model.safetensors and no pytorch_model.bin, whole or as '
      'shards with their index'
    )
  if not name.endswith('.json'):
    return read_file(folder / name), [name]
  where = _index(folder / name)
  tensors: dict[str, Any] = {}
  names = sorted(set(where.values()))
  for shard in names:
    found = read_file(folder / shard)
    if twice := [tensor for tensor in found if tensor in tensors]:
      raise WeightsError(f'{folder / shard} has tensors of another shard: {some(twice)}')
    tensors |= found
  if missing := [tensor for tensor in where if tensor not in tensors]:
    raise WeightsError(f'{folder / name} names tensors that no shard has: {some(missing)}')
  return tensors, [name, *names]


def _index(path: pathlib.Path) -> dict[str, str]:
  """Returns the file of each tensor that an index names; all are in its folder, and its format."""
  index = files.read_json(path)
  where = index.get('weight_map') if isinstance(index, dict) else None
  if not isinstance(where, dict) or not where:
    raise WeightsError(f'{path} names no files: download it again')
  folder, ending = path.parent, path.name.removesuffix('.index.json').rpartition('.')[2]
  homes = [folder.resolve()]
  if folder.parent.name == 'snapshots':  # In the hub's cache these are links to files beside it.
    homes.append(folder.parent.with_name('blobs').resolve())
  for name in where.values():
    # As on any system: a path, a drive or a stream of another file is no such name.
    if not isinstance(name, str) or not re.fullmatch(rf'[\w.-]+\.{ending}', name):
      raise WeightsError(f'{path} names {name!r}, not a .{ending} file in its folder')
    if not (folder / name).is_file():
      raise WeightsError(f'{path} names {name}, which is not there: download all of them')
    if (folder / name).resolve().parent not in homes:
      raise WeightsError(f'{path} names {name}, a link out of its folder: put the file there')
  return where
