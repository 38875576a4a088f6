"""Image and text retrieval (paper section 4.4), fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/retrieval.py    # after configs/pretrain.py
    python -m pixelbert_jax.main --config=configs/retrieval.py --mode=evaluate \\
      --checkpoint=runs/pretrain-s0                               # zero-shot: not fine-tuned
    python -m pixelbert_jax.main --config=configs/retrieval.py:r50_f30k --config.init_from=C

Variants and scores to expect (R@1, 5, 10 of texts; of images; files in benchmarks/results/runs/):

    (none)           scenes: 0.165 0.720 0.935; 0.223 0.650 0.798 (retrieval.jsonl);
                     3 to 9 minutes on 2 CPU cores; zero-shot: 0.015 0.120 0.175; 0.232 0.653 0.805
                     (retrieval_untuned.json)
    scratch          scenes, without pre-training, but as many pairs more:
                     0.120 0.420 0.625; 0.067 0.272 0.424 (retrieval_scratch.jsonl);
                     7 to 10 minutes on 2 CPU cores
    paper_small      scenes, a small model by the paper's rules, after 2,200 steps of
                     pretrain.py:paper_small: R@1 of texts 0.075 to 0.100, of images 0.096 to 0.131
                     (../ablation.jsonl); 2 minutes of training on one CPU core
    r50, r50_coco    COCO, 5,000 images: the paper has 53.4 80.4 88.5; 41.1 69.7 80.5
    x152             COCO, 5,000 images: the paper has 63.6 87.5 93.6; 50.1 77.6 86.2
    r50_f30k         Flickr30K: the paper has 75.7 94.7 97.1; 59.8 85.5 91.6
    x152_f30k        Flickr30K: the paper has 87.0 98.9 99.5; 71.5 92.1 95.8
    x101, x101_f30k  not published
    test             scenes, for seconds from scratch: what tests run

Hours by `python -m pixelbert_jax.plan` (benchmarks/results/plan.jsonl; none was timed):
what FLOPs and bytes take at least, and 40% MFU. docs/slices.md says more, and has other slices.

    variant   slice      fields             least       40% MFU
    r50       a100:1     micro_batches=16   10, 16      19
    r50       v5e:2x4    micro_batches=8    2.0, 3.6    3.8
    x101      a100:1     micro_batches=16   11, 17      22
    x101      v5e:2x4    micro_batches=8    2.3, 3.8    4.6
    x152      a100:1     micro_batches=16   7.2, 9.1    14
    x152      v5e:2x4    micro_batches=8    1.5, 2.1    3.1

No figure there: r50_coco, which is r50; r50_f30k, x101_f30k, x152_f30k. This makes the second:

    python -m pixelbert_jax.plan --config=configs/retrieval.py:r50_f30k --topology=v5e:2x4 \\
      --config.micro_batches=8 --mode=train

--config.first_stage=128 also trains a first stage, which spares most pairs their exact scores:
docs/scores.md.
"""

from ml_collections import ConfigDict

from configs import base, pretrain
from pixelbert_jax.configuration import FEATURES
from pixelbert_jax.rules import MOST, Field, at_least

OWN_AND_OTHERS = "at least 2, an image's own caption and others", lambda x: 2 <= x <= MOST


def fields(c: ConfigDict) -> None:
  """Defines the fields of this task."""
  c.texts_per_image = Field(21, OWN_AND_OTHERS)
  c.hardest = Field(5, at_least(1))  # of the others
  # Of a split, and of each image; 0 is all there are.
  c.eval_images, c.eval_captions = Field(0, at_least(0)), Field(5, at_least(0))
  # Not in the paper: the width of a space in which a first stage ranks without pairs; 0 has none.
  c.first_stage = Field(0, at_least(0, FEATURES))
  # Of a first stage, the best captions of each image and the best images of each caption, whose
  # pairs the report scores; 0 scores all pairs (docs/scores.md).
  c.rerank = Field(0, at_least(0))


def paper(c: ConfigDict) -> None:
  """Sets the paper's recipe, on COCO."""
  fields(c)
  c.batch_size = 512 * c.texts_per_image  # 512 true pairs
  c.transformer.remat = True  # of 21 texts an image with all pixels: a seventh of the memory
  c.eval_batches = 2  # of 512 images, in an evaluation in training
  c.optimizer.cnn_rule = 'none'  # section 4.4
  c.optimizer.warmup_epochs = 0.1  # open
  # With the images that pre-training leaves out, as others fine-tune.
  c.data.name, c.epochs, c.optimizer.decay_epochs = 'coco_karpathy/all', 4.0, (2.0,)
  c.eval_every = 1000


def f30k(c: ConfigDict) -> None:
  """Sets Flickr30K."""
  c.data.name, c.epochs, c.optimizer.decay_epochs = 'flickr30k', 10.0, (6.0,)
  c.eval_every = 250


def small(c: ConfigDict) -> None:
  """Sets a small model that learns to find scenes by captions, and captions by scenes."""
  fields(c)
  base.small(c)
  c.batch_size = 16 * c.texts_per_image
  c.steps = 600
  c.eval_images, c.eval_batches = 200, 4
  c.eval_every = c.save_every = 300
  c.text.length = 12
  c.optimizer.cnn_rule, c.optimizer.cnn_rate = 'none', 4e-3
  c.optimizer.transformer_rate = 4e-4
  c.optimizer.warmup_epochs = 0.01
  c.optimizer.decay_epochs = (0.1125,)


def scratch(c: ConfigDict) -> None:
  """Trains all parts without pre-training, for as many pairs longer."""
  base.from_scratch(c)
  # At 2e-3 it forgets what it has learnt.
  c.optimizer.transformer_rate, c.optimizer.transformer_warmup_steps = 5e-4, 500
  c.steps, c.optimizer.decay_epochs = 1933, (0.29, 0.415)


def paper_small(c: ConfigDict) -> None:
  """Sets the paper's rules on scenes, for 240 steps: rates fall after six tenths of them."""
  fields(c)
  base.paper_small(c)
  c.batch_size = 16 * c.texts_per_image
  c.steps = 240
  c.eval_images, c.eval_batches = 200, 4
  c.text.length = 12
  c.optimizer.cnn_rule = 'none'  # section 4.4
  c.optimizer.warmup_epochs = 0.005
  c.optimizer.decay_epochs = (0.036,)


def tiny(c: ConfigDict) -> None:
  """Sets what tests run."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.optimizer.cnn_rule = 'none'
  c.hardest = 2
  c.steps, c.eval_images = 12, 10


VARIANTS = {
  '': (small,),
  'test': (small, tiny),
  'scratch': (small, scratch),
  'paper_small': (paper_small,),
  'r50': (paper,),
  'r50_coco': (paper,),
  'r50_f30k': (paper, f30k),
  'x101': (paper, base.x101),
  'x101_f30k': (paper, base.x101, f30k),
  'x152': (paper, base.x152),
  'x152_f30k': (paper, base.x152, f30k),
}


def get_config(variant: str = '') -> ConfigDict:
  """Makes the configuration of a variant; ValueError if it is unknown."""
  return pretrain.fine_tune('retrieval', variant, VARIANTS)
