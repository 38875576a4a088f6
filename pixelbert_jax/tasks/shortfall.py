"""The shortfall of a split: what a dataset was built without, which no score can count."""

from collections.abc import Mapping

from pixelbert_jax.input.dataset import Split
from pixelbert_jax.metrics import Metrics

BUILT, EXPECTED = '_built', '_expected'  # ends of the names of its metrics


def shortfall(split: Split) -> Metrics:
  """Counts, of each kind of which a split has fewer than expected, what it has and should have.

  `statements_built` and `statements_expected`, for example; nothing of a split that is whole.
  """
  sidecar, found = split.sidecar, Metrics()
  built = {
    'images': len(sidecar.image_id),
    'captions': len(sidecar.text),
    'questions': len(sidecar.questions),
    'statements': len(sidecar.statements),
  }
  for kind, number in built.items():
    if number < split.expected.get(kind, 0):
      found |= {kind + BUILT: number, kind + EXPECTED: split.expected[kind]}
  return found


def remark(split: str, metrics: Metrics) -> str:
  """Says what a split lacks, given metrics with its shortfall; '' if they have none.

  'test1 has 6,700 of 6,967 statements: the dataset was built without the others'.
  """
  lacking = [
    f'{metrics[name]:,.0f} of {metrics[kind + EXPECTED]:,.0f} {kind}'
    for name in metrics
    if (kind := name.removesuffix(BUILT)) + EXPECTED in metrics
  ]
  if not lacking:
    return ''
  return f'{split} has {" and ".join(lacking)}: the dataset was built without the others'


def scores(metrics: Mapping[str, float]) -> Metrics:
  """Returns the metrics without the shortfall among them."""
  return {name: x for name, x in metrics.items() if not name.endswith((BUILT, EXPECTED))}
