"""Checkpoints: modules in the order of their imports, and the errors of all of them.

`checksum` (of arrays), `workdir` (the files of a run), `saved` (one saved step), `checkpoint` (all
steps of a run, and models to load), `starting` and `provenance` (what a new run takes over).
"""

from pixelbert_jax import UserError


class CheckpointError(UserError):
  """A checkpoint or workdir that cannot be used; one line: what, where, how to mend it."""


class DamagedError(CheckpointError):
  """A step that does not hold what was saved. Another step of the checkpoint may be whole."""
