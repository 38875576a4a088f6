"""The Python API that runs a trained model on your own images; `__main__.py` is the command.

    model = predict.load(checkpoint)
    model.answer('photo.jpg', 'what colour is it')

docs/predict.md shows both.
"""

from pixelbert_jax.checkpoints import CheckpointError
from pixelbert_jax.input.image import ImageError
from pixelbert_jax.input.text import TextError
from pixelbert_jax.predict.heatmap import Heatmap
from pixelbert_jax.predict.model import HeadError, Model, load
from pixelbert_jax.predict.runner import Encoded

__all__ = [
  'CheckpointError',
  'Encoded',
  'HeadError',
  'Heatmap',
  'ImageError',
  'Model',
  'TextError',
  'load',
]
