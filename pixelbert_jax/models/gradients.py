"""Operations with a parameter whose gradient adds up in the parameter's own type.

Parameters are float32 where the computation may be bfloat16. Differentiated as it stands, a
parameter that is cast first has its gradient rounded to bfloat16 on each device, and summed over
devices in bfloat16. Here it is float32 from the first product to the last sum.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Operation = Callable[[Array, Array], Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def apply(operation: Operation, gradient: Operation, x: Array, parameter: Array) -> Array:
  """Applies an operation that is linear in both arguments, with a gradient of one's own.

  Args:
    operation: of x and the parameter in x's type.
    gradient: of x and the gradient of the result; computes that of the parameter, in its type.
    x: activations.
    parameter: of any type.
  """
  return operation(x, parameter.astype(x.dtype))


def _forward(
  operation: Operation, gradient: Operation, x: Array, parameter: Array
) -> tuple[Array, tuple[Array, Array]]:
  del gradient
  narrow = parameter.astype(x.dtype)
  return operation(x, narrow), (x, narrow)


def _backward(
  operation: Operation, gradient: Operation, saved: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
  x, narrow = saved
  (dx,) = jax.vjp(lambda x: operation(x, narrow), x)[1](dy)
  return dx, gradient(x, dy)


apply.defvjp(_forward, _backward)


def apply_wide(operation: Operation, gradient: Operation, x: Array, parameter: Array) -> Array:
  """Applies like `apply` where the parameter's type is wider than x's; else `gradient` is JAX's."""
  if jnp.promote_types(x.dtype, parameter.dtype) == x.dtype:
    return operation(x, parameter.astype(x.dtype))
  return apply(operation, gradient, x, parameter)


def multiply(x: Array, kernel: Array) -> Array:
  """Multiplies x [..., I] by a kernel [I, O]; returns [..., O] in x's type."""
  wide = kernel.dtype

  def gradient(x: Array, dy: Array) -> Array:
    axes = tuple(range(x.ndim - 1))
    # On CPU, the first is transposed in memory: the narrower. JAX's own is always dy. XLA has no
    # product of bfloat16 into float32 for both.
    if x.shape[-1] <= dy.shape[-1] or x.dtype != wide:
      return jnp.tensordot(x, dy, (axes, axes), preferred_element_type=wide)
    return jnp.tensordot(dy, x, (axes, axes), preferred_element_type=wide).T

  return apply(jnp.matmul, gradient, x, kernel)


def scale(x: Array, gain: Array) -> Array:
  """Multiplies x [..., C] by gain [C]; returns x's type."""
  wide = gain.dtype

  def gradient(x: Array, dy: Array) -> Array:
    return (x.astype(wide) * dy.astype(wide)).sum(tuple(range(x.ndim - 1)))

  return apply_wide(jnp.multiply, gradient, x, gain)


def shift(x: Array, bias: Array) -> Array:
  """Adds bias [C] to x [..., C]; returns x's type."""
  wide = bias.dtype

  def gradient(x: Array, dy: Array) -> Array:
    return dy.sum(tuple(range(x.ndim - 1)), dtype=wide)

  return apply_wide(jnp.add, gradient, x, bias)
