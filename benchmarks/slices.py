"""Prints the table of docs/slices.md: which configuration fits which slice or GPU.

    python -m benchmarks.slices [CONFIGURATION ...]

The docstrings in configs/ have lines of the same rows (`brief`). All are made of
benchmarks/results/plan.jsonl, to which `python -m pixelbert_jax.plan` appends a line:

    python -m pixelbert_jax.plan --config=configs/pretrain.py:r50 --topology=v5e:16x16 \\
      --mode=train --record=benchmarks/results/plan.jsonl

The newest line of a configuration on a slice counts, of those that set no field but the
micro-batches or the batch, without `--fit`. Some rows are derived from another slice's line
(`DERIVED`), and say so.
"""

import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pixelbert_jax.plan.target import CHIPS

RESULTS = pathlib.Path(__file__).with_name('results') / 'plan.jsonl'
OVERRIDES = ('micro_batches', 'batch_size')
SPARE = 0.15  # of the memory that has to be left free
HEADER = (
  '| configuration | chips | flags | images a chip | memory | fits | hours by FLOPs, bytes | '
  'hours at 40% MFU |\n|---|---|---|---|---|---|---|---|'
)
# Configuration, slice that was compiled for, slice that follows from it, and its micro-batches. A
# chip has no less memory, and takes as many images at a time or fewer.
DERIVED: tuple[tuple[str, str, str, int], ...] = (
  *(('pretrain:r50', 'a100:1', to, 2) for to in ('a100:8', 'h100:8')),
  ('pretrain:r50_1gpu', 'a100:1', 'h100:1', 16),
  ('vqa:r50', 'a100:1', 'a100:8', 1),
  ('nlvr2:r50', 'a100:1', 'a100:8', 1),
  ('retrieval:r50', 'a100:1', 'a100:8', 2),
  *(
    (f'{task}:{model}', 'v5e:2x4', *to)
    for task, parts in {'pretrain': 16, 'vqa': 4, 'nlvr2': 4, 'retrieval': 8, 'nlvr': 1}.items()
    for model in ('r50', 'x101', 'x152')
    for to in (('v5e:16x16', 1), ('v6e:2x4', parts))
  ),
)


class Row(NamedTuple):
  """A configuration on a slice.

  Attributes:
    config: task and variant, 'pretrain:r50'.
    topology: the slice, 'v5e:16x16'.
    overrides: fields that are set, 'micro_batches=4'.
    images: that a chip takes at a time.
    memory: bytes of a chip.
    hours: of the whole schedule, on the largest canvas, by each kind of time.
    source: the slice that it is derived from, or ''.
  """

  config: str
  topology: str
  overrides: tuple[str, ...]
  images: int
  memory: float
  hours: Mapping[str, float]
  source: str = ''

  @property
  def share(self) -> float:
    """The share of a chip's memory that is taken."""
    return self.memory / CHIPS[self.topology.partition(':')[0]].memory

  @property
  def fits(self) -> bool:
    """Whether as much memory is left free as has to be."""
    return self.share <= 1 - SPARE


def read(path: pathlib.Path = RESULTS) -> dict[tuple[str, str], dict[str, Any]]:
  """Reads the newest line of each configuration and slice in which training was compiled."""
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  return {
    (x['config'], x['topology']): x
    for x in lines
    if _training(x)
    and 'fit' not in x
    and all(y.partition('=')[0] in OVERRIDES for y in x.get('overrides', ()))
  }


def _training(line: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the training program of a line on the canvas of most memory; empty if there is none."""
  found = [p for p in line['programs'] if p['mode'] == 'train']
  return max(found, key=lambda p: p['memory'], default={})


def measured(line: Mapping[str, Any]) -> Row:
  """Makes the row of a line."""
  program = _training(line)
  hours = {name: rates['hours'] for name, rates in program['speed'].items()}
  return Row(
    config=line['config'],
    topology=line['topology'],
    overrides=tuple(line.get('overrides', ())),
    images=program['images_per_chip'],
    memory=program['memory'],
    hours=hours,
  )


def derived(line: Mapping[str, Any], topology: str, micro_batches: int) -> Row:
  """Makes the row of another slice from a line: the same program with as many images or fewer.

  Memory is that of the line. FLOPs and bytes are in proportion to the images of a chip in a step.
  A batch that has less than an image, or a pair of them, for each chip is doubled.

  Raises:
    ValueError: the other chip would have more images at a time than was compiled.
  """
  program, row = _training(line), measured(line)
  kind, _, shape = topology.partition(':')
  of_group = 2 if row.config.startswith('nlvr2:') else 1
  takes = math.prod(map(int, shape.split('x'))) * micro_batches
  batches = max(1, of_group * takes // program['images_per_batch'])
  images = batches * program['images_per_batch'] // takes
  if images > row.images:
    raise ValueError(f'{row.config} on {topology}: {images} images, compiled with {row.images}')
  of, to = CHIPS[row.topology.partition(':')[0]], CHIPS[kind]
  work = images * micro_batches / (row.images * program['micro_batches'])
  slower = {'flops': of.flops / to.flops, 'bytes': of.bandwidth / to.bandwidth}
  slower['mfu'] = slower['flops']
  kept = [x for x in row.overrides if not x.startswith('micro_batches=')]
  default = program['micro_batches'] if kept == list(row.overrides) else 1
  parts = [f'micro_batches={micro_batches}'] if micro_batches != default else []
  if batches > 1:
    parts.append(f'batch_size={batches * program["batch_size"]}')
  return row._replace(
    topology=topology,
    overrides=(*kept, *parts),
    images=images,
    hours={name: row.hours[name] * work / batches * factor for name, factor in slower.items()},
    source=row.topology,
  )


def rows() -> list[Row]:
  """Makes all rows, measured and derived, by configuration."""
  lines = read()
  made = [measured(line) for line in lines.values()]
  made += [derived(lines[x[:2]], *x[2:]) for x in DERIVED if x[:2] in lines]
  return sorted(made, key=lambda row: (row.config, row.topology))


def table(configs: Sequence[str] = ()) -> str:
  """Formats the table, of some configurations or of all."""
  found = [HEADER]
  for row in rows():
    if configs and row.config not in configs:
      continue
    name, _, variant = row.config.partition(':')
    flags = ' '.join(f'`--config.{x}`' for x in row.overrides)
    source = f' (from {row.source})' if row.source else ''
    bounds = f'{_hours(row.hours["flops"])}, {_hours(row.hours["bytes"])}'
    cells = [
      f'`{name}.py:{variant}`',
      row.topology + source,
      flags,
      f'{row.images:,}',
      f'{row.memory / 1e9:.1f} GB, {row.share:.0%}',
      'yes' if row.fits else 'no',
      bounds,
      _hours(row.hours['mfu']),
    ]
    found.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(found)


def brief(row: Row) -> str:
  """Formats a row as a line of its configuration's docstring: slice, fields and hours."""
  variant, fields = row.config.partition(':')[2], ' '.join(row.overrides) or '-'
  least = f'{_hours(row.hours["flops"])}, {_hours(row.hours["bytes"])}'
  return f'{variant:<9} {row.topology:<10} {fields:<18} {least:<11} {_hours(row.hours["mfu"])}'


def _hours(hours: float) -> str:
  return f'{hours:,.0f}' if hours >= 10 else f'{hours:.1f}'


if __name__ == '__main__':
  print(table(sys.argv[1:]))
  sys.exit(0)
