"""Pre-training: masked language modelling and image-text matching (paper sections 3.3 and 4.1).

    python -m pixelbert_jax.main --config=configs/pretrain.py
    python -m pixelbert_jax.main --config=configs/pretrain.py:r50 --config.init_from=C

C is an output of `python -m pixelbert_jax.convert`, or `scratch`. Variants and scores to expect
(from benchmarks/results/runs/):

    (none)           scenes: matching 0.952, visual words 0.873 (pretrain.jsonl);
                     7 to 12 minutes on 2 CPU cores
    nlvr             the NLVR corpus: matching 0.566, words 0.627 (pretrain_nlvr.jsonl)
    r50, x101, x152  COCO and Visual Genome: the paper has scores of fine-tuned models only
    r50_1gpu         r50, taking 32 of the 4,096 pairs of a batch at a time
    test             scenes, for seconds: what tests run
"""

from ml_collections import ConfigDict

from configs import base
from pixelbert_jax.rules import SHARE, SHARES, Field, start_of


def fields(c: ConfigDict) -> None:
  """Defines the fields of this task."""
  c.mask_share = Field(0.15, ('above 0 and below 1', lambda x: 0 < x < 1))
  c.whole_share = Field(0.0, SHARE)  # open: of pairs with no token masked: ITM on whole texts
  # Of the sources of 'a+b' in an epoch; () is every pair of all of them once.
  c.data.shares = Field((), SHARES)


def paper(c: ConfigDict) -> None:
  """Sets the paper's recipe."""
  fields(c)
  c.sampled_pixels = 100  # section 3.3
  c.batch_size, c.epochs = 4096, 40.0
  c.data.name = 'coco_karpathy+visual_genome'
  c.optimizer.cnn_warmup_steps, c.optimizer.transformer_warmup_steps = 1000, 1000  # open
  c.optimizer.decay_epochs = (25.0, 35.0)


def one_gpu(c: ConfigDict) -> None:
  """Takes 32 pairs at a time."""
  c.micro_batches = 128


def small(c: ConfigDict) -> None:
  """Sets a small model that learns on scenes, from scratch."""
  fields(c)
  base.small(c)
  c.init_from = 'scratch'
  c.mask_share = 0.4
  c.texts_per_image, c.batch_size, c.epochs = 8, 128, 3.5
  c.text.length = 12
  c.optimizer.cnn_rate, c.optimizer.cnn_warmup_steps = 4e-3, 50
  # A Transformer that learns faster turns from pixels before they show shapes.
  c.optimizer.transformer_rate, c.optimizer.transformer_warmup_steps = 8e-4, 900
  c.optimizer.decay_epochs = (3.0,)


def tiny(c: ConfigDict) -> None:
  """Sets what tests run."""
  base.tiny(c)
  c.epochs = 0.005
  c.sampled_pixels = 8
  c.mask_share, c.whole_share = 0.25, 0.5
  c.optimizer.transformer_warmup_steps = 50


def nlvr(c: ConfigDict) -> None:
  """Sets the NLVR corpus (Suhr et al. 2017): rendered images, sentences by people, labels."""
  c.data.name, c.data.train, c.data.validation, c.data.test = 'nlvr', 'test', 'dev', 'dev'
  c.image.shorter, c.image.longer, c.image.canvases = 64, 256, ((64, 256),)
  c.text.length = 24
  c.texts_per_image, c.batch_size = 1, 32
  c.sampled_pixels = 48  # of 64
  c.epochs, c.optimizer.decay_epochs = 5.0, (4.0,)
  c.optimizer.transformer_warmup_steps = 300
  # Canvases four times as large with one text each: the CNN takes nearly all the time.
  c.cnn.update(width=16, stem='space_to_depth')


VARIANTS = {
  '': (small,),
  'test': (small, tiny),
  'nlvr': (small, nlvr),
  'r50': (paper,),
  'r50_1gpu': (paper, one_gpu),
  'x101': (paper, base.x101),
  'x152': (paper, base.x152),
}


def get_config(variant: str = '') -> ConfigDict:
  """Makes the configuration of a variant; ValueError if it is unknown."""
  config = base.configure('pretrain', variant, VARIANTS)
  convert = f'convert --bert=DIR --cnn=FILE --config=configs/pretrain.py:{variant} --output=C'
  config.init_from = Field(config.init_from, start_of(convert))
  return config
