"""The programs of a configuration, lowered for devices that are not here, without any data."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from pixelbert_jax import UserError, jsons, sharding
from pixelbert_jax.experiment import make_model, make_task, resolve
from pixelbert_jax.input.dataset import is_embedded
from pixelbert_jax.input.image import WHOLE
from pixelbert_jax.input.pipeline import FEW
from pixelbert_jax.input.vocabulary import read_vocabulary
from pixelbert_jax.plan import corpus
from pixelbert_jax.plan.target import Target
from pixelbert_jax.tasks import answers, labels
from pixelbert_jax.tasks.base import Task
from pixelbert_jax.tasks.ranker import BLOCK
from pixelbert_jax.tasks.retrieval import Retrieval
from pixelbert_jax.train import define


@dataclasses.dataclass(frozen=True)
class Setting:
  """A configuration on a target: what its programs depend on.

  Attributes:
    config: resolved, with the batch size that is planned for.
    target: what is compiled for.
    mesh: of its devices.
    task: made without data.
    canvas: height and width of the images; of pairs also those of the left and of the right one.
  """

  config: ConfigDict
  target: Target
  mesh: jax.sharding.Mesh
  task: Task
  canvas: tuple[int, ...]

  @property
  def title(self) -> str:
    """Its canvas in words: '832x1088'."""
    return canvas_title(self.canvas)

  @property
  def chips(self) -> int:
    """Number of chips."""
    return self.mesh.size

  @property
  def groups(self) -> int:
    """Images with their texts that a chip takes at a time; of pairs of images, the pairs."""
    c = self.config
    return c.batch_size // c.texts_per_image // c.micro_batches // self.chips

  @property
  def images_per_group(self) -> int:
    """2 where a text is about two images, else 1."""
    return 2 if self.config.name == 'nlvr2' else 1

  @property
  def source(self) -> tuple[int, int]:
    """Height and width of the canvas of the files: at most those of the dataset's largest."""
    found = corpus.find(self.config.name, self.config.data.name, self.config.data.train)
    side = max(c.side for c in found) if found else corpus.DEFAULT_SIDE
    sides = max(self.canvas[::2]), max(self.canvas[1::2])
    height, width = (min(WHOLE * x, side) for x in sides)
    return height, width

  def of_size(self, groups: int) -> 'Setting':
    """Returns it with another number of groups a chip."""
    config = self.config.copy_and_resolve_references()
    config.batch_size = groups * self.chips * config.texts_per_image * config.micro_batches
    return dataclasses.replace(self, config=config, task=_task(config))

  def of_mode(self, mode: str) -> 'Setting':
    """Returns it with the batch of 'train' or 'evaluate'; they differ in retrieval."""
    if mode == 'evaluate' and isinstance(self.task, Retrieval):
      return self.of_size(min(self.groups, BLOCK))
    return self

  def on(self, canvas: tuple[int, ...]) -> 'Setting':
    """Returns it with another canvas."""
    return dataclasses.replace(self, canvas=canvas)


def canvases(config: ConfigDict) -> list[tuple[int, ...]]:
  """Lists the canvases of a configuration, those of the most pixels an image first."""

  def pixels(canvas: tuple[int, ...]) -> float:
    return sum(map(math.prod, _halves(canvas))) / len(canvas)

  return sorted(map(tuple, config.image.canvases), key=pixels, reverse=True)


def canvas_title(canvas: Sequence[int]) -> str:
  """Writes a canvas as '832x1088', or '832x1088+1344x832' for the images of a pair."""
  return '+'.join('x'.join(map(str, half)) for half in _halves(canvas))


def _halves(canvas: Sequence[int]) -> list[Sequence[int]]:
  return [canvas[i : i + 2] for i in range(0, len(canvas), 2)]


