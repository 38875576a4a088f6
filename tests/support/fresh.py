"""Virtual environments without this package."""

import pathlib
import subprocess
import sys

import pytest


def environment(folder: pathlib.Path) -> pathlib.Path:
  """Makes an environment with all packages of the running one but ours; returns its Python."""
  subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
  (own,) = folder.glob('lib/python3*/site-packages')
  # A folder named by a .pth file has its packages found, and its own .pth files ignored: so that of
  # an editable install is.
  (own / 'others.pth').write_text(f'{pathlib.Path(pytest.__file__).parents[1]}\n')
  return folder / 'bin/python'
