"""What is counted in compiled programs, against counts by hand and by XLA."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from pixelbert_jax.plan.cost import cost, part
from pixelbert_jax.plan.hlo import arrays
from tests.support.paths import ROOT

TRIPS, ROWS, WIDTH = 7, 8, 32


def compiled(function, *arguments):
  return jax.jit(function).lower(*arguments).compile()


def layers(weights, x, unroll):
  return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights, unroll=unroll)[0]


def test_a_scan_counts_each_of_its_trips():
  weights, x = jnp.ones((TRIPS, WIDTH, WIDTH)), jnp.ones((ROWS, WIDTH))
  looped, unrolled = (
    cost(compiled(lambda w, x, n=n: layers(w, x, n), weights, x).as_text()) for n in (1, TRIPS)
  )
  assert looped.total.flops == unrolled.total.flops == TRIPS * 2 * ROWS * WIDTH * WIDTH
  assert looped.unknown == []
  # A trip reads its own slice of the weights, and not all of them.
  assert looped.total.bytes == pytest.approx(unrolled.total.bytes, rel=0.1)


def test_a_loop_in_a_loop_counts_both():
  weights, x = jnp.ones((TRIPS, WIDTH, WIDTH)), jnp.ones((ROWS, WIDTH))

  def twice(w, x):
    return jax.lax.fori_loop(0, 3, lambda _, h: layers(w, h, 1), x)

  counted = cost(compiled(twice, weights, x).as_text())
  assert counted.total.flops == 3 * TRIPS * 2 * ROWS * WIDTH * WIDTH


@pytest.mark.parametrize(('stride', 'groups'), [(1, 1), (2, 1), (2, 4)])
def test_convolutions_count_as_by_xla(stride, groups):
  def loss(kernel, x):
    names = 'NHWC', 'HWIO', 'NHWC'
    options = {'dimension_numbers': names, 'feature_group_count': groups}
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), 'SAME', **options)
    return jnp.sum(y**2)

  kernel, x = jnp.ones((3, 3, 16 // groups, 32)), jnp.ones((2, 15, 17, 16))
  program = compiled(jax.grad(loss, (0, 1)), kernel, x)
  # XLA also counts the other arithmetic, at most a few FLOPs an element.
  elements = 4 * (x.size + 2 * kernel.size + 2 * 15 * 17 * 32)
  total = program.cost_analysis()['flops']
  assert total - elements <= cost(program.as_text()).total.flops <= total


def test_recomputation_is_counted_apart():
  weights, x = jnp.ones((TRIPS, WIDTH, WIDTH)), jnp.ones((ROWS, WIDTH))

  def loss(remat):
    def layer(h, w):
      return jnp.tanh(jnp.tanh(h @ w) @ w), None

    layer = jax.checkpoint(layer) if remat else layer
    return lambda w: jax.lax.scan(layer, x, w)[0].sum()

  plain, again = (cost(compiled(jax.grad(loss(r)), weights).as_text()).total for r in (False, True))
  product = TRIPS * 2 * ROWS * WIDTH * WIDTH
  assert (plain.flops, plain.recomputed) == (6 * product, 0)
  # Of the two products of a layer, the second is not needed again.
  assert again.flops - again.recomputed == plain.flops
  assert product <= again.recomputed <= 2 * product


SHARDED = """
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from pixelbert_jax.plan.cost import cost

mesh = jax.make_mesh((4,), ('d',), axis_types=(AxisType.Auto,))

def of(shape, *axes):
  return jax.ShapeDtypeStruct(shape, 'float32', sharding=NamedSharding(mesh, P(*axes)))

multiply = jax.jit(lambda x, w: x @ w, out_shardings=NamedSharding(mesh, P()))
reduced = multiply.lower(of((16, 64), None, 'd'), of((64, 48), 'd')).compile()
gathered = multiply.lower(of((16, 64)), of((64, 48), None, 'd')).compile()
print(cost(reduced.as_text()).collectives, cost(gathered.as_text()).collectives)
"""


def test_a_collective_counts_its_larger_side(environment):
  done = subprocess.run(
    [sys.executable, '-c', SHARDED],
    env=environment | {'JAX_NUM_CPU_DEVICES': '4', 'JAX_PLATFORMS': 'cpu'},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  # The partial products [16, 48] are summed; or its columns, a quarter on each chip, are gathered.
  size = 16 * 48 * 4
  expected = {'all-reduce': [1, size]}, {'all-gather': [1, size]}
  assert done.stdout == f'{expected[0]} {expected[1]}\n', done.stderr


@pytest.mark.parametrize(
  ('kind', 'elements', 'padded'),
  [
    ('f32[5]', 5 * 4, 5 * 4),
    ('f32[8,832,1088,3]{0,3,2,1:T(4,128)}', 8 * 832 * 1088 * 3 * 4, 832 * 1088 * 4 * 128 * 4),
    ('bf16[2,32,64]{2,1,0:T(8,128)(2,1)}', 2 * 32 * 64 * 2, 2 * 32 * 128 * 2),
    ('bf16[2,32,60]{1,2,0:T(8,128)(2,1)S(1)}', 2 * 32 * 60 * 2, 2 * 64 * 128 * 2),
    ('pred[16,5]{0,1:T(8,128)(4,1)}', 80, 8 * 128),
    ('s32[]{:T(128)}', 4, 128 * 4),
  ],
)
def test_tiles_pad_the_fastest_dimensions(kind, elements, padded):
  (array,) = arrays(kind)
  assert (array.bytes, array.padded) == (elements, padded)


@pytest.mark.parametrize(
  ('op_name', 'expected'),
  [
    ('jit(whole)/jvp(PretrainingModel)/backbone/cnn/layer2/rest/while/body/conv1/dot', 'layer2'),
    ('jit(whole)/transpose(jvp(PretrainingModel))/backbone/encoder/layers/while/dot', 'encoder'),
    ('jit(whole)/optimizer/add', 'optimizer'),
    ('jit(whole)/jvp(resize)/dot_general', 'resize'),
    ('jit(whole)/jvp(PretrainingModel)/mlm_transform/dense/dot_general', 'heads, loss'),
    ('', 'unnamed'),
  ],
)
def test_parts_of_the_model(op_name, expected):
  assert part(op_name) == expected
