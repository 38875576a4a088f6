"""What a model was trained on, and so what its answers are worth."""

import json
from collections.abc import Sequence

from pixelbert_jax.checkpoints.checkpoint import Loaded
from pixelbert_jax.checkpoints.workdir import TRAINED_ON
from pixelbert_jax.experiment import is_embedded

SCENES = (
  'trained on rendered scenes of coloured shapes only: what it says of photographs means nothing'
)
UNTRAINED = 'put together from a BERT and a CNN and not trained yet: what it says means nothing'


def provenance(loaded: Loaded) -> tuple[tuple[str, ...], str]:
  """The datasets that a checkpoint was trained on, and what to keep in mind of it, or ''."""
  names = datasets(loaded)
  if not names:
    return names, UNTRAINED
  return names, SCENES if all(map(is_embedded, names)) else ''


def datasets(loaded: Loaded) -> tuple[str, ...]:
  """Those of its run and of all that this started from; none of a converted BERT and CNN."""
  recorded = loaded.folder / TRAINED_ON
  if recorded.exists():
    return tuple(json.loads(recorded.read_text()))
  return tuple(loaded.config['data']['name'].split('+'))


def after_training(loaded: Loaded | None, data: str) -> Sequence[str]:
  """The datasets of a model when a run on `data`, which starts from `loaded`, has trained it."""
  return list(dict.fromkeys([*(datasets(loaded) if loaded else ()), *data.split('+')]))
