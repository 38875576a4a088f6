"""Mapping between our arrays and PyTorch tensors: one table, used in both directions.

PyTorch's names are those of an export: torchvision's ResNet under `cnn.`, Hugging Face's BERT under
`bert.` and `cls.`, and `projection`, `semantic`, `cell_position` and the heads, which neither has.
Our arrays stack layers of one shape along a leading axis, and concatenate query, key and value.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.checkpoints.checksum import by_name

Variables = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]

# Our axes in PyTorch's order.
CONV, DENSE, SAME = (3, 2, 0, 1), (1, 0), None

# Our collection and leaf, PyTorch's leaf, axes; '' where the module is the array itself.
CONVOLUTION = (('params', 'kernel', 'weight', CONV),)
LINEAR = (('params', 'kernel', 'weight', DENSE), ('params', 'bias', 'bias', SAME))
LAYER_NORM = (('params', 'scale', 'weight', SAME), ('params', 'bias', 'bias', SAME))
BATCH_NORM = (
  *LAYER_NORM,
  ('batch_stats', 'mean', 'running_mean', SAME),
  ('batch_stats', 'var', 'running_var', SAME),
)
EMBEDDING = (('params', 'embedding', 'weight', SAME),)
ARRAY = (('params', '', '', SAME),)

# Our module, PyTorch's module, leaves. {s} and {c} are the same digits on both sides; {n} is the
# index along our leading axis ({n+1} counts from 1); {a|b} are parts of our last axis.
TABLE = (
  ('backbone/cnn/stem/conv{c}', 'cnn.conv{c}', CONVOLUTION),
  ('backbone/cnn/stem/bn{c}', 'cnn.bn{c}', BATCH_NORM),
  ('backbone/cnn/layer{s}/first/conv{c}', 'cnn.layer{s}.0.conv{c}', CONVOLUTION),
  ('backbone/cnn/layer{s}/first/bn{c}', 'cnn.layer{s}.0.bn{c}', BATCH_NORM),
  ('backbone/cnn/layer{s}/first/conv_downsample', 'cnn.layer{s}.0.downsample.0', CONVOLUTION),
  ('backbone/cnn/layer{s}/first/bn_downsample', 'cnn.layer{s}.0.downsample.1', BATCH_NORM),
  ('backbone/cnn/layer{s}/rest/conv{c}', 'cnn.layer{s}.{n+1}.conv{c}', CONVOLUTION),
  ('backbone/cnn/layer{s}/rest/bn{c}', 'cnn.layer{s}.{n+1}.bn{c}', BATCH_NORM),
  ('backbone/projection', 'projection', LINEAR),
  ('backbone/semantic', 'semantic', ARRAY),
  ('backbone/cell_position/row', 'cell_position.row', EMBEDDING),
  ('backbone/cell_position/column', 'cell_position.column', EMBEDDING),
  ('backbone/text/word', 'bert.embeddings.word_embeddings', EMBEDDING),
  ('backbone/text/position', 'bert.embeddings.position_embeddings', EMBEDDING),
  ('backbone/text/norm/norm', 'bert.embeddings.LayerNorm', LAYER_NORM),
  (
    'backbone/encoder/layer/attention/qkv',
    'bert.encoder.layer.{n}.attention.self.{query|key|value}',
    LINEAR,
  ),
  (
    'backbone/encoder/layer/attention/output',
    'bert.encoder.layer.{n}.attention.output.dense',
    LINEAR,
  ),
  (
    'backbone/encoder/layer/attention_norm/norm',
    'bert.encoder.layer.{n}.attention.output.LayerNorm',
    LAYER_NORM,
  ),
  ('backbone/encoder/layer/mlp_in', 'bert.encoder.layer.{n}.intermediate.dense', LINEAR),
  ('backbone/encoder/layer/mlp_out', 'bert.encoder.layer.{n}.output.dense', LINEAR),
  ('backbone/encoder/layer/mlp_norm/norm', 'bert.encoder.layer.{n}.output.LayerNorm', LAYER_NORM),
  ('pooler/dense', 'bert.pooler.dense', LINEAR),
  ('mlm_transform/dense', 'cls.predictions.transform.dense', LINEAR),
  ('mlm_transform/norm/norm', 'cls.predictions.transform.LayerNorm', LAYER_NORM),
  ('mlm_bias', 'cls.predictions.bias', ARRAY),
  ('itm', 'itm', LINEAR),
  ('first_stage/text', 'first_stage.text', LINEAR),
  ('first_stage/image', 'first_stage.image', LINEAR),
  ('first_stage/log_scale', 'first_stage.log_scale', ARRAY),
  ('vqa_transform/dense', 'classifier.dense', LINEAR),
  ('vqa_transform/norm/norm', 'classifier.LayerNorm', LAYER_NORM),
  ('vqa', 'classifier.out', LINEAR),
  ('nlvr2_transform/dense', 'classifier.dense', LINEAR),
  ('nlvr2_transform/norm/norm', 'classifier.LayerNorm', LAYER_NORM),
  ('nlvr2', 'classifier.out', LINEAR),
  ('label', 'classifier', LINEAR),
)

# BERT adds token type 0 to every word. Here the positions include it; exports have zeros.
POSITIONS = 'bert.embeddings.position_embeddings.weight'
TOKEN_TYPES = 'bert.embeddings.token_type_embeddings.weight'


class WeightsError(UserError):
  """Weights that cannot be read or do not fit; the message names file or tensors."""


@dataclasses.dataclass(frozen=True)
class Slot:
  """The position of one PyTorch tensor in one of our arrays.

  Attributes:
    name: of the tensor.
    ours: the path of the array, such as 'params/itm/kernel'.
    number: index along the leading axis, if the array is stacked.
    part: index of the part of the last axis, number of parts, and name of the part.
    axes: our axes in PyTorch's order, or None if it is the same.
  """

  name: str
  ours: str
  number: int | None
  part: tuple[int, int, str]
  axes: tuple[int, ...] | None

  def __str__(self) -> str:
    inside = [str(x) for x in (self.number, self.part[2] or None) if x is not None]
    return self.ours + (f'[{", ".join(inside)}]' if inside else '')

  def view(self, array: np.ndarray) -> np.ndarray:
    """Returns a view of this tensor in our `array`, in PyTorch's layout; it can be written."""
    x = array if self.number is None else array[self.number]
    index, count, _ = self.part
    x = x if count == 1 else np.split(x, count, axis=-1)[index]
    return x if self.axes is None else x.transpose(self.axes)


