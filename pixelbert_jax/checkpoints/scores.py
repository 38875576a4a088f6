"""The steps of a checkpoint and their validation scores, by which one of them is chosen.

A step is saved before it is evaluated, so scores have a file of their own, with a digest:
`checkpoints/scores.json`. Each manifest repeats the scores that were known when its step was saved:
if the file is lost or damaged, they are taken from there.
"""

import sys
from typing import Any

from pixelbert_jax import files, jsons, processes
from pixelbert_jax.checkpoints import DamagedError
from pixelbert_jax.checkpoints.saved import Folder, Manifest, path_of

FILE = 'scores.json'


class Scores:
  """The validation scores of the steps that a checkpoint or workdir has.

  Attributes:
    of: the score by step; None where the evaluation gives none.
    unknown: steps whose manifest cannot be read and whose score nothing else tells. Each may be the
      one that validation chose.
  """

  def __init__(self, folder: Folder):
    """Reads them; a line on stderr says so if the file is damaged."""
    self._path = folder / 'checkpoints' / FILE
    existing, unreadable, repeated = steps(folder), [], dict[int, float | None]()
    for step in existing:
      try:
        manifest = Manifest.read(path_of(folder, step))
      except DamagedError:  # reported when the step is read
        if (path_of(folder, step) / 'manifest').exists():  # A step that was half deleted has none.
          unreadable.append(step)
        continue
      repeated |= {int(number): score for number, score in manifest.scores.items()}
      if manifest.score is not None:  # as earlier versions kept it
        repeated[step] = manifest.score
    known = repeated | self._read()
    self.of = {step: known[step] for step in existing if step in known}
    self.unknown = [step for step in unreadable if step not in known]

  @property
  def scored(self) -> dict[int, float]:
    """The score by step, of those that have one."""
    return {step: score for step, score in self.of.items() if score is not None}

  @property
  def ranked(self) -> list[int]:
    """The steps that have a score, the best first, and of equal ones the first."""
    scored = self.scored
    return sorted(scored, key=lambda step: (-scored[step], step))

  @property
  def at_stake(self) -> set[int]:
    """The steps of which one is, or may be, the one that validation chose."""
    return {*self.ranked[:1], *self.unknown}

  def add(self, step: int, score: float | None) -> None:
    """Adds the score of a step and writes the file."""
    self.of[step] = score
    if processes.is_first():
      scores = self.as_json()
      files.write_text(self._path, jsons.text({'scores': scores, 'sha256': jsons.digest(scores)}))

  def as_json(self) -> dict[str, float | None]:
    """Returns the scores as JSON can hold them."""
    return {str(step): score for step, score in self.of.items()}

  def _read(self) -> dict[int, float | None]:
    if not self._path.exists():
      return {}
    try:
      sealed: Any = jsons.parse(self._path.read_bytes())
      if jsons.digest(sealed['scores']) != sealed['sha256']:
        raise ValueError('its digest does not match')
      return {int(step): score for step, score in sealed['scores'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      if processes.is_first():
        print(
          f'{self._path} is damaged ({error}): taking the scores that later steps hold',
          file=sys.stderr,
        )
      return {}


def steps(folder: Folder) -> list[int]:
  """Lists the steps of a checkpoint or workdir, oldest first, without verifying them."""
  inside = folder / 'checkpoints'
  if not inside.is_dir():
    return []
  return sorted(int(path.name) for path in inside.iterdir() if path.name.isdecimal())
