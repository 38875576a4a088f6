"""Checkpoints: modules in the order of their imports, and the errors of all of them.

`checksum` (of arrays), `workdir` (the files of a run), `saved` (one saved step), `checkpoint` (all
steps of a run, and models to load), `starting` and `provenance` (what a new run takes over).
"""

import contextlib
from collections.abc import Iterator

from pixelbert_jax import UserError, first_line


class CheckpointError(UserError):
  """A checkpoint or workdir that cannot be used; one line: what, where, how to mend it."""


class DamagedError(CheckpointError):
  """A step that does not hold what was saved. Another step of the checkpoint may be whole."""


@contextlib.contextmanager
def reachable(name: str) -> Iterator[None]:
  """Makes what is raised for an address that cannot be read a CheckpointError."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # Of a package that is missing, of its network library, KeyError.
    if ':/' not in name:
      raise
    raise CheckpointError(
      f'{name} cannot be read ({first_line(error)}): mount the bucket (gcsfuse for gs://), or '
      'copy it to a disk'
    ) from error
