"""Folders and files that tests read: the checkout, and what lies beside it."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / 'shared' / 'data'


def shared(name: str) -> pathlib.Path:
  """Returns the path of a published file; skips the test where it is not there."""
  path = SHARED / name
  if not path.exists():
    pytest.skip(f'{name} is not in {SHARED}')
  return path
