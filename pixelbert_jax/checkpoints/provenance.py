"""What a model was trained on, and so what its answers are worth."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pixelbert_jax.files import json_text
from pixelbert_jax.input.dataset import is_embedded

FILE = 'trained_on.json'  # of a run: the datasets it has seen, and those of the run it started from

SCENES = (
  'trained on rendered scenes of coloured shapes only: what it says of photographs means nothing'
)
UNTRAINED = 'put together from a BERT and a CNN and not trained yet: what it says means nothing'


def datasets(files: Mapping[str, bytes], config: Mapping[str, Any]) -> tuple[str, ...]:
  """Lists the datasets of a run and of all that it started from; none of a converted BERT and CNN.

  Args:
    files: the run's own, by name.
    config: of the run, as in `config.json`.
  """
  names = json.loads(files[FILE]) if FILE in files else config['data']['name'].split('+')
  return tuple(names)


def caveat(names: Sequence[str]) -> str:
  """Returns what to keep in mind of a model trained on these datasets; '' if nothing."""
  if not names:
    return UNTRAINED
  return SCENES if all(map(is_embedded, names)) else ''


def encode(names: Sequence[str]) -> bytes:
  """Encodes the content of FILE."""
  return (json_text(list(dict.fromkeys(names))) + '\n').encode()
