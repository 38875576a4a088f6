"""The structure of the code: sizes, calls, and which parts import which."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

FOLDERS = ('pixelbert_jax', 'data', 'configs', 'launch', 'benchmarks')
FILES = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob('*.py')]
LINES, FUNCTION_LINES, ARGUMENTS = 300, 60, 5
BELOW = ('UserError', 'first_line', 'require_checkout')  # in pixelbert_jax/__init__.py
AXES = ('permute', 'reshape', 'transpose')  # take one list, of axes or sizes


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
  return ast.parse((ROOT / path).read_text())


def package() -> list[pathlib.Path]:
  return [path for path in FILES if path.parts[0] == 'pixelbert_jax']


# --- Sizes and calls ---------------------------------------------------------------------


def test_modules_and_functions_are_short():
  lengths = {path: len((ROOT / path).read_text().splitlines()) for path in package()}
  assert {path: n for path, n in lengths.items() if n > LINES} == {}
  functions = {
    f'{path}:{node.lineno} {node.name}': node.end_lineno - node.lineno + 1
    for path in package()
    for node in ast.walk(tree(path))
    if isinstance(node, ast.FunctionDef)
  }
  assert {name: n for name, n in functions.items() if n > FUNCTION_LINES} == {}


def test_no_call_has_more_than_five_positional_arguments():
  calls = [
    f'{path}:{node.lineno} {ast.unparse(node.func)}'
    for path in FILES
    for node in ast.walk(tree(path))
    if isinstance(node, ast.Call) and len(node.args) > ARGUMENTS
    if getattr(node.func, 'attr', '') not in AXES
  ]
  assert calls == []


# --- Imports -----------------------------------------------------------------------------


def imports(path: pathlib.Path) -> Iterator[str]:
  """Yields what a file imports by full name, in functions too, but not for type checkers."""
  waiting = [tree(path)]
  while waiting:
    node = waiting.pop()
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
      waiting += node.orelse
    else:
      waiting += ast.iter_child_nodes(node)


def test_no_part_of_the_package_imports_one_that_imports_it():
  # A part is a folder or a module of the root.
  needs: dict[str, set[str]] = {}
  for path in package():
    part = path.parts[1].removesuffix('.py')
    names = [name.split('.') for name in imports(path)]
    imported = {name[1] for name in names if name[0] == 'pixelbert_jax' and name[1:]}
    needs.setdefault(part, set()).update(imported - {part, *BELOW})
  assert needs.pop('__init__') == set()
  assert set().union(*needs.values()) <= needs.keys()
  graphlib.TopologicalSorter(needs).prepare()  # CycleError names the parts of a cycle.


@pytest.mark.parametrize(
  ('module', 'folders'),
  [
    ('data', {'checkpoints', 'convert', 'input', 'models', 'predict', 'score', 'tasks'}),
    ('flax', {path.parts[1] for path in package()} - {'models'}),
  ],
)
def test_where_a_module_is_not_imported(module, folders):
  importers = [
    path
    for path in package()
    if path.parts[1] in folders and any(x.split('.')[0] == module for x in imports(path))
  ]
  assert importers == []


def test_json_is_written_strictly():
  # By one function, since json.dumps writes NaN, which is no JSON.
  writers = [path for path in package() if 'json.dump' in (ROOT / path).read_text()]
  assert writers == [pathlib.Path('pixelbert_jax/jsons.py')]


def test_predict_loads_no_datasets():
  heavy = "{'tensorflow_datasets', 'data'}"
  code = f'import sys, pixelbert_jax.predict.model; print({heavy} & {{*sys.modules}})'
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout == 'set()\n'
