"""Bootstrap confidence interval of the difference of two systems scored on the same items."""

import dataclasses

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
_BLOCK = 1 << 22  # random numbers drawn at a time


@dataclasses.dataclass(frozen=True)
class Difference:
  """The mean of the first system minus that of the second, with its interval."""

  difference: float
  interval: tuple[float, float]
  clusters: int


def paired_difference(
  first: np.ndarray, second: np.ndarray, cluster: np.ndarray, seed: int = 0
) -> Difference:
  """Computes a paired bootstrap: both systems are scored on the same resampled items.

  Whole clusters are drawn with replacement. Items that share an image or a sentence are not
  independent; drawing them one by one would make the interval too narrow.

  Args:
    first: float [N], scores of the first system.
    second: float [N], scores of the second system.
    cluster: [N], cluster of each item; integers or strings.
    seed: of the draws; the same seed gives the same interval.

  Returns:
    The difference with its 95% percentile interval.
  """
  change = np.asarray(first, np.float64) - np.asarray(second, np.float64)
  _, number, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
  sums = np.bincount(number, weights=change)
  # Clusters with equal sum and size are interchangeable. The number of draws of each kind is
  # multinomial, which needs far fewer random numbers than drawing every cluster.
  kinds, counts = np.unique(
    np.stack([np.round(sums, 9), sizes], axis=1), axis=0, return_counts=True
  )
  rng = np.random.default_rng(seed)
  means = []
  block = max(1, _BLOCK // len(kinds))
  for start in range(0, RESAMPLES, block):
    size = min(block, RESAMPLES - start)
    drawn = rng.multinomial(len(sizes), counts / len(sizes), size=size) @ kinds
    means.append(drawn[:, 0] / drawn[:, 1])
  tail = (1 - CONFIDENCE) / 2
  low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
  return Difference(float(change.mean()), (float(low), float(high)), len(sizes))
