"""The Python API that runs a trained model on your own images; `__main__.py` is the command.

    model = predict.load(checkpoint)
    model.answer('photo.jpg', 'what colour is it')

docs/predict.md shows both.
"""

from pixelbert_jax.checkpoints import CheckpointError as CheckpointError
from pixelbert_jax.input.image import ImageError as ImageError
from pixelbert_jax.input.text import TextError as TextError
from pixelbert_jax.predict.heatmap import Heatmap as Heatmap
from pixelbert_jax.predict.model import HeadError as HeadError
from pixelbert_jax.predict.model import Model as Model
from pixelbert_jax.predict.model import load as load
from pixelbert_jax.predict.runner import Encoded as Encoded
