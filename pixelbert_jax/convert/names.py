"""Which of our arrays is which PyTorch tensor: one table, read in both directions.

PyTorch's names are those of an export: torchvision's ResNet under `cnn.`, Hugging Face's BERT under
`bert.` and `cls.`, and `projection`, `semantic` and `itm`, which only Pixel-BERT has. Of ours, the
layers of one shape lie stacked along a leading axis and query, key and value side by side.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from pixelbert_jax import UserError

Variables = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]

# Axes of ours in PyTorch's order.
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

# Our module, PyTorch's, leaves. {s} and {c} are the same digits on both sides; {n} is the number
# along our leading axis ({n+1} where that starts at 1); {a|b} are parts of our last axis.
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
)

# BERT adds token type 0 to every word. We have it in the positions, and write zeros.
POSITIONS = 'bert.embeddings.position_embeddings.weight'
TOKEN_TYPES = 'bert.embeddings.token_type_embeddings.weight'


class WeightsError(UserError):
  """Weights that do not fit; the message names the tensors."""


@dataclasses.dataclass(frozen=True)
class Slot:
  """The place of one PyTorch tensor in one of our arrays.

  Attributes:
    name: of the tensor.
    ours: the path of the array, such as 'params/itm/kernel'.
    number: along the leading axis, if the array is stacked.
    part: which of how many parts of the last axis, and its name.
    axes: ours in PyTorch's order, or None if it is the same.
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
    """The part of our `array` that is this tensor, in PyTorch's layout; writing it writes ours."""
    x = array if self.number is None else array[self.number]
    index, count, _ = self.part
    width = x.shape[-1] // count
    x = x[..., index * width : (index + 1) * width]
    return x if self.axes is None else x.transpose(self.axes)


def slots(like: Variables) -> Iterator[Slot]:
  """The tensors of our variables (arrays, or only their shapes), each exactly once.

  Raises:
    WeightsError: an array of ours is not in the table.
  """
  for path, array in flat(like).items():
    found = list(_rows(path))
    if len(found) != 1:
      raise WeightsError(f'{path} stands {len(found)} times in the table of weights, not once')
    theirs, axes = found[0]
    numbered = re.search(r'\{n(?:\+(\d))?\}', theirs)
    parts = re.search(r'\{(\w+(?:\|\w+)+)\}', theirs)
    names = parts[1].split('|') if parts else ['']
    for number in range(array.shape[0]) if numbered else [None]:
      for i, part in enumerate(names):
        name = theirs.replace(parts[0], part) if parts else theirs
        if numbered and number is not None:
          name = name.replace(numbered[0], str(number + int(numbered[1] or 0)))
        yield Slot(name, path, number, (i, len(names), part), axes)


def flat(tree: Variables) -> dict[str, Any]:
  """The leaves of a tree of dictionaries, by path."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {'/'.join(key.key for key in path): leaf for path, leaf in leaves}


def _rows(path: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
  """The PyTorch name (but for {n} and {a|b}) and axes of each row of the table that fits."""
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
  """The shape of every tensor that `from_torch` wants, by PyTorch's names."""
  arrays = flat(like)
  # A view of nothing: broadcasting allocates one number.
  empty = {path: np.broadcast_to(np.float32(0), x.shape) for path, x in arrays.items()}
  return {slot.name: slot.view(empty[slot.ours]).shape for slot in slots(like)}


def check(found: Shapes, wanted: Shapes, source: str = 'the weights', hint: str = '') -> None:
  """Compares the shapes of tensors with those that are wanted.

  Raises:
    WeightsError: names the missing, unexpected and mis-shaped tensors; `hint` says how to mend it.
  """
  problems = {
    'missing': [name for name in wanted if name not in found],
    'unexpected': [name for name in found if name not in wanted],
    'of another shape': [
      f'{name} is {_shape(found[name])} and not {_shape(shape)}'
      + (': it is transposed' if sorted(found[name]) == sorted(shape) else '')
      for name, shape in wanted.items()
      if name in found and tuple(found[name]) != shape
    ],
  }
  told = [f'{len(names)} {kind}: {some(names)}' for kind, names in problems.items() if names]
  if told:
    raise WeightsError(f'{source} do not fit: {"; ".join(told)}' + (f' ({hint})' if hint else ''))


def _shape(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape)) or 'a number'


def some(names: list[str], most: int = 5) -> str:
  """The first names of a list, and how many more there are."""
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def to_torch(variables: Variables) -> dict[str, np.ndarray]:
  """Our variables as contiguous NumPy arrays under PyTorch's names, dtypes as they are.

  `variables` may be a part of the whole. Token types, which we have not, are two rows of zeros.
  """
  arrays = {path: np.asarray(x) for path, x in flat(variables).items()}
  tensors = {s.name: np.ascontiguousarray(s.view(arrays[s.ours])) for s in slots(variables)}
  if POSITIONS in tensors:
    positions = tensors[POSITIONS]
    tensors[TOKEN_TYPES] = np.zeros((2, positions.shape[1]), positions.dtype)
  return tensors


def from_torch(tensors: Mapping[str, np.ndarray], like: Variables) -> Variables:
  """Our variables from tensors under PyTorch's names; the inverse of `to_torch`, to the bit.

  Args:
    tensors: as of `to_torch`, of any floating dtype. Token type 0 is added to the positions.
    like: variables, or only their shapes and dtypes, as of `jax.eval_shape`.

  Returns:
    NumPy arrays in the structure and dtypes of `like`.

  Raises:
    WeightsError: tensors are missing, unexpected or of another shape.
  """
  tensors = fold_token_types(dict(tensors))
  check({name: x.shape for name, x in tensors.items()}, expected(like))
  arrays = {path: np.empty(x.shape, x.dtype) for path, x in flat(like).items()}
  for slot in slots(like):
    slot.view(arrays[slot.ours])[...] = tensors[slot.name]
  return jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))


def fold_token_types(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The tensors without token types; the first is added to the positions, as BERT does to words."""
  tensors = dict(tensors)
  types = tensors.pop(TOKEN_TYPES, None)
  # Adding zeros would turn -0 into 0.
  if types is not None and POSITIONS in tensors and types[0].any():
    positions = tensors[POSITIONS]
    tensors[POSITIONS] = positions + types[0].astype(positions.dtype)
  return tensors
