"""Lists the commands: `python -m pixelbert_jax`."""

import ast
import pathlib

FOLDER = pathlib.Path(__file__).parent


def commands() -> dict[str, str]:
  """Returns what each command does, by name; none is imported."""
  files = {'main': FOLDER / 'main.py'}
  files |= {path.parent.name: path for path in sorted(FOLDER.glob('*/__main__.py'))}
  said = {name: ast.get_docstring(ast.parse(path.read_text())) for name, path in files.items()}
  return {name: (text or '').splitlines()[0].rstrip(':.') for name, text in said.items()}


if __name__ == '__main__':
  for name, text in commands().items():
    print(f'python -m pixelbert_jax.{name:<8} {text}')
  print('Each has --help. README.md shows how to begin.')
