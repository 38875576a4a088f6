"""Defines what all configurations share: fields, models, and how a variant is made.

`paper` defines each field with its default and, where values are limited, its rule. A task's file
adds fields of its own, data and schedule, and lists its variants, which differ in numbers and names
only. "open" marks what the paper does not say.
"""

from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from pixelbert_jax.configuration import FEATURES
from pixelbert_jax.rules import (
  ABOVE_0,
  ASCENDING,
  BELOW_1,
  CANVASES,
  DEVICES,
  EPOCHS,
  LINE,
  MOST_EPOCHS,
  NAME,
  SEEDS,
  SHARE,
  SIDE,
  TASK,
  WHOLE,
  Field,
  at_least,
  fixed,
  one_of,
  tuple_of,
)

Change = Callable[[ConfigDict], None]


def configure(name: str, variant: str, variants: Mapping[str, Sequence[Change]]) -> ConfigDict:
  """Makes a variant: the changes listed for it, applied to `paper` in their order.

  Raises:
    ValueError: there is no such variant.
  """
  if variant not in variants:
    known = ', '.join(filter(None, variants))
    raise ValueError(f'{name}.py has no variant {variant!r}: {known}')
  config = paper()
  for change in variants[variant]:
    change(config)
  config.name, config.variant = Field(name, TASK), Field(variant, fixed(variant))
  return config


