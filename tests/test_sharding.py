"""One rule says where arrays lie; on every mesh the same numbers come out."""

import functools
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs.pretrain import get_config
from pixelbert_jax import UserError, sharding
from pixelbert_jax.experiment import init_variables, make_model
from tests.support.collectives import collectives, programs
from tests.support.paths import ROOT
from tests.support.scenes import build_scenes

GOLDEN = pathlib.Path(__file__).parent / 'support/sharding_golden.txt'
MESHES = ('1x8', '8x1', '2x4')


@pytest.mark.parametrize(
  ('shape', 'fsdp', 'expected'),
  [
    ((1024, 1024), 1, ()),
    ((12, 768, 2304), 8, (None, None, 'fsdp')),
    ((12, 3072, 768), 8, (None, 'fsdp', None)),
    ((768, 768), 4, ('fsdp', None)),
    ((30_522, 768), 8, (None, 'fsdp')),  # 8 does not divide the vocabulary
    ((30_522, 768), 2, ('fsdp', None)),
    ((65_535, 3), 8, ()),
    ((255, 256), 8, ()),  # small
    ((256, 256), 8, ('fsdp', None)),
    ((), 8, ()),
  ],
)
def test_large_arrays_are_split_at_their_largest_dimension(shape, fsdp, expected):
  assert sharding.spec(shape, fsdp) == jax.sharding.PartitionSpec(*expected)


def test_a_mesh_that_the_devices_do_not_make_up_is_refused():
  devices = jax.device_count()
  for data, fsdp in [(devices + 1, 1), (-1, devices + 1), (0, -1), (-1, -1)]:
    with pytest.raises(UserError, match=f'mesh: data={data}, fsdp={fsdp} do not make up'):
      sharding.make_mesh(data, fsdp)


def test_minus_one_takes_all_devices():
  for data, fsdp in [(-1, 1), (1, -1)]:
    assert sharding.make_mesh(data, fsdp).size == jax.device_count()


# --- The papers' models ------------------------------------------------------------------


def golden():
  """A line for each parameter: its name and shape, and where it is split on three meshes."""
  for variant in ('r50', 'x152'):
    config = get_config(variant)
    texts = {'token_ids': np.int32, 'token_mask': bool, 'mlm_position': np.int32}
    batch = {name: np.zeros((1, 1, 6), dtype) for name, dtype in texts.items()}
    batch |= {'image': np.zeros((1, 64, 64, 3), np.uint8), 'size': np.full((1, 2), 64)}
    make = functools.partial(init_variables, make_model(config, 30_522), 0, batch)
    for path, x in jax.tree_util.tree_leaves_with_path(jax.eval_shape(make)['params']):
      name = '/'.join(key.key for key in path)
      specs = [sharding.spec(x.shape, int(mesh.split('x')[1])) for mesh in MESHES]
      where = [str(s.index('fsdp')) if 'fsdp' in s else '-' for s in specs]
      yield ' '.join([variant, name, 'x'.join(map(str, x.shape)), *where])


def test_every_parameter_lies_where_it_lay():
  assert GOLDEN.read_text().splitlines() == list(golden())


# --- What the devices exchange -----------------------------------------------------------


def parts(shape):
  """The sizes above 1, sorted, of a parameter, of a layer of it, and of a quarter of either."""
  for sizes in ([size for size in shape if size > 1], [size for size in shape[1:] if size > 1]):
    yield sorted(sizes)
    for i, size in enumerate(sizes):
      yield sorted([*sizes[:i], size // 4, *sizes[i + 1 :]])


def test_parameters_travel_and_activations_stay(few_scenes, tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'tests.support.collectives', few_scenes],
    env=os.environ
    | {'JAX_NUM_CPU_DEVICES': '8', 'JAX_ENABLE_COMPILATION_CACHE': '0'}
    | {'XLA_FLAGS': f'--xla_dump_to={tmp_path} --xla_dump_hlo_as_text'},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  shapes = json.loads(done.stdout.splitlines()[-1])
  known = [sizes for shape in shapes for sizes in parts(shape)]
  exchanged = {name: collectives(text) for name, text in programs(tmp_path).items()}
  for name in ('jit_whole', 'jit_step', 'jit_embed', 'jit_apply'):
    for shape, _ in exchanged[name]:
      # Vectors are statistics of BatchNorm and sums.
      sizes = [size for size in sorted(shape) if size > 1]
      assert len(sizes) < 2 or sizes in known, (name, shape)
  # Gathered once, and added up once.
  parameters = 4 * sum(math.prod(shape) for shape in shapes)
  assert parameters < sum(size for _, size in exchanged['jit_whole']) < 2.4 * parameters


# --- The same numbers --------------------------------------------------------------------


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
  return build_scenes(tmp_path_factory.mktemp('scenes'), train=200, val=21, test=10)


def run(scenes, dtype, devices, *meshes):
  """Runs tests/support/mesh_run.py in a process with so many devices: what it prints."""
  done = subprocess.run(
    [sys.executable, '-m', 'tests.support.mesh_run', scenes, dtype, *meshes],
    env=os.environ | {'JAX_NUM_CPU_DEVICES': str(devices)},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-4), ('float64', 1e-10)])
def test_every_mesh_gives_the_numbers_of_one_device(scenes, dtype, tolerance):
  alone = run(scenes, dtype, 1, '1x1')['1x1']
  assert alone['split'] == 0
  assert alone['losses'][-1] < alone['losses'][0]
  for mesh, found in run(scenes, dtype, 8, *MESHES).items():
    assert (found['split'] > 0) == (not mesh.endswith('x1')), mesh
    np.testing.assert_allclose(found['losses'], alone['losses'], rtol=tolerance, err_msg=mesh)
    # Scores are kept in float32 whatever they are computed in.
    np.testing.assert_allclose(found['scores'], alone['scores'], atol=1e-5, err_msg=mesh)
    for name, value in alone['metrics'].items():
      if 'loss' in name:
        assert found['metrics'][name] == pytest.approx(value, rel=10 * tolerance), (mesh, name)


if __name__ == '__main__':  # python -m tests.test_sharding > tests/support/sharding_golden.txt
  print('\n'.join(golden()))
