"""NLVR2, statements about two photographs (paper section 4.3), fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/pretrain.py        # which the next starts from
    python -m pixelbert_jax.main --config=configs/nlvr2.py           # small, on scenes
    python -m pixelbert_jax.main --config=configs/nlvr2.py:r50 --config.init_from=C

Variants: none (minutes on 2 CPU cores), `test` (seconds, from scratch), and the paper's
recipe with its models, `r50`, `x101` and `x152`. They differ in numbers and names only.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ('', 'test', 'r50', 'x101', 'x152')


def get_config(variant: str = '') -> ConfigDict:
  """The configuration of a variant; ValueError if there is none of that name."""
  if variant not in VARIANTS:
    raise ValueError(f'nlvr2.py has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}')
  config = small() if variant in ('', 'test') else paper(variant)
  {
    '': lambda c: None,
    'test': tiny,
    'r50': lambda c: None,
    'x101': base.x101,
    'x152': base.x152,
  }[variant](config)
  if config.data.name == 'nlvr2':
    # A pair shares a canvas: of a wide and a high photograph only a square one holds both.
    longest = max(max(canvas) for canvas in config.image.canvases)
    config.image.canvases = (*config.image.canvases, (longest, longest))
  config.name, config.variant = 'nlvr2', variant
  return config


def paper(variant: str) -> ConfigDict:
  """The paper's recipe."""
  c = base.paper()
  c.init_from = f'runs/pretrain-{variant}-s0'
  c.batch_size, c.epochs = 128, 18.0  # pairs of images with a text
  c.eval_batches = 0
  c.data.name, c.data.validation, c.data.test = 'nlvr2', 'dev', 'test1'
  c.optimizer.warmup_epochs = 0.1  # open
  c.optimizer.decay_epochs = (12.0, 16.0)
  return c


def small() -> ConfigDict:
  """A small one that learns to compare two scenes."""
  c = base.small()
  c.init_from = 'runs/pretrain-s0'
  c.batch_size, c.epochs = 32, 2.0
  c.eval_every = c.save_every = 250
  c.text.length = 16
  c.optimizer.cnn_rate, c.optimizer.transformer_rate = 2e-3, 4e-4
  c.optimizer.warmup_epochs = 0.1
  c.optimizer.decay_epochs = (1.5,)
  return c


def tiny(c: ConfigDict) -> None:
  """What tests run: seconds, with everything on."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.texts_per_image, c.batch_size, c.epochs = 1, 8, 0.01
