"""An experiment: what a configuration describes, made: its data, its model, its optimiser."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import UserError, optim, require_checkout
from pixelbert_jax.catalogue import ROLES, TASKS
from pixelbert_jax.input import mixture
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import Dataset
from pixelbert_jax.input.image import model_canvas
from pixelbert_jax.input.pipeline import Batches
from pixelbert_jax.input.selection import select
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.models.bert import Encoder, TextEmbedding
from pixelbert_jax.models.heads import Model
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.models.resnet import ResNet
from pixelbert_jax.tasks import answers
from pixelbert_jax.tasks.evaluator import Evaluator
from pixelbert_jax.tasks.ranker import Ranker


def make_model(config: ConfigDict, vocab_size: int, answers: int = 0) -> Model:
  """The model of a resolved configuration; one for VQA chooses from so many answers."""
  c, t, dtype = config.cnn, config.transformer, jnp.dtype(config.dtype)
  unroll = jax.default_backend() == 'cpu'
  cnn = ResNet(
    stages=tuple(c.stages),
    total_stride=c.total_stride,
    width=c.width,
    groups=c.groups,
    group_width=c.group_width or None,
    stem=c.stem,
    frozen=c.batch_norm == 'frozen',
    remat=c.remat,
    unroll=unroll,
    dtype=dtype,
  )
  text = TextEmbedding(vocab_size, t.width, t.max_positions, t.dropout, t.init_std, dtype)
  encoder = Encoder(t.layers, t.heads, t.mlp_width, t.dropout, t.init_std, dtype, t.remat, unroll)
  mean, deviation = tuple(config.image.mean), tuple(config.image.deviation)
  tuned = config.optimizer.cnn_rule != 'none'
  backbone = PixelBert(cnn, text, encoder, config.sampled_pixels, mean, deviation, tuned)
  return TASKS[config.name].model(backbone, answers)


def init_variables(model: Model, seed: int, batch: dict[str, np.ndarray]) -> dict:
  """Random parameters and fresh statistics."""
  keys = jax.random.split(jax.random.key(seed))
  rngs = dict(zip(('params', 'pixels'), keys, strict=True))
  images = len(batch['size']) // len(batch['token_ids'])  # of a text
  image = jnp.zeros((images, *model_canvas(batch), 3))
  # Of the batch the shapes alone, so that all processes compile the same program.
  size = np.full((images, 2), model_canvas(batch), batch['size'].dtype)
  texts = (np.ones_like(batch[name][:1]) for name in model.INPUTS)
  return model.init(rngs, image, size, *texts, False)


def make_optimizer(
  config: ConfigDict, params: Any, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, dict[str, optax.Schedule]]:
  """The optimiser of a configuration, and the learning rate of each of its parts by step."""
  c = config.optimizer
  boundaries = [round(epoch * steps_per_epoch) for epoch in c.decay_epochs]
  warmup = round(c.warmup_epochs * steps_per_epoch)
  rates = {
    'cnn': optim.stepped_schedule(
      c.cnn_rate, warmup or c.cnn_warmup_steps, boundaries, c.decay_factor
    ),
    'transformer': optim.stepped_schedule(
      c.transformer_rate, warmup or c.transformer_warmup_steps, boundaries, c.decay_factor
    ),
  }
  optimizer = optim.optimizer(
    params,
    cnn_rule=c.cnn_rule,
    cnn_rate=rates['cnn'],
    cnn_momentum=c.cnn_momentum,
    cnn_decay=c.cnn_decay,
    transformer_rate=rates['transformer'],
    transformer_betas=tuple(c.betas),
    transformer_epsilon=c.epsilon,
    transformer_decay=c.transformer_decay,
    clip_norm=c.clip_norm,
  )
  return optimizer, rates


def images_per_batch(config: ConfigDict) -> int:
  """Images in a batch; UserError if micro-batches and devices cannot share them."""
  images, parts = config.batch_size // config.texts_per_image, config.micro_batches
  if images % (parts * jax.device_count()):
    raise UserError(
      f'config.batch_size: {images} images do not divide among {parts} micro_batches on '
      f'{jax.device_count()} devices'
    )
  return images


def resolve(config: ConfigDict, vocabulary: pathlib.Path | None = None) -> ConfigDict:
  """A copy in which what was left open is said.

  Args:
    config: as of the command line.
    vocabulary: of the checkpoint that a run starts from or goes on with, if there is any.

  Raises:
    UserError: no vocabulary is named, and there is none to take.
  """
  config = config.copy_and_resolve_references()
  if not config.cnn.batch_norm:
    # Without ImageNet's weights there are no statistics that one could freeze.
    scratch = config.init_from == 'scratch' and config.optimizer.cnn_rule != 'none'
    config.cnn.batch_norm = 'batch' if scratch else 'frozen'
  if not config.text.vocabulary:
    if vocabulary is None and is_embedded(config.data.name):
      require_checkout()
      from data.scenes import vocabulary as scenes_vocabulary

      vocabulary = scenes_vocabulary.FILE
    if vocabulary is None:
      raise UserError(
        "config.text.vocabulary is missing: the path of BERT's vocab.txt, which lies in any copy "
        'of bert-base-uncased'
      )
    config.text.vocabulary = str(vocabulary)
  return config


def choose_answers(
  config: ConfigDict, dataset: Dataset, there: list[str] | None
) -> list[str] | None:
  """The answers that a resolved configuration's model chooses from; None for other tasks.

  Args:
    config: whose `data.answers`, a file, comes first.
    dataset: from whose training and validation questions they are taken, if from nowhere else.
    there: of the checkpoint that a run starts from or goes on with.

  Raises:
    UserError: the file is none, or no answer stands with enough questions.
  """
  if config.name != 'vqa':
    return None
  if config.data.answers:
    return answers.read_answers(pathlib.Path(config.data.answers))
  if there:
    return there
  splits = [config.data.train, config.data.validation]
  found = answers.answer_list([select(dataset, s).sidecar.questions for s in splits])
  if not found:
    raise UserError(
      f'{config.data.name}: no answer stands with {answers.LEAST} or more questions of '
      f'{" and ".join(splits)}: give a list by --config.data.answers=FILE'
    )
  return found


def make_batches(
  config: ConfigDict,
  dataset: Dataset,
  answer_list: list[str] | None = None,
  roles: Sequence[str] = ROLES,
) -> dict[str, Batches]:
  """The batches of a resolved configuration's splits, by the names train, validation and test.

  Those of VQA are given the answers to choose from. What is guessed without looking, of some tasks,
  is learnt from train, and not there without it.
  """
  images, parts = images_per_batch(config), config.micro_batches
  splits = {role: select(dataset, config.data[role]) for role in roles}
  tokenizer = Tokenizer(config.text.vocabulary, config.text.length)
  shapes = tuple(map(tuple, config.image.canvases))
  canvases = Canvases(config.image.shorter, config.image.longer, shapes)
  common = {
    role: {
      'split': split,
      'tokenizer': tokenizer,
      'canvases': canvases,
      'seed': config.seed,
      'images': images if role == 'train' else images // parts,
      'texts_per_image': config.texts_per_image,
      'training': role == 'train',
      'micro_batches': parts if role == 'train' else 1,
      'flip': config.image.flip,
      'process': (jax.process_index(), jax.process_count()),
    }
    for role, split in splits.items()
  }
  return TASKS[config.name].batches(config, common, answer_list)


def make_evaluator(
  config: ConfigDict, model: Model, mesh: Mesh, most: int = 0
) -> Evaluator | Ranker:
  """What runs a resolved configuration's model over a split.

  While training it takes `most` (micro-)batches of it, or as many images; 0 is all there are.
  """
  if TASKS[config.name].ranks:
    images = images_per_batch(config) // config.micro_batches
    return Ranker(model, mesh, config.threads, config.texts_per_image, most * images)
  return Evaluator(TASKS[config.name].module, model, mesh, config.threads, most)


def prepare_data(config: ConfigDict) -> Dataset:
  """Opens the dataset or, of names joined by '+', the mixture of several.

  The embedded one is built first, nothing else ever is.
  """
  require_checkout()
  from data.build import build  # TFDS, which takes seconds to import
  from data.builders import open_dataset

  data_dir, datasets = config.data.data_dir or None, []
  for name in config.data.name.split('+'):
    if is_embedded(name):
      build(name, data_dir)
    datasets.append(open_dataset(name, data_dir))
  if len(datasets) == 1:
    return datasets[0]
  if config.name != 'pretrain':
    raise UserError(f'config.data.name {config.data.name}: mixtures are for pre-training only')
  train = config.data.train
  mixed = mixture.mix(datasets, train, (config.data.validation, config.data.test))
  print(mixture.summary(datasets, mixed, train))
  return mixed


def is_embedded(name: str) -> bool:
  """Whether a dataset is rendered here, and so needs no download."""
  return name.split('/')[0] == 'scenes'
