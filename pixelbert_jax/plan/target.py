"""Targets: TPU slices and GPUs that a program can be compiled for without having them.

FLOP/s and bandwidth are the makers' numbers; memory is what a program can have of it, of a TPU as
its compiler says. A TPU's clock follows from its FLOP/s and the size of its matrix units.
"""

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pixelbert_jax import UserError, first_line

GIB = 2**30


class Chip(NamedTuple):
  """A kind of chip.

  Attributes:
    title: its name.
    memory: bytes that a program can use.
    flops: dense bfloat16 FLOP/s.
    bandwidth: bytes a second of its memory.
    clock: Hz, by which a TPU's estimated cycles become seconds; 0 for GPUs.
    gpu: what XLA's description of a GPU needs: compute capability, cores, bytes of L2 cache, bytes
      of shared memory of a core and of a block.
  """

  title: str
  memory: int
  flops: float
  bandwidth: float
  clock: float = 0.0
  gpu: tuple[tuple[int, int], int, int, int, int] | None = None

  @property
  def platform(self) -> str:
    """As `jax.Device.platform` names it."""
    return 'gpu' if self.gpu else 'tpu'


_AMPERE, _ADA = (167936, 166912), (102400, 101376)
CHIPS = {
  'v4': Chip('TPU v4', int(30.75 * GIB), 275e12, 1228e9, 1.05e9),
  'v5e': Chip('TPU v5e', int(15.75 * GIB), 197e12, 819e9, 1.5e9),
  'v5p': Chip('TPU v5p', int(95.73 * GIB), 459e12, 2765e9, 1.75e9),
  'v6e': Chip('TPU v6e', int(31.24 * GIB), 918e12, 1640e9, 1.75e9),
  'a100': Chip('A100 80 GB', 79 * GIB, 312e12, 2039e9, gpu=((8, 0), 108, 40 << 20, *_AMPERE)),
  'h100': Chip('H100 80 GB', 79 * GIB, 989e12, 3350e9, gpu=((9, 0), 132, 50 << 20, 233472, 232448)),
  'a10': Chip('A10 24 GB', 22 * GIB, 125e12, 600e9, gpu=((8, 6), 72, 6 << 20, *_ADA)),
  'l4': Chip('L4 24 GB', 22 * GIB, 121e12, 300e9, gpu=((8, 9), 58, 48 << 20, *_ADA)),
  'rtx4090': Chip('RTX 4090', 23 * GIB, 165e12, 1008e9, gpu=((8, 9), 128, 72 << 20, *_ADA)),
}
# Read by libtpu. Of one host; the topology's own name says what is compiled for.
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  # What is compiled for another chip cannot be loaded from the cache of this one.
  'JAX_ENABLE_COMPILATION_CACHE': 'false',
  'TF_CPP_MIN_LOG_LEVEL': '3',
}
# Autotuning needs a GPU.
GPU_OPTIONS = {'xla_gpu_autotune_level': 0, 'xla_gpu_enable_triton_gemm': False}
_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {optin}
  threads_per_core_limit: {threads}
  core_count: {cores}
  fpus_per_core: {units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f}
  l2_cache_size: {cache}
  clock_rate_ghz: 1.5
  device_memory_size: {memory}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{title}"
"""


class Target(NamedTuple):
  """What is compiled for: a kind of chip, and how many in which shape ('2x4'; '8' of GPUs)."""

  kind: str
  shape: str

  @property
  def name(self) -> str:
    """As on the command line."""
    return f'{self.kind}:{self.shape}'

  @property
  def chip(self) -> Chip:
    """The kind of chip."""
    return CHIPS[self.kind]

  @property
  def compiler_options(self) -> dict[str, Any]:
    """What XLA is told besides."""
    return dict(GPU_OPTIONS) if self.chip.gpu else {}

  def devices(self) -> Sequence[Any]:
    """Describes its devices to JAX.

    Raises:
      UserError: there is no such topology, or the compiler is not installed.
    """
    from jax.experimental import topologies

    try:
      if not self.chip.gpu:
        # Without it the two cores of a v4 are two devices.
        options = {'chip_config_name': 'megacore'} if self.kind == 'v4' else {}
        return topologies.get_topology_desc(
          platform='tpu', topology_name=self.name, **options
        ).devices
      topology = topologies.get_topology_desc(
        platform='cuda',
        target_config=self._description(),
        topology=f'1x1x{self.shape}',
      )
      return topology.devices
    except Exception as error:  # Plugins raise many types.
      raise UserError(
        f'--topology={self.name}: {first_line(error)}: name a slice that exists, such as {EXAMPLES}'
      ) from error

  def _description(self) -> str:
    assert self.chip.gpu
    (major, minor), cores, cache, shared, optin = self.chip.gpu
    return _DESCRIPTION.format(
      **{'shared': shared, 'optin': optin, 'cores': cores, 'cache': cache},
      **{'threads': 1536 if minor else 2048, 'units': 64 if (major, minor) == (8, 0) else 128},
      **{'major': major, 'minor': minor, 'title': self.chip.title},
      **{'bandwidth': self.chip.bandwidth, 'memory': self.chip.memory},
    )


EXAMPLES = 'v5e:2x4, v5e:16x16, v6e:2x4, v5p:2x2x1, a100:8 or h100:1'


def parse(topology: str) -> Target:
  """Reads a topology, 'v5e:2x4'.

  Raises:
    UserError: it is none, or what compiles for it is not installed.
  """
  kind, _, shape = topology.partition(':')
  if kind not in CHIPS:
    raise UserError(
      f'--topology={topology}: no chip {kind!r}, only {", ".join(CHIPS)}; for example {EXAMPLES}'
    )
  pattern = r'[1-9]\d*' if CHIPS[kind].gpu else r'[1-9]\d*(x[1-9]\d*){1,2}'
  if not re.fullmatch(pattern, shape):
    expected = 'a number of GPUs' if CHIPS[kind].gpu else 'the sides of a slice, such as 2x4'
    raise UserError(f'--topology={topology}: expected {expected} after {kind}:, not {shape!r}')
  if CHIPS[kind].gpu:
    if importlib.util.find_spec('jax_cuda12_plugin') is None:
      raise UserError(
        f'--topology={topology}: the compiler for NVIDIA GPUs is missing: '
        "pip install 'pixelbert_jax[cuda]', or jax-cuda12-plugin and jax-cuda12-pjrt alone"
      )
  elif importlib.util.find_spec('libtpu') is None:
    raise UserError(
      f'--topology={topology}: the compiler for TPUs is missing: '
      "pip install libtpu, or pip install -e '.[plan]'"
    )
  return Target(kind, shape)


def prepare() -> None:
  """Sets the environment that the compilers read; to be called before JAX is imported."""
  os.environ.update(ENVIRONMENT)


def versions() -> dict[str, str]:
  """Returns the versions of what compiles."""
  names = ('jax', 'libtpu', 'jax-cuda12-plugin')
  found = {}
  for name in names:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
