"""An experiment: what a configuration describes, made: its data, its model, its optimiser."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from data.build import Dataset, build, open_dataset
from data.scenes import vocabulary as scenes_vocabulary
from pixelbert_jax import UserError, optim
from pixelbert_jax.input import mixture
from pixelbert_jax.input.pipeline import PairBatches
from pixelbert_jax.input.plan import Canvases
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.visual import TextGuess
from pixelbert_jax.models.bert import Encoder, TextEmbedding
from pixelbert_jax.models.heads import PretrainingModel
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.models.resnet import ResNet


def make_model(config: ConfigDict, vocab_size: int) -> PretrainingModel:
  """The model of a resolved configuration."""
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
  backbone = PixelBert(cnn, text, encoder, config.sampled_pixels, mean, deviation)
  return PretrainingModel(backbone)


def make_optimizer(
  config: ConfigDict, params: Any, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, dict[str, optax.Schedule]]:
  """The optimiser of a configuration, and the learning rate of each of its parts by step."""
  c = config.optimizer
  boundaries = [round(epoch * steps_per_epoch) for epoch in c.decay_epochs]
  rates = {
    'cnn': optim.stepped_schedule(c.cnn_rate, c.cnn_warmup_steps, boundaries, c.decay_factor),
    'transformer': optim.stepped_schedule(
      c.transformer_rate, c.transformer_warmup_steps, boundaries, c.decay_factor
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
    config.cnn.batch_norm = 'batch' if config.init_from == 'scratch' else 'frozen'
  if not config.text.vocabulary:
    if vocabulary is None and is_embedded(config.data.name):
      vocabulary = scenes_vocabulary.FILE
    if vocabulary is None:
      raise UserError(
        "config.text.vocabulary is missing: the path of BERT's vocab.txt, which lies in any copy "
        'of bert-base-uncased'
      )
    config.text.vocabulary = str(vocabulary)
  return config


def make_batches(config: ConfigDict, dataset: Dataset) -> dict[str, PairBatches]:
  """The batches of a resolved configuration's splits, by the names train, validation and test."""
  images, parts = images_per_batch(config), config.micro_batches
  splits = {role: dataset[config.data[role]] for role in ('train', 'validation', 'test')}
  guess = TextGuess(splits['train'].sidecar)
  return {
    role: PairBatches(
      split=split,
      tokenizer=Tokenizer(config.text.vocabulary, config.text.length),
      canvases=Canvases(
        config.image.shorter, config.image.longer, tuple(map(tuple, config.image.canvases))
      ),
      seed=config.seed,
      images=images if role == 'train' else images // parts,
      texts_per_image=config.texts_per_image,
      mask_share=config.mask_share,
      whole_share=config.whole_share,
      training=role == 'train',
      micro_batches=parts if role == 'train' else 1,
      shares=mixture.shares_of(split, config.data.shares) if role == 'train' else None,
      flip=config.image.flip,
      guess=None if role == 'train' else guess,
      process=(jax.process_index(), jax.process_count()),
    )
    for role, split in splits.items()
  }


def prepare_data(config: ConfigDict) -> Dataset:
  """Opens the dataset or, of names joined by '+', the mixture of several.

  The embedded one is built first, nothing else ever is.
  """
  data_dir, datasets = config.data.data_dir or None, []
  for name in config.data.name.split('+'):
    if is_embedded(name):
      build(name, data_dir)
    datasets.append(open_dataset(name, data_dir))
  if len(datasets) == 1:
    return datasets[0]
  train = config.data.train
  mixed = mixture.mix(datasets, train, (config.data.validation, config.data.test))
  print(mixture.summary(datasets, mixed, train))
  return mixed


def is_embedded(name: str) -> bool:
  """Whether a dataset is rendered here, and so needs no download."""
  return name.split('/')[0] == 'scenes'
