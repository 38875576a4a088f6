"""NLVR, true and false sentences about one image, fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/nlvr.py    # after configs/pretrain.py
    python -m pixelbert_jax.main --config=configs/nlvr.py:r50 --config.init_from=C

Variants and scores to expect (from benchmarks/results/runs/):

    (none)           scenes: accuracy 0.991 (nlvr.jsonl); 1 to 3 minutes on 2 CPU cores
    nlvr             the NLVR corpus, small model from scratch on the part that was at hand:
                     0.529 to 0.544 of dev with three seeds, where the commoner label has
                     0.553 (../nlvr.jsonl)
    corpus           the whole NLVR corpus, small model: trained on train, scored on the public
                     test, for which 66 to 70% are published of models that see the images;
                     not run, as train was not at hand
    r50, x101, x152  the NLVR corpus, with the paper's recipe for NLVR2: not published
    test             scenes, for seconds from scratch: what tests run

Hours by `python -m pixelbert_jax.plan` (benchmarks/results/plan.jsonl; none was timed):
what FLOPs and bytes take at least, and 40% MFU. docs/slices.md says more, and has other slices.

    variant   slice      fields             least       40% MFU
    r50       a100:1     -                  0.2, 0.4    0.4
    r50       v5e:2x4    -                  0.0, 0.1    0.1
    x101      a100:1     micro_batches=2    0.6, 1.0    1.1
    x101      v5e:2x4    -                  0.1, 0.2    0.3
    x152      a100:1     micro_batches=2    0.8, 1.4    1.6
    x152      v5e:2x4    -                  0.2, 0.2    0.4

Captions of scenes are all true: half of them are shown with another image, as in pre-training.
"""

from ml_collections import ConfigDict

from configs import base, nlvr2, pretrain
from pixelbert_jax.rules import SHARE, Field, one_of


def fields(c: ConfigDict) -> None:
  """Defines the fields of this task."""
  # Of training images of three boxes, those with boxes mirrored and colours exchanged.
  c.augment = Field(0.0, SHARE)
  c.blank = Field('none', one_of('none', 'image', 'text'))  # what a baseline is not shown


def paper(c: ConfigDict) -> None:
  """Sets the paper's recipe for NLVR2."""
  fields(c)
  nlvr2.paper(c)
  c.data.name, c.data.validation, c.data.test = 'nlvr', 'dev', 'test'
  # Twice as large as the files, all of which are 100x400.
  c.image.shorter, c.image.longer, c.image.canvases = 200, 800, ((200, 800),)


def small(c: ConfigDict) -> None:
  """Sets a small model that learns to judge captions of scenes."""
  fields(c)
  nlvr2.small(c)
  c.texts_per_image, c.batch_size, c.epochs = 8, 128, 1.0
  c.text.length = 12
  c.optimizer.decay_epochs = (0.75,)


def tiny(c: ConfigDict) -> None:
  """Sets what tests run."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.epochs = 0.005


def own(c: ConfigDict) -> None:
  """Sets NLVR's own files: the public `test` less one directory to train on, and `dev`."""
  c.init_from = 'scratch'
  c.data.name, c.data.train, c.data.validation, c.data.test = 'nlvr', 'test[!6]', 'test[6]', 'dev'
  c.text.vocabulary = pretrain.BOXES
  c.image.shorter, c.image.longer, c.image.canvases = 64, 256, ((64, 256),)
  c.image.flip = 0.5
  c.text.length = 24
  c.texts_per_image, c.batch_size, c.epochs = 1, 32, 4.0
  c.eval_every = c.save_every = 160
  c.optimizer.decay_epochs = (3.0,)


def corpus(c: ConfigDict) -> None:
  """Sets the whole corpus: `train`, the step chosen on `dev`, scores on the public test."""
  own(c)
  c.data.train, c.data.validation, c.data.test = 'train', 'dev', 'test'
  c.augment = 1.0
  c.epochs, c.eval_every, c.save_every = 6.0, 1000, 1000
  c.optimizer.decay_epochs = (4.5,)


VARIANTS = {
  '': (small,),
  'test': (small, tiny),
  'nlvr': (small, own),
  'corpus': (small, corpus),
  'r50': (paper,),
  'x101': (base.x101, paper),
  'x152': (base.x152, paper),
}


def get_config(variant: str = '') -> ConfigDict:
  """Makes the configuration of a variant; ValueError if it is unknown."""
  return pretrain.fine_tune('nlvr', variant, VARIANTS)
