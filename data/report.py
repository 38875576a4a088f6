"""Report of a build: a table of counts, omitted images, and differences from published counts."""

import numpy as np
import tensorflow_datasets as tfds

from data.entry import ALL, TEXTS, Tally
from pixelbert_jax.input.lengths import SPECIAL_EACH, words
from pixelbert_jax.input.sidecar import Sidecar

# Of the texts that a model with the configurations of the paper may read whole.
WORDS = 40 - SPECIAL_EACH
# Names shown of a list; all are in the dataset's metadata.json.
SHOWN = 10


def report(builder: tfds.core.DatasetBuilder, sidecars: dict[str, Sidecar], seconds: float) -> str:
  """Formats the table and all remarks; `seconds` is 0 for a dataset that was built before."""
  tallies = {s: Tally(**t) for s, t in (builder.info.metadata or {}).get('tally', {}).items()}
  published = getattr(builder, 'PUBLISHED', {})
  lines = _table(builder, sidecars, tallies, seconds)
  lines += [line for split, sidecar in sidecars.items() for line in _long(split, sidecar)]
  for split, tally in tallies.items():
    lines += _remarks(split, tally)
    lines += _differences(split, tally, published.get(split, {}))
  if hasattr(builder, 'remarks'):
    lines += [f'  {line}' for line in builder.remarks(sidecars)]
  missing = [split for split in getattr(builder, 'NEEDS', {}) if split not in sidecars]
  if missing:
    lines.append(f'  not built: {", ".join(missing)}')
  return '\n'.join(lines)


def _table(
  builder: tfds.core.DatasetBuilder,
  sidecars: dict[str, Sidecar],
  tallies: dict[str, Tally],
  seconds: float,
) -> list[str]:
  """Formats one line per split and one of totals; bytes are those of the records.

  `left out` counts images; `texts out`, `files out`, ... the rest.
  """
  kinds = ['texts', *dict.fromkeys(k for t in tallies.values() for k in t.others if k not in TEXTS)]
  rows = []
  for split, sidecar in sidecars.items():
    texts = (len(sidecar.text), len(sidecar.questions), len(sidecar.statements))
    omitted = _omitted(tallies.get(split, Tally()), kinds)
    size = builder.info.splits[split].num_bytes
    rows.append([len(sidecar.image_id), *texts, *omitted, size])
  names = ['images', *TEXTS, 'left out', *(f'{kind} out' for kind in kinds), 'bytes']
  # What belongs to no split counts in the totals alone.
  rest = [0] * (1 + len(TEXTS)) + _omitted(tallies.get(ALL, Tally()), kinds) + [0]
  totals = [sum(column) for column in zip(*rows, rest, strict=True)]
  kept = [i for i, (name, n) in enumerate(zip(names, totals, strict=True)) if n or name == 'images']
  widths = [16 if names[i] == 'bytes' else 12 for i in kept]
  lines = [
    f'  {"split":<12}' + ''.join(f'{names[i]:>{w}}' for i, w in zip(kept, widths, strict=True))
  ]
  for split, row in [*zip(sidecars, rows, strict=True), ('all', totals)]:
    lines.append(
      f'  {split:<12}' + ''.join(f'{row[i]:>{w},}' for i, w in zip(kept, widths, strict=True))
    )
  if seconds:
    lines[0] += f'{"seconds":>10}'
    lines[-1] += f'{seconds:>10.1f}'
  return lines


def _long(split: str, sidecar: Sidecar) -> list[str]:
  """Says, for texts that the default model cuts, how long they are at least."""
  each = [words(t.text) for t in (sidecar, sidecar.questions, sidecar.statements)]
  counts = np.concatenate(each)
  if not (counts > WORDS).any():
    return []
  return [
    f'  {split}: {(counts > WORDS).sum():,} of {len(counts):,} texts have more than {WORDS} words '
    f'and punctuation marks, up to {counts.max():,}: text.length={WORDS + SPECIAL_EACH} cuts these '
    'and perhaps others, since a word may be several tokens; a training run counts them'
  ]


def _omitted(tally: Tally, kinds: list[str]) -> list[int]:
  """Counts the images that are not used, then the others of these kinds."""
  images = len(tally.bad) + len(tally.missing) + sum(map(len, tally.left_out.values()))
  others = dict.fromkeys(kinds, 0)
  for kind, reasons in tally.others.items():
    others['texts' if kind in TEXTS else kind] += sum(map(len, reasons.values()))
  return [images, *others.values()]


def _remarks(split: str, tally: Tally) -> list[str]:
  """Lists what is left out of a split by kind and reason, and notes."""
  lines = []
  for kind, reasons in tally.all_left_out().items():
    all_of = f'of {tally.read[kind]:,} {kind}' if kind in tally.read else kind
    lines += [
      f'{len(names):,} {all_of} left out: {reason}: {_some(names)}'
      for reason, names in reasons.items()
    ]
  total = f'of {tally.read.get("images", 0):,} images'
  if tally.missing:
    lines.append(f'{len(tally.missing):,} {total} left out, missing: {_some(tally.missing)}')
  if tally.bad:
    bad = [f'{name} ({why})' for name, why in tally.bad.items()]
    lines.append(f'{len(bad):,} {total} left out, unreadable: {_some(bad)}')
  if tally.mislabelled:
    lines.append(f'{tally.mislabelled:,} {total} kept, whose extension is of another format')
  lines += [f'{len(names):,} {remark}: {_some(names)}' for remark, names in tally.kept.items()]
  subsets = {n: k for n, k in tally.read.items() if n != 'images' and n not in TEXTS}
  lines += [f'{count:,} in {name}' for name, count in subsets.items()]
  return [f'  {split}: {line}' for line in lines + tally.notes]


def _some(names: list[str]) -> str:
  more = ', ... (all in metadata.json)' if len(names) > SHOWN else ''
  # Names of files may hold what cannot be printed, or would be more than a line.
  shown = [''.join(c if c.isprintable() else ascii(c)[1:-1] for c in n) for n in names[:SHOWN]]
  return ', '.join(shown) + more


def _differences(split: str, tally: Tally, published: dict[str, int]) -> list[str]:
  """Lists counts of the raw files that differ from the published ones."""
  return [
    f'  warning: {split} has {tally.read.get(name, 0):,} {name} in its files, {n:,} were published'
    for name, n in published.items()
    if tally.read.get(name, 0) != n
  ]
