"""Visual question answering (paper section 4.2), fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/vqa.py    # after configs/pretrain.py
    python -m pixelbert_jax.main --config=configs/vqa.py:r50 --config.init_from=C

Variants and scores to expect (from benchmarks/results/runs/):

    (none)        scenes: accuracy 0.979 (vqa.jsonl); 2 to 5 minutes on 2 CPU cores
    easy_vqa      easy-VQA from scratch, without pre-training: after `pip install easy-vqa` and
                  `python -m data.build easy_vqa`
    scratch       scenes, without pre-training, but as many steps more: accuracy 0.935
                  (vqa_scratch.jsonl); 6 minutes on 2 CPU cores
    paper_small   scenes, a small model by the paper's rules, after 2,200 steps of
                  pretrain.py:paper_small: accuracy 0.832 to 0.850 (../ablation.jsonl);
                  5 to 6 minutes of training on one CPU core
    r50           VQA v2: the paper has 71.35 on test-dev, 71.42 on test-std
    x152          VQA v2: the paper has 74.45 on test-dev, 74.55 on test-std
    x101          VQA v2: not published
    r50_trainval, x101_trainval, x152_trainval  VQA v2, trained on train and val but for the
                  questions about COCO's Karpathy val images, which choose the step
    test          scenes, for seconds from scratch: what tests run

`_trainval` is the documented way to the paper's table: SOHO and ViLT train on train and val. Train
alone costs an estimated 1.5 to 2.5 points. Visual Genome's questions may be added to either; in VLC
they brought about 0.2 points:

    --config.data.name=vqa_v2+visual_genome_questions

Hours by `python -m pixelbert_jax.plan` (benchmarks/results/plan.jsonl; none was timed):
what FLOPs and bytes take at least, and 40% MFU. docs/slices.md says more, and has other slices.

    variant   slice      fields             least       40% MFU
    r50       a100:1     micro_batches=4    6.1, 16     12
    r50       v5e:2x4    micro_batches=4    1.3, 1.9    2.8
    x101      a100:1     micro_batches=8    21, 36      41
    x101      v5e:2x4    micro_batches=4    5.7, 4.8    12
    x152      a100:1     micro_batches=8    18, 29      34
    x152      v5e:2x4    micro_batches=4    4.7, 4.0    9.7

No figure there: r50_trainval, x101_trainval, x152_trainval. This makes the first:

    python -m pixelbert_jax.plan --config=configs/vqa.py:r50_trainval --topology=v5e:2x4 \\
      --config.micro_batches=4 --mode=train
"""

import pathlib

from ml_collections import ConfigDict

from configs import base, pretrain
from pixelbert_jax.rules import LINE, Field


def paper(c: ConfigDict) -> None:
  """Sets the paper's recipe."""
  c.batch_size, c.epochs = 256, 18.0
  c.eval_batches = 0
  c.data.name = 'vqa_v2'
  # A JSON list; '' is that of the checkpoint, else the frequent ones.
  c.data.answers = Field('', LINE)
  c.optimizer.warmup_epochs = 0.1  # open
  c.optimizer.decay_epochs = (12.0, 16.0)


def trainval(c: ConfigDict) -> None:
  """Trains on all questions with answers but a small part of val, as challenge entries do."""
  c.data.train, c.data.validation = 'train+val[!karpathy_val]', 'val[karpathy_val]'


def small(c: ConfigDict) -> None:
  """Sets a small model that learns to answer questions about scenes."""
  base.small(c)
  c.texts_per_image, c.batch_size, c.epochs = 6, 96, 2.0
  c.data.answers = Field('', LINE)
  c.text.length = 16
  c.optimizer.cnn_rate, c.optimizer.transformer_rate = 2e-3, 4e-4
  c.optimizer.warmup_epochs = 0.1
  c.optimizer.decay_epochs = (1.5,)


def scratch(c: ConfigDict) -> None:
  """Trains without pre-training, for its 3,500 steps longer."""
  base.from_scratch(c)
  c.epochs, c.optimizer.decay_epochs = 9.0, (5.4, 7.7)


def paper_small(c: ConfigDict) -> None:
  """Sets the paper's rules on scenes, for a tenth of its epochs."""
  base.paper_small(c)
  c.texts_per_image, c.batch_size, c.epochs = 6, 96, 1.8
  c.data.answers = Field('', LINE)
  c.text.length = 16
  # At pre-training's 1e-3 what it learnt of shapes is forgotten with some seeds.
  c.optimizer.transformer_rate = 4e-4
  c.optimizer.warmup_epochs = 0.1
  c.optimizer.decay_epochs = (1.2, 1.6)


def easy_vqa(c: ConfigDict) -> None:
  """Trains the small model from scratch on easy-VQA, with a vocabulary of its words."""
  c.init_from = 'scratch'
  c.data.name = 'easy_vqa'
  c.text.vocabulary = str(pathlib.Path(base.__file__).parents[1] / 'data/easy_vqa/vocab.txt')
  c.text.length = 12
  c.texts_per_image, c.batch_size, c.epochs = 10, 160, 5.0
  c.eval_every, c.save_every = 200, 200
  # At twice this rate some seeds do not learn what "no" and "not" do to a question.
  c.optimizer.transformer_rate = 4e-4
  c.optimizer.warmup_epochs = 0.4
  c.optimizer.decay_epochs = (4.2,)


def tiny(c: ConfigDict) -> None:
  """Sets what tests run."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.epochs = 0.006


VARIANTS = {
  '': (small,),
  'test': (small, tiny),
  'easy_vqa': (small, easy_vqa),
  'scratch': (small, scratch),
  'paper_small': (paper_small,),
  'r50': (paper,),
  'r50_trainval': (paper, trainval),
  'x101': (paper, base.x101),
  'x101_trainval': (paper, base.x101, trainval),
  'x152': (paper, base.x152),
  'x152_trainval': (paper, base.x152, trainval),
}


def get_config(variant: str = '') -> ConfigDict:
  """Makes the configuration of a variant; ValueError if it is unknown."""
  return pretrain.fine_tune('vqa', variant, VARIANTS)
