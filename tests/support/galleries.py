"""A small gallery of images and captions, with a model that tells its pairs apart."""

import io

import jax
import numpy as np
from PIL import Image

from configs import retrieval
from pixelbert_jax.experiment import init_variables, make_model, resolve
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.image import file_size
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.models.heads import MatchingModel
from pixelbert_jax.tasks.gallery import RankingBatches

WORDS = 'a large red circle is left of two small blue squares and above one green cross'
SHAPES = [(64, 64), (48, 64), (64, 96), (100, 50), (70, 70), (30, 90), (64, 60)]


def mixed(first_stage: int = 0) -> tuple[RankingBatches, MatchingModel, dict]:
  """Makes batches of images of many sizes with captions of many lengths, and a model, at random."""
  rng = np.random.default_rng(0)
  images, rows = [], []
  for i, shape in enumerate(SHAPES):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(file, 'PNG')
    images.append({'image': file.getvalue()})
    texts = [' '.join(rng.choice(WORDS.split(), rng.integers(1, 10))) for _ in range(3)]
    captions = [Caption(text, 100 * i + j) for j, text in enumerate(texts)]
    rows.append(Row(f'{i}', *file_size(file.getvalue()), captions))
  config = retrieval.get_config('test')
  config.first_stage = first_stage
  config = resolve(config)
  batches = RankingBatches(
    split=Split(images, Sidecar.of(rows)),
    tokenizer=Tokenizer(config.text.vocabulary, 12),
    canvases=Canvases(64, 128, ((64, 64), (64, 128), (128, 64))),
    seed=0,
    images=2,
    texts_per_image=4,
    training=False,
  )
  model = make_model(config, len(batches.tokenizer.words))
  variables = jax.device_get(jax.jit(lambda: init_variables(model, 1, batches[0]))())
  # As made, it hardly tells one pair from another.
  moved = {'params': lambda x: x, 'batch_stats': np.abs}
  variables = {
    name: jax.tree.map(
      lambda x, move=move: x + move(rng.normal(0, 0.2, x.shape)).astype(x.dtype), variables[name]
    )
    for name, move in moved.items()
  }
  return batches, model, variables
