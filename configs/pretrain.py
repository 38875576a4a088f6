"""Pre-training: masked language modelling and image-text matching (paper sections 3.3 and 4.1).

    python -m pixelbert_jax.main --config=configs/pretrain.py             # small, on scenes
    python -m pixelbert_jax.main --config=configs/pretrain.py:r50 --config.init_from=scratch

Variants: none (7 to 12 minutes on 2 CPU cores), `test` (seconds), `nlvr` (the NLVR corpus), and
the paper's `r50`, `x152`, with `x101` in between; `r50_1gpu` is `r50` where only 32 pairs fit at
once. They differ in numbers and names only.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ('', 'test', 'nlvr', 'r50', 'r50_1gpu', 'x101', 'x152')


def get_config(variant: str = '') -> ConfigDict:
  """The configuration of a variant; ValueError if there is none of that name."""
  if variant not in VARIANTS:
    raise ValueError(f'pretrain.py has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}')
  config = small() if variant in ('', 'test', 'nlvr') else paper()
  {
    '': lambda c: None,
    'test': tiny,
    'nlvr': nlvr,
    'r50': lambda c: None,
    'r50_1gpu': lambda c: c.update(micro_batches=128),  # of 32 pairs
    'x101': base.x101,
    'x152': base.x152,
  }[variant](config)
  config.name, config.variant = 'pretrain', variant
  return config


def paper() -> ConfigDict:
  """The paper's recipe."""
  c = base.paper()
  c.sampled_pixels = 100  # section 3.3
  c.mask_share = 0.15
  c.whole_share = 0.0  # open: pairs whose text is left whole, so that ITM sees whole texts too
  c.batch_size, c.epochs = 4096, 40.0
  c.data.name = 'coco_karpathy+visual_genome'
  c.data.shares = ()  # of the sources of 'a+b' in an epoch; () is every pair of all of them once
  c.optimizer.cnn_warmup_steps, c.optimizer.transformer_warmup_steps = 1000, 1000  # open
  c.optimizer.decay_epochs = (25.0, 35.0)
  return c


def small() -> ConfigDict:
  """A small one that learns on scenes, from scratch."""
  c = base.small()
  c.init_from = 'scratch'
  c.mask_share, c.whole_share = 0.4, 0.0
  c.texts_per_image, c.batch_size, c.epochs = 8, 128, 3.5
  c.data.shares = ()
  c.text.length = 12
  c.optimizer.cnn_rate, c.optimizer.cnn_warmup_steps = 4e-3, 50
  # A Transformer that learns faster turns from pixels that do not show shapes yet.
  c.optimizer.transformer_rate, c.optimizer.transformer_warmup_steps = 8e-4, 900
  c.optimizer.decay_epochs = (3.0,)
  return c


def tiny(c: ConfigDict) -> None:
  """What tests run: seconds, with everything on."""
  base.tiny(c)
  c.epochs = 0.005
  c.sampled_pixels = 8
  c.mask_share, c.whole_share = 0.25, 0.5
  c.optimizer.transformer_warmup_steps = 50


def nlvr(c: ConfigDict) -> None:
  """The NLVR corpus (Suhr et al. 2017): rendered images, sentences by people, their own labels."""
  c.data.name, c.data.train, c.data.validation, c.data.test = 'nlvr', 'test', 'dev', 'dev'
  c.image.shorter, c.image.longer, c.image.canvases = 64, 256, ((64, 256),)
  c.text.length = 24
  c.texts_per_image, c.batch_size = 1, 32
  c.sampled_pixels = 48  # of 64
  c.epochs, c.optimizer.decay_epochs = 5.0, (4.0,)
  c.optimizer.transformer_warmup_steps = 300
  # Canvases four times as large, one text each: nearly all the time is the CNN's.
  c.cnn.update(width=16, stem='space_to_depth')
