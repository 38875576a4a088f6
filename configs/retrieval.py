"""Image and text retrieval (paper section 4.4), fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/pretrain.py        # which the next two start from
    python -m pixelbert_jax.main --config=configs/retrieval.py       # small, on scenes
    python -m pixelbert_jax.main --config=configs/retrieval.py --mode=evaluate \\
      --checkpoint=runs/pretrain-s0                                  # zero-shot: not fine-tuned
    python -m pixelbert_jax.main --config=configs/retrieval.py:r50_f30k --config.init_from=C

What pre-training is worth: from scratch, the CNN too has to learn; and with the pairs of
pre-training's 1,750 steps added.

    S='--config.init_from=scratch --config.optimizer.cnn_rule=muon'
    python -m pixelbert_jax.main --config=configs/retrieval.py $S --workdir=runs/retrieval-scratch
    python -m pixelbert_jax.main --config=configs/retrieval.py $S --workdir=runs/retrieval-long \
      --config.steps=1267 --config.optimizer.decay_epochs=0.279

Variants: none (minutes on 2 CPU cores), `test` (seconds, from scratch), and the paper's recipe with
its models, `r50`, `x101` and `x152`, on COCO; `r50_coco` is the same as `r50`, `r50_f30k` is on
Flickr30K. They differ in numbers and names only.
"""

from ml_collections import ConfigDict

from configs import base

VARIANTS = ('', 'test', 'r50', 'r50_coco', 'r50_f30k', 'x101', 'x101_f30k', 'x152', 'x152_f30k')


def get_config(variant: str = '') -> ConfigDict:
  """The configuration of a variant; ValueError if there is none of that name."""
  if variant not in VARIANTS:
    known = ', '.join(filter(None, VARIANTS))
    raise ValueError(f'retrieval.py has no variant {variant!r}: {known}')
  model, _, corpus = variant.partition('_')
  config = small() if model in ('', 'test') else paper(model, corpus)
  {
    '': lambda c: None,
    'test': tiny,
    'r50': lambda c: None,
    'x101': base.x101,
    'x152': base.x152,
  }[model](config)
  config.name, config.variant = 'retrieval', variant
  return config


def paper(model: str, corpus: str) -> ConfigDict:
  """The paper's recipe."""
  c = base.paper()
  c.init_from = f'runs/pretrain-{model}-s0'
  c.texts_per_image, c.hardest = 21, 5  # its own, and others; of those the hardest
  c.batch_size = 512 * c.texts_per_image  # 512 true pairs
  c.eval_images, c.eval_captions = 0, 5  # of a split, and of each image; 0 is all there are
  c.eval_batches = 2  # of 512 images, that an evaluation in training takes of them
  c.optimizer.cnn_rule = 'none'  # section 4.4
  c.optimizer.warmup_epochs = 0.1  # open
  if corpus == 'f30k':
    c.data.name, c.epochs, c.optimizer.decay_epochs = 'flickr30k', 10.0, (6.0,)
    c.eval_every = 250
  else:
    c.data.name, c.epochs, c.optimizer.decay_epochs = 'coco_karpathy', 4.0, (2.0,)
    c.eval_every = 1000
  return c


def small() -> ConfigDict:
  """A small one that learns to find scenes by their captions, and captions by their scenes."""
  c = base.small()
  c.init_from = 'runs/pretrain-s0'
  c.texts_per_image, c.hardest, c.batch_size = 21, 5, 16 * 21
  c.epochs, c.steps = 1.0, 600
  c.eval_images, c.eval_captions, c.eval_batches = 200, 5, 4
  c.eval_every = c.save_every = 300
  c.text.length = 12
  c.optimizer.cnn_rule, c.optimizer.cnn_rate = 'none', 4e-3  # the rate for 'muon', from scratch
  c.optimizer.transformer_rate = 4e-4
  c.optimizer.warmup_epochs = 0.01
  c.optimizer.decay_epochs = (0.1125,)
  return c


def tiny(c: ConfigDict) -> None:
  """What tests run: seconds, with everything on."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.optimizer.cnn_rule = 'none'
  c.texts_per_image, c.batch_size, c.hardest = 4, 16, 2
  c.steps, c.eval_images = 12, 10
