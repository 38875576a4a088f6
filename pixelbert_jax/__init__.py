"""Pixel-BERT (Huang et al. 2020, arXiv 2004.00849) in JAX."""

import pathlib


class UserError(Exception):
  """Something the user can mend. The message is one line: what, where, how to mend it."""


def first_line(error: BaseException, most: int = 200) -> str:
  """Returns the first line of a library's error, or its type, in at most `most` characters."""
  return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def require_checkout() -> None:
  """Raises UserError if this package is installed without configs/ and data/, as from a wheel."""
  if not (pathlib.Path(__file__).parents[1] / 'data/build.py').is_file():
    raise UserError(
      'training, evaluation and configs/ need the checkout, and this is the installed package: '
      'git clone https://github.com/pixelbert/pixelbert_jax, and pip install -e . in it'
    )
