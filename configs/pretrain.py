"""Pre-training: masked language modelling and image-text matching (paper sections 3.3 and 4.1).

    python -m pixelbert_jax.main --config=configs/pretrain.py
    python -m pixelbert_jax.main --config=configs/pretrain.py:r50 --config.init_from=C

C is an output of `python -m pixelbert_jax.convert`, or `scratch`. Variants and scores to expect
(from benchmarks/results/runs/):

    (none)           scenes: matching 0.985, visual words 0.974 (pretrain.jsonl);
                     6 to 9 minutes on 2 CPU cores
    paper_small      scenes, a small model by the paper's rules, from a CNN trained on labels:
                     matching 0.903, visual words 0.866 (pretrain_paper_small.jsonl);
                     13 minutes on 2 CPU cores
    nlvr             the NLVR corpus: matching 0.566, words 0.627 (pretrain_nlvr.jsonl)
    boxes            generated pictures and sentences like NLVR's, to start that from
                     (RESULTS.md)
    r50, x101, x152  COCO and Visual Genome: the paper has scores of fine-tuned models only
    r50_1gpu         r50 on the smaller images of x152, for one GPU of 80 GB (docs/one_gpu.md)
    r50_24gb         the same, for one GPU of 24 GB
    test             scenes, for seconds: what tests run

Sizes:

                     images      texts an image  images a batch, at a time
    r50, x101        800 / 1333  4               1,024, 1,024
    x152             600 / 1000  4               1,024, 1,024
    r50_1gpu         600 / 1000  4               1,024, 64
    r50_24gb         600 / 1000  4               1,024, 16

Hours by `python -m pixelbert_jax.plan` (benchmarks/results/plan.jsonl; none was timed):
what FLOPs and bytes take at least, and 40% MFU. docs/slices.md says more, and has other slices.

    variant   slice      fields             least       40% MFU
    r50       a100:1     micro_batches=16   49, 118     102
    r50       v5e:2x4    micro_batches=16   10, 14      22
    r50_1gpu  a100:1     -                  34, 81      74
    r50_24gb  rtx4090:1  -                  64, 168     139
    x101      a100:1     micro_batches=32   153, 264    298
    x101      v5e:2x4    micro_batches=16   41, 34      84
    x152      a100:1     micro_batches=32   131, 220    256
    x152      v5e:2x4    micro_batches=16   34, 29      71

Texts: an image is shown with four of its texts at a time, so that the CNN, two thirds of the work,
runs for every fourth pair. `--config.texts_per_image=1` runs it for each pair. Either way an epoch
counts pairs and a batch has 4,096; but texts that do not fill a group of four wait for another
epoch. COCO's images have 5 captions, Visual Genome's about 50 phrases: by these numbers an epoch
has 0.95 of the pairs that it has with one text an image, 80% of COCO's and 96% of Visual Genome's
(the run's summary has the exact ones); `--config.epochs=42` makes up for it.
"""

import pathlib
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from configs import base
from pixelbert_jax.rules import SHARE, SHARES, Field, at_least, one_of, start_of

# The vocabulary of NLVR and of pictures like it.
BOXES = str(pathlib.Path(base.__file__).parents[1] / 'data/boxes/vocab.txt')


def fields(c: ConfigDict) -> None:
  """Defines the fields of this task."""
  c.mask_share = Field(0.15, ('above 0 and below 1', lambda x: 0 < x < 1))
  c.whole_share = Field(0.0, SHARE)  # open: of pairs with no token masked: ITM on whole texts
  # Of the losses, which the paper sums; 0 switches a task off and saves its work: without MLM no
  # word is hidden, without ITM every pair is true.
  c.mlm_weight, c.itm_weight = Field(1.0, at_least(0)), Field(1.0, at_least(0))
  c.mlm = ConfigDict()
  # Open. Of phrases as short as Visual Genome's, 31% have no word among 15% of the tokens; UNITER
  # hides one in each text.
  c.mlm.at_least_one = True
  # Open. As ViLT, true pairs alone: no image helps to predict an unrelated text. SOHO counts 'all';
  # on scenes that costs 0.31 of 0.85 of the visual words (BENCHMARKS.md).
  c.mlm.pairs = Field('matched', one_of('matched', 'all'))
  c.itm = ConfigDict()
  # Open. In a mixture, as ViLT, UNITER and SOHO: 'across' corpora nine in ten of COCO's images have
  # an untrue text of Visual Genome's, told by its style. On scenes it made no difference
  # (BENCHMARKS.md).
  c.itm.negatives = Field('within', one_of('within', 'across'))
  # Of the untrue texts, those that are nearly true: `input/negatives.py`. The paper has none.
  c.itm.hard = Field(0.0, SHARE)
  # Of the sources of 'a+b' in an epoch; () is every pair of all of them once.
  c.data.shares = Field((), SHARES)


def paper(c: ConfigDict) -> None:
  """Sets the paper's recipe."""
  fields(c)
  c.sampled_pixels = 100  # section 3.3
  c.batch_size, c.epochs = 4096, 40.0
  c.texts_per_image = 4  # open; as SOHO, a later model of the same authors
  c.data.name = 'coco_karpathy+visual_genome'
  c.optimizer.cnn_warmup_steps, c.optimizer.transformer_warmup_steps = 1000, 1000  # open
  c.optimizer.decay_epochs = (25.0, 35.0)


