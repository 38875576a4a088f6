"""Reads Detectron's ResNeXt: a pickle of NumPy arrays under Caffe2's names.

Known source: ImageNetPretrained/25093814/X-152-32x8d-IN5k.pkl of Detectron's model zoo. Its
blocks are torchvision's, with the stride in the 3x3 convolution. BatchNorm statistics are folded
into scale and shift; inputs are BGR in 0..255 minus a mean.
"""

import io
import pathlib
import pickle
import pickletools
import re
from typing import Any

import numpy as np

from pixelbert_jax.convert.names import WeightsError

# Of RGB in 0..1. Detectron subtracts (102.9801, 115.9465, 122.7717) of BGR in 0..255.
MEAN = tuple(x / 255 for x in (122.7717, 115.9465, 102.9801))
DEVIATION = (1 / 255,) * 3

BATCH_NORM_EPSILON = 1e-5  # models/padded.py

UNWANTED = {
  r'cnn\..*_momentum': 'optimiser state',
  r'cnn\.(lr|model_iter|weight_order)': 'training state',
  r'cnn\.(pred|fc\d+|last_out_L\d+)_[wb]': 'ImageNet classifier',
}


def read_pickle(path: pathlib.Path) -> dict[str, Any]:
  """Reads the blobs of a pickle, by name.

  Raises:
    WeightsError: it holds anything but dictionaries, lists, strings, numbers and NumPy arrays.
  """
  content = path.read_bytes()
  try:
    _check_numbers(content)
    value = _ArraysOnly(io.BytesIO(content), encoding='latin1').load()
  except WeightsError as error:
    raise WeightsError(f'{path}: {error}') from error
  blobs = value.get('blobs', value) if isinstance(value, dict) else value
  if not isinstance(blobs, dict) or not all(isinstance(name, str) for name in blobs):
    raise WeightsError(f"{path} is not in Detectron's format: it holds no dictionary of blobs")
  return {name: x.numpy if isinstance(x, _Array) else x for name, x in blobs.items()}


def _check_numbers(content: bytes) -> None:
  """Raises WeightsError for a pickle that numbers its objects so high that memory is used up."""
  for code, number, _ in pickletools.genops(content):
    if code.name.endswith('PUT') and int(number or 0) > len(content):
      raise WeightsError(f'the pickle of {len(content):,} bytes numbers an object {number:,}')


class _ArraysOnly(pickle.Unpickler):
  """An unpickler that resolves only the names that pickled NumPy arrays need.

  Even those resolve to the stand-ins below, so that a pickle cannot call functions of NumPy.
  """

  def find_class(self, module: str, name: str) -> Any:
    known = {
      ('numpy', 'ndarray'): _Array,
      ('numpy', 'dtype'): _Dtype,
      ('multiarray', '_reconstruct'): lambda kind, shape, dtype: _Array(),
      ('multiarray', 'scalar'): lambda dtype, data: np.frombuffer(_bytes(data), dtype.numpy)[0],
      ('numeric', '_frombuffer'): _from_buffer,
      ('_codecs', 'encode'): lambda text, encoding: _bytes(text),
    }
    replacement = known.get((re.sub(r'^numpy\._?core\.', '', module), name))
    if replacement is None:
      raise WeightsError(
        f'the pickle asks for {module}.{name}; only arrays are admitted: others may run code'
      )
    return replacement


class _Dtype:
  """A stand-in for a numeric dtype."""

  def __init__(self, kind: str, align: int = 0, copy: int = 0):
    if not re.fullmatch(r'[biuf]\d', kind):
      raise WeightsError(f'the pickle holds an array of type {kind!r}, which is not of numbers')
    self.numpy = np.dtype(kind)

  def __setstate__(self, state: tuple) -> None:
    self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
  """A stand-in for an array, which is its attribute `numpy`."""

  def __setstate__(self, state: tuple) -> None:
    _, shape, dtype, fortran, data = state
    self.numpy = np.frombuffer(_bytes(data), dtype.numpy).reshape(
      shape, order='F' if fortran else 'C'
    )


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str, *_) -> _Array:
  array = _Array()
  array.__setstate__((1, shape, dtype, order == 'F', data))
  return array


def _bytes(data: str | bytes) -> bytes:
  # Python 2 and pickle protocols before 3 write bytes as str.
  if not isinstance(data, str | bytes | bytearray):
    raise WeightsError(f'the pickle gives {type(data).__name__} for the bytes of an array')
  return data.encode('latin1') if isinstance(data, str) else bytes(data)


def rename(name: str) -> str:
  """Returns torchvision's name of a blob; unchanged if it is not part of a ResNeXt.

  Blobs are conv1_w, res_conv1_bn_s, res2_0_branch2a_w, res2_0_branch2a_bn_b, res2_0_branch1_w, ...:
  stages count from 2, branch2a to c are the three convolutions, branch1 the shortcut, s the scale.
  """
  leaf = {'w': 'weight', 's': 'weight', 'b': 'bias'}
  if match := re.fullmatch(r'(?:conv1_(w)|res_conv1_bn_([sb]))', name):
    return f'conv1.{leaf["w"]}' if match[1] else f'bn1.{leaf[match[2]]}'
  match = re.fullmatch(r'res([2-5])_(\d+)_branch(1|2[abc])(?:_(w)|_bn_([sb]))', name)
  if not match:
    return name
  stage, block, branch, convolution, norm = match.groups()
  if branch == '1':
    module = 'downsample.0' if convolution else 'downsample.1'
  else:
    module = ('conv' if convolution else 'bn') + str('abc'.index(branch[1]) + 1)
  return f'layer{int(stage) - 1}.{block}.{module}.{leaf[convolution or norm]}'


def as_torchvision(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Converts renamed tensors to torchvision's conventions: RGB inputs and BatchNorm statistics.

  The mean is 0 and the variance 1 - epsilon, so that BatchNorm applies scale and shift unchanged.
  """
  tensors = dict(tensors)
  for name in [name for name in tensors if re.search(r'(bn\d|downsample\.1)\.weight$', name)]:
    module, shape = name.removesuffix('.weight'), tensors[name].shape
    tensors[f'{module}.running_mean'] = np.zeros(shape, np.float32)
    tensors[f'{module}.running_var'] = np.full(shape, 1 - BATCH_NORM_EPSILON, np.float32)
  if 'cnn.conv1.weight' in tensors:
    tensors['cnn.conv1.weight'] = tensors['cnn.conv1.weight'][:, ::-1]
  return tensors
