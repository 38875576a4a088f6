"""A configuration from the command line: loaded, overridden, and checked before anything long.

`--config=FILE[:VARIANT]` names a file with `get_config(variant)`; `--config.a.b=value` changes a
field of it. Every mistake is one line that names the field, and the nearest one if there is none.
"""

import ast
import difflib
import math
import pathlib
import runpy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from pixelbert_jax import UserError


class ConfigurationError(UserError):
  """A configuration that cannot be; one line: which field, what is wrong, what would be right."""


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
  """The configuration of `FILE[:VARIANT]`, with `a.b=value` overrides in their order.

  Raises:
    ConfigurationError: no such file, variant or field, or a value of another type.
  """
  path, _, variant = spec.partition(':')
  if not pathlib.Path(path).is_file():
    near = sorted(map(str, pathlib.Path(path).parent.glob('[a-z]*.py')))
    raise ConfigurationError(f'--config={spec}: there is no file {path}{_nearest(path, near)}')
  try:
    make = runpy.run_path(path).get('get_config')
    if make is None:
      raise ValueError(f'{path} has no function get_config')
    config = make(variant)
  except (ValueError, SyntaxError) as error:
    raise ConfigurationError(f'--config={spec}: {error}') from error
  for override in overrides:
    name, equals, text = override.partition('=')
    if not equals:
      raise ConfigurationError(f'--config.{name}: a value is missing, --config.{name}=VALUE')
    _override(config, name, text)
  return config.lock()


def _override(config: ConfigDict, name: str, text: str) -> None:
  fields = dict(flat(config))
  if name not in fields:
    inside = [field for field in fields if field.startswith(f'{name}.')]
    if inside:
      raise ConfigurationError(f'config.{name} holds fields: change one, as --config.{inside[0]}=')
    raise ConfigurationError(f'there is no field config.{name}{_nearest(name, list(fields))}')
  try:
    value = _parse(text, type(fields[name]))
  except (ValueError, SyntaxError):
    wanted = {int: 'a whole number', float: 'a number', bool: 'true or false', tuple: 'a tuple'}
    raise ConfigurationError(
      f'config.{name} is {wanted[type(fields[name])]} such as {fields[name]!r}, not {text!r}'
    ) from None
  config.update_from_flattened_dict({name: value})


def _parse(text: str, kind: type) -> Any:
  """The text as a value of a field's type; ValueError or SyntaxError if it is none."""
  if kind is bool:
    if text.lower() not in ('true', 'false'):
      raise ValueError(text)
    return text.lower() == 'true'
  if kind is tuple:
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
  return kind(text)


