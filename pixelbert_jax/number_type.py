"""The type of numbers that a run computes in, where the command line leaves it to the machine."""

import contextlib
import pathlib
import sys
from typing import Any

import jax
from ml_collections import ConfigDict

from pixelbert_jax import processes
from pixelbert_jax.checkpoints import DamagedError
from pixelbert_jax.checkpoints.workdir import read_config

UNITS_SINCE = 8.0  # CUDA's compute capability; T4 has 7.5, V100 7.0


def chosen(config: ConfigDict, workdir: pathlib.Path | None) -> str:
  """Returns the type of `config`, that of the run in `workdir`, or what suits the devices.

  A run goes on in the type that it began in, on whatever it goes on. Says on stderr where the type
  is not that of `config`.
  """
  if config.dtype != 'bfloat16':
    return config.dtype
  began = None
  with contextlib.suppress(DamagedError):  # which `check_workdir` says, with what to do
    if workdir and (workdir / 'config.json').exists():
      began = read_config(workdir / 'config.json')
  if began is not None:
    dtype, why = began.get('dtype', config.dtype), f'as {workdir} began'
  else:
    device = jax.devices()[0]  # the same in all processes
    dtype = suited(config.dtype, device.platform, getattr(device, 'compute_capability', ''))
    why = f'since {device.device_kind} has no units for bfloat16'
  if dtype != config.dtype and processes.is_first():
    print(f'computing in {dtype}, {why}; --config.dtype sets it', file=sys.stderr)
  return dtype


def suited(dtype: str, platform: str, capability: Any) -> str:
  """Returns float32 for bfloat16 on a GPU of NVIDIA without units for it, else `dtype`.

  Args:
    dtype: that is asked for.
    platform: as `jax.Device.platform`.
    capability: of a GPU, '7.5' for a T4; other makers' are no numbers.
  """
  try:
    old = platform == 'gpu' and float(capability) < UNITS_SINCE
  except ValueError:
    old = False
  return 'float32' if old and dtype == 'bfloat16' else dtype
