"""Saves drawings of results as SVG files, the same each time, with a digest of what they show."""

import hashlib
import pathlib

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


def digest(*paths: pathlib.Path) -> str:
  """Returns the SHA-256 of files, one after the other, in hexadecimal; one may be missing."""
  content = b''.join(path.read_bytes() for path in paths if path.exists())
  return hashlib.sha256(content).hexdigest()


def save(figure: Figure, path: pathlib.Path, source: str) -> None:
  """Writes a figure as SVG with `source`, a digest, as its description; closes it."""
  figure.tight_layout()
  # Else ids differ from one call to the next.
  with mpl.rc_context({'svg.hashsalt': 'pixelbert'}):
    figure.savefig(path, metadata={'Date': None, 'Description': source})
  plt.close(figure)