def flat(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """(name, value) of every field, names as on the command line."""
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      yield from flat(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def _nearest(name: str, known: Sequence[str]) -> str:
  same = [k for k in known if k.rpartition('.')[2] == name.rpartition('.')[2]]
  found = difflib.get_close_matches(name, same or known, 1, 0.0 if same else 0.5)
  return f': did you mean {found[0]}?' if found else ''


# --- What values may be -------------------------------------------------------------------

Rule = tuple[str, Callable[[Any], bool]]


def at_least(least: float) -> Rule:
  """Finite, and no less."""
  return f'at least {least:g}', lambda x: math.isfinite(x) and x >= least


def one_of(*choices: str) -> Rule:
  """A word of few."""
  return f'one of {", ".join(map(repr, choices))}', lambda x: x in choices


def tuple_of(length: int | None, rule: Rule) -> Rule:
  """So many values (None: one or more) that keep a rule."""
  words, holds = rule
  many = 'one or more numbers' if length is None else f'{length} numbers'

  def valid(xs: tuple) -> bool:
    numbers = all(isinstance(x, (int, float)) for x in xs)
    return numbers and (len(xs) == length if length else len(xs) > 0) and all(map(holds, xs))

  return f'{many}, each {words}', valid


ABOVE_0 = 'above 0', lambda x: math.isfinite(x) and x > 0
SHARE = 'from 0 to 1', lambda x: 0 <= x <= 1
BELOW_1 = 'from 0 to below 1', lambda x: 0 <= x < 1
WHOLE = 'a whole number of at least 1', lambda x: isinstance(x, int) and x >= 1
DEVICES = 'at least 1, or -1 for all that are left', lambda x: x >= 1 or x == -1
ASCENDING = (
  'ascending numbers above 0',
  lambda xs: all(isinstance(x, (int, float)) and x > 0 for x in xs) and list(xs) == sorted(set(xs)),
)
CANVASES = (
  'pairs (height, width) of whole numbers, as ((64, 64),)',
  lambda xs: (
    len(xs) > 0 and all(isinstance(x, (tuple, list)) and tuple_of(2, WHOLE)[1](x) for x in xs)
  ),
)

RULES: dict[str, Rule] = {
  'dtype': one_of('float32', 'bfloat16'),
  **dict.fromkeys(('seed', 'sampled_pixels', 'steps', 'eval_batches'), at_least(0)),
  **dict.fromkeys(('eval_images', 'eval_captions'), at_least(0)),
  'hardest': at_least(1),
  **dict.fromkeys(('batch_size', 'texts_per_image', 'micro_batches', 'threads'), at_least(1)),
  **dict.fromkeys(('log_every', 'eval_every', 'save_every', 'keep'), at_least(1)),
  'epochs': ABOVE_0,
  'mask_share': ('above 0 and below 1', lambda x: 0 < x < 1),
  'whole_share': SHARE,
  **dict.fromkeys(('mesh.data', 'mesh.fsdp'), DEVICES),
  **dict.fromkeys(('image.shorter', 'image.longer'), at_least(1)),
  'image.canvases': CANVASES,
  'image.mean': tuple_of(3, SHARE),
  'image.flip': SHARE,
  'image.deviation': tuple_of(3, ABOVE_0),
  'text.length': at_least(3),
  'cnn.stages': tuple_of(None, WHOLE),
  **dict.fromkeys(('cnn.width', 'cnn.groups'), at_least(1)),
  'cnn.group_width': at_least(0),
  'cnn.stem': one_of('7x7', 'space_to_depth'),
  'cnn.batch_norm': one_of('', 'batch', 'frozen'),
  **dict.fromkeys(
    (f'transformer.{x}' for x in ('layers', 'width', 'heads', 'mlp_width', 'max_positions')),
    at_least(1),
  ),
  'transformer.dropout': BELOW_1,
  'transformer.init_std': ABOVE_0,
  'optimizer.cnn_rule': one_of('sgd', 'muon', 'none'),
  **dict.fromkeys(
    (f'optimizer.{part}_{x}' for part in ('cnn', 'transformer') for x in ('rate', 'decay')),
    at_least(0),
  ),
  'optimizer.cnn_momentum': BELOW_1,
  'optimizer.betas': tuple_of(2, BELOW_1),
  'optimizer.epsilon': ABOVE_0,
  **dict.fromkeys(
    (
      *('optimizer.cnn_warmup_steps', 'optimizer.transformer_warmup_steps'),
      *('optimizer.warmup_epochs', 'optimizer.clip_norm'),
    ),
    at_least(0),
  ),
  'optimizer.decay_epochs': ASCENDING,
  'optimizer.decay_factor': ('above 0 and at most 1', lambda x: 0 < x <= 1),
}


def check(config: ConfigDict) -> None:
  """Every value is in its range and agrees with the others.

  Raises:
    ConfigurationError: one is not; the line says what it may be.
  """
  for name, value in flat(config):
    words, holds = RULES.get(name, ('', lambda _: True))
    if not holds(value):
      raise ConfigurationError(f'config.{name} is {words}, not {value!r}')
  for message in _contradictions(config):
    raise ConfigurationError(message)
  if not config.init_from:
    model = config.variant.partition('_')[0]  # of 'r50_f30k' and the like
    made = f'main --config=configs/pretrain.py:{model}'
    if config.name == 'pretrain':
      made = (
        f'convert --bert=DIR --cnn=FILE --config=configs/pretrain.py:{config.variant} --output=C'
      )
    raise ConfigurationError(
      'config.init_from says where to start: a checkpoint, made by `python -m '
      f'pixelbert_jax.{made}`, or the word: --config.init_from=scratch'
    )


def _contradictions(config: ConfigDict) -> Iterator[str]:
  """Fields that do not go together."""
  c, t = config.cnn, config.transformer
  if config.name == 'retrieval' and config.texts_per_image < 2:
    yield 'config.texts_per_image is the caption of an image and the others: at least 2'
  if config.batch_size % config.texts_per_image:
    yield (
      f'config.batch_size {config.batch_size} is not a multiple of '
      f'config.texts_per_image {config.texts_per_image}'
    )
  if t.width % t.heads:
    yield f'config.transformer.width {t.width} does not divide among {t.heads} heads'
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
    yield f'config.cnn.total_stride with {len(c.stages)} stages is one of {strides}, ' + (
      f'not {c.total_stride}'
    )
  if (c.groups > 1) != (c.group_width > 0):
    yield (
      f'config.cnn.groups {c.groups} and config.cnn.group_width {c.group_width} go together: '
      '1 and 0 for a ResNet, 32 and 8 for a ResNeXt 32x8d'
    )
