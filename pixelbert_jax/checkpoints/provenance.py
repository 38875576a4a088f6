"""What a model was trained on, and so what its answers are worth."""

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pixelbert_jax import jsons
from pixelbert_jax.checkpoints import CheckpointError, DamagedError

RENDERED = {'scenes', 'boxes', 'easy_vqa'}
FILE = 'trained_on.json'  # of a run: the datasets it has seen, and those of the run it started from
DATA = 'data.json'  # of a run: digests of its own datasets, by dataset, split and part
# `Dataset.identity`.
Identity = Mapping[str, Mapping[str, Mapping[str, str]]]

SCENES = (
  'trained on rendered scenes of coloured shapes only: what it says of photographs means nothing'
)
UNTRAINED = 'put together from a BERT and a CNN and not trained yet: what it says means nothing'


def datasets(files: Mapping[str, bytes], config: Mapping[str, Any]) -> tuple[str, ...]:
  """Lists the datasets of a run and of all that it started from; none of a converted BERT and CNN.

  Args:
    files: the run's own, by name.
    config: of the run, as in `config.json`.
  """
  names = jsons.parse(files[FILE], list) if FILE in files else config['data']['name'].split('+')
  return tuple(names)


def caveat(names: Sequence[str]) -> str:
  """Returns what to keep in mind of a model trained on these datasets; '' if nothing."""
  if not names:
    return UNTRAINED
  return SCENES if {name.split('/')[0] for name in names} <= RENDERED else ''


def encode(names: Sequence[str]) -> bytes:
  """Encodes the content of FILE."""
  return (jsons.text(list(dict.fromkeys(names))) + '\n').encode()


def remember(workdir: pathlib.Path, identity: Identity, splits: Collection[str]) -> bytes:
  """Makes the content of DATA; that of a run which is resumed stays as it is.

  Args:
    workdir: of the run; may not exist yet.
    identity: of the datasets as opened.
    splits: those that the run uses.

  Raises:
    CheckpointError: the run in `workdir` was started on other data.
    DamagedError: its file is damaged.
  """
  path = workdir / DATA
  if not path.exists():
    used = {
      name: {split: parts for split, parts in own.items() if split in splits}
      for name, own in identity.items()
    }
    return (jsons.text(used, indent=1) + '\n').encode()
  content = path.read_bytes()
  try:
    changes = data_changes(content, identity)
  except (ValueError, AttributeError, TypeError) as error:
    raise DamagedError(
      f'{path} is damaged ({error}): restore that file, or take another --workdir'
    ) from error
  for name, change in changes.items():
    raise CheckpointError(
      f'{workdir} holds a run on another {name} ({change}): the dataset was built again from other '
      'files since. Take another --workdir, or put the old dataset back'
    )
  return content


def data_changes(content: bytes, identity: Identity) -> dict[str, str]:
  """Describes by dataset how datasets as opened differ from the content of DATA.

  Splits that are only in one of them are not compared. ValueError, AttributeError or TypeError if
  the content is not as `remember` makes it.
  """
  changes = {}
  for name, splits in jsons.parse(content, dict).items():
    own = identity.get(name, {})
    differing = [
      f'{split} has other {" and ".join(part for part in parts if parts[part] != here[part])}'
      for split, parts in splits.items()
      if (here := own.get(split, parts)) != parts
    ]
    if differing:
      changes[name] = ', '.join(differing)
  return changes
