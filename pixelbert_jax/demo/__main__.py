"""The command that shows a trained model in the browser:

    python -m pixelbert_jax.demo --checkpoint=C [--folder=photos]

docs/demo.md shows it.
"""

import importlib.util
import os
import pathlib
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from absl import logging
from PIL import Image

from pixelbert_jax import UserError, commandline
from pixelbert_jax.demo import MEGAPIXELS

HERE = '127.0.0.1'  # reached from this machine alone
PORTS = 1, 65535


def flags_of(argv: Sequence[str]) -> Any:
  """Parses and checks the flags."""
  parser = commandline.Parser('pixelbert_jax.demo', 'Shows a trained model in the browser.')
  any_path, path = commandline.any_path, commandline.path
  parser.add_argument(
    '--checkpoint', type=any_path, required=True, help='a workdir, WORKDIR@STEP, or a folder'
  )
  parser.add_argument(
    '--folder', type=path, help='the folder of photos to search; by default the examples'
  )
  parser.add_argument(
    '--host', default=HERE, help=f'the address to serve; by default {HERE}, 0.0.0.0 is to all'
  )
  parser.add_argument('--port', type=int, help='the port; by default the first free from 7860')
  flags = parser.parse_args(argv)
  if flags.port is not None and not PORTS[0] <= flags.port <= PORTS[1]:
    parser.error(f'--port={flags.port}: give one of {PORTS[0]} to {PORTS[1]}')
  return flags


def check_address(host: str, port: int | None) -> None:
  """Raises UserError if nothing can be served at an address."""
  try:
    with socket.create_server((host, port or 0)):
      pass
  except OSError as error:
    where = f'--host={host}' + (f' --port={port}' if port else '')
    raise UserError(f'{where} cannot be served: {error.strerror or error}') from error


def command(argv: Sequence[str]) -> None:
  """Loads the model, and serves its page until it is stopped."""
  flags = flags_of(argv)
  if importlib.util.find_spec('gradio') is None:
    raise UserError("the demo needs Gradio: pip install -e '.[demo]'")
  check_address(flags.host, flags.port)
  with commandline.interruptible():  # JAX is imported only once the flags are right.
    from pixelbert_jax import predict
    from pixelbert_jax.demo import page

  logging.set_verbosity(logging.WARNING)
  Image.MAX_IMAGE_PIXELS = MEGAPIXELS * 10**6
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # Uploads are deleted, as by Ctrl-C.
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # The page says the model's note.
    model = predict.load(flags.checkpoint)
  with tempfile.TemporaryDirectory(prefix='pixelbert_demo_') as folder:
    os.environ['GRADIO_TEMP_DIR'] = f'{folder}/uploads'
    begin, index = prepared(model, pathlib.Path(folder), flags.folder)
    built = page.build(pathlib.Path(flags.checkpoint).name, model, index, begin)
    address = page.launch(built, flags.host, flags.port)
    print(f'{address} shows {flags.checkpoint} until Ctrl-C', flush=True)
    if flags.host not in (HERE, 'localhost'):
      print('note: whoever reaches this address can ask the model', file=sys.stderr)
    threading.Event().wait()


def prepared(model: Any, own: pathlib.Path, folder: str | None) -> tuple[list[Any], Any]:
  """Makes the examples, and the index of a folder of photos or, if that is None, of examples.

  Args:
    model: it looks at the photos.
    own: the folder of this process, for examples and their index.
    folder: of photos.

  Returns:
    The examples, and the index; None if the model cannot search, or there is nothing to search.
  """
  from pixelbert_jax import search
  from pixelbert_jax.demo import examples

  scenes = own / 'scenes'
  scenes.mkdir()
  begin = examples.render(model.trained_on, scenes)
  if 'match' not in model.heads or not (folder or begin):
    return begin, None
  where = (folder, None) if folder else (scenes, own / 'index')
  search.update(model, *where)
  return begin, search.Index.open(model, *where)


def main(argv: Sequence[str]) -> int:
  """Runs the command, prints an error as one line, and returns the exit code."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
