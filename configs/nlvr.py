"""NLVR, true and false sentences about one image, fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/pretrain.py        # which the next starts from
    python -m pixelbert_jax.main --config=configs/nlvr.py            # small, on scenes
    python -m pixelbert_jax.main --config=configs/nlvr.py:r50 --config.init_from=C

On scenes, whose captions are all true, half of them are shown with another image, as in
pre-training. Variants: none (minutes on 2 CPU cores), `test` (seconds, from scratch), `nlvr` (the
corpus with a small model, from scratch), and the paper's models on the corpus, `r50`, `x101` and
`x152`, with the recipe for NLVR2: the paper has none for NLVR. They differ in numbers and names
only.
"""

from ml_collections import ConfigDict

from configs import base, nlvr2, pretrain

VARIANTS = ('', 'test', 'nlvr', 'r50', 'x101', 'x152')


def get_config(variant: str = '') -> ConfigDict:
  """The configuration of a variant; ValueError if there is none of that name."""
  if variant not in VARIANTS:
    raise ValueError(f'nlvr.py has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}')
  config = small() if variant in ('', 'test', 'nlvr') else paper(variant)
  {
    '': lambda c: None,
    'test': tiny,
    'nlvr': corpus,
    'r50': lambda c: None,
    'x101': base.x101,
    'x152': base.x152,
  }[variant](config)
  config.name, config.variant = 'nlvr', variant
  return config


def paper(variant: str) -> ConfigDict:
  """The paper's recipe for NLVR2."""
  c = nlvr2.paper(variant)
  c.data.name, c.data.validation, c.data.test = 'nlvr', 'dev', 'test'
  c.image.shorter, c.image.longer, c.image.canvases = 200, 800, ((256, 832),)
  return c


def small() -> ConfigDict:
  """A small one that learns to judge captions of scenes."""
  c = nlvr2.small()
  c.texts_per_image, c.batch_size, c.epochs = 8, 128, 1.0
  c.eval_every = c.save_every = 250
  c.text.length = 12
  c.optimizer.decay_epochs = (0.75,)
  return c


def tiny(c: ConfigDict) -> None:
  """What tests run: seconds, with everything on."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.epochs = 0.005


def corpus(c: ConfigDict) -> None:
  """NLVR's own images and sentences, trained on the `test` split, whole directories held out."""
  pretrain.nlvr(c)
  c.data.train, c.data.validation = 'test[!6]', 'test[6]'
  c.init_from = 'scratch'
