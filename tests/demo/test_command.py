"""The demo's command, before it loads a model."""

import importlib.util
import socket
import sys

import pytest

from pixelbert_jax.demo.__main__ import main


def line_of(capsys, *arguments) -> str:
  """Returns the one line of a command that fails."""
  assert main(['--checkpoint=nothing', *arguments]) == 1
  out, error = capsys.readouterr()
  assert out == ''
  assert error.count('\n') == 1
  return error


def test_without_gradio(capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'gradio', None)
  assert line_of(capsys) == "error: the demo needs Gradio: pip install -e '.[demo]'\n"


def test_ports_that_are_none(capsys):
  assert '--port=70000: give one of 1 to 65535' in line_of(capsys, '--port=70000')


@pytest.mark.skipif(not importlib.util.find_spec('gradio'), reason='it needs Gradio')
def test_addresses_that_cannot_be_served(capsys):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    assert f'--host=127.0.0.1 --port={port} cannot be served' in line_of(capsys, f'--port={port}')
  assert '--host=192.0.2.1 cannot be served' in line_of(capsys, '--host=192.0.2.1')
