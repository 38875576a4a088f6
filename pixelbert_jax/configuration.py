"""A configuration from the command line: loaded, overridden, and checked before anything long.

`--config=FILE[:VARIANT]` names a file with `get_config(variant)`; `--config.a.b=value` changes a
field. Every mistake is one line that names the field, and the nearest one if it does not exist.

A configuration is a ConfigDict. A field whose values are limited is defined with its rule,
`c.seed = Field(0, at_least(0))`, and is then read and set like any other.
"""

import argparse
import ast
import pathlib
import runpy
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict, FieldReference

from pixelbert_jax import UserError, commandline, require_checkout
from pixelbert_jax.rules import Field

FEATURES = 1 << 16  # of any layer
EXPECTED = {int: 'a whole number', float: 'a number', bool: 'true or false', tuple: 'a tuple'}

FOLDER = pathlib.Path('configs')
# What fields are called elsewhere.
SHORT = {
  'lr': 'rate',
  'bs': 'batch_size',
  'data': 'data.name',
  'dataset': 'data.name',
  'hidden_size': 'transformer.width',
}
VAGUE = {'dir', 'file', 'name', 'path', 'size'}  # endings that say nothing

# The fields that are paths, which may begin with ~; a checkpoint may lie in a bucket.
PATHS = {
  'init_from': commandline.any_path,
  'compilation_cache': commandline.path,
  'data.data_dir': commandline.path,
  'data.answers': commandline.path,
  'text.vocabulary': commandline.path,
}


class ConfigurationError(UserError):
  """A configuration that cannot be used; one line: the field, its fault, what it may be."""


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
  """Loads the configuration `FILE[:VARIANT]` and applies `a.b=value` overrides in their order.

  Raises:
    ConfigurationError: unknown file, variant or field, or a value of another type.
  """
  path, colon, variant = spec.partition(':')
  if not pathlib.Path(path).is_file():
    require_checkout()
    of = {file.stem: str(file) for file in files(pathlib.Path(path).parent)}
    near = [x + colon + variant for x in commandline.near(pathlib.Path(path).stem, of)]
    cure = commandline.did_you_mean(near) or f'; there are {", ".join(map(str, files()))}'
    raise ConfigurationError(f'--config={spec}: file {path} does not exist{cure}')
  try:
    get_config = runpy.run_path(path).get('get_config')
    if get_config is None:
      raise ValueError(f'{path} has no function get_config')
    config = get_config(variant)
  except ModuleNotFoundError:
    require_checkout()  # Configurations import `configs`.
    raise
  except (ValueError, SyntaxError) as error:
    raise ConfigurationError(f'--config={spec}: {error}') from error
  for word in overrides:
    name, equals, text = word.partition('=')
    if not equals:
      raise ConfigurationError(f'--config.{name}: a value is missing: --config.{name}=VALUE')
    override(config, name, text)
  _expand_paths(config)
  return config.lock()


def _expand_paths(config: ConfigDict) -> None:
  for name, value in flat(config):
    if name in PATHS:
      text = value.get() if isinstance(value, FieldReference) else value
      try:
        config.update_from_flattened_dict({name: PATHS[name](text)})
      except argparse.ArgumentTypeError as error:
        raise ConfigurationError(f'config.{name}: {error}') from None