def paper() -> ConfigDict:
  """Defines the fields, with the values of Pixel-BERT with ResNet-50."""
  c = ConfigDict()
  c.seed = Field(0, at_least(0, SEEDS))
  c.init_from = Field('', LINE)  # a checkpoint, or 'scratch'; what makes one is the task's to say
  # Of the computation; parameters, statistics, softmax and losses are float32.
  c.dtype = Field('bfloat16', one_of('float32', 'bfloat16'))
  # Of kernels' gradients, summed over pixels, tokens and devices (docs/precision.md).
  c.gradient_dtype = Field('float32', one_of('float32', 'bfloat16'))
  c.sampled_pixels = Field(0, at_least(0))  # of each image in training; 0 is all
  # Added to the pixels, which in the paper do not know where they are; kinds: `PixelPosition`.
  c.pixel_position = Field('none', one_of('none', 'learnt', 'sine2d'))
  c.texts_per_image = Field(1, at_least(1))
  c.batch_size = Field(256, at_least(1))  # image-text pairs
  c.micro_batches = Field(1, at_least(1))  # parts of a batch, one after the other, to save memory
  c.epochs = Field(1.0, EPOCHS)
  c.steps = Field(0, at_least(0))  # where not 0, ends a run instead of `epochs`
  c.log_every = Field(50, at_least(1))
  c.eval_every = Field(5000, at_least(1))
  c.save_every = Field(1000, at_least(1))
  c.keep = Field(2, at_least(1))  # checkpoints
  c.eval_batches = Field(4, at_least(0))  # batches of an evaluation in training; 0 is all
  # A batch whose loss, gradient or update is not finite: 'skip' leaves out up to `most_skipped`.
  c.on_bad_batch = Field('stop', one_of('stop', 'skip'))
  c.most_skipped = Field(10, at_least(0))  # in a whole run; one more stops it
  c.threads = Field(8, at_least(1, 1024))  # that decode images
  c.reading_threads = Field(16, at_least(1, 1024))  # that wait for their bytes from storage
  # The folder of compiled programs; '' is `compilation_cache` beside the workdir, 'none' is none.
  c.compilation_cache = Field('', LINE)
  c.mesh = ConfigDict()  # numbers of devices; -1 is all that are left
  c.mesh.data = Field(-1, DEVICES)
  c.mesh.fsdp = Field(1, DEVICES)
  c.data = ConfigDict()
  c.data.name = Field('scenes', NAME)
  c.data.data_dir = Field('', LINE)  # '' is $TFDS_DATA_DIR, then TFDS's default
  # Splits, or parts of them: 'train+val[!a,b]' (input/selection.py).
  c.data.train, c.data.validation = Field('train', NAME), Field('val', NAME)
  c.data.test = Field('test', NAME)
  c.image = ConfigDict()
  c.image.shorter = Field(800, at_least(1, SIDE))
  c.image.longer = Field(1333, at_least(1, SIDE))
  # For photographs of 4:3, 3:2 and 16:9, as COCO's and Visual Genome's mostly are, either way up:
  # canvases have 4.2% more pixels than the images (`python -m benchmarks.padding`). Each shape is
  # compiled on its own, for minutes: a square one would save 0.9%, to do without 3:2 cost 4.6%.
  # Sides need not be multiples of the CNN's stride.
  c.image.canvases = Field(
    ((800, 1088), (800, 1216), (800, 1344), (1088, 800), (1216, 800), (1344, 800)), CANVASES
  )
  # ImageNet's, of RGB in 0..1; `convert` replaces them by those of the CNN it reads.
  c.image.mean = Field((0.485, 0.456, 0.406), tuple_of(3, SHARE))
  c.image.deviation = Field((0.229, 0.224, 0.225), tuple_of(3, ABOVE_0))
  c.image.flip = Field(0.0, SHARE)  # open: of images mirrored, if no text says left or right
  c.text = ConfigDict()
  c.text.vocabulary = Field('', LINE)  # BERT's vocab.txt; '' is that of the embedded data
  c.text.length = Field(40, at_least(3))  # open
  c.cnn = ConfigDict()
  c.cnn.stages = Field((3, 4, 6, 3), tuple_of(None, WHOLE))  # blocks
  c.cnn.width = Field(64, at_least(1, FEATURES))
  c.cnn.groups = Field(1, at_least(1, FEATURES))
  c.cnn.group_width = Field(0, at_least(0, FEATURES))
  c.cnn.stem = Field('7x7', one_of('7x7', 'space_to_depth'))
  c.cnn.total_stride = Field(64, at_least(1, SIDE))
  # Open: '' is 'batch' from scratch, else 'frozen'. On a mixture of scenes statistics of the batch
  # did a trained CNN no good (BENCHMARKS.md); frozen ones are the same in micro-batches. SOHO has
  # 'batch', with one frozen stage.
  c.cnn.batch_norm = Field('', one_of('', 'batch', 'frozen'))
  # 1 fixes the stem and the first stage, 2 the second too, and so on; 0 trains all, as the paper.
  c.cnn.frozen_stages = Field(0, at_least(0, 4))
  c.cnn.remat = True
  c.transformer = ConfigDict()
  c.transformer.layers = Field(12, at_least(1, 1000))
  c.transformer.width = Field(768, at_least(1, FEATURES))
  c.transformer.heads = Field(12, at_least(1, FEATURES))
  c.transformer.mlp_width = Field(3072, at_least(1, FEATURES))
  c.transformer.max_positions = Field(512, at_least(1, 1_000_000))
  c.transformer.dropout = Field(0.1, BELOW_1)
  c.transformer.remat = False
  c.transformer.init_std = Field(0.02, ABOVE_0)  # of weights; for small widths about width ** -0.5
  c.optimizer = ConfigDict()
  # Section 4.1; 'muon' is for training from scratch; 'none' leaves the CNN as it is.
  c.optimizer.cnn_rule = Field('sgd', one_of('sgd', 'muon', 'none'))
  c.optimizer.cnn_rate = Field(1e-2, at_least(0))
  c.optimizer.cnn_decay = Field(5e-4, at_least(0))
  c.optimizer.cnn_momentum = Field(0.9, BELOW_1)  # open
  c.optimizer.transformer_rule = Field('adamw', one_of('adamw', 'muon'))  # section 4.1
  c.optimizer.transformer_rate = Field(1e-4, at_least(0))
  c.optimizer.transformer_decay = Field(1e-2, at_least(0))
  c.optimizer.betas = Field((0.9, 0.999), tuple_of(2, BELOW_1))  # open
  c.optimizer.epsilon = Field(1e-8, ABOVE_0)  # open
  c.optimizer.cnn_warmup_steps = Field(0, at_least(0))  # open
  c.optimizer.transformer_warmup_steps = Field(0, at_least(0))  # open
  # Open; where not 0, replaces both.
  c.optimizer.warmup_epochs = Field(0.0, at_least(0, MOST_EPOCHS))
  c.optimizer.clip_norm = Field(10.0, at_least(0))  # open
  c.optimizer.decay_epochs = Field((), ASCENDING)
  c.optimizer.decay_factor = Field(0.1, ('above 0 and at most 1', lambda x: 0 < x <= 1))
  return c