def slots(like: Variables) -> Iterator[Slot]:
  """Yields the PyTorch tensors of our variables (arrays or shapes), each exactly once.

  Raises:
    WeightsError: an array is not in the table, or more than once.
  """
  for path, array in by_name(like).items():
    rows = list(_rows(path))
    if len(rows) != 1:
      raise WeightsError(f'{path} matches {len(rows)} rows of the table of weights, expected 1')
    theirs, axes = rows[0]
    numbered = re.search(r'\{n(?:\+(\d))?\}', theirs)
    parts = re.search(r'\{(\w+(?:\|\w+)+)\}', theirs)
    names = parts[1].split('|') if parts else ['']
    for number in range(array.shape[0]) if numbered else [None]:
      for i, part in enumerate(names):
        name = theirs.replace(parts[0], part) if parts else theirs
        if numbered and number is not None:
          name = name.replace(numbered[0], str(number + int(numbered[1] or 0)))
        yield Slot(name, path, number, (i, len(names), part), axes)


def _rows(path: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
  """Yields the PyTorch name (with {n} and {a|b}) and axes of each matching row of the table."""
  for module, theirs, leaves in TABLE:
    pattern = re.sub(r'\{(\w)\}', r'(?P<\1>\\d)', module)
    for collection, leaf, their_leaf, axes in leaves:
      ours = '/'.join(filter(None, (collection, pattern, leaf)))
      if match := re.fullmatch(ours, path):
        name = '.'.join(filter(None, (theirs, their_leaf)))
        for key, digit in match.groupdict().items():
          name = name.replace(f'{{{key}}}', digit)
        yield name, axes


def expected(like: Variables) -> Shapes:
  """Returns the shape of every tensor that `from_torch` needs, by PyTorch's names."""
  arrays = by_name(like)
  # Broadcast views of a single number allocate no memory.
  empty = {path: np.broadcast_to(np.float32(0), x.shape) for path, x in arrays.items()}
  return {slot.name: slot.view(empty[slot.ours]).shape for slot in slots(like)}


def check(given: Shapes, wanted: Shapes, source: str = 'the weights', hint: str = '') -> None:
  """Checks the shapes of tensors.

  Raises:
    WeightsError: names the missing, unexpected and mis-shaped tensors; `hint` is the cure.
  """
  problems = {
    'missing': [name for name in wanted if name not in given],
    'unexpected': [name for name in given if name not in wanted],
    'of the wrong shape': [
      f'{name} is {_shape(given[name])}, expected {_shape(shape)}'
      + (': it is transposed' if sorted(given[name]) == sorted(shape) else '')
      for name, shape in wanted.items()
      if name in given and tuple(given[name]) != shape
    ],
  }
  lists = [f'{len(names)} {kind}: {some(names)}' for kind, names in problems.items() if names]
  if lists:
    raise WeightsError(f'{source} do not fit: {"; ".join(lists)}' + (f' ({hint})' if hint else ''))


def _shape(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape)) or 'a number'


