"""Saves drawings of results as SVG files, the same each time, with a digest of what they show."""

import hashlib
import pathlib

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pixelbert_jax.report.curves import svg

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


def digest(*paths: pathlib.Path) -> str:
  """Returns the SHA-256 of files, one after the other, in hexadecimal; one may be missing."""
  content = b''.join(path.read_bytes() for path in paths if path.exists())
  return hashlib.sha256(content).hexdigest()


def save(figure: Figure, path: pathlib.Path, source: str) -> None:
  """Writes a figure as SVG with `source`, a digest, as its description; closes it."""
  path.write_text(svg(figure, source))
  plt.close(figure)
