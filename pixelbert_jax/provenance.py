"""What a model was trained on, and so what its answers are worth."""

import json

from pixelbert_jax.checkpoint import Loaded
from pixelbert_jax.experiment import is_embedded

SCENES = (
  'trained on rendered scenes of coloured shapes only: what it says of photographs means nothing'
)
UNTRAINED = 'put together from a BERT and a CNN and not trained yet: what it says means nothing'


def provenance(loaded: Loaded) -> tuple[tuple[str, ...], str]:
  """The datasets of the run that made a checkpoint, and what to keep in mind of it, or ''.

  What that run started from is not recorded, but for `convert`'s output, which has seen none.
  """
  conversion = loaded.folder / 'conversion.json'
  if conversion.exists() and json.loads(conversion.read_text())['at_random']:
    return (), UNTRAINED
  names = tuple(loaded.config['data']['name'].split('+'))
  return names, SCENES if all(map(is_embedded, names)) else ''
