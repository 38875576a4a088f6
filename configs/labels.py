"""Labels: pre-training of the CNN alone on what images show, as the paper's on ImageNet.

    python -m pixelbert_jax.main --config=configs/labels.py
    python -m pixelbert_jax.main --config=configs/labels.py:paper_small

Pre-training then starts from its CNN, by default that of `configs/pretrain.py:paper_small`:

    python -m pixelbert_jax.main --config=configs/pretrain.py --config.init_from=runs/labels-s0

The labels are the claims of `scenes` (data/scenes/claims.py) that are true of 1% to 99% of the
training images. Variants and scores to expect (from benchmarks/results/runs/):

    (none)       scenes, the CNN of the default small model: balanced accuracy 0.852, of what things
                 there are 0.987 (labels.jsonl); 2 minutes on 2 CPU cores
    paper_small  scenes, a small CNN by the paper's rules: 0.737 and 0.847
                 (labels_paper_small.jsonl); 7 minutes
    test         scenes, for seconds: what tests run
"""

from ml_collections import ConfigDict

from configs import base
from pixelbert_jax.rules import Field


def fields(c: ConfigDict) -> None:
  """Defines what this task limits."""
  c.init_from = 'scratch'
  only = '1: the claims of an image are its only text', lambda x: x == 1
  c.texts_per_image = Field(1, only)


def small(c: ConfigDict) -> None:
  """Sets the CNN of the default small model."""
  fields(c)
  base.small(c)
  c.batch_size, c.epochs = 64, 5.0
  c.eval_every = 250
  c.optimizer.cnn_rate, c.optimizer.cnn_warmup_steps = 4e-3, 50
  c.optimizer.transformer_rate = 2e-3  # of the head
  c.optimizer.decay_epochs, c.optimizer.decay_factor = (3.0, 4.5), 0.3


def paper_small(c: ConfigDict) -> None:
  """Sets a small CNN of four stages, trained by the paper's rule."""
  fields(c)
  base.paper_small(c)
  c.batch_size, c.epochs = 32, 4.0
  c.log_every, c.eval_every = 25, 250
  c.optimizer.cnn_warmup_steps = 100
  c.optimizer.decay_epochs = (2.8, 3.6)


def tiny(c: ConfigDict) -> None:
  """Sets what tests run."""
  base.tiny(c)
  c.texts_per_image = 1
  c.epochs = 0.04


VARIANTS = {
  '': (small,),
  'test': (small, tiny),
  'paper_small': (paper_small,),
}


def get_config(variant: str = '') -> ConfigDict:
  """Makes the configuration of a variant; ValueError if it is unknown."""
  return base.configure('labels', variant, VARIANTS)
