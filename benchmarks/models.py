"""Formats the README's table of models: `python -m benchmarks.models`.

Parameters are counted from the shapes of pre-training's model; memory of a chip and hours of the
whole pre-training are rows of slices.py, the hours at 40% MFU.
"""

import functools
import math
import pathlib

import jax

from benchmarks import slices, study
from data.scenes import vocabulary
from pixelbert_jax import configuration
from pixelbert_jax.convert.importer import initial
from pixelbert_jax.experiment import make_model
from pixelbert_jax.plan.corpus import WORDS

ROOT = pathlib.Path(__file__).parents[1]
MODELS = {'': 'small, on scenes', 'r50': 'ResNet-50', 'x101': 'ResNeXt-101', 'x152': 'ResNeXt-152'}
CHIPS = {'a100:1': 'one A100 of 80 GB', 'v5e:2x4': 'eight v5e'}


def parameters(variant: str) -> float:
  """Counts the parameters of a variant of pre-training, in millions."""
  config = configuration.load(str(ROOT / f'configs/pretrain.py:{variant}'), ())
  model = make_model(config, WORDS if variant else len(vocabulary.tokens()))
  variables = jax.eval_shape(functools.partial(initial, model, config.seed))
  return sum(math.prod(x.shape) for x in jax.tree.leaves(variables['params'])) / 1e6


def page() -> str:
  """Formats the table."""
  rows = {(row.config, row.topology): row for row in slices.rows()}
  heads = ['`pretrain.py`', 'CNN', 'parameters', 'image', *(f'on {x}' for x in CHIPS.values())]
  table = study.head(heads)
  for variant, cnn in MODELS.items():
    image = configuration.load(str(ROOT / f'configs/pretrain.py:{variant}'), ()).image
    found = [rows.get((f'pretrain:{variant}', chip)) for chip in CHIPS]
    costs = [f'{x.memory / 1e9:.0f} GB, {x.hours["mfu"]:.0f} h' if x else '' for x in found]
    size = f'{image.shorter} / {image.longer}'
    name = f'`:{variant}`' if variant else ''
    table.append(study.row([name, cnn, f'{parameters(variant):.1f} M', size, *costs]))
  return '\n'.join(table)


if __name__ == '__main__':
  print(page())
