"""What makes a workdir this run's.

`config.json`, `vocab.txt`, of VQA `answers.json`, and `trained_on.json`, the names of all datasets
that the run and those before it, from which it started, have seen.
"""

import itertools
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath

from pixelbert_jax import files
from pixelbert_jax.checkpoints import CheckpointError, DamagedError

TRAINED_ON = 'trained_on.json'

# What may differ when a run goes on; all else decides what the next step computes.
MAY_CHANGE = (
  *('data.data_dir', 'epochs', 'steps', 'log_every', 'eval_every', 'eval_batches'),
  *('eval_images', 'eval_captions'),
  *('save_every', 'keep', 'threads'),
  *('mesh.data', 'mesh.fsdp'),  # to the last bit it is the same run on the same mesh only
  *('text.vocabulary', 'data.answers'),  # where they lie; what they hold may not
)


def check_workdir(
  workdir: pathlib.Path,
  config: dict[str, Any],
  vocabulary: str,
  answers: Sequence[str] | None = None,
) -> None:
  """Checks that a run may use `workdir`: there is no other in it.

  Raises:
    CheckpointError: the workdir holds another run; what differs is named.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return
  try:
    there = read_config(path)
  except DamagedError as error:
    # Every step holds the configuration too, and is compared with it when it is restored.
    raise CheckpointError(f'{error}: delete it, and the run writes it again') from error
  differing = differences(there, json.loads(to_json(config)))
  if differing:
    raise CheckpointError(
      f'{workdir} holds a run with another configuration ({"; ".join(differing)}): '
      'take another --workdir, or delete that one'
    )
  if answers is not None and (workdir / 'answers.json').exists():
    differing = difference(json.loads((workdir / 'answers.json').read_text()), answers)
    if differing:
      raise CheckpointError(
        f'data.answers is not the answer list of the run in {workdir} ({differing}): '
        'take another --workdir, or delete that one'
      )
  if not (workdir / 'vocab.txt').exists():
    return
  differing = vocabulary_difference(workdir / 'vocab.txt', vocabulary)
  if differing:
    raise CheckpointError(
      f'text.vocabulary: {vocabulary} is not the vocabulary of the run in {workdir} '
      f'({differing}): take another --workdir, or delete that one'
    )


def claim_workdir(
  workdir: pathlib.Path,
  config: dict[str, Any],
  vocabulary: str,
  answers: Sequence[str] | None = None,
  trained_on: Sequence[str] = (),
) -> None:
  """Checks like `check_workdir`, then writes what makes it this run's."""
  check_workdir(workdir, config, vocabulary, answers)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise CheckpointError(
      f'{workdir} cannot be made ({error.strerror}): take another --workdir'
    ) from error
  if not (workdir / 'vocab.txt').exists():
    files.write_bytes(workdir / 'vocab.txt', pathlib.Path(vocabulary).read_bytes())
  if answers is not None and not (workdir / 'answers.json').exists():
    text = json.dumps(list(answers), indent=0, ensure_ascii=False) + '\n'
    files.write_text(workdir / 'answers.json', text)
  if trained_on and not (workdir / TRAINED_ON).exists():
    files.write_text(workdir / TRAINED_ON, json.dumps(list(trained_on)) + '\n')
  files.write_text(workdir / 'config.json', to_json(config))


def vocabulary_difference(there: pathlib.Path, here: str | os.PathLike) -> str:
  """Which entries of two vocabulary files differ: how many and the first; '' if none."""
  files = [pathlib.Path(path).read_bytes() for path in (there, here)]
  words = (file.decode(errors='backslashreplace').removesuffix('\n').split('\n') for file in files)
  return difference(*words)


def difference(there: Sequence[str], here: Sequence[str]) -> str:
  """Which entries of two lists differ: how many and the first; '' if none."""
  pairs = enumerate(itertools.zip_longest(there, here), 1)
  differing = [(line, *pair) for line, pair in pairs if pair[0] != pair[1]]
  if not differing:
    return ''
  line, old, new = differing[0]
  number = f'{len(differing):,} entr{"ies differ" if differing[1:] else "y differs"}'
  return f'{number}, the first in line {line}: {old!r} there and {new!r} here'


def read_config(path: epath.Path | pathlib.Path) -> dict[str, Any]:
  """Reads `config.json`; DamagedError if that is not what it is."""
  try:
    config = json.loads(path.read_text())
  except ValueError as error:
    raise DamagedError(f'{path} is damaged ({error})') from error
  if not isinstance(config, dict):
    raise DamagedError(f'{path} is damaged')
  return config


def to_json(config: Mapping[str, Any]) -> str:
  """The text of `config.json`."""
  return json.dumps(config, indent=2) + '\n'


def differences(
  old: dict[str, Any], new: dict[str, Any], only: Collection[str] | None = None
) -> list[str]:
  """Each field in which two configurations differ: of `only`, else of all but MAY_CHANGE."""
  old, new = _flat(old), _flat(new)
  return [
    f'{name} is {old.get(name, "absent")!r} there and {new.get(name, "absent")!r} here'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name) and (name not in MAY_CHANGE if only is None else name in only)
  ]


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
  return flat
