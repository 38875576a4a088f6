"""Builds of a corpus by the command, and what a built dataset holds."""

import pathlib

import pytest

from data import build as build_lib
from pixelbert_jax.input.dataset import DatasetError


def built(name: str, manual: pathlib.Path, tmp_path: pathlib.Path, capsys, **options):
  """Builds a dataset by the command: the dataset, and what was printed."""
  code = build_lib.command([name], tmp_path / 'built', manual, **options)
  out, err = capsys.readouterr()
  assert code == 0, err
  return build_lib.open_dataset(name, tmp_path / 'built'), out


def failure(name: str, manual: pathlib.Path, tmp_path: pathlib.Path, capsys, **options) -> str:
  """Runs a build that must fail and leave no dataset: the line of its error."""
  assert build_lib.command([name], tmp_path / 'built', manual, **options) == 1
  lines = capsys.readouterr().err.replace('\r', '\n').splitlines()
  assert sum(line.startswith(('error', 'Traceback')) for line in lines) == 1
  with pytest.raises(DatasetError, match='is not built'):
    build_lib.open_dataset(name, tmp_path / 'built')
  assert not list((tmp_path / 'built').glob('**/*.array_record*'))
  return lines[-1].removeprefix('error: ')


def captions(sidecar, i: int) -> list[tuple[int, str]]:
  """Returns the ids and texts of image i."""
  numbers = range(sidecar.captions.start[i], sidecar.captions.start[i + 1])
  return list(zip(sidecar.captions[i].tolist(), map(sidecar.caption, numbers), strict=True))


def strings(table, numbers) -> list[str]:
  """Returns the strings of a table that have these numbers."""
  return [table.strings.text(n) for n in numbers]
