"""What configurations share: the paper's model and the small one, and how they are optimised.

A task's own file adds its data and schedule. What the paper leaves open is marked so.
"""

from ml_collections import ConfigDict


def paper() -> ConfigDict:
  """Pixel-BERT with ResNet-50, and how it is optimised."""
  c = ConfigDict()
  c.seed = 0
  c.init_from = ''  # a checkpoint, or 'scratch'
  c.dtype = 'bfloat16'  # of the computation; parameters, statistics, softmax and losses: float32
  c.sampled_pixels = 0  # of each image in training; 0 is all
  c.texts_per_image = 1
  c.batch_size = 256  # image-text pairs
  c.micro_batches = 1  # in which a batch comes, one after the other, where memory is short
  c.epochs, c.steps = 1.0, 0  # steps, where not 0, end a run instead
  c.log_every, c.eval_every, c.save_every, c.keep = 50, 5000, 1000, 2
  c.eval_batches = 4  # of batch_size pairs at most in an evaluation; 0 is all there are
  c.threads = 8  # that decode images
  c.mesh = ConfigDict()
  c.mesh.data, c.mesh.fsdp = -1, 1  # devices; -1 is all that are left
  c.data = ConfigDict()
  c.data.name, c.data.data_dir = 'scenes', ''  # '' is $TFDS_DATA_DIR, then TFDS's default
  # Splits, or parts of them: 'train+val[!a,b]' (input/selection.py).
  c.data.train, c.data.validation, c.data.test = 'train', 'val', 'test'
  c.image = ConfigDict()
  c.image.shorter, c.image.longer = 800, 1333
  c.image.canvases = ((832, 832), (832, 1088), (832, 1344), (1088, 832), (1344, 832))
  # ImageNet's, of RGB in 0..1; `convert` writes those of the CNN it takes.
  c.image.mean, c.image.deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  c.image.flip = 0.0  # open: share of the images mirrored, where no text says left or right
  c.text = ConfigDict()
  c.text.vocabulary = ''  # BERT's vocab.txt; '' is that of the embedded data
  c.text.length = 40  # open
  c.cnn = ConfigDict()
  c.cnn.stages, c.cnn.width, c.cnn.groups, c.cnn.group_width = (3, 4, 6, 3), 64, 1, 0
  c.cnn.stem, c.cnn.total_stride = '7x7', 64
  c.cnn.batch_norm = ''  # open: '' is 'batch' from scratch, else 'frozen'
  c.cnn.remat = True
  c.transformer = ConfigDict()
  c.transformer.layers, c.transformer.width, c.transformer.heads = 12, 768, 12
  c.transformer.mlp_width, c.transformer.max_positions = 3072, 512
  c.transformer.dropout, c.transformer.remat = 0.1, False
  c.transformer.init_std = 0.02  # of weights; smaller widths want more, about width ** -0.5
  c.optimizer = ConfigDict()
  c.optimizer.cnn_rule = 'sgd'  # section 4.1; 'muon' from scratch; 'none': it is not tuned
  c.optimizer.cnn_rate, c.optimizer.cnn_decay = 1e-2, 5e-4
  c.optimizer.cnn_momentum = 0.9  # open
  c.optimizer.transformer_rate, c.optimizer.transformer_decay = 1e-4, 1e-2
  c.optimizer.betas, c.optimizer.epsilon = (0.9, 0.999), 1e-8  # open
  c.optimizer.cnn_warmup_steps, c.optimizer.transformer_warmup_steps = 0, 0  # open
  c.optimizer.warmup_epochs = 0.0  # open: where not 0, instead of both
  c.optimizer.clip_norm = 10.0  # open
  c.optimizer.decay_epochs, c.optimizer.decay_factor = (), 0.1
  return c


def x101(c: ConfigDict) -> None:
  """ResNeXt-101 32x8d, between the paper's two."""
  c.cnn.update(stages=(3, 4, 23, 3), groups=32, group_width=8)


def x152(c: ConfigDict) -> None:
  """The paper's larger model: ResNeXt-152 (its group width is open: 32x8d), smaller images."""
  c.cnn.update(stages=(3, 8, 36, 3), groups=32, group_width=8)
  c.image.shorter, c.image.longer = 600, 1000
  c.image.canvases = ((640, 640), (640, 832), (640, 1024), (832, 640), (1024, 640))
  # Of Detectron's ResNeXt-152, the only one published: a mean in 0..255 and no deviation.
  c.image.mean = tuple(x / 255 for x in (122.7717, 115.9465, 102.9801))
  c.image.deviation = (1 / 255,) * 3


def small() -> ConfigDict:
  """A small Pixel-BERT that learns on scenes, 16 pixels an image."""
  c = paper()
  c.dtype = 'float32'
  c.log_every, c.eval_every, c.save_every, c.eval_batches = 50, 500, 500, 0
  c.threads = 2
  c.image.shorter = c.image.longer = 64
  c.image.canvases = ((64, 64),)
  c.cnn.update(stages=(1, 1), width=32, stem='7x7', total_stride=16)
  c.cnn.remat = False
  c.transformer.update(layers=3, width=128, heads=4, mlp_width=256, max_positions=64)
  c.transformer.dropout = 0.0
  c.transformer.init_std = 0.08
  c.optimizer.betas = (0.9, 0.98)
  c.optimizer.cnn_rule, c.optimizer.cnn_momentum = 'muon', 0.95
  c.optimizer.clip_norm = 0.0
  return c


def tiny(c: ConfigDict) -> None:
  """What tests run: seconds, with everything on, logging each step and saving often."""
  c.batch_size, c.texts_per_image = 16, 4
  c.log_every, c.eval_every, c.save_every = 1, 10, 5
  c.optimizer.cnn_rule, c.optimizer.cnn_rate, c.optimizer.clip_norm = 'sgd', 1e-2, 1.0
  c.cnn.update(stages=(1, 1), width=8, stem='space_to_depth')
  c.transformer.update(layers=2, width=32, heads=2, mlp_width=64, dropout=0.1)
