"""Files of tensors as the world publishes them, read without running anything that they contain."""

import dataclasses
import hashlib
import os
import pathlib
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes  # noqa: F401 (gives NumPy the bfloat16 that safetensors may hold)
import numpy as np
import safetensors
import safetensors.numpy

from pixelbert_jax.convert.names import WeightsError


@dataclasses.dataclass
class Source:
  """Tensors under the names of `names.py`, and what became of all else in their files.

  Attributes:
    place: what the user named.
    files: the SHA-256 of each file that was read, by its name.
    tensors: float32 arrays.
    origins: the name in the files of each of `tensors`.
    left_out: of everything else in the files, why.
  """

  place: str
  files: dict[str, str] = dataclasses.field(default_factory=dict)
  tensors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  origins: dict[str, str] = dataclasses.field(default_factory=dict)
  left_out: dict[str, str] = dataclasses.field(default_factory=dict)

  def sort(
    self, read: Mapping[str, Any], rename: Callable[[str], str], unwanted: Mapping[str, str]
  ) -> None:
    """Takes what was read under its new names, but for what fits a pattern of `unwanted`.

    Raises:
      WeightsError: two tensors have one name, or what is wanted is no array of finite floats.
    """
    for name, x in read.items():
      new = rename(name)
      reason = next((why for pattern, why in unwanted.items() if re.fullmatch(pattern, new)), None)
      if reason:
        self.left_out[name] = reason
        continue
      if new in self.tensors:
        raise WeightsError(f'{self.place}: {name} and {self.origins[new]} are the same tensor')
      if not isinstance(x, np.ndarray) or x.dtype.kind in 'biuOSUM':
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise WeightsError(f'{self.place}: {name} is of type {kind}, not an array of numbers')
      self.tensors[new], self.origins[new] = np.asarray(x, np.float32), name
      if not np.isfinite(self.tensors[new]).all():
        raise WeightsError(f'{self.place}: {name} holds numbers that are not finite')


def read_file(path: pathlib.Path) -> dict[str, Any]:
  """What a file of tensors holds, by name: NumPy arrays and, of a pickle, whatever lies beside.

  Raises:
    WeightsError: it is missing, damaged, of no known kind, or wants code to be run.
  """
  readers = {'.safetensors': _safetensors, '.bin': _torch, '.pth': _torch, '.pt': _torch}
  if path.suffix not in readers:
    raise WeightsError(f'{path}: not one of {", ".join(readers)}, .pkl (Detectron)')
  if not path.is_file():
    raise WeightsError(f'{path}: no such file')
  return readers[path.suffix](path)


def digest(path: pathlib.Path) -> str:
  """The SHA-256 of a file."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def digest_of_tensors(tensors: Mapping[str, np.ndarray]) -> str:
  """The SHA-256 of tensors and their names, however a file arranges them."""
  found = hashlib.sha256()
  for name in sorted(tensors):
    found.update(name.encode())
    found.update(np.ascontiguousarray(tensors[name]).data)
  return found.hexdigest()


def check_empty(folder: str | os.PathLike) -> None:
  """Before minutes of work for it; WeightsError if a folder is not empty."""
  folder = pathlib.Path(folder).absolute()
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise WeightsError(f'{folder} is not empty: give a folder that does not exist yet')


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except Exception as error:  # SafetensorError, and several of a dtype that NumPy has not.
    raise WeightsError(f'{path} cannot be read ({one_line(error)}): download it again') from error


def _torch(path: pathlib.Path) -> dict[str, Any]:
  """A pickle of PyTorch, by PyTorch's own reader of weights, which runs nothing."""
  remedy = "pip install 'torch>=2.6', or take a .safetensors file of the same weights"
  try:
    import torch
  except ImportError as error:
    raise WeightsError(f'{path} is read with PyTorch, which is not installed: {remedy}') from error
  # Older ones could be made to run code even so (CVE-2025-32434).
  if tuple(int(x) for x in re.findall(r'\d+', torch.__version__)[:2]) < (2, 6):
    raise WeightsError(f'{path} is not safe to read with PyTorch {torch.__version__}: {remedy}')
  try:
    read = torch.load(path, map_location='cpu', weights_only=True)
    # Training scripts put the weights beside the optimiser's state.
    for key in ('state_dict', 'model'):
      if isinstance(read, dict) and isinstance(read.get(key), dict):
        read = read[key]
    if isinstance(read, dict):
      return {str(name): _array(x) for name, x in read.items()}
  except pickle.UnpicklingError as error:
    raise WeightsError(
      f'{path} holds more than weights, which may run code ({one_line(error)}): not read'
    ) from error
  except Exception as error:  # Damaged files raise almost anything.
    raise WeightsError(f'{path} cannot be read ({one_line(error)}): download it again') from error
  raise WeightsError(f'{path} holds a {type(read).__name__}, not a dictionary of tensors')


def _array(x: Any) -> Any:
  import torch

  if not isinstance(x, torch.Tensor):
    return x
  return (x.float() if x.is_floating_point() else x).detach().numpy()


def one_line(error: Exception, most: int = 200) -> str:
  """The first line of an error's message."""
  return (str(error).strip() or type(error).__name__).splitlines()[0][:most]