def setting(config: ConfigDict, target: Target, images_per_chip: int = 0) -> Setting:
  """Makes the setting of a configuration on its largest canvas.

  Args:
    config: checked.
    target: what is compiled for.
    images_per_chip: images that a chip takes at a time, instead of the configuration's.

  Raises:
    UserError: the target does not exist, or devices and micro-batches cannot share the batch.
  """
  mesh = sharding.make_mesh(**config.mesh, devices=target.devices())
  # Of other data the vocabulary is only counted.
  embedded = is_embedded(config.data.name)
  config = resolve(config, None if embedded else pathlib.Path('bert-base-uncased/vocab.txt'))
  largest = canvases(config)[0]
  made = Setting(config, target, mesh, _task(config), largest)
  if images_per_chip:
    if images_per_chip % made.images_per_group:
      raise UserError(
        f'--images_per_chip={images_per_chip}: a text is about two images: give an even number'
      )
    return made.of_size(images_per_chip // made.images_per_group)
  images, parts = config.batch_size // config.texts_per_image, config.micro_batches
  if images % (parts * mesh.size):
    raise UserError(
      f'config.batch_size: {images} images do not divide among {parts} micro_batches on '
      f'{mesh.size} chips: give --images_per_chip=N'
    )
  return made


def _task(config: ConfigDict) -> Task:
  """Makes the task without data; of VQA with as many answers as its first dataset has.

  Likewise with as many labels.
  """
  files = {}
  if config.name == 'labels':
    number = corpus.LABELS.get(config.data.name)
    if number is None:
      raise UserError(f'data.name: how many labels {config.data.name} has is not known')
    files[labels.FILE] = jsons.text([str(i) for i in range(number)]).encode()
  if config.name == 'vqa' and not config.data.answers:
    number = corpus.ANSWERS.get(config.data.name.split('+')[0])
    if number is None:
      raise UserError(
        f'config.data.answers: how many answers {config.data.name} has is not known: give the list'
      )
    files[answers.FILE] = jsons.text([str(i) for i in range(number)]).encode()
  return make_task(config, files=files)


def lower(of: Setting, mode: str) -> dict[str, jax.stages.Lowered]:
  """Lowers the programs of training ('train') or of evaluation ('evaluate'), by name."""
  config = of.config
  path = pathlib.Path(config.text.vocabulary)
  words = len(read_vocabulary(path, str(path))[1]) if path.is_file() else corpus.WORDS
  model = make_model(config, words, of.task, platform=of.target.chip.platform)
  training = mode == 'train'
  first = _row(of, training=True)
  make, step, _ = define(config, of.task, model, of.mesh, batch=first, steps_per_epoch=1000)
  state = sharding.abstract(jax.eval_shape(make), step.shardings)
  groups = of.groups * of.chips
  batch = {
    name: jax.ShapeDtypeStruct((len(x) * groups, *x.shape[1:]), x.dtype)
    for name, x in _row(of, training).items()
  }
  batch = sharding.abstract(batch, sharding.batch_sharding(of.mesh))
  if training:
    return step.lower(state, batch)
  variables = sharding.abstract(state.variables, sharding.replicated(of.mesh))
  return of.task.evaluator(model, of.mesh, FEW).lower(variables, batch)


def _row(of: Setting, training: bool) -> dict[str, np.ndarray]:
  """Makes a row of a (micro-)batch from zeros."""
  config, images = of.config, of.images_per_group
  pair = np.zeros((images, 2), np.int32)
  row: dict[str, Any] = {
    **of.task.row(config.texts_per_image, config.text.length, training),
    'image': np.zeros((images, *of.source, 3), np.uint8),
    'source_size': pair,
    'size': pair,
    'canvas': np.zeros((images, *of.canvas, 0), np.uint8),
  }
  if training and config.image.flip:
    row['flip'] = np.zeros(images, bool)
  if training and config.micro_batches > 1:
    losses = [name for name in of.task.logged if name.endswith('_loss')]
    row |= {f'{x.removesuffix("_loss")}_total': np.zeros(1, np.float32) for x in losses}
  return row
