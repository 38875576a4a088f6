"""How fast a target could run programs: bounds on a step's time, and what they mean for a run."""

from collections.abc import Sequence
from typing import NamedTuple

from pixelbert_jax.plan import corpus
from pixelbert_jax.plan.cost import Cost, merged
from pixelbert_jax.plan.measure import Program
from pixelbert_jax.plan.program import Setting
from pixelbert_jax.plan.target import Chip


class Epoch(NamedTuple):
  """An epoch and the whole schedule of a configuration, in steps; 0 if it is not known."""

  steps: int
  schedule: int


def whole(programs: Sequence[Program]) -> Cost:
  """Adds the cost of the programs of a step."""
  return merged([(program.cost, program.times) for program in programs])


def seconds(cost: Cost, chip: Chip, mfu: float) -> dict[str, float]:
  """Computes the seconds of a step: at least by FLOPs and by bytes, and estimates.

  Returns:
    `flops` and `bytes`, lower bounds; `cycles`, by the compiler's estimate, if it has one; `mfu`,
    what it takes if the FLOPs that are not computed twice run at that share of the peak.
  """
  total = cost.total
  times = {'flops': total.flops / chip.flops, 'bytes': total.bytes / chip.bandwidth}
  if chip.clock:
    times['cycles'] = total.cycles / chip.clock
  times['mfu'] = (total.flops - total.recomputed) / (mfu * chip.flops)
  return times


def epoch(of: Setting, texts: int = 0) -> Epoch:
  """Computes the length of an epoch; it is not known of data that are not published.

  Args:
    of: configuration and target.
    texts: number of texts of an epoch, where the published count is not to be taken.
  """
  config = of.config
  sources = corpus.find(config.name, config.data.name, config.data.train)
  if texts:
    groups = texts if config.name == 'retrieval' else texts // config.texts_per_image
  elif sources is None:
    return Epoch(0, config.steps)
  elif config.name == 'retrieval':  # Each caption comes once, beside others drawn at random.
    groups = sum(source.texts for source in sources)
  else:
    groups = corpus.groups(sources, config.texts_per_image, config.data.get('shares', ()))
  steps = groups // (config.batch_size // config.texts_per_image)
  return Epoch(steps, config.steps or max(round(config.epochs * steps), 1))
