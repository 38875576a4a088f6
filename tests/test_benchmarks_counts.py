"""A training step costs no more FLOPs, bytes, allocations or compilations than was recorded."""

import json

import jax
import pytest

from benchmarks import counts, steps
from benchmarks.train import work

AGAIN = 'if the change is worth it, run `python -m benchmarks.counts` and say why in the commit'


@pytest.fixture(scope='module')
def recorded():
  found = json.loads(counts.RESULTS.read_text())
  if found['jax'] != jax.__version__:
    pytest.skip(f'recorded with jax {found["jax"]}, and this is {jax.__version__}')
  return found


@pytest.fixture(scope='module')
def ours():
  return steps.Ours(work(counts.SMALL))


def test_a_step_asks_no_more_of_the_machine(ours, recorded):
  found = counts.count(ours)
  assert found['flops'] == recorded['flops'], AGAIN
  for name in ('bytes', 'temporaries'):
    assert found[name] <= 1.02 * recorded[name], f'{name}: {AGAIN}'
  assert found['host_bytes'] <= recorded['host_bytes'] + 20_000, AGAIN


def test_steps_on_several_canvases_compile_nothing():
  assert counts.compilations(12) == 0
