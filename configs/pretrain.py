"""Pre-training: masked language modelling and image-text matching (paper sections 3.3 and 4.1).

    python -m pixelbert_jax.main --config=configs/pretrain.py             # small, on scenes
    python -m pixelbert_jax.main --config=configs/pretrain.py:r50 --config.init_from=scratch

Variants: none (7 to 12 minutes on 2 CPU cores), `test` (seconds), `nlvr` (the NLVR corpus), and
the paper's `r50`, `x152`, with `x101` in between; `r50_1gpu` is `r50` where only 32 pairs fit at
once. They differ in numbers and names only.
"""

from ml_collections import ConfigDict

VARIANTS = ('', 'test', 'nlvr', 'r50', 'r50_1gpu', 'x101', 'x152')


def get_config(variant: str = '') -> ConfigDict:
  """The configuration of a variant; ValueError if there is none of that name."""
  if variant not in VARIANTS:
    raise ValueError(f'pretrain.py has no variant {variant!r}: {", ".join(filter(None, VARIANTS))}')
  config = small() if variant in ('', 'test', 'nlvr') else paper()
  {
    '': lambda c: None,
    'test': tiny,
    'nlvr': nlvr,
    'r50': lambda c: None,
    'r50_1gpu': lambda c: c.update(micro_batches=128),  # of 32 pairs
    'x101': lambda c: c.cnn.update(stages=(3, 4, 23, 3), groups=32, group_width=8),
    'x152': x152,
  }[variant](config)
  config.name, config.variant = 'pretrain', variant
  return config


def paper() -> ConfigDict:
  """Pixel-BERT with ResNet-50. What the paper leaves open is marked so."""
  c = ConfigDict()
  c.seed = 0
  c.init_from = ''  # a checkpoint, or 'scratch'
  c.dtype = 'bfloat16'  # of the computation; parameters, statistics, softmax and losses: float32
  c.sampled_pixels = 100  # section 3.3
  c.mask_share = 0.15
  c.whole_share = 0.0  # open: pairs whose text is left whole, so that ITM sees whole texts too
  c.texts_per_image = 1
  c.batch_size = 4096  # image-text pairs
  c.micro_batches = 1  # in which a batch comes, one after the other, where memory is short
  c.epochs, c.steps = 40.0, 0  # steps, where not 0, end a run instead
  c.log_every, c.eval_every, c.save_every, c.keep = 50, 5000, 1000, 2
  c.eval_batches = 4  # of batch_size pairs at most in an evaluation; 0 is all there are
  c.threads = 8  # that decode images
  c.mesh = ConfigDict()
  c.mesh.data, c.mesh.fsdp = -1, 1  # devices; -1 is all that are left
  c.data = ConfigDict()
  c.data.name = 'coco_karpathy+visual_genome'
  c.data.data_dir = ''  # $TFDS_DATA_DIR, then TFDS's default
  c.data.train, c.data.validation, c.data.test = 'train', 'val', 'test'
  c.data.shares = ()  # of the sources of 'a+b' in an epoch; () is every pair of all of them once
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
  c.optimizer.cnn_rule = 'sgd'  # section 4.1; 'muon' from scratch
  c.optimizer.cnn_rate, c.optimizer.cnn_decay = 1e-2, 5e-4
  c.optimizer.cnn_momentum = 0.9  # open
  c.optimizer.transformer_rate, c.optimizer.transformer_decay = 1e-4, 1e-2
  c.optimizer.betas, c.optimizer.epsilon = (0.9, 0.999), 1e-8  # open
  c.optimizer.cnn_warmup_steps, c.optimizer.transformer_warmup_steps = 1000, 1000  # open
  c.optimizer.clip_norm = 10.0  # open
  c.optimizer.decay_epochs, c.optimizer.decay_factor = (25.0, 35.0), 0.1
  return c


def x152(c: ConfigDict) -> None:
  """The paper's larger model: ResNeXt-152 (its group width is open: 32x8d), smaller images."""
  c.cnn.update(stages=(3, 8, 36, 3), groups=32, group_width=8)
  c.image.shorter, c.image.longer = 600, 1000
  c.image.canvases = ((640, 640), (640, 832), (640, 1024), (832, 640), (1024, 640))
  # Of Detectron's ResNeXt-152, the only one published: a mean in 0..255 and no deviation.
  c.image.mean = tuple(x / 255 for x in (122.7717, 115.9465, 102.9801))
  c.image.deviation = (1 / 255,) * 3


def small() -> ConfigDict:
  """A small Pixel-BERT that learns on scenes, from scratch."""
  c = paper()
  c.init_from = 'scratch'
  c.dtype = 'float32'
  c.sampled_pixels = 0  # all 16
  c.mask_share, c.whole_share = 0.4, 0.0
  c.texts_per_image, c.batch_size = 8, 128
  c.epochs = 3.5
  c.log_every, c.eval_every, c.save_every, c.eval_batches = 50, 500, 500, 0
  c.threads = 2
  c.data.name = 'scenes'
  c.image.shorter = c.image.longer = 64
  c.image.canvases = ((64, 64),)
  c.text.length = 12
  c.cnn.update(stages=(1, 1), width=32, stem='7x7', total_stride=16)
  c.cnn.remat = False
  c.transformer.update(layers=3, width=128, heads=4, mlp_width=256, max_positions=64)
  c.transformer.dropout = 0.0
  c.transformer.init_std = 0.08
  c.optimizer.betas = (0.9, 0.98)
  c.optimizer.cnn_rule, c.optimizer.cnn_momentum = 'muon', 0.95
  c.optimizer.cnn_rate, c.optimizer.cnn_warmup_steps = 4e-3, 50
  # A Transformer that learns faster turns from pixels that do not show shapes yet.
  c.optimizer.transformer_rate, c.optimizer.transformer_warmup_steps = 8e-4, 900
  c.optimizer.decay_epochs = (3.0,)
  c.optimizer.clip_norm = 0.0
  return c


def tiny(c: ConfigDict) -> None:
  """What tests run: seconds, with everything on, logging each step and saving often."""
  c.epochs = 0.005
  c.batch_size, c.texts_per_image = 16, 4
  c.log_every, c.eval_every, c.save_every = 1, 10, 5
  c.sampled_pixels = 8
  c.mask_share, c.whole_share = 0.25, 0.5
  c.optimizer.cnn_rule, c.optimizer.cnn_rate, c.optimizer.clip_norm = 'sgd', 1e-2, 1.0
  c.optimizer.transformer_warmup_steps = 50
  c.cnn.update(stages=(1, 1), width=8, stem='space_to_depth')
  c.transformer.update(layers=2, width=32, heads=2, mlp_width=64, dropout=0.1)


def nlvr(c: ConfigDict) -> None:
  """The NLVR corpus (Suhr et al. 2017): rendered images, sentences by people, their own labels."""
  c.data.name, c.data.train, c.data.validation, c.data.test = 'nlvr', 'test', 'dev', 'dev'
  c.image.shorter, c.image.longer, c.image.canvases = 64, 256, ((64, 256),)
  c.text.length = 24
  c.texts_per_image, c.batch_size = 1, 32
  c.sampled_pixels = 48  # of 64
  c.epochs, c.optimizer.decay_epochs = 5.0, (4.0,)
  c.optimizer.transformer_warmup_steps = 300
  # Canvases four times as large, one text each: nearly all the time is the CNN's.
  c.cnn.update(width=16, stem='space_to_depth')