def one_gpu(c: ConfigDict) -> None:
  """Takes 64 images at a time, of the size at which SOHO is pre-trained."""
  base.smaller_images(c)
  c.micro_batches = 16


def small_gpu(c: ConfigDict) -> None:
  """Takes 16 images at a time."""
  c.micro_batches = 64


def small(c: ConfigDict) -> None:
  """Sets a small model that learns on scenes, from scratch."""
  fields(c)
  base.small(c)
  base.from_scratch(c)
  c.mask_share = 0.4
  # Without these it does not tell which colour is whose and what is left of what (RESULTS.md).
  c.itm.hard, c.itm_weight = 0.8, 2.0
  c.texts_per_image, c.batch_size, c.epochs = 8, 128, 7.0
  c.text.length = 12
  c.optimizer.decay_epochs = (4.2, 6.0)


def paper_small(c: ConfigDict) -> None:
  """Sets the paper's rules on scenes, for a CNN that was trained on what they show."""
  fields(c)
  base.paper_small(c)
  c.init_from = 'runs/labels-paper_small-s0'
  c.sampled_pixels = 7  # of 16, as 100 of the 221 of an image of 800 x 1088
  c.texts_per_image, c.batch_size, c.epochs = 8, 128, 7.0
  c.text.length = 12
  c.optimizer.cnn_warmup_steps, c.optimizer.transformer_warmup_steps = 100, 300
  c.optimizer.decay_epochs = (4.4, 6.1)  # as 25 and 35 of 40


def tiny(c: ConfigDict) -> None:
  """Sets what tests run."""
  base.tiny(c)
  c.epochs = 0.005
  c.sampled_pixels = 8
  c.mask_share, c.whole_share = 0.25, 0.5
  c.optimizer.transformer_rule, c.optimizer.transformer_rate = 'adamw', 8e-4
  c.optimizer.transformer_warmup_steps = 50


def nlvr(c: ConfigDict) -> None:
  """Sets the NLVR corpus (Suhr et al. 2017): rendered images, sentences by people, labels."""
  c.data.name, c.data.train, c.data.validation, c.data.test = 'nlvr', 'test', 'dev', 'dev'
  c.image.shorter, c.image.longer, c.image.canvases = 64, 256, ((64, 256),)
  c.text.length = 24
  c.texts_per_image, c.batch_size = 1, 32
  c.sampled_pixels = 48  # of 64
  c.itm.hard, c.itm_weight = 0.0, 1.0  # It has labels.
  c.epochs = 5.0
  c.optimizer.decay_epochs, c.optimizer.decay_factor = (4.0,), 0.1
  c.optimizer.transformer_rule, c.optimizer.transformer_rate = 'adamw', 8e-4
  c.optimizer.transformer_warmup_steps = 300
  # Canvases four times as large with one text each: the CNN takes nearly all the time.
  c.cnn.update(width=16, stem='space_to_depth')


def boxes(c: ConfigDict) -> None:
  """Sets generated pictures with true and false sentences, like NLVR's, to start that from."""
  c.data.name = 'boxes'
  c.text.vocabulary = BOXES
  c.text.length = 24
  c.image.shorter, c.image.longer, c.image.canvases = 64, 256, ((64, 256),)
  c.mask_share = 0.25
  c.itm.hard, c.itm_weight = 0.0, 1.0  # It has labels.
  c.epochs = 12.0
  c.optimizer.transformer_warmup_steps = 500
  c.optimizer.decay_epochs = (7.2, 10.2)


VARIANTS = {
  '': (small,),
  'test': (small, tiny),
  'nlvr': (small, nlvr),
  'boxes': (small, boxes),
  'paper_small': (paper_small,),
  'r50': (paper,),
  'r50_1gpu': (paper, one_gpu),
  'r50_24gb': (paper, one_gpu, small_gpu),
  'x101': (paper, base.x101),
  'x152': (paper, base.x152),
}


def get_config(variant: str = '') -> ConfigDict:
  """Makes the configuration of a variant; ValueError if it is unknown."""
  config = base.configure('pretrain', variant, VARIANTS)
  convert = f'convert --bert=DIR --cnn=FILE --config=configs/pretrain.py:{variant} --output=C'
  config.init_from = Field(config.init_from, start_of(convert))
  return config


def fine_tune(name: str, variant: str, variants: Mapping[str, Sequence[base.Change]]) -> ConfigDict:
  """Makes a variant of a task that starts from its model's run here, unless it says where."""
  config = base.configure(name, variant, variants)
  known = [model for model in VARIANTS if variant == model or variant.startswith(f'{model}_')]
  model = max(known, key=len, default='')  # 'r50' of 'r50_f30k'
  run = config.init_from or '-'.join(filter(None, ['runs/pretrain', model, 's0']))
  source = ':'.join(filter(None, ['configs/pretrain.py', model]))
  config.init_from = Field(run, start_of(f'main --config={source}'))
  return config
