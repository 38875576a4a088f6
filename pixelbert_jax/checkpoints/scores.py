"""The steps of a checkpoint and their validation scores, by which one of them is chosen."""

import contextlib
from collections.abc import Mapping

from pixelbert_jax.checkpoints import DamagedError
from pixelbert_jax.checkpoints.saved import Folder, Manifest, path_of


def steps(folder: Folder) -> list[int]:
  """Lists the steps of a checkpoint or workdir, oldest first, without verifying them."""
  inside = folder / 'checkpoints'
  if not inside.is_dir():
    return []
  return sorted(int(path.name) for path in inside.iterdir() if path.name.isdecimal())


def scores(folder: Folder) -> dict[int, float]:
  """Reads the validation scores of the steps that have one."""
  every = {}
  for step in steps(folder):
    with contextlib.suppress(DamagedError):  # reported when the step is read
      every[step] = Manifest.read(path_of(folder, step)).score
  return {step: score for step, score in every.items() if score is not None}


def best(scores: Mapping[int, float]) -> int | None:
  """Returns the step with the highest score, the first of equals; None if there is none."""
  return max(scores, key=lambda step: (scores[step], -step), default=None)
