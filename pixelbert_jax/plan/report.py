"""What the command prints: one object for a program, and the table made of it."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from pixelbert_jax.plan import speed
from pixelbert_jax.plan.measure import Fit, Program
from pixelbert_jax.plan.program import Setting
from pixelbert_jax.plan.target import versions

HOUR = 3600
TIMES = {
  'flops': 'at least, by FLOPs',
  'bytes': 'at least, by bytes',
  'cycles': "by the compiler's cycles",
  'mfu': 'at {mfu:.0%} MFU',
}
NO_SPEED = (
  'kernels of GPUs are chosen by trial on the GPU itself, so no estimate of its speed is made here'
)


def head(of: Setting) -> dict[str, Any]:
  """Describes the configuration and the target."""
  chip = of.target.chip
  return {
    'config': ':'.join(filter(None, [of.config.name, of.config.variant])),
    'topology': of.target.name,
    'chips': of.chips,
    'mesh': dict(of.mesh.shape),
    'chip': chip.title,
    'chip_memory': chip.memory,
    'chip_flops_per_second': chip.flops,
    'chip_bytes_per_second': chip.bandwidth,
    'texts_per_image': of.config.texts_per_image,
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'versions': versions(),
  }


def measured(of: Setting, mode: str, programs: Sequence[Program], flags: Any) -> dict[str, Any]:
  """Describes the programs of training or evaluation, on one canvas."""
  total = speed.whole(programs)
  images = of.groups * of.images_per_group
  described: dict[str, Any] = {
    'mode': mode,
    'canvas': list(of.canvas),
    'files_up_to': list(of.source),
    'images_per_chip': images,
    'texts_per_chip': of.groups * of.config.texts_per_image,
    'micro_batches': of.config.micro_batches if mode == 'train' else 1,
    'programs': {
      p.name: {
        'runs': p.times,
        'arguments': p.memory.arguments,
        'temporaries': p.memory.temporaries,
        'outputs_not_aliased': p.memory.outputs,
        'memory': p.memory.total,
      }
      for p in programs
    },
    'memory': max(p.memory.total for p in programs),
    'flops': total.total.flops,
    'flops_recomputed': total.total.recomputed,
    'bytes': total.total.bytes,
    'cycles': total.total.cycles,
    'copies': {'bytes': total.copies.bytes, 'cycles': total.copies.cycles},
    'collectives': {
      kind: {'number': n, 'bytes': size} for kind, (n, size) in sorted(total.collectives.items())
    },
    'parts': {
      name: {'flops': s.flops, 'recomputed': s.recomputed, 'bytes': s.bytes, 'cycles': s.cycles}
      for name, s in sorted(total.parts.items(), key=lambda item: -item[1].bytes)
    },
    'loops_counted_once': total.unknown,
    'seconds': speed.seconds(total, of.target.chip, flags.mfu),
  }
  if mode == 'train':
    described |= _run(of, described, flags.texts)
  return described


def _run(of: Setting, described: Mapping[str, Any], texts: int) -> dict[str, Any]:
  """Computes images and pairs a second, and hours, for each of the times of a step."""
  pairs = of.config.batch_size
  images = pairs // of.config.texts_per_image * of.images_per_group
  epoch = speed.epoch(of, texts)
  run: dict[str, Any] = {'batch_size': pairs, 'images_per_batch': images}
  if epoch:
    run |= {'steps_per_epoch': epoch.steps, 'steps': epoch.schedule}
  run['speed'] = {}
  for name, seconds in described['seconds'].items():
    rates = {'images_per_second': images / seconds, 'pairs_per_second': pairs / seconds}
    if epoch:
      rates['hours_per_epoch'] = epoch.steps * seconds / HOUR
      rates['hours'] = epoch.schedule * seconds / HOUR
    run['speed'][name] = rates
  return run


def fitted(of: Setting, found: Fit, spare: float) -> dict[str, Any]:
  """Describes the largest batch that fits."""
  config = of.config
  images = found.groups * of.images_per_group
  described: dict[str, Any] = {
    'spare': spare,
    'canvas': list(of.canvas),
    'images_per_chip': images,
    'memory_fixed': round(found.fixed),
    'memory_per_image': round(found.each / of.images_per_group),
  }
  if found.groups:
    described['memory'] = max(p.memory.total for p in found.programs)
    # The fewest parts of the configuration's batch that fit and divide it.
    groups = config.batch_size // config.texts_per_image
    parts = next((n for n in range(1, groups + 1) if _divides(groups, n, of, found)), 0)
    described['micro_batches'] = parts
  return described


def _divides(groups: int, parts: int, of: Setting, found: Fit) -> bool:
  whole = parts * of.chips
  return groups % whole == 0 and groups // whole <= found.groups


# --- As text -----------------------------------------------------------------------------


def text(described: Mapping[str, Any]) -> str:
  """Formats all that was planned."""
  d = described
  mesh = ', '.join(f'{name} {size}' for name, size in d['mesh'].items())
  lines = [
    f'plan        {d["config"]} on {d["topology"]}: {d["chips"]} x {d["chip"]}, mesh {mesh}; each '
    f'{d["chip_memory"] / 1e9:.1f} GB, {d["chip_flops_per_second"] / 1e12:.0f} TFLOP/s in '
    f'bfloat16, {d["chip_bytes_per_second"] / 1e9:,.0f} GB/s'
  ]
  for program in d['programs']:
    lines += ['', *_program(program, d)]
  if 'fit' in d:
    lines += ['', _fit(d['fit'], d)]
  if 'cycles' not in d['programs'][0]['seconds']:
    lines += ['', NO_SPEED]
  return '\n'.join(lines)


def _program(p: Mapping[str, Any], d: Mapping[str, Any]) -> list[str]:
  title = {'train': 'training', 'evaluate': 'evaluation'}[p['mode']]
  size, files = ('x'.join(map(str, p[name])) for name in ('canvas', 'files_up_to'))
  parts = f', {p["micro_batches"]} micro-batches a step' if p['micro_batches'] > 1 else ''
  lines = [
    f'{title:<12}{p["images_per_chip"]} images a chip of {size} (files up to {files}), '
    f'{p["texts_per_chip"]} texts{parts}'
  ]
  for name, m in p['programs'].items():
    lines.append(
      f'memory      {name}: {m["memory"] / 1e9:.2f} GB a chip, '
      f'{m["memory"] / d["chip_memory"]:.0%} of it: arguments {m["arguments"] / 1e9:.2f}, '
      f'temporaries {m["temporaries"] / 1e9:.2f}, '
      f'outputs not aliased {m["outputs_not_aliased"] / 1e9:.2f}'
    )
  lines.append(
    f'FLOPs       {p["flops"] / 1e12:.3g} T a chip, of which {p["flops_recomputed"] / 1e12:.3g} '
    'recomputed'
  )
  lines.append(
    f'bytes       {p["bytes"] / 1e9:.3g} GB a chip, of which {p["copies"]["bytes"] / 1e9:.3g} by '
    'copies alone'
  )
  moved = [
    f'{kind} {c["bytes"] / 1e9:.3g} GB in {c["number"]:,}' for kind, c in p['collectives'].items()
  ]
  lines.append(f'collectives {"; ".join(moved) or "none"}')
  if p['loops_counted_once']:
    lines.append(f'loops       {len(p["loops_counted_once"])} of unknown length, counted once')
  return [*lines, *_times(p, d), *_parts(p)]


def _times(p: Mapping[str, Any], d: Mapping[str, Any]) -> list[str]:
  lines = []
  for name, seconds in p['seconds'].items():
    title = TIMES[name].format(mfu=d['mfu'])
    useful = (p['flops'] - p['flops_recomputed']) / seconds / d['chip_flops_per_second']
    line = f'time        {title:<26}{1e3 * seconds:>9,.1f} ms, MFU {useful:.0%}'
    if p['mode'] == 'train':
      rates = p['speed'][name]
      line += (
        f'; {rates["images_per_second"]:,.0f} images/s, {rates["pairs_per_second"]:,.0f} pairs/s'
      )
      if 'hours' in rates:
        line += f'; {_hours(rates["hours_per_epoch"])} an epoch, {_hours(rates["hours"])} in all'
    lines.append(line)
  if p['mode'] == 'train':
    if 'steps' in p:
      lines.append(
        f'schedule    {p["steps"]:,} steps of {p["batch_size"]:,} pairs with '
        f'{p["images_per_batch"]:,} images; {p["steps_per_epoch"]:,} an epoch'
      )
    else:
      lines.append('schedule    not known: give the number of texts of an epoch by --texts=N')
  return lines


def _hours(hours: float) -> str:
  return f'{hours:,.3g} h' if hours >= 0.1 else f'{3600 * hours:,.3g} s'


def _parts(p: Mapping[str, Any]) -> list[str]:
  total = {name: p[name] or 1 for name in ('flops', 'bytes', 'cycles')}
  has_cycles = 'cycles' in p['seconds']
  titles = ['FLOPs', 'bytes'] + ['cycles'] * has_cycles
  lines = [f'{"share":<12}' + ''.join(f'{title:>8}' for title in titles)]
  for name, share in p['parts'].items():
    values = [share['flops'] / total['flops'], share['bytes'] / total['bytes']]
    values += [share['cycles'] / total['cycles']] * has_cycles
    lines.append(f'{name:<12}' + ''.join(f'{value:>8.1%}' for value in values))
  return lines


def _fit(f: Mapping[str, Any], d: Mapping[str, Any]) -> str:
  size = 'x'.join(map(str, f['canvas']))
  line = (
    f'{f["memory_fixed"] / 1e9:.2f} GB and {f["memory_per_image"] / 1e9:.3f} an image of {size}'
  )
  if not f['images_per_chip']:
    return f'fit         not one image fits with {f["spare"]:.0%} to spare: {line}'
  parts = f['micro_batches']
  run = f'the batch takes {parts} micro-batches' if parts else 'no number of them divides the batch'
  return (
    f'fit         {f["images_per_chip"]} images a chip at a time is the most with '
    f'{f["spare"]:.0%} to spare: {f["memory"] / 1e9:.2f} GB; {line}; {run}'
  )
