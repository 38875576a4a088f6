"""An experiment: the task, batches, model and optimiser that a configuration describes.

Modules that this one imports do not read a configuration, except `Task.of` its task's fields.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import UserError, optim, require_checkout, sharding
from pixelbert_jax.input import mixture
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import Dataset, Split, is_embedded
from pixelbert_jax.input.image import model_canvas
from pixelbert_jax.input.pipeline import Batches, Threads
from pixelbert_jax.input.selection import select
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.models.backend import backend
from pixelbert_jax.models.bert import Encoder, TextEmbedding
from pixelbert_jax.models.heads import Model
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.models.resnet import ResNet
from pixelbert_jax.tasks.base import Task
from pixelbert_jax.tasks.labels import Labels
from pixelbert_jax.tasks.nlvr import Nlvr, Nlvr2
from pixelbert_jax.tasks.pretraining import Pretraining
from pixelbert_jax.tasks.retrieval import Retrieval
from pixelbert_jax.tasks.vqa import Vqa

ROLES = ('train', 'validation', 'test')  # of the splits that a run uses

# By the `name` of a configuration. To add one: docs/add_a_task.md.
TASKS: dict[str, type[Task]] = {
  'labels': Labels,
  'pretrain': Pretraining,
  'vqa': Vqa,
  'nlvr2': Nlvr2,
  'nlvr': Nlvr,
  'retrieval': Retrieval,
}


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A resolved configuration with its task, batches and model.

  Attributes:
    config: the configuration, resolved (`resolve`).
    task: the task.
    batches: by role: train, validation, test.
    model: the Flax module.
  """

  config: ConfigDict
  task: Task
  batches: Mapping[str, Batches]
  model: Model

  @classmethod
  def of(
    cls,
    config: ConfigDict,
    dataset: Dataset,
    files: Mapping[str, bytes] | None = None,
    roles: Sequence[str] = ROLES,
  ) -> 'Experiment':
    """Makes an experiment.

    Args:
      config: resolved.
      dataset: has the splits of these roles.
      files: those of the run that is resumed, evaluated or started from, by name.
      roles: the roles to make batches for. Image-blind baselines are fitted on `train`; without
        that split they are omitted.

    Raises:
      UserError: a split does not exist, or data and configuration do not match.
    """
    splits = {role: select(dataset, config.data[role]) for role in roles}
    task = make_task(config, splits, files or {})
    batches = make_batches(config, task, splits)
    vocab_size = len(next(iter(batches.values())).tokenizer.words)
    return cls(config, task, batches, make_model(config, vocab_size, task))

  def evaluator(self, mesh: Mesh, limit: int = 0) -> Any:
    """Makes the evaluator of the model over a split, over at most `limit` images (0: all)."""
    return self.task.evaluator(self.model, mesh, self.threads, limit)

  @property
  def threads(self) -> Threads:
    """The numbers of threads that make batches."""
    return Threads(self.config.threads, self.config.reading_threads)


def make_task(
  config: ConfigDict,
  splits: Mapping[str, Split] | None = None,
  files: Mapping[str, bytes] | None = None,
) -> Task:
  """Makes the task that `config.name` names; arguments and errors are those of `Task.of`."""
  check_task(config)
  return TASKS[config.name].of(config, splits or {}, files or {})


def check_task(config: ConfigDict) -> None:
  """Raises UserError if `config.name` names no task."""
  if config.name not in TASKS:
    raise UserError(f'config.name: no task {config.name!r}, only {", ".join(TASKS)}')


def make_model(
  config: ConfigDict, vocab_size: int, task: Task | None = None, platform: str = ''
) -> Model:
  """Makes the model of a resolved configuration; by default for a task made without data.

  `platform` is what it is compiled for, as `jax.Device.platform`; by default this machine's.
  """
  c, t, dtype = config.cnn, config.transformer, jnp.dtype(config.dtype)
  best = backend(platform or jax.default_backend())
  cnn = ResNet(
    stages=tuple(c.stages),
    total_stride=c.total_stride,
    width=c.width,
    groups=c.groups,
    group_width=c.group_width or None,
    stem=c.stem,
    frozen=c.batch_norm == 'frozen',
    frozen_stages=c.get('frozen_stages', 0),  # which earlier checkpoints lack
    remat=c.remat,
    dtype=dtype,
    backend=best,
  )
  same = {'dropout': t.dropout, 'init_std': t.init_std, 'dtype': dtype}
  text = TextEmbedding(vocab_size=vocab_size, width=t.width, max_positions=t.max_positions, **same)
  encoder = Encoder(
    layers=t.layers,
    heads=t.heads,
    mlp_width=t.mlp_width,
    remat=t.remat,
    backend=best,
    **same,
  )
  backbone = PixelBert(
    cnn=cnn,
    text=text,
    encoder=encoder,
    sampled_pixels=config.sampled_pixels,
    pixel_position=config.get('pixel_position', 'none'),  # which earlier checkpoints lack
    mean=tuple(config.image.mean),
    deviation=tuple(config.image.deviation),
    tuned_cnn=config.optimizer.cnn_rule != 'none',
    gradient_dtype=jnp.promote_types(dtype, config.get('gradient_dtype', 'float32')),
  )
  return (task or make_task(config)).model(backbone)


