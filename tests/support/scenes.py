"""Small builds of the scenes dataset."""

import pathlib

import pytest

from data.build import build
from data.scenes import record


def build_scenes(folder: pathlib.Path, train: int, val: int, test: int) -> pathlib.Path:
  """Builds the dataset with so many images a split in a folder, and returns the folder."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(record, 'SPLITS', {'train': train, 'val': val, 'test': test})
    build('scenes', folder)
  return folder