def some(names: list[str], limit: int = 5) -> str:
  """Formats the first names of a list and the number of the others."""
  more = f' and {len(names) - limit} more' if len(names) > limit else ''
  return ', '.join(names[:limit]) + more


def to_torch(variables: Variables) -> dict[str, np.ndarray]:
  """Converts our variables, or a part of them, to contiguous NumPy arrays under PyTorch's names.

  Dtypes stay. With the positions come token types, as two rows of zeros.
  """
  arrays = {path: np.asarray(x) for path, x in by_name(variables).items()}
  tensors = {s.name: np.asarray(s.view(arrays[s.ours]), order='C') for s in slots(variables)}
  if POSITIONS in tensors:
    positions = tensors[POSITIONS]
    tensors[TOKEN_TYPES] = np.zeros((2, positions.shape[1]), positions.dtype)
  return tensors


def from_torch(tensors: Mapping[str, np.ndarray], like: Variables) -> Variables:
  """Converts tensors under PyTorch's names to our variables; the exact inverse of `to_torch`.

  Args:
    tensors: as from `to_torch`, of any floating dtype. Token type 0 is added to the positions.
    like: variables, or their shapes and dtypes from `jax.eval_shape`.

  Returns:
    NumPy arrays in the structure and dtypes of `like`.

  Raises:
    WeightsError: tensors are missing, unexpected or have the wrong shape.
  """
  tensors = fold_token_types(tensors)
  check({name: x.shape for name, x in tensors.items()}, expected(like))
  arrays = {path: np.empty(x.shape, x.dtype) for path, x in by_name(like).items()}
  for slot in slots(like):
    slot.view(arrays[slot.ours])[...] = tensors[slot.name]
  return jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))


def fold_token_types(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Removes token types and adds the first to the positions, which is equivalent in BERT."""
  tensors = dict(tensors)
  types = tensors.pop(TOKEN_TYPES, None)
  # Zeros are not added, because they would turn -0 into 0.
  if types is not None and POSITIONS in tensors and types[0].any():
    positions = tensors[POSITIONS]
    tensors[POSITIONS] = positions + types[0].astype(positions.dtype)
  return tensors
