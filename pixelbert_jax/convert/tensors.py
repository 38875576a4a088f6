"""Readers of published tensor files that never run code contained in them."""

import dataclasses
import hashlib
import pathlib
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes  # noqa: F401 (gives NumPy the bfloat16 that safetensors may hold)
import numpy as np
import safetensors

from pixelbert_jax.convert import caffe2
from pixelbert_jax.convert.names import WeightsError

RESAVE = (
  'if you trust it, load it in PyTorch where it was made and save it again: '
  "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)


@dataclasses.dataclass
class Source:
  """Tensors under the names of `names.py`, with a record of the files they come from.

  Attributes:
    place: path or hub id that the user gave.
    files: the SHA-256 of each file that was read, by its name.
    tensors: float32 arrays.
    origins: the name in the files of each of `tensors`.
    left_out: the reason for each omitted entry of the files, by its name.
  """

  place: str
  files: dict[str, str] = dataclasses.field(default_factory=dict)
  tensors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  origins: dict[str, str] = dataclasses.field(default_factory=dict)
  left_out: dict[str, str] = dataclasses.field(default_factory=dict)

  def sort(
    self, entries: Mapping[str, Any], rename: Callable[[str], str], unwanted: Mapping[str, str]
  ) -> None:
    """Adds entries of a file under their new names, or to `left_out` if `unwanted` matches.

    Args:
      entries: as read, by the name in the file.
      rename: returns the new name.
      unwanted: reason for omission by pattern of the new name.

    Raises:
      WeightsError: two tensors have one name, or an entry is not an array of finite floats.
    """
    for name, x in entries.items():
      if not name.isprintable():
        raise WeightsError(f'{self.place}: {name!r} is no name of a tensor')
      new = rename(name)
      reason = next((why for pattern, why in unwanted.items() if re.fullmatch(pattern, new)), None)
      if reason:
        self.left_out[name] = reason
        continue
      if new in self.tensors:
        raise WeightsError(f'{self.place}: {name} and {self.origins[new]} are the same tensor')
      if not isinstance(x, np.ndarray) or x.dtype.kind in 'biucOSUMm':
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise WeightsError(f'{self.place}: {name} is of type {kind}, not an array of numbers')
      with np.errstate(over='ignore'):  # It becomes infinite, which is said below.
        self.tensors[new], self.origins[new] = np.asarray(x, np.float32), name
      if not np.isfinite(self.tensors[new]).all():
        raise WeightsError(f'{self.place}: {name} holds numbers that are not finite')


def read_file(path: pathlib.Path) -> dict[str, Any]:
  """Reads the entries of a tensor file by name: NumPy arrays and, in a pickle, other values.

  Raises:
    WeightsError: the file is missing, damaged, of an unknown format, or would run code.
  """
  readers: dict[str, Callable] = {'.safetensors': _safetensors}
  readers |= dict.fromkeys(('.bin', '.pth', '.pt'), _torch) | {'.pkl': caffe2.read_pickle}
  if path.suffix not in readers:
    raise WeightsError(f'{path}: not one of {", ".join(readers)} (Detectron)')
  if not path.is_file():
    raise WeightsError(f'{path}: no such file')
  try:
    return readers[path.suffix](path)
  except WeightsError:
    raise
  except Exception as error:  # Damaged files, and dtypes that NumPy lacks, raise almost anything.
    raise WeightsError(f'{path} cannot be read ({one_line(error)}): download it again') from error


def digest_of_tensors(tensors: Mapping[str, np.ndarray]) -> str:
  """Computes the SHA-256 of tensors and their names, independent of their order in a file."""
  total = hashlib.sha256()
  for name in sorted(tensors):
    total.update(name.encode())
    total.update(np.ascontiguousarray(tensors[name]).data)
  return total.hexdigest()


def _safetensors(path: pathlib.Path) -> dict[str, Any]:
  with safetensors.safe_open(path, 'numpy') as file:
    kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    for name, kind in kinds.items():
      if kind.startswith(('F4', 'F6_', 'F8')):
        raise WeightsError(f'{path}: {name!r} is of type {kind}: save float32, float16 or bfloat16')
    return {name: file.get_tensor(name) for name in kinds}


def _torch(path: pathlib.Path) -> dict[str, Any]:
  """Reads a pickle of PyTorch with `weights_only=True`, which runs no code."""
  cure = "pip install 'torch>=2.6', or give a .safetensors file of the same weights"
  try:
    import torch
  except ImportError as error:
    raise WeightsError(f'{path} is read with PyTorch, which is not installed: {cure}') from error
  # Older versions can be made to run code all the same (CVE-2025-32434).
  if tuple(int(x) for x in re.findall(r'\d+', torch.__version__)[:2]) < (2, 6):
    raise WeightsError(f'{path} is not safe to read with PyTorch {torch.__version__}: {cure}')
  try:
    _check_uncompressed(path)
    with warnings.catch_warnings(action='ignore'):  # It asks to be told of unusual pickles.
      value = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # Damaged files raise almost anything.
    raise WeightsError(f'{path} {_refusal(error)}; {RESAVE}') from error
  # Training scripts save the weights beside the optimiser's state.
  for key in ('state_dict', 'model'):
    if isinstance(value, dict) and isinstance(value.get(key), dict):
      value = value[key]
  if not isinstance(value, dict):
    raise WeightsError(f'{path}: expected a dictionary of tensors, got {type(value).__name__}')
  return {str(name): _array(f'{path}: {name}', x) for name, x in value.items()}


def _check_uncompressed(path: pathlib.Path) -> None:
  """Raises for an archive that unpacks to more than its size, which PyTorch never writes."""
  if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      unpacked = sum(record.file_size for record in archive.infolist())
    if unpacked > path.stat().st_size:
      raise WeightsError(f'it unpacks to {unpacked:,} bytes')


def _refusal(error: Exception) -> str:
  """Says why PyTorch did not read a file; its own message tells how to turn the check off."""
  message = str(error)
  if found := re.search(r'(?i)unsupported (?:global: )?GLOBAL ([\w.]+)', message):
    return f'holds more than weights, which may run code ({found[1]}): not read'
  for format in ('TorchScript archives', 'legacy .tar format'):
    if format in message:
      return f'is of a format that may run code ({format}): not read'
  found = re.search(r'WeightsUnpickler error:\s*(.+)', message)
  return f'cannot be read ({one_line(found[1] if found else error)}): download it again'


def _array(place: str, x: Any) -> Any:
  import torch

  if not isinstance(x, torch.Tensor):
    return x
  if x.numel() * x.element_size() > x.untyped_storage().nbytes():
    raise WeightsError(f'{place} has {x.numel():,} numbers, but the file fewer: download it again')
  return (x.float() if x.is_floating_point() else x).detach().numpy()


def one_line(error: Exception | str, limit: int = 200) -> str:
  """Returns an error's message in one line of printable characters, at most `limit` of them."""
  message = re.sub(r'\x1b\[[\d;]*[A-Za-z]', '', str(error)) or type(error).__name__
  words = ' '.join(message.split())
  return ''.join(c for c in words if c.isprintable())[:limit]
