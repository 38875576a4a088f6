"""Pixel-BERT (Huang et al. 2020, arXiv 2004.00849) in JAX."""


class UserError(Exception):
  """Something the user can mend. The message is one line: what, where, how to mend it."""
