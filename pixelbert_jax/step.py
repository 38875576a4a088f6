"""One step of training on global arrays: gradients of a batch, or of its micro-batches, applied."""

import functools
import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pixelbert_jax.input.image import model_canvas, model_input
from pixelbert_jax.models.heads import Model
from pixelbert_jax.tasks import sums as sums_lib

Tree = Any
Batch = dict[str, jax.Array]


class State(NamedTuple):
  """All that a step changes. Chance and data follow from `step`, so this is the checkpoint."""

  step: jax.Array
  params: Tree
  batch_stats: Tree
  opt_state: Tree
  sums: dict[str, jax.Array]  # since the last line of the log

  @property
  def variables(self) -> dict[str, Tree]:
    """What Flax applies a model to."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


class Gradients(NamedTuple):
  """What the micro-batches seen so far give: sums, and the last one's running statistics."""

  number: jax.Array
  params: Tree
  sums: dict[str, jax.Array]
  batch_stats: Tree


def no_sums(task: ModuleType) -> dict[str, jax.Array]:
  """What is summed up for the log of a task, before the first step."""
  return {name: jnp.zeros(2) for name in (*task.LOGGED, 'gradient_norm')}


def forward(model: Model, variables: dict, batch: Batch, train: bool, **options: Any) -> Any:
  """Runs a model on a batch; `options` are those of Flax's `apply` (rngs, mutable)."""
  return model.apply(
    variables,
    model_input(batch, model.backbone.mean, model.backbone.deviation),
    batch['size'],
    *(batch[name] for name in model.INPUTS),
    train,
    **options,
  )


def nothing_yet(state: State) -> Gradients:
  """Before the first micro-batch."""
  zeros = functools.partial(jax.tree.map, jnp.zeros_like)
  sums = {name: x for name, x in state.sums.items() if name != 'gradient_norm'}
  return Gradients(jnp.int32(0), zeros(state.params), zeros(sums), state.batch_stats)


def add_gradients(
  so_far: Gradients, state: State, batch: Batch, *, task: ModuleType, model: Model, seed: int
) -> Gradients:
  """Adds the gradients of a (micro-)batch's part of the loss."""
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  key = jax.random.fold_in(key, so_far.number)
  rngs = dict(zip(('dropout', 'pixels'), jax.random.split(key), strict=True))

  def loss(params):
    variables = {'params': params, 'batch_stats': so_far.batch_stats}
    outputs, changed = forward(
      model, variables, batch, train=True, rngs=rngs, mutable=['batch_stats']
    )
    sums = task.losses(outputs, batch)
    value = sums_lib.loss(sums, batch)
    return value, (sums | task.accuracies(outputs, batch), changed['batch_stats'])

  gradients, (sums, batch_stats) = jax.grad(loss, has_aux=True)(state.params)
  add = functools.partial(jax.tree.map, jnp.add)
  return Gradients(
    number=so_far.number + 1,
    params=add(so_far.params, gradients),
    sums=add(so_far.sums, {name: sums[name] for name in so_far.sums}),
    batch_stats=batch_stats,
  )


def update(gradients: Gradients, state: State, *, optimizer: optax.GradientTransformation) -> State:
  """The state after a step along the gradients of the whole batch."""
  updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
  norm = jnp.stack([optax.tree.norm(gradients.params), jnp.float32(1)])
  return State(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=gradients.batch_stats,
    opt_state=opt_state,
    sums=jax.tree.map(jnp.add, state.sums, gradients.sums | {'gradient_norm': norm}),
  )


class Step:
  """A step, compiled for each shape of batch when it is first met, which is then said.

  Attributes:
    micro_batches: how many a batch comes in. Their gradients add up to those of the whole, but for
      what is drawn (dropout, sampled pixels) and statistics of BatchNorm that is not frozen: each
      micro-batch is normalised by its own.
  """

  def __init__(
    self,
    task: ModuleType,
    model: Model,
    optimizer: optax.GradientTransformation,
    seed: int,
    micro_batches: int,
    places: State,
  ):
    """`places` are the shardings of the state."""
    self.micro_batches = micro_batches
    self._programs: dict[tuple, Callable] = {}
    add = functools.partial(add_gradients, task=task, model=model, seed=seed)
    apply = functools.partial(update, optimizer=optimizer)

    def whole(state: State, batch: Batch) -> State:
      return apply(add(nothing_yet(state), state, batch), state)

    sums = {name: place for name, place in places.sums.items() if name != 'gradient_norm'}
    held = Gradients(places.step, places.params, sums, places.batch_stats)
    self._whole = jax.jit(whole, donate_argnums=0, out_shardings=places)
    self._nothing = jax.jit(nothing_yet, out_shardings=held)
    self._add = jax.jit(add, donate_argnums=0, out_shardings=held)
    self._apply = jax.jit(apply, donate_argnums=1, out_shardings=places)

  def __call__(self, state: State, batches: Iterable[Batch]) -> State:
    """The next state, by the micro-batches of one batch, taken one at a time."""
    if self.micro_batches == 1:
      (batch,) = batches
      return self.program(state, batch)(state, batch)
    gradients = self._nothing(state)
    for batch in batches:
      gradients = self.program(gradients, state, batch)(gradients, state, batch)
    return self._apply(gradients, state)

  def program(self, *arguments: Any) -> Callable:
    """What runs on this shape of batch, compiled ahead; says what it took and will take."""
    batch = arguments[-1]
    shapes = (len(batch['image']), *model_canvas(batch)), batch['image'].shape
    if shapes not in self._programs:
      began = time.perf_counter()
      jitted = self._whole if self.micro_batches == 1 else self._add
      self._programs[shapes] = compiled = jitted.lower(*arguments).compile()
      memory = compiled.memory_analysis()  # None where a backend does not tell.
      total = memory and memory.argument_size_in_bytes + memory.temp_size_in_bytes
      print(
        f'compiled    images {"x".join(map(str, shapes[0]))} in '
        f'{time.perf_counter() - began:.0f} s'
        + (f'; {total / 2**20:,.0f} MiB a device' if total else ''),
        flush=True,
      )
    return self._programs[shapes]
