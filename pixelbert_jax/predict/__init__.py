"""The Python API that runs a trained model on your own images; `__main__.py` is the command.

    model = predict.load(checkpoint)
    model.answer('photo.jpg', 'what colour is it')

docs/predict.md shows both.
"""

import importlib
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from pixelbert_jax.checkpoints import CheckpointError as CheckpointError
  from pixelbert_jax.input.image import ImageError as ImageError
  from pixelbert_jax.input.text import TextError as TextError
  from pixelbert_jax.predict.heatmap import Heatmap as Heatmap
  from pixelbert_jax.predict.model import HeadError as HeadError
  from pixelbert_jax.predict.model import Model as Model
  from pixelbert_jax.predict.model import load as load
  from pixelbert_jax.predict.runner import Encoded as Encoded

# By method of a model: the flag of the command.
FLAGS = {'answer': '--question', 'match': '--text', 'fill': '--fill'}
# By method: the parameter that a checkpoint needs for it.
HEADS = {'answer': 'vqa', 'match': 'itm', 'fill': 'mlm_bias'}
# By method: something to ask about docs/scene.jpg.
EXAMPLES = {
  'answer': 'what colour is the cross',
  'fill': 'a [MASK] circle left of a green cross',
  'match': 'a yellow circle left of a green cross',
}


def example(method: str, checkpoint: str, image: str) -> str:
  """Returns a command that asks the model of a checkpoint about an image."""
  asked = f'{FLAGS[method]}="{EXAMPLES[method]}"'
  checkpoint, image = map(shlex.quote, (checkpoint, image))
  return f'python -m pixelbert_jax.predict --checkpoint={checkpoint} --image={image} {asked}'


# Imported when first used: JAX takes a second, and the command's `--help` needs none.
HOMES = {
  'CheckpointError': 'pixelbert_jax.checkpoints',
  'ImageError': 'pixelbert_jax.input.image',
  'TextError': 'pixelbert_jax.input.text',
  'Heatmap': 'pixelbert_jax.predict.heatmap',
  'HeadError': 'pixelbert_jax.predict.model',
  'Model': 'pixelbert_jax.predict.model',
  'load': 'pixelbert_jax.predict.model',
  'Encoded': 'pixelbert_jax.predict.runner',
}


def __getattr__(name: str) -> Any:
  """Imports a name of the API from its module."""
  if name not in HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
  """Lists the names of the API."""
  return sorted([*globals(), *HOMES])
