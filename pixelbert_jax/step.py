"""A training step on global arrays: gradients over a batch or its micro-batches, and the update."""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from pixelbert_jax import sharding, stopping
from pixelbert_jax.compilation import compiled
from pixelbert_jax.in_flight import InFlight
from pixelbert_jax.input.image import model_canvas
from pixelbert_jax.models.forward import forward
from pixelbert_jax.models.heads import Model
from pixelbert_jax.tasks import sums as sums_lib
from pixelbert_jax.tasks.base import Task

Tree = Any
Batch = dict[str, jax.Array]


class State(NamedTuple):
  """All that a step changes; random keys and data follow from `step`, so it is the checkpoint."""

  step: jax.Array
  params: Tree
  batch_stats: Tree
  opt_state: Tree
  sums: dict[str, jax.Array]  # [sum, weight] since the last line of the log

  @property
  def variables(self) -> dict[str, Tree]:
    """The variables that Flax applies a model with."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


class Gradients(NamedTuple):
  """The sums over the micro-batches so far, and the BatchNorm statistics after the last one."""

  number: jax.Array
  params: Tree
  sums: dict[str, jax.Array]
  batch_stats: Tree


def no_sums(task: Task) -> dict[str, jax.Array]:
  """Returns the sums that a task logs, all zero."""
  return {name: jnp.zeros(2) for name in (*task.logged, 'gradient_norm')}


def nothing_yet(state: State) -> Gradients:
  """Returns the `Gradients` before the first micro-batch, all sums zero."""
  zeros = functools.partial(jax.tree.map, jnp.zeros_like)
  sums = {name: x for name, x in state.sums.items() if name != 'gradient_norm'}
  return Gradients(jnp.int32(0), zeros(state.params), zeros(sums), state.batch_stats)


def add_gradients(
  so_far: Gradients,
  state: State,
  batch: Batch,
  *,
  task: Task,
  model: Model,
  seed: int,
  mesh: Mesh | None = None,
) -> Gradients:
  """Adds the gradients and sums of a (micro-)batch, split among the devices of `mesh` if given."""
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  key = jax.random.fold_in(key, so_far.number)
  rngs = dict(zip(('dropout', 'pixels'), jax.random.split(key), strict=True))

  def loss(params):
    variables = {'params': params, 'batch_stats': so_far.batch_stats}
    outputs, changed = forward(
      model, variables, batch, train=True, rngs=rngs, mutable=['batch_stats']
    )
    sums = task.losses(outputs, batch)
    value = sums_lib.loss(sums, batch, task.weights)
    return value, (sums | task.accuracies(outputs, batch), changed['batch_stats'])

  gradients, (sums, batch_stats) = jax.grad(loss, has_aux=True)(
    sharding.gathered(mesh, state.params)
  )
  add = functools.partial(jax.tree.map, jnp.add)
  return Gradients(
    number=so_far.number + 1,
    params=add(so_far.params, sharding.split(mesh, gradients)),
    sums=add(so_far.sums, {name: sums[name] for name in so_far.sums}),
    batch_stats=batch_stats,
  )


@jax.named_scope('optimizer')
def update(
  gradients: Gradients, state: State, *, optimizer: optax.GradientTransformation, skip: bool = False
) -> tuple[State, jax.Array]:
  """Returns the state after a step along the gradients of the whole batch.

  Beside it stands whether that state, with the losses and the gradient norm in its sums, is finite.
  If it is not and `skip` is set, only the number of the step changes.
  """
  updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
  norm = jnp.stack([optax.tree.norm(gradients.params), jnp.float32(1)])
  after = State(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    batch_stats=gradients.batch_stats,
    opt_state=opt_state,
    sums=jax.tree.map(jnp.add, state.sums, gradients.sums | {'gradient_norm': norm}),
  )
  # The optimiser's moments are then finite, too: their overflow would have been the norm's.
  finite = is_finite((after.params, after.batch_stats, after.sums))
  if skip:
    unchanged = state._replace(step=after.step)
    after = jax.tree.map(functools.partial(jnp.where, finite), after, unchanged)
  return after, finite


def is_finite(tree: Tree) -> jax.Array:
  """Tells in one bool [] whether every element of every array is finite."""
  numbers = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
  return jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()


class Step:
  """A training step, compiled once per batch shape; at most two (micro-)batches are in flight.

  A signal that asks to stop is heard while it compiles, which then raises Stopped; the state is as
  it was.

  Attributes:
    shardings: those of the state.
    micro_batches: number of micro-batches per batch. Their gradients add up to those of the whole
      batch, except that dropout and sampled pixels are drawn differently, and BatchNorm, unless
      frozen, normalises each micro-batch by its own statistics.
    in_flight: what the devices work on.
  """

  def __init__(
    self,
    *,
    task: Task,
    model: Model,
    optimizer: optax.GradientTransformation,
    seed: int,
    micro_batches: int,
    shardings: State,
    skip: bool = False,
  ):
    """Defines the programs; `shardings` are those of the state, `skip` is as in `update`."""
    self.micro_batches, self.shardings = micro_batches, shardings
    self.in_flight, self._programs = InFlight(), dict[Hashable, Any]()
    of_step: Any = shardings.step
    add = functools.partial(add_gradients, task=task, model=model, seed=seed, mesh=of_step.mesh)
    apply = functools.partial(update, optimizer=optimizer, skip=skip)

    def whole(state: State, batch: Batch) -> tuple[State, jax.Array]:
      return apply(add(nothing_yet(state), state, batch), state)

    def part(so_far: Gradients, state: State, batch: Batch) -> tuple[Gradients, jax.Array]:
      gradients = add(so_far, state, batch)
      return gradients, gradients.number  # which, unlike the gradients, is not donated

    sums = {name: x for name, x in shardings.sums.items() if name != 'gradient_norm'}
    self._held = held = Gradients(shardings.step, shardings.params, sums, shardings.batch_stats)
    after = shardings, shardings.step  # The flag, like the step, is the same on all devices.
    self._whole = jax.jit(whole, donate_argnums=0, out_shardings=after)
    self._nothing = jax.jit(nothing_yet, out_shardings=held)
    self._part = jax.jit(part, donate_argnums=0, out_shardings=(held, held.number))
    self._apply = jax.jit(apply, donate_argnums=1, out_shardings=after)

  def __call__(self, state: State, batches: Iterable[Batch]) -> tuple[State, jax.Array]:
    """Returns what `update` does; takes the micro-batches of one batch one at a time."""
    batches = iter(batches)
    if self.micro_batches == 1:
      batch = self.in_flight.take(batches)
      state, finite = self.program(state, batch)(state, batch)
      self.in_flight.add(finite)
      return state, finite
    gradients = self._start(state)(state)
    for _ in range(self.micro_batches):
      batch = self.in_flight.take(batches)
      gradients, number = self.program(gradients, state, batch)(gradients, state, batch)
      self.in_flight.add(number)
    state, finite = self._end(gradients, state)(gradients, state)
    self.in_flight.follow(finite)
    return state, finite

  def lower(self, state: State, batch: Batch) -> dict[str, jax.stages.Lowered]:
    """Lowers the programs of a step, by name, for arrays described with their shardings."""
    if self.micro_batches == 1:
      return {'step': self._whole.lower(state, batch)}
    gradients = self._gradients(state)
    return {
      'micro-batch': self._part.lower(gradients, state, batch),
      'update': self._apply.lower(gradients, state),
    }

  def compile(self, state: State, batches: Sequence[dict[str, Any]]) -> None:
    """Compiles all programs ahead, for batches of these shapes, types and shardings.

    Raises:
      Stopped: a signal asked for it.
    """
    before: tuple[Any, ...] = (state,)
    if self.micro_batches > 1:
      self._start(state)
      before = self._gradients(state), state
    for number, batch in enumerate(batches, 1):
      self.program(*before, batch, place=f'({number} of {len(batches)})')
    if self.micro_batches > 1:
      self._end(*before)

  def program(self, *arguments: Any, place: str = '') -> Any:
    """Returns the program for this batch shape; compiles it on first use, and says so."""
    batch = arguments[-1]
    shapes = (len(batch['image']), *model_canvas(batch)), batch['image'].shape

    def make() -> Any:
      jitted = self._whole if self.micro_batches == 1 else self._part
      title = f'images {"x".join(map(str, shapes[0]))}'
      return compiled(jitted, *arguments, title=title, place=place)

    return self._made(shapes, make)

  def _gradients(self, state: State) -> Gradients:
    return sharding.abstract(jax.eval_shape(nothing_yet, state), self._held)

  def _start(self, state: State) -> Any:
    return self._made('start', lambda: stopping.heard(self._nothing.lower(state).compile))

  def _end(self, gradients: Gradients, state: State) -> Any:
    make = functools.partial(compiled, self._apply, gradients, state, title='the update')
    return self._made('end', make)

  def _made(self, key: Hashable, make: Callable[[], Any]) -> Any:
    if key not in self._programs:
      self._programs[key] = make()
    return self._programs[key]
