"""The configuration of a run beside its variant's default, and the command that repeats it."""

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from pixelbert_jax import UserError, configuration, jsons
from pixelbert_jax.checkpoints.workdir import to_json
from pixelbert_jax.experiment import resolve

FOLDER = pathlib.Path(__file__).parents[2] / 'configs'
ABSENT = object()
Fields = Mapping[str, Any]


def fields(config: ConfigDict) -> dict[str, Any]:
  """Returns the fields of a configuration by name, as JSON holds them."""
  return dict(configuration.flat(ConfigDict(jsons.parse(to_json(config.to_dict()), dict))))


def defaults(config: ConfigDict) -> Fields | None:
  """Returns the fields of the default of a configuration's variant; None if it is not known.

  Those that are left open are resolved as in the run.
  """
  try:
    default = configuration.load(_spec(FOLDER, config))
    opened = default.init_from
    default.init_from = config.init_from  # On it depends what is resolved.
    default = resolve(default, pathlib.Path(config.text.vocabulary))
  except UserError:
    return None
  default.init_from = opened
  return fields(default)


def changes(config: ConfigDict) -> dict[str, Any] | None:
  """Returns the fields that differ from the default, with the default; None if it is not known."""
  default, own = defaults(config), fields(config)
  if default is None:
    return None
  return {n: default.get(n, '') for n, x in own.items() if default.get(n, ABSENT) != x}


def command(config: ConfigDict, evaluated: str = '') -> str:
  """Returns the command that repeats a run, or the evaluation of a checkpoint; '' if not known."""
  changed = changes(config)
  if changed is None:
    return ''
  own, skipped = fields(config), {'init_from'} if evaluated else set()
  words = ['python', '-m', 'pixelbert_jax.main', f'--config={_spec("configs", config)}']
  if evaluated:
    words += ['--mode=evaluate', f'--checkpoint={evaluated}']
  words += [f'--config.{n}={_written(own[n])}' for n in changed if n not in skipped]
  return shlex.join([*words, '--workdir=W'])


def _spec(folder: pathlib.Path | str, config: ConfigDict) -> str:
  return f'{folder}/{config.name}.py:{config.variant}'.removesuffix(':')


def _written(value: Any) -> str:
  """Writes a value as the command line reads it."""
  return str(value).lower() if isinstance(value, bool) else str(value)
