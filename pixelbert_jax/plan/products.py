"""FLOPs: those of the products and convolutions of a compiled program."""

import functools
import json
import math
import re

from pixelbert_jax.plan.hlo import Array, Computation, Instruction

_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":(\[[^\]]*\])')


def products(computation: Computation, x: Instruction) -> int:
  """Counts the FLOPs of an instruction; 0 if it is no product and no convolution."""
  if x.opcode == 'dot':
    (left,), _ = computation.operand_types(x)[:2]
    contracted = [left.shape[int(i)] for i in x.attribute('lhs_contracting_dims').split(',') if i]
    return 2 * math.prod(x.types[0].shape) * math.prod(contracted)
  if x.opcode == 'convolution':
    (left,), (kernel,) = computation.operand_types(x)[:2]
    return _convolution(x, left, kernel, x.types[0])
  if x.opcode == 'custom-call':
    return _library(computation, x)
  return 0


def _convolution(x: Instruction, left: Array, kernel: Array, out: Array) -> int:
  """Counts the FLOPs of a convolution, given its operands and its result."""
  names = re.split('_|->', x.attribute('dim_labels'))
  sizes = [
    dict(zip(n, a.shape, strict=True)) for n, a in zip(names, (left, kernel, out), strict=True)
  ]
  window = dict(pair.split('=', 1) for pair in _window(x).split())
  spatial = sorted(name for name in names[0] if name.isdigit())

  def field(name: str, default: str) -> list[str]:
    return window[name].split('x') if name in window else [default] * len(spatial)

  valid = 1
  for number, name in enumerate(spatial):
    valid *= _valid_places(
      (sizes[0][name], sizes[2][name]),
      sizes[1][name],
      stride=int(field('stride', '1')[number]),
      low=int(field('pad', '0_0')[number].split('_')[0]),
      dilation=(int(field('lhs_dilate', '1')[number]), int(field('rhs_dilate', '1')[number])),
    )
  groups = int(x.attribute('batch_group_count') or 1)
  return 2 * sizes[0]['b'] // groups * sizes[2]['f'] * sizes[1]['i'] * valid


def _window(x: Instruction) -> str:
  found = re.search(r'\bwindow=\{([^}]*)\}', x.rest)
  return found[1] if found else ''


def _library(computation: Computation, x: Instruction) -> int:
  """Counts the FLOPs of a call of cuBLAS or cuDNN, as XLA makes them for GPUs."""
  found = _TARGET.search(x.rest)
  target = found[1] if found else ''
  if target.startswith(('__cublas$', '__triton$gemm')):
    (left,), _ = computation.operand_types(x)[:2]
    contracted = _CONTRACTED.search(x.rest)
    axes = json.loads(contracted[1]) if contracted else []
    return 2 * math.prod(x.types[0].shape) * math.prod(left.shape[int(i)] for i in axes)
  if target.startswith('__cudnn$conv'):
    # Labels are those of the forward convolution, of input, kernel and output, in all three.
    (first,), (second,) = computation.operand_types(x)[:2]
    result = x.types[0]
    if 'BackwardInput' in target:
      return _convolution(x, result, second, first)
    if 'BackwardFilter' in target:
      return _convolution(x, first, result, second)
    return _convolution(x, first, second, result)
  return 0


@functools.cache
def _valid_places(
  size: tuple[int, int], window: int, *, stride: int, low: int, dilation: tuple[int, int]
) -> int:
  """Counts the (output, window) places of one dimension that fall on an element of the input.

  Args:
    size: of the input and of the output.
    window: its size.
    stride: of the window.
    low: padding before the input.
    dilation: of the input and of the window.
  """
  (length, outputs), (base, step) = size, dilation
  return sum(
    1
    for o in range(outputs)
    for w in range(window)
    if 0 <= (at := o * stride - low + w * step) <= (length - 1) * base and at % base == 0
  )
