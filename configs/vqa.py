"""Visual question answering (paper section 4.2), fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/pretrain.py        # which the next starts from
    python -m pixelbert_jax.main --config=configs/vqa.py             # small, on scenes
    python -m pixelbert_jax.main --config=configs/vqa.py:r50 --config.init_from=C

Variants: none (minutes on 2 CPU cores), `test` (seconds, from scratch), and the paper's
recipe on VQA v2 with its models, `r50`, `x101` and `x152`; `r50_trainval` trains on train and
val but for the questions about COCO's Karpathy val images, which choose the step. They differ in
numbers and names only.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ('', 'test', 'r50', 'r50_trainval', 'x101', 'x152')


def get_config(variant: str = '') -> ConfigDict:
  """The configuration of a variant; ValueError if there is none of that name."""
  if variant not in VARIANTS:
    raise ValueError(f'vqa.py has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}')
  config = small() if variant in ('', 'test') else paper(variant)
  {
    '': lambda c: None,
    'test': tiny,
    'r50': lambda c: None,
    'r50_trainval': trainval,
    'x101': base.x101,
    'x152': base.x152,
  }[variant](config)
  config.name, config.variant = 'vqa', variant
  return config


def paper(variant: str) -> ConfigDict:
  """The paper's recipe."""
  c = base.paper()
  c.init_from = f'runs/pretrain-{variant}-s0'
  c.batch_size, c.epochs = 256, 18.0
  c.eval_batches = 0
  c.data.name = 'vqa_v2'
  c.data.answers = ''  # a JSON list; '' is that of the checkpoint, else those often given
  c.optimizer.warmup_epochs = 0.1  # open
  c.optimizer.decay_epochs = (12.0, 16.0)
  return c


def trainval(c: ConfigDict) -> None:
  """As entries to the challenge are trained: on all that has answers but a small part of val."""
  c.init_from = 'runs/pretrain-r50-s0'
  c.data.train, c.data.validation = 'train+val[!karpathy_val]', 'val[karpathy_val]'


def small() -> ConfigDict:
  """A small one that learns to answer questions about scenes."""
  c = base.small()
  c.init_from = 'runs/pretrain-s0'
  c.texts_per_image, c.batch_size, c.epochs = 6, 96, 2.0
  c.data.answers = ''
  c.text.length = 16
  c.optimizer.cnn_rate, c.optimizer.transformer_rate = 2e-3, 4e-4
  c.optimizer.warmup_epochs = 0.1
  c.optimizer.decay_epochs = (1.5,)
  return c


def tiny(c: ConfigDict) -> None:
  """What tests run: seconds, with everything on."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.epochs = 0.006