def override(config: ConfigDict, name: str, text: str) -> None:
  """Sets a field to the value that a text stands for; ConfigurationError if it is none."""
  fields = dict(flat(config))
  if name not in fields:
    inside = [field for field in fields if field.startswith(f'{name}.')]
    if inside:
      raise ConfigurationError(
        f'config.{name} holds fields: set one, as --config.{inside[0]}=VALUE'
      )
    near = same(name, list(fields)) or commandline.near(name, list(fields), 0.5)
    raise ConfigurationError(f'unknown field config.{name}{commandline.did_you_mean(near)}')
  old = fields[name].get() if isinstance(fields[name], FieldReference) else fields[name]
  try:
    value = _parse(text, type(old))
  except (KeyError, SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
    expected = EXPECTED.get(type(old), type(old).__name__)
    raise ConfigurationError(
      f'config.{name}: expected {expected} such as {old!r}, got {_shown(text)}'
    ) from None
  config.update_from_flattened_dict({name: value})


def _parse(text: str, kind: type) -> Any:
  """Reads a value of a field's type; one of several errors if the text is not such a value."""
  if kind is bool:
    return {'true': True, 'false': False}[text.lower()]
  if kind in (tuple, list):
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
  return kind(text)


def flat(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields each field's name, as on the command line, and its value, a Field if it has a rule."""
  for name, value in config.items(preserve_field_references=True):
    if isinstance(value, ConfigDict):
      yield from flat(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def _shown(value: Any) -> str:
  """Shows a value in a message; a long one in part."""
  try:
    shown = repr(value)
  except ValueError:  # of an integer of thousands of digits
    shown = type(value).__name__
  return shown if len(shown) <= 80 else f'{shown[:60]}... ({len(shown):,} characters)'


def same(name: str, known: Sequence[str]) -> list[str]:
  """Lists the fields that end as a name does: `transformer.layers` is meant by `num_layers`."""
  end = name.rpartition('.')[2].lower()
  end = SHORT.get(end, end)
  while end and end not in VAGUE:
    found = [field for field in known if field == end or field.endswith(f'.{end}')]
    if found := found or [field for field in known if field.endswith(f'_{end}')]:
      return commandline.near(name, found, 0.9) or found
    end = end.partition('_')[2]
  return []


def fields_like(spec: str, name: str) -> list[str]:
  """Lists the fields of the configuration `FILE[:VARIANT]` that end as a name does."""
  try:
    return same(name, [field for field, _ in flat(load(spec))])
  except UserError:  # which is said once the flags are right
    return []


def files(folder: pathlib.Path = FOLDER) -> list[pathlib.Path]:
  """Lists the configurations in a folder and in `configs`."""
  found = {*folder.glob('[a-z]*.py'), *FOLDER.glob('[a-z]*.py')}
  return sorted(path for path in found if b'def get_config' in path.read_bytes())


def listing() -> str:
  """Lists the configurations with their variants, for --help."""
  variants = {path: runpy.run_path(str(path)).get('VARIANTS', ()) for path in files()}
  rows = [f'  {path}: {", ".join(filter(None, names))}' for path, names in variants.items()]
  return '\n'.join(['', 'configurations and their variants, as FILE or FILE:VARIANT:', *rows, ''])


def check(config: ConfigDict) -> None:
  """Checks that each value keeps its field's rule and agrees with the others.

  Raises:
    ConfigurationError: a value does not; the line says what it may be.
  """
  for name, value in flat(config):
    if isinstance(value, Field):
      words, holds = value.rule
      if not holds(value.get()):
        raise ConfigurationError(f'config.{name} must be {words}, not {_shown(value.get())}')
  for message in _contradictions(config):
    raise ConfigurationError(message)


def _contradictions(config: ConfigDict) -> Iterator[str]:
  """Yields a message for each group of fields that contradict each other."""
  c, t = config.cnn, config.transformer
  if config.batch_size % config.texts_per_image:
    yield (
      f'config.batch_size {config.batch_size} is not a multiple of '
      f'config.texts_per_image {config.texts_per_image}'
    )
  images = config.batch_size // config.texts_per_image
  if images % config.micro_batches:
    yield (
      f'config.batch_size: {images} images do not divide among {config.micro_batches} micro_batches'
    )
  if config.get('hardest', 0) >= config.texts_per_image:
    yield (
      f'config.hardest {config.hardest} is not less than config.texts_per_image '
      f"{config.texts_per_image}, of which one is an image's own"
    )
  if config.mesh.data == config.mesh.fsdp == -1:
    yield 'config.mesh.data and config.mesh.fsdp are both -1: give the number of devices of one'
  if t.width % t.heads:
    yield f'config.transformer.width {t.width} is not a multiple of its {t.heads} heads'
  if config.text.length > t.max_positions:
    yield (
      f'config.text.length {config.text.length} is more than '
      f'config.transformer.max_positions {t.max_positions}'
    )
  if config.image.longer < config.image.shorter:
    yield (
      f'config.image.longer {config.image.longer} is less than '
      f'config.image.shorter {config.image.shorter}'
    )
  strides = [2**i for i in range(3, 3 + len(c.stages))]
  if c.total_stride not in strides:
    yield f'config.cnn.total_stride with {len(c.stages)} stages must be one of {strides}, ' + (
      f'not {c.total_stride}'
    )
  if c.frozen_stages > len(c.stages):
    yield (
      f'config.cnn.frozen_stages {c.frozen_stages} is more than the {len(c.stages)} that '
      f'config.cnn.stages {c.stages} has'
    )
  if (c.groups > 1) != (c.group_width > 0):
    yield (
      f'config.cnn.groups {c.groups} and config.cnn.group_width {c.group_width} go together: '
      '1 and 0 for a ResNet, 32 and 8 for a ResNeXt 32x8d'
    )
  yield from _of_first_stage(config, images)
  yield from _sizes(config)


def _of_first_stage(config: ConfigDict, images: int) -> Iterator[str]:
  """Yields what contradicts itself in retrieval's first stage; a batch has `images` images."""
  if config.get('rerank', 0) and not config.first_stage:
    yield (
      f'config.rerank {config.rerank} needs a first stage: train one by '
      '--config.first_stage=WIDTH, and name its width here too'
    )
  if config.get('first_stage', 0) and images < 2 * config.micro_batches:
    yield (
      f'config.first_stage {config.first_stage} needs two images or more in a micro-batch to tell '
      f'apart, not {images // config.micro_batches}'
    )


def _sizes(config: ConfigDict) -> Iterator[str]:
  """Yields a message for each size that the CNN's stride and stages do not allow."""
  c, stride = config.cnn, config.cnn.total_stride
  features = 4 * c.width * 2 ** (len(c.stages) - 1)
  if features > FEATURES:
    yield (
      f'config.cnn.width {c.width} with {len(c.stages)} stages makes {features:,} features, '
      f'more than {FEATURES:,}'
    )
  canvases = [x[i : i + 2] for x in config.image.canvases for i in range(0, len(x), 2)]
  for height, width in canvases:
    if min(height, width) < stride:
      yield (
        f'config.image.canvases: {height}x{width} is smaller than config.cnn.total_stride {stride}'
      )
    cells = -(-height // stride) * -(-width // stride)
    if config.sampled_pixels > cells:
      yield (
        f'config.sampled_pixels {config.sampled_pixels} is more than the {cells} that a canvas of '
        f'{height}x{width} has with config.cnn.total_stride {stride}'
      )
