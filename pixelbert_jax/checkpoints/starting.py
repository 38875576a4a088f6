"""Where a run starts from: the parameters and statistics of a checkpoint, by name."""

import json
import pathlib
import re
from typing import Any

import jax
from jax.sharding import Mesh

from pixelbert_jax import UserError, jsons
from pixelbert_jax.checkpoints import CheckpointError, checkpoint
from pixelbert_jax.checkpoints.checkpoint import Loaded
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.checkpoints.workdir import VOCABULARY, difference, differences, to_json

Tree = Any

# Where these differ the arrays do not fit, or are put to another use.
BACKBONE = (
  *('cnn.stages', 'cnn.width', 'cnn.groups', 'cnn.group_width', 'cnn.stem'),
  *('transformer.layers', 'transformer.width', 'transformer.heads', 'transformer.mlp_width'),
  *('transformer.max_positions', 'image.mean', 'image.deviation', 'pixel_position'),
)


def starting_point(init_from: str, workdir: pathlib.Path, mesh: Mesh) -> Loaded | None:
  """Loads the checkpoint that a run in `workdir` starts from; None if from scratch or resumed.

  Raises:
    UserError: neither a checkpoint nor 'scratch' is given, or it cannot be loaded.
  """
  if not init_from:
    raise UserError(
      'init_from: say --config.init_from=CHECKPOINT to start from a workdir or from the output of '
      '`python -m pixelbert_jax.convert --bert=... --cnn=... --config=... --output=CHECKPOINT`, '
      'or --config.init_from=scratch to train from random weights'
    )
  if init_from == 'scratch' or checkpoint.steps(workdir):
    return None
  default = re.fullmatch(r'runs/([a-z0-9]+)(?:-(\w+))?-s(\d+)', init_from)
  if default and not pathlib.Path(init_from).exists():
    name, variant, seed = default.groups()
    seed = '' if seed == '0' else f' --config.seed={seed}'
    raise CheckpointError(
      f'init_from: {init_from} does not exist yet: make it by `python -m pixelbert_jax.main '
      f'--config=configs/{name}.py{f":{variant}" if variant else ""}{seed}`, or say '
      '--config.init_from=scratch to train from random weights'
    )
  try:
    return checkpoint.load(init_from, mesh)
  except CheckpointError as error:
    random = ', or --config.init_from=scratch' if 'no such folder' in str(error) else ''
    raise CheckpointError(f'init_from: {error}{random}') from error


def take(loaded: Loaded, config: dict[str, Any], variables: dict[str, Tree]) -> dict[str, Tree]:
  """Replaces variables by those of a checkpoint, by name, and prints which are not replaced.

  Args:
    loaded: with its arrays on the mesh of `variables`.
    config: of the new run.
    variables: fresh {'params', 'batch_stats'}. What the checkpoint lacks (a new head) stays as it
      is; what only the checkpoint has is dropped.

  Raises:
    CheckpointError: the vocabulary, the backbone or a shape differs.
  """
  here, there = by_name(variables), by_name(loaded.variables)
  _check_fit(f'init_from: {loaded.folder}', loaded, config, here, there)
  taken, new, dropped = here.keys() & there.keys(), here.keys() - there, there.keys() - here
  print(
    f'starting from {loaded.folder}, step {loaded.step}: '
    f'{len(taken)} of {len(here)} arrays of parameters and statistics'
  )
  if not _has_ended(loaded):
    print(f'  that run has not ended: its model is that of step {loaded.step}, and stays it here')
  for title, names in {'at random': new, 'not taken': dropped}.items():
    if names:
      print(f'  {title}: {", ".join(sorted(names))}')
  leaves = [there[name].astype(x.dtype) if name in taken else x for name, x in here.items()]
  return jax.tree.unflatten(jax.tree.structure(variables), leaves)


def _has_ended(loaded: Loaded) -> bool:
  """Tells whether a checkpoint is of a run that was evaluated at its end, or of none."""
  log = pathlib.Path(loaded.folder, 'metrics.jsonl')
  # The last line may be half written.
  ended = f'"split": {jsons.text(loaded.config["data"]["test"])}'
  return not log.exists() or ended in log.read_text()


def fitted(loaded: Loaded, config: dict[str, Any], shapes: dict[str, Tree]) -> dict[str, Tree]:
  """Takes all variables of `shapes` from a checkpoint; what only the checkpoint has is dropped.

  Raises:
    CheckpointError: it is of another backbone, or lacks a head, or a shape is another.
  """
  here, there = by_name(shapes), by_name(loaded.variables)
  what = f'--checkpoint={loaded.folder}'
  _check_fit(what, loaded, config, here, there)
  missing = sorted({name.removeprefix('params/').split('/')[0] for name in here.keys() - there})
  if missing:
    raise CheckpointError(
      f'{what} is of {loaded.config["name"]} and lacks {", ".join(missing)}: '
      f'train it for {config["name"]} first, by --config.init_from={loaded.folder}'
    )
  return jax.tree.unflatten(jax.tree.structure(shapes), [there[name] for name in here])


def _check_fit(what: str, loaded: Loaded, config: dict[str, Any], here: dict, there: dict) -> None:
  vocabulary = config['text']['vocabulary']
  differing = difference(loaded.files[VOCABULARY], pathlib.Path(vocabulary).read_bytes())
  if differing:
    raise CheckpointError(
      f'{what} has another vocabulary than text.vocabulary, {vocabulary} ({differing}): '
      f'take {loaded.vocabulary}'
    )
  config = json.loads(to_json(config))
  old, new = ({'pixel_position': 'none'} | c for c in (loaded.config, config))  # as it was
  problems = differences(old, new, only=BACKBONE)
  problems += [
    f'{name} is {list(there[name].shape)} there and {list(here[name].shape)} here'
    for name in sorted(here.keys() & there.keys())
    if here[name].shape != there[name].shape
  ]
  if problems:
    more = f'; and {len(problems) - 4} more' if problems[4:] else ''
    raise CheckpointError(f'{what} is of another model: {"; ".join(problems[:4])}{more}')
