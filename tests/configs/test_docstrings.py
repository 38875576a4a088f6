"""The docstrings of configs/: for each variant of the paper the hours that are planned, or how."""

import re
import shlex
from types import ModuleType

import pytest

from benchmarks import slices
from configs import labels, nlvr, nlvr2, pretrain, retrieval, vqa
from pixelbert_jax import configuration
from pixelbert_jax.plan import __main__ as plan
from pixelbert_jax.plan import corpus
from tests.support.paths import ROOT

MODULES = {
  m.__name__.removeprefix('configs.'): m for m in (labels, pretrain, vqa, nlvr2, nlvr, retrieval)
}
HEADER = '    variant   slice      fields             least       40% MFU\n'
MISSING = re.compile(
  r'^No figure there: (.*)\. This makes (?:it|the first|the second):\n\n((?: {4}.*\n)+)', re.M
)


def compiled(name: str) -> list[slices.Row]:
  """The rows of a configuration that were compiled, and not derived from another slice."""
  return [row for row in slices.rows() if row.config.startswith(f'{name}:') and not row.source]


def papers(module: ModuleType) -> set[str]:
  """The variants of the paper."""
  return {name for name in module.VARIANTS if name.startswith(('r50', 'x101', 'x152'))}


@pytest.mark.parametrize('name', MODULES)
def test_the_hours_are_those_of_the_newest_plans(name):
  rows = compiled(name)
  assert all(row.fits for row in rows)
  _, _, rest = MODULES[name].__doc__.partition(HEADER)
  table, *_ = rest.split('\n\n')
  assert table.splitlines() == [f'    {slices.brief(row)}'.rstrip() for row in rows]


def test_a_line_has_the_slice_the_fields_and_the_hours():
  hours = {'flops': 1.26, 'bytes': 10.4, 'mfu': 2.0}
  row = slices.Row('vqa:r50', 'v5e:2x4', ('micro_batches=4', 'batch_size=8'), 8, 1e9, hours)
  assert slices.brief(row).split() == [
    *('r50', 'v5e:2x4', 'micro_batches=4', 'batch_size=8', '1.3,', '10', '2.0')
  ]
  assert slices.brief(row._replace(overrides=())).split()[2] == '-'


@pytest.mark.parametrize('name', MODULES)
def test_a_variant_without_hours_is_named_with_the_command_that_plans_it(name):
  planned = {row.config.partition(':')[2] for row in compiled(name)}
  found = MISSING.search(MODULES[name].__doc__)
  if not (without := papers(MODULES[name]) - planned):
    assert not found
    return
  assert set(re.findall(r'[rx]\d+_\w+', found[1])) == without
  module, *flags = shlex.split(found[2].replace('\\\n', ''))[2:]
  assert module == 'pixelbert_jax.plan'
  asked, overrides = plan.parser().parse_overrides(flags)
  path, _, variant = asked.config.partition(':')
  assert path == f'configs/{name}.py'
  assert variant in without
  config = configuration.load(str(ROOT / asked.config), overrides)
  config.init_from = 'C'
  configuration.check(config)
  assert corpus.find(name, config.data.name, config.data.train)


def test_coco_is_the_default_of_retrieval():
  same = retrieval.get_config('r50').to_dict() | {'variant': 'r50_coco'}
  assert retrieval.get_config('r50_coco').to_dict() == same


@pytest.mark.parametrize('name', MODULES)
def test_every_variant_is_among_those_with_scores(name):
  listed = MODULES[name].__doc__.partition('Variants and scores to expect')[2]
  head = re.findall(r'^ {4}((?:[\w()]+, )*[\w()]+)  ', listed, re.M)
  names = {variant for cell in head for variant in cell.split(', ')}
  assert papers(MODULES[name]) <= names
