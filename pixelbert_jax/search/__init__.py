"""The Python API that searches a folder of photos; `__main__.py` is the command.

    model = predict.load(checkpoint)
    search.update(model, 'photos')
    search.Index.open(model, 'photos').find('a red bus')

docs/search.md shows both.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from pixelbert_jax.search.index import Index as Index
  from pixelbert_jax.search.updates import Update as Update
  from pixelbert_jax.search.updates import update as update

RERANK = 500  # photos, the best by the first stage, whose probabilities are computed

# Imported when first used: JAX takes a second, and the command's `--help` needs none.
HOMES = {'Index': 'index', 'Update': 'updates', 'update': 'updates'}


def __getattr__(name: str) -> Any:
  """Imports a name of the API from its module."""
  if name not in HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{HOMES[name]}'), name)
