"""Steps of pre-training to be measured: this project's and PyTorch's, on the same work."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain_pytorch import PlainPixelBert
from pixelbert_jax import sharding
from pixelbert_jax.convert.export import model_config
from pixelbert_jax.convert.pytorch.configuration_pixelbert import PixelBertConfig
from pixelbert_jax.convert.pytorch.modeling_pixelbert import PixelBertForPreTraining
from pixelbert_jax.experiment import make_model, make_optimizer, make_task
from pixelbert_jax.input.image import model_input
from pixelbert_jax.step import State, nothing_yet, update
from pixelbert_jax.train import define

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Work:
  """What a step computes.

  Attributes:
    config: resolved; of pre-training.
    words: entries of the vocabulary.
    canvas: height and width of the images, which fill it.
  """

  config: ConfigDict
  words: int
  canvas: tuple[int, int]

  @functools.cached_property
  def batch(self) -> dict[str, np.ndarray]:
    """A batch drawn at random."""
    c, rng = self.config, np.random.default_rng(0)
    images = c.batch_size // c.texts_per_image
    row = make_task(c).row(c.texts_per_image, c.text.length, training=True)
    batch = {name: np.repeat(x, images, axis=0) for name, x in row.items()}
    sizes = np.tile(np.int32(self.canvas), (images, 1))
    ids = batch['token_ids']
    ids[:] = rng.integers(0, self.words, ids.shape)
    batch['token_mask'][:] = True
    places = batch['mlm_position'].shape[-1]
    batch['mlm_position'][:] = 1 + np.arange(places)
    batch['mlm_target'][:] = ids[..., 1 : 1 + places]
    batch['itm_label'][:] = rng.integers(0, 2, batch['itm_label'].shape)
    batch['mlm_weight'][:], batch['weight'][:] = 1, 1
    return batch | {
      'image': rng.integers(0, 256, (images, *self.canvas, 3), np.uint8),
      'source_size': sizes,
      'size': sizes,
      'canvas': np.zeros((images, *self.canvas, 0), np.uint8),
    }


class Ours:
  """The step of this project, and its parts by themselves, on one device."""

  def __init__(self, work: Work):
    config = work.config
    task = make_task(config)
    self.model = make_model(config, work.words, task)
    self.mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
    make, self.step, _ = define(
      config, task, self.model, self.mesh, batch=work.batch, steps_per_epoch=1000
    )
    self.state = jax.jit(make, out_shardings=self.step.shardings)()
    self.optimizer, _ = make_optimizer(config, self.state.params, 1000)
    self.batch = sharding.global_batch(self.mesh, work.batch)
    self.step.compile(self.state, [self.batch])

  def __call__(self) -> None:
    """Runs a step to its end."""
    self.state, finite = self.step(self.state, iter([self.batch]))
    jax.block_until_ready((self.state, finite))

  def product(self, side: int) -> Call:
    """Returns a call that multiplies two square matrices."""
    x = jax.random.normal(jax.random.key(0), (side, side), self.model.backbone.cnn.dtype)
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(x, x).block_until_ready()

  def peak_memory(self) -> int:
    """Returns the most bytes that the GPU had in use, or 0 on CPU."""
    return (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0)

  def parts(self) -> dict[str, Call]:
    """Returns calls of the parts, by name."""
    backbone = self.model.backbone
    prepare = jax.jit(lambda batch: model_input(batch, backbone.mean, backbone.deviation))
    images = prepare(self.batch)

    def features(of_cnn: dict, state: State, images: jax.Array) -> jax.Array:
      params = state.params | {'backbone': state.params['backbone'] | {'cnn': of_cnn}}
      (found, _), _ = self.model.apply(
        {'params': params, 'batch_stats': state.batch_stats},
        images,
        self.batch['size'],
        True,
        method=lambda model, *x: model.backbone.cnn(*x),
        mutable=['batch_stats'],
      )
      return found.astype(jnp.float32).sum()

    of_cnn, gradients = jax.jit(jax.grad(features)), nothing_yet(self.state)
    apply = jax.jit(functools.partial(update, optimizer=self.optimizer), donate_argnums=1)

    def cnn() -> None:
      jax.block_until_ready(of_cnn(self.state.params['backbone']['cnn'], self.state, images))

    def optimise() -> None:
      self.state, finite = apply(gradients, self.state)
      jax.block_until_ready((self.state, finite))

    return {
      'input': lambda: jax.block_until_ready(prepare(self.batch)),
      'CNN': cnn,
      'optimiser': optimise,
    }


class PyTorch:
  """A step in PyTorch, and its parts."""

  def __init__(self, work: Work, masks: bool):
    """Makes the model that the export writes, which masks the padding, or the plain one."""
    c = work.config
    self.device = torch.device('cuda' if jax.default_backend() == 'gpu' else 'cpu')
    self.narrow = c.dtype == 'bfloat16'
    sizes = PixelBertConfig(**model_config(c.to_dict(), work.words))
    model = PixelBertForPreTraining(sizes) if masks else PlainPixelBert(sizes)
    model = model.to(self.device, memory_format=torch.channels_last).train()
    self.model: Any = model
    o = c.optimizer
    cnn = list(model.cnn.parameters())
    rest = [x for name, x in model.named_parameters() if not name.startswith('cnn.')]
    sgd = torch.optim.SGD(cnn, o.cnn_rate, o.cnn_momentum, weight_decay=o.cnn_decay, fused=True)
    adamw = torch.optim.AdamW(
      rest, o.transformer_rate, o.betas, o.epsilon, o.transformer_decay, fused=True
    )
    self.optimisers, self.clip = (sgd, adamw), o.clip_norm
    self.batch = {name: torch.from_numpy(x).to(self.device) for name, x in work.batch.items()}
    self.texts = {name: self.batch[name].flatten(0, 1) for name in ('token_ids', 'token_mask')}
    self.labels = torch.full_like(self.texts['token_ids'], -100, dtype=torch.long)
    self.labels.scatter_(
      1,
      self.batch['mlm_position'].flatten(0, 1).long(),
      self.batch['mlm_target'].flatten(0, 1).long(),
    )
    self.matched = self.batch['itm_label'].flatten().float()
    self.mean, self.deviation = (
      torch.tensor(x, device=self.device)[:, None, None] for x in (c.image.mean, c.image.deviation)
    )
    self.masks, self.sampled = masks, c.sampled_pixels
    self.pixels = math.prod(-(-side // c.cnn.total_stride) for side in work.canvas)

  def compile(self) -> None:
    """Has `torch.compile` compile the model, in place, on the next call."""
    self.model.compile()

  def __call__(self) -> None:
    """Runs a step to its end."""
    image = self.image()
    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.narrow):
      loss = self.loss(image)
    loss.backward()
    self.optimise()
    self.wait()

  def image(self) -> torch.Tensor:
    """Normalises the images, which PyTorch's loaders have resized before."""
    image = self.batch['image'].permute(0, 3, 1, 2)  # channels last in memory
    return (image.float() / 255 - self.mean) / self.deviation

  def loss(self, image: torch.Tensor) -> torch.Tensor:
    """Computes the loss of the batch."""
    ids, mask = self.texts['token_ids'], self.texts['token_mask']
    if self.masks:
      return self.model(
        image,
        ids,
        mask,
        image_size=self.batch['size'],
        pixel_indices=self.sample(),
        labels=self.labels,
        itm_labels=self.matched,
      ).loss
    return self.model(image, ids, self.labels, self.matched, pixel_indices=self.sample())

  def sample(self) -> torch.Tensor | None:
    """Draws pixels for each text, all on the canvas being real; None for all."""
    if not 0 < self.sampled < self.pixels:
      return None
    noise = torch.rand((len(self.labels), self.pixels), device=self.device)
    return noise.topk(self.sampled).indices

  def optimise(self) -> None:
    """Updates the parameters along their gradients."""
    if self.clip:
      torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
    for optimiser in self.optimisers:
      optimiser.step()
      optimiser.zero_grad()

  def wait(self) -> None:
    """Waits for the device."""
    if self.device.type == 'cuda':
      torch.cuda.synchronize()

  def product(self, side: int) -> Call:
    """Returns a call that multiplies two square matrices."""
    dtype = torch.bfloat16 if self.narrow else torch.float32
    x = torch.randn((side, side), device=self.device, dtype=dtype)

    def multiply() -> None:
      torch.matmul(x, x)
      self.wait()

    return multiply

  def peak_memory(self) -> int:
    """Returns the most bytes that the GPU had in use, or 0 on CPU."""
    return torch.cuda.max_memory_allocated() if self.device.type == 'cuda' else 0

  def parts(self) -> dict[str, Call]:
    """Returns calls of the parts, by name."""
    masks, image = self.masks, self.image()
    zeros = [torch.zeros_like(x) for x in self.model.parameters()]

    def prepare() -> None:
      self.image()
      self.wait()

    def cnn() -> None:
      with torch.autocast(self.device.type, torch.bfloat16, enabled=self.narrow):
        found = self.model.cnn(image, *[self.batch['size']] * masks)
      (found[0] if masks else found).float().sum().backward()
      self.wait()

    def optimise() -> None:
      for parameter, zero in zip(self.model.parameters(), zeros, strict=True):
        parameter.grad = zero
      self.optimise()
      self.wait()

    return {'input': prepare, 'CNN': cnn, 'optimiser': optimise}

  def flops(self) -> int:
    """Counts the FLOPs of products and convolutions in a step: three times the forward pass.

    PyTorch counts the gradients of grouped convolutions as if they had no groups.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
      self.loss(self.image())
    return 3 * counter.get_total_flops()
