"""docs/slices.md: its table is made of the measurements, which are of today's configurations."""

import math

import pytest

from benchmarks import slices
from pixelbert_jax import configuration
from tests.support.paths import ROOT

ONE_GPU = ('pretrain:r50', 'pretrain:r50_1gpu', 'pretrain:r50_24gb')


def test_the_pages_have_the_newest_results():
  assert slices.table() in (ROOT / 'docs/slices.md').read_text()
  assert slices.table(ONE_GPU) in (ROOT / 'docs/one_gpu.md').read_text()


def test_one_gpu_is_enough_for_a_week():
  rows = {row.config: row for row in slices.rows() if row.topology in ('a100:1', 'rtx4090:1')}
  week = 7 * 24
  assert 2 * rows['pretrain:r50_1gpu'].hours['mfu'] < week  # at 20% MFU too
  assert rows['pretrain:r50_24gb'].hours['mfu'] < week


@pytest.mark.parametrize('row', slices.rows(), ids=lambda row: f'{row.config}-{row.topology}')
def test_a_row_is_of_the_configuration_as_it_is(row):
  name, _, variant = row.config.partition(':')
  config = configuration.load(str(ROOT / f'configs/{name}.py:{variant}'), row.overrides)
  config.init_from = 'C'
  configuration.check(config)
  chips = math.prod(map(int, row.topology.partition(':')[2].split('x')))
  images = config.batch_size // config.texts_per_image * (2 if name == 'nlvr2' else 1)
  assert row.images * chips * config.micro_batches == images
  assert row.fits
  lines = slices.read()
  (canvas,) = {
    tuple(program['canvas'])
    for program in lines[row.config, row.source or row.topology]['programs']
    if program['mode'] == 'train'
  }
  assert canvas in set(map(tuple, config.image.canvases))


def test_a_slice_that_follows_from_another_has_its_share_of_the_work():
  program = {
    'mode': 'train',
    'canvas': [800, 1344],
    'images_per_chip': 4,
    'images_per_batch': 1024,
    'micro_batches': 1,
    'memory': 8e9,
    'speed': {name: {'hours': 10.0} for name in ('flops', 'bytes', 'cycles', 'mfu')},
  }
  line = {'config': 'pretrain:r50', 'topology': 'v5e:16x16', 'programs': [program]}
  row = slices.derived(line, 'v6e:2x4', 32)
  assert (row.images, row.memory, row.source) == (4, 8e9, 'v5e:16x16')
  assert row.overrides == ('micro_batches=32',)
  assert row.hours == pytest.approx(
    {'flops': 320 * 197 / 918, 'bytes': 320 * 819 / 1640, 'mfu': 320 * 197 / 918}
  )
  with pytest.raises(ValueError, match='8 images, compiled with 4'):
    slices.derived(line, 'v6e:2x4', 16)
  pairs = program | {'images_per_chip': 8, 'images_per_batch': 256, 'micro_batches': 4}
  line = {'config': 'nlvr2:r50', 'topology': 'v5e:2x4', 'overrides': ['micro_batches=4']}
  row = slices.derived(line | {'programs': [pairs | {'batch_size': 128}]}, 'v5e:16x16', 1)
  assert (row.images, row.overrides) == (2, ('batch_size=256',))  # 128 pairs are half of the chips
  assert row.hours['flops'] == pytest.approx(10 * 8 / 256)
