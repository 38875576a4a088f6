"""Shows a trained model in the browser.

    python -m pixelbert_jax.demo --checkpoint=C [--folder=photos]

docs/demo.md shows it.
"""

import errno
import importlib.util
import ipaddress
import os
import pathlib
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

from absl import logging
from PIL import Image

from pixelbert_jax import UserError, commandline
from pixelbert_jax.demo import MEGAPIXELS

HERE = '127.0.0.1'  # reached from this machine alone
PORT, TRIED = 7860, 100  # the first port, and how many more are tried
MOST = 65535


def flags_of(argv: Sequence[str]) -> Any:
  """Parses and checks the flags."""
  parser = commandline.Parser('pixelbert_jax.demo', __doc__)
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
  parser.add_argument('--port', type=int, help=f'the port; by default the first free from {PORT}')
  flags = parser.parse_args(argv)
  if flags.port is not None and not 1 <= flags.port <= MOST:
    parser.error(f'--port={flags.port}: give one of 1 to {MOST}')
  return flags


def listen(host: str, port: int | None) -> socket.socket:
  """Opens the socket to serve at: a port or, if that is None, the first free one from PORT on.

  Raises:
    UserError: it cannot be opened.
  """
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    for each in [port] if port else range(PORT, PORT + TRIED):
      try:
        return socket.create_server((host, each), family=family)
      except OSError as error:
        if port or error.errno != errno.EADDRINUSE:
          raise
    return socket.create_server((host, 0), family=family)
  except OSError as error:
    where = f'--host={host}' + (f' --port={port}' if port else '')
    raise UserError(f'{where} cannot be served: {error.strerror}') from error


def command(argv: Sequence[str]) -> None:
  """Loads the model, and serves its page until it is stopped."""
  flags = flags_of(argv)
  found = importlib.util.find_spec('gradio')
  if found is None or found.origin is None:  # Once uninstalled, it leaves a folder.
    raise UserError("the demo needs Gradio: pip install -e '.[demo]'")
  with (
    listen(flags.host, flags.port) as where,
    tempfile.TemporaryDirectory(prefix='pixelbert_demo_') as folder,
  ):
    os.environ['GRADIO_TEMP_DIR'] = f'{folder}/uploads'
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # The folder goes, as by Ctrl-C.
    serve(flags, where, pathlib.Path(folder))


def serve(flags: Any, where: socket.socket, folder: pathlib.Path) -> None:
  """Serves the page as the flags ask; a folder takes what it needs meanwhile."""
  from pixelbert_jax import predict  # JAX, once the flags are right
  from pixelbert_jax.demo import page

  logging.set_verbosity(logging.WARNING)
  Image.MAX_IMAGE_PIXELS = MEGAPIXELS * 10**6
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # The page says the model's note.
    model = predict.load(flags.checkpoint)
  begin, index = prepared(model, folder, flags.folder)
  built = page.build(pathlib.Path(flags.checkpoint).name, model, index, begin)
  host, port = where.getsockname()[:2]
  shown = f'[{host}]' if ':' in host else host
  print(f'http://{shown}:{port}/ shows {flags.checkpoint} until Ctrl-C', flush=True)
  if not ipaddress.ip_address(host).is_loopback:
    print('note: whoever reaches this address can ask the model', file=sys.stderr)
  page.serve(built, where)


def prepared(model: Any, own: pathlib.Path, folder: str | None) -> tuple[list[Any], Any]:
  """Makes the examples, and the index of a folder of photos or, if that is None, of examples.

  Args:
    model: it looks at the photos.
    own: the folder of this process, for examples and their index.
    folder: of photos.

  Returns:
    The examples, and the index; None if there are no photos, or the model cannot search examples.

  Raises:
    UserError: the folder cannot be searched.
  """
  from pixelbert_jax import search
  from pixelbert_jax.demo import examples
  from pixelbert_jax.search.__main__ import indexed

  scenes = own / 'scenes'
  scenes.mkdir()
  begin = examples.render(model.trained_on, scenes)
  if folder is None and not (begin and 'match' in model.heads):
    return begin, None
  where = (folder, None) if folder else (scenes, own / 'index')
  done = search.update(model, *where)
  if folder:
    print(*indexed(done), sep='\n', file=sys.stderr)
  return begin, search.Index.open(model, *where)


def main(argv: Sequence[str]) -> int:
  """Runs the command, prints an error as one line, and returns the exit code."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
