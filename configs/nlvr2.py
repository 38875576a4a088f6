"""NLVR2, statements about two photographs (paper section 4.3), fine-tuned from a pre-training run.

    python -m pixelbert_jax.main --config=configs/nlvr2.py    # after configs/pretrain.py
    python -m pixelbert_jax.main --config=configs/nlvr2.py:r50 --config.init_from=C

Variants and scores to expect (from benchmarks/results/runs/):

    (none)       scenes: accuracy 0.987 (nlvr2.jsonl); 2 to 4 minutes on 2 CPU cores
    scratch      scenes, without pre-training, but as many steps more: accuracy 0.879
                 (nlvr2_scratch.jsonl); 10 minutes on 2 CPU cores
    paper_small  scenes, a small model by the paper's rules, after 2,200 steps of
                 pretrain.py:paper_small: accuracy 0.641 to 0.655 (../ablation.jsonl);
                 7 minutes of training on one CPU core
    r50          NLVR2: the paper has 71.7 on dev, 72.4 on test-P
    x152         NLVR2: the paper has 76.5 on dev, 77.2 on test-P
    x101         NLVR2: not published
    test         scenes, for seconds from scratch: what tests run

Hours by `python -m pixelbert_jax.plan` (benchmarks/results/plan.jsonl; none was timed):
what FLOPs and bytes take at least, and 40% MFU. docs/slices.md says more, and has other slices.

    variant   slice      fields             least       40% MFU
    r50       a100:1     micro_batches=4    2.5, 6.3    5.0
    r50       v5e:2x4    micro_batches=4    0.5, 0.7    1.1
    x101      a100:1     micro_batches=8    8.4, 14     16
    x101      v5e:2x4    micro_batches=4    2.2, 1.9    4.6
    x152      a100:1     micro_batches=8    6.9, 11     13
    x152      v5e:2x4    micro_batches=4    1.9, 1.5    3.8
"""

from ml_collections import ConfigDict

from configs import base, pretrain


def paper(c: ConfigDict) -> None:
  """Sets the paper's recipe."""
  c.batch_size, c.epochs = 128, 18.0  # pairs of images with a text
  c.eval_batches = 0
  c.data.name, c.data.validation, c.data.test = 'nlvr2', 'dev', 'test1'
  c.optimizer.warmup_epochs = 0.1  # open
  c.optimizer.decay_epochs = (12.0, 16.0)


def pairs(c: ConfigDict) -> None:
  """Sets canvases for pairs: both images on one, or each on its own where their shapes differ.

  These have 14.6% more pixels than the images (`python -m benchmarks.padding`); one canvas for both
  has 36%, as it must be square for a wide and a high photograph. Each is compiled on its own, for
  minutes: all 36 combinations of six canvases would still have 10%.
  """
  wide = [canvas for canvas in c.image.canvases if canvas[0] < canvas[1]]
  narrow, widest, high = wide[0], wide[-1], wide[-1][::-1]
  mixed = [narrow + widest, widest + narrow, widest + high, high + widest]
  c.image.canvases = (*wide, high, *mixed)


def small(c: ConfigDict) -> None:
  """Sets a small model that learns to compare two scenes."""
  base.small(c)
  c.batch_size, c.epochs = 32, 2.0
  c.eval_every = c.save_every = 250
  c.text.length = 16
  c.optimizer.cnn_rate, c.optimizer.transformer_rate = 2e-3, 4e-4
  c.optimizer.warmup_epochs = 0.1
  c.optimizer.decay_epochs = (1.5,)


def scratch(c: ConfigDict) -> None:
  """Trains without pre-training, for its 3,500 steps longer."""
  base.from_scratch(c)
  c.optimizer.transformer_rate = 5e-4  # At 2e-3 it learns nothing.
  c.steps, c.optimizer.decay_epochs = 4250, (6.8, 9.7)


def paper_small(c: ConfigDict) -> None:
  """Sets the paper's rules on scenes, for a 25th of its epochs."""
  base.paper_small(c)
  c.batch_size, c.epochs = 32, 0.72
  c.text.length = 16
  c.optimizer.transformer_rate = 4e-4  # At 1e-3 one seed of four fell back to the guess.
  c.optimizer.warmup_epochs = 0.1
  c.optimizer.decay_epochs = (0.48, 0.64)


def tiny(c: ConfigDict) -> None:
  """Sets what tests run."""
  base.tiny(c)
  c.init_from = 'scratch'
  c.texts_per_image, c.batch_size, c.epochs = 1, 8, 0.01


VARIANTS = {
  '': (small,),
  'test': (small, tiny),
  'scratch': (small, scratch),
  'paper_small': (paper_small,),
  'r50': (paper, pairs),
  'x101': (paper, base.x101, pairs),
  'x152': (paper, base.x152, pairs),
}


def get_config(variant: str = '') -> ConfigDict:
  """Makes the configuration of a variant; ValueError if it is unknown."""
  return pretrain.fine_tune('nlvr2', variant, VARIANTS)
