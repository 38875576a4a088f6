"""What the command prints: one object for a program, and the table made of it."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from pixelbert_jax.plan import speed
from pixelbert_jax.plan.measure import Fit, Program
from pixelbert_jax.plan.program import Setting, canvas_title
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
  known = {'hours_per_epoch': epoch.steps, 'hours': epoch.schedule}
  run |= {'steps_per_epoch': epoch.steps, 'steps': epoch.schedule}
  run['speed'] = {}
  for name, seconds in described['seconds'].items():
    rates = {'images_per_second': images / seconds, 'pairs_per_second': pairs / seconds}
    rates |= {title: steps * seconds / HOUR for title, steps in known.items() if steps}
    run['speed'][name] = rates
  return run


def fitted(of: Setting, found: Fit, spare: float, pairs: int) -> dict[str, Any]:
  """Describes the largest batch that fits, and how it takes a batch of so many pairs."""
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
    groups = pairs // config.texts_per_image
    parts = next((n for n in range(1, groups + 1) if _divides(groups, n, of, found)), 0)
    described['micro_batches'], described['with_micro_batches'] = parts, config.micro_batches > 1
  return described


def _divides(groups: int, parts: int, of: Setting, found: Fit) -> bool:
  whole = parts * of.chips
  return groups % whole == 0 and groups // whole <= found.groups


# --- As text -----------------------------------------------------------------------------


def text(described: Mapping[str, Any]) -> str:
  """Formats all that was planned."""
  d = described
  mesh = ', '.join(f'{name} {size}' for name, size in d['mesh'].items())
  peak, bandwidth = d['chip_flops_per_second'], d['chip_bytes_per_second']
  lines = [
    f'plan        {d["config"]} on {d["topology"]}: {d["chips"]} x {d["chip"]}, mesh {mesh}; each '
    f'{_amount(d["chip_memory"])}B, {_amount(peak)}FLOP/s in bfloat16, {_amount(bandwidth)}B/s'
  ]
  for program in d['programs']:
    lines += ['', *_program(program, d)]
  if 'fit' in d:
    lines += ['', _fit(d['fit'])]
  if d['programs'] and 'cycles' not in d['programs'][0]['seconds']:
    lines += ['', NO_SPEED]
  return '\n'.join(lines)


def _amount(x: float) -> str:
  """Formats a number of three digits with its prefix, '1.54 G'."""
  for prefix, size in {'T': 1e12, 'G': 1e9, 'M': 1e6, 'k': 1e3}.items():
    if x >= size:
      return f'{x / size:.3g} {prefix}'
  return f'{x:.3g} '


def _time(seconds: float) -> str:
  for unit, size in {'h': HOUR, 's': 1, 'ms': 1e-3}.items():
    if seconds >= size:
      return f'{seconds / size:,.{1 if seconds < 100 * size else 0}f} {unit}'
  return f'{seconds * 1e6:.3g} us'


def _program(p: Mapping[str, Any], d: Mapping[str, Any]) -> list[str]:
  title = {'train': 'training', 'evaluate': 'evaluation'}[p['mode']]
  parts = f', {p["micro_batches"]:,} micro-batches a step' if p['micro_batches'] > 1 else ''
  lines = [
    f'{title:<12}{p["images_per_chip"]} images a chip of {canvas_title(p["canvas"])} (files up to '
    f'{canvas_title(p["files_up_to"])}), {p["texts_per_chip"]} texts{parts}'
  ]
  for name, m in p['programs'].items():
    kinds = ('arguments', 'temporaries', 'outputs_not_aliased')
    each = ', '.join(f'{kind.replace("_", " ")} {_amount(m[kind])}B' for kind in kinds)
    lines.append(
      f'memory      {name}: {_amount(m["memory"])}B a chip, {m["memory"] / d["chip_memory"]:.0%} '
      f'of it: {each}'
    )
  moved = [
    f'{kind} {_amount(c["bytes"])}B in {c["number"]:,}' for kind, c in p['collectives'].items()
  ]
  lines += [
    f'FLOPs       {_amount(p["flops"])} a chip, of which {_amount(p["flops_recomputed"])} '
    'recomputed',
    f'bytes       {_amount(p["bytes"])}B a chip, of which {_amount(p["copies"]["bytes"])}B by '
    'copies alone',
    f'collectives {"; ".join(moved) or "none"}',
  ]
  if p['loops_counted_once']:
    lines.append(f'loops       {len(p["loops_counted_once"])} of unknown length, counted once')
  return [*lines, *_times(p, d), *_parts(p)]


def _times(p: Mapping[str, Any], d: Mapping[str, Any]) -> list[str]:
  lines = []
  for name, seconds in p['seconds'].items():
    title = TIMES[name].format(mfu=d['mfu'])
    useful = (p['flops'] - p['flops_recomputed']) / seconds / d['chip_flops_per_second']
    line = f'time        {title:<25}{_time(seconds):>10}, MFU {useful:.0%}'
    if p['mode'] == 'train':
      rates = p['speed'][name]
      images, pairs = rates['images_per_second'], rates['pairs_per_second']
      line += f'; {images:,.0f} images/s, {pairs:,.0f} pairs/s'
      for key, words in {'hours_per_epoch': 'an epoch', 'hours': 'in all'}.items():
        line += f'; {_time(HOUR * rates[key])} {words}' if key in rates else ''
    lines.append(line)
  if p['mode'] == 'train':
    steps, each = p['steps'], p['steps_per_epoch']
    known = f'{steps:,} steps' if steps else 'a number of steps that --texts=N tells'
    known += f' of {p["batch_size"]:,} pairs with {p["images_per_batch"]:,} images'
    lines.append(f'schedule    {known}{f"; {each:,} an epoch" if each else ""}')
  return lines


def _parts(p: Mapping[str, Any]) -> list[str]:
  columns = ['flops', 'bytes'] + ['cycles'] * ('cycles' in p['seconds'])
  total = {name: p[name] or 1 for name in columns}
  lines = [f'{"share":<12}' + ''.join(f'{name.replace("flops", "FLOPs"):>8}' for name in columns)]
  for name, share in p['parts'].items():
    lines.append(
      f'{name:<12}' + ''.join(f'{share[column] / total[column]:>8.1%}' for column in columns)
    )
  return lines


def _fit(f: Mapping[str, Any]) -> str:
  line = (
    f'{_amount(f["memory_fixed"])}B and {_amount(f["memory_per_image"])}B an image of '
    f'{canvas_title(f["canvas"])}'
  )
  if not f['images_per_chip']:
    return f'fit         not one image fits with {f["spare"]:.0%} to spare: {line}'
  parts = f['micro_batches']
  run = f"the configuration's batch takes {parts} micro-batches" if parts != 1 else 'its batch fits'
  if not parts:
    run = "no number of micro-batches divides the configuration's batch"
  elif parts > 1 and not f['with_micro_batches']:
    run += f': fit it with --config.micro_batches={parts}, as the sum of gradients takes memory too'
  return (
    f'fit         {f["images_per_chip"]} images a chip at a time is the most with '
    f'{f["spare"]:.0%} to spare: {_amount(f["memory"])}B; {line}; {run}'
  )