def smaller_images(c: ConfigDict) -> None:
  """Sets the image size of the paper's larger model: 56% of the pixels."""
  c.image.shorter, c.image.longer = 600, 1000
  c.image.canvases = ((600, 816), (600, 912), (600, 1008), (816, 600), (912, 600), (1008, 600))


def x101(c: ConfigDict) -> None:
  """Sets ResNeXt-101 32x8d, between the paper's two models."""
  c.cnn.update(stages=(3, 4, 23, 3), groups=32, group_width=8)


def x152(c: ConfigDict) -> None:
  """Sets the paper's larger model: ResNeXt-152 (group width open: 32x8d) on smaller images."""
  c.cnn.update(stages=(3, 8, 36, 3), groups=32, group_width=8)
  smaller_images(c)
  # Of Detectron's ResNeXt-152, the only one published: a mean in 0..255 and no deviation.
  c.image.mean = tuple(x / 255 for x in (122.7717, 115.9465, 102.9801))
  c.image.deviation = (1 / 255,) * 3


def on_two_cores(c: ConfigDict) -> None:
  """Sets what both small models share: their Transformer, and what suits two CPU cores."""
  c.dtype = 'float32'
  c.log_every, c.eval_every, c.save_every, c.eval_batches = 50, 500, 500, 0
  c.threads = c.reading_threads = 2
  c.cnn.remat = False
  c.transformer.update(layers=3, width=128, heads=4, mlp_width=256, max_positions=64)
  c.transformer.init_std = 0.08


def small(c: ConfigDict) -> None:
  """Sets a small Pixel-BERT that learns on scenes, with 16 pixels an image."""
  on_two_cores(c)
  c.image.shorter = c.image.longer = 64
  c.image.canvases = ((64, 64),)
  c.cnn.update(stages=(1, 1), width=32, stem='7x7', total_stride=16)
  c.transformer.dropout = 0.0
  c.pixel_position = 'learnt'
  c.optimizer.betas = (0.9, 0.98)
  c.optimizer.cnn_rule, c.optimizer.cnn_momentum = 'muon', 0.95
  c.optimizer.clip_norm = 0.0


def from_scratch(c: ConfigDict) -> None:
  """Sets the rates at which the small model learns to see and to read at once."""
  c.init_from = 'scratch'
  c.optimizer.cnn_rule, c.optimizer.cnn_rate, c.optimizer.cnn_warmup_steps = 'muon', 4e-3, 50
  # A Transformer that learns faster from the start turns from pixels before they show shapes.
  c.optimizer.transformer_rule = 'muon'
  c.optimizer.transformer_rate, c.optimizer.transformer_warmup_steps = 2e-3, 900
  c.optimizer.warmup_epochs = 0.0
  c.optimizer.decay_factor = 0.3


def paper_small(c: ConfigDict) -> None:
  """Sets a small Pixel-BERT by the paper's own rules, with 16 pixels an image of 256 x 256.

  Of the paper: four stages of a ResNet with stride 64, all rules and rates of the optimisers that
  do not depend on size, dropout, no positions of pixels.
  """
  on_two_cores(c)
  c.image.shorter = c.image.longer = 256
  c.image.canvases = ((256, 256),)
  c.cnn.update(stages=(1, 1, 1, 1), width=16)
  c.optimizer.transformer_rate = 1e-3


def tiny(c: ConfigDict) -> None:
  """Sets what tests run: seconds, with everything on, logging each step and saving often."""
  c.batch_size, c.texts_per_image = 16, 4
  c.log_every, c.eval_every, c.save_every = 1, 10, 5
  c.optimizer.cnn_rule, c.optimizer.cnn_rate, c.optimizer.clip_norm = 'sgd', 1e-2, 1.0
  c.cnn.update(stages=(1, 1), width=8, stem='space_to_depth')
  c.transformer.update(layers=2, width=32, heads=2, mlp_width=64, dropout=0.1)