def init_variables(model: Model, seed: int, batch: dict[str, np.ndarray]) -> Any:
  """Initialises parameters and BatchNorm statistics for batches of this shape."""
  keys = jax.random.split(jax.random.key(seed))
  rngs = dict(zip(('params', 'pixels'), keys, strict=True))
  images = getattr(model, 'IMAGES', 1)  # per text
  canvas = model_canvas(batch)[:2]
  image = jnp.zeros((images, *canvas, 3))
  # Only the shapes of the batch are used, so that all processes compile the same program.
  size = np.full((images, 2), canvas, batch['size'].dtype)
  texts = (np.ones_like(batch[name][:1]) for name in model.INPUTS)
  return model.init(rngs, image, size, *texts, False)


def make_optimizer(
  config: ConfigDict, params: Any, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, dict[str, optax.Schedule]]:
  """Makes the optimiser, and the learning rate schedule of each part of the model, by name."""
  c = config.optimizer
  boundaries = [round(epoch * steps_per_epoch) for epoch in c.decay_epochs]
  warmup = round(c.warmup_epochs * steps_per_epoch)
  rates = {
    part: optim.stepped_schedule(
      c[f'{part}_rate'], warmup or c[f'{part}_warmup_steps'], boundaries, c.decay_factor
    )
    for part in optim.OPTIMISERS
  }
  optimizer = optim.optimizer(
    params,
    cnn_rule=c.cnn_rule,
    cnn_rate=rates['cnn'],
    cnn_momentum=c.cnn_momentum,
    cnn_decay=c.cnn_decay,
    transformer_rule=c.get('transformer_rule', 'adamw'),  # which earlier runs lack
    transformer_rate=rates['transformer'],
    transformer_betas=tuple(c.betas),
    transformer_epsilon=c.epsilon,
    transformer_decay=c.transformer_decay,
    clip_norm=c.clip_norm,
    frozen_stages=config.cnn.frozen_stages,
  )
  return optimizer, rates


def images_per_batch(config: ConfigDict) -> int:
  """Returns the number of images in a batch.

  Raises:
    UserError: micro-batches and devices cannot share them evenly.
  """
  images, parts = config.batch_size // config.texts_per_image, config.micro_batches
  if images % (parts * jax.device_count()):
    raise UserError(
      f'config.batch_size: {images} images do not divide among {parts} micro_batches on '
      f'{jax.device_count()} devices: use a multiple of {parts * jax.device_count()} images'
    )
  return images


def resolve(config: ConfigDict, vocabulary: pathlib.Path | None = None) -> ConfigDict:
  """Returns a copy in which the fields left open have values.

  Args:
    config: as the command line gives it.
    vocabulary: that of the run which is resumed, evaluated or started from, if any.

  Raises:
    UserError: there is no such task, or no vocabulary to use.
  """
  check_task(config)
  config = config.copy_and_resolve_references()
  if not config.cnn.batch_norm:
    # From scratch there are no statistics to freeze.
    scratch = config.init_from == 'scratch' and config.optimizer.cnn_rule != 'none'
    config.cnn.batch_norm = 'batch' if scratch else 'frozen'
  if not config.text.vocabulary:
    if vocabulary is None and is_embedded(config.data.name):
      require_checkout()
      from data.scenes import vocabulary as scenes_vocabulary

      vocabulary = scenes_vocabulary.FILE
    if vocabulary is None:
      raise UserError(
        "config.text.vocabulary is missing: give the path of BERT's vocab.txt, which every copy of "
        'bert-base-uncased contains'
      )
    config.text.vocabulary = str(vocabulary)
  return config


def make_batches(config: ConfigDict, task: Task, splits: Mapping[str, Split]) -> dict[str, Batches]:
  """Makes the batches of the splits of a resolved configuration, by role."""
  images, parts = images_per_batch(config), config.micro_batches
  tokenizer = Tokenizer(config.text.vocabulary, config.text.length)
  shapes = tuple(map(tuple, config.image.canvases))
  canvases = Canvases(config.image.shorter, config.image.longer, shapes)
  made = {
    role: task.batches(
      role,
      split=split,
      tokenizer=tokenizer,
      canvases=canvases,
      seed=config.seed,
      images=images if role == 'train' else images // parts,
      texts_per_image=config.texts_per_image,
      training=role == 'train',
      micro_batches=parts if role == 'train' else 1,
      flip=config.image.flip,
      devices=sharding.local_devices(sharding.make_mesh(**config.mesh)),
    )
    for role, split in splits.items()
  }
  return {role: x if x.training else x.regrouped() for role, x in made.items()}


def prepare_data(config: ConfigDict) -> Dataset:
  """Opens a dataset or, for names joined by '+', the mixture of several.

  The embedded dataset is built first if necessary; the others have to exist.

  Raises:
    UserError: a dataset is not built, or the task does not train on mixtures.
  """
  require_checkout()
  from data.build import open_sealed  # TFDS, which takes seconds to import

  data_dir = config.data.data_dir or None
  datasets = [open_sealed(name, data_dir) for name in config.data.name.split('+')]
  if len(datasets) == 1:
    return datasets[0]
  if not TASKS[config.name].MIXES:
    mixing = ' and '.join(name for name, task in TASKS.items() if task.MIXES)
    raise UserError(f'config.data.name: only {mixing} take a mixture: name one dataset')
  train, *evaluation = (config.data[role] for role in ROLES)
  mixed = mixture.mix(datasets, train, evaluation)
  print(mixture.summary(datasets, mixed, train))
  return mixed
