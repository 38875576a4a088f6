"""The demo's page as it is laid out, and the command that serves it."""

import socket
import sys
import warnings

import pytest

from pixelbert_jax import predict
from pixelbert_jax.checkpoints import provenance
from pixelbert_jax.demo.__main__ import main
from tests.support import tiny

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture(scope='module')
def page():
  """The module, which imports Gradio."""
  pytest.importorskip('gradio')
  from pixelbert_jax.demo import page

  return page


def load(folder, task, files=None):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # It was trained on scenes.
    return predict.load(tiny.write(folder, task, files))


def tabs_of(built) -> list[str]:
  return [x['props']['label'] for x in built.config['components'] if x['type'] == 'tabitem']


# --- The page --------------------------------------------------------------------------------


def test_tabs_are_what_the_model_can_do(page, tmp_path):
  model = load(tmp_path / 'vqa', 'vqa')
  assert tabs_of(page.build('vqa', model, None, [])) == ['Ask a question']
  model = load(tmp_path / 'pretrain', 'pretrain')
  assert tabs_of(page.build('pretrain', model, None, [])) == ['Match texts', 'Fill a word']
  tabs = tabs_of(page.build('pretrain', model, object(), []))
  assert tabs == ['Match texts', 'Fill a word', 'Find photos', 'Find texts']


def test_the_top_says_what_the_model_was_trained_on(page, tmp_path):
  top = page.heading('<runs>', load(tmp_path / 'scenes', 'vqa'))
  assert 'trained on scenes' in top
  assert provenance.SCENES in top
  assert '<runs>' not in top
  files = {'trained_on.json': b'["coco_karpathy", "vqa_v2"]'}
  top = page.heading('runs', load(tmp_path / 'photographs', 'vqa', files))
  assert 'trained on coco_karpathy, vqa_v2.' in top
  assert 'means nothing' not in top


def test_requests_wait_for_one_another_and_nothing_goes_out(page, tmp_path):
  built = page.build('pretrain', load(tmp_path / 'pretrain', 'pretrain'), object(), [])
  asking = [fn for fn in built.fns.values() if fn.concurrency_id == 'model']
  assert len(asking) == len(tabs_of(built))
  assert {fn.concurrency_limit for fn in asking} == {1}
  assert not built.analytics_enabled


# --- The command -----------------------------------------------------------------------------


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


def test_addresses_that_cannot_be_served(page, capsys):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    assert f'--host=127.0.0.1 --port={port} cannot be' in line_of(capsys, f'--port={port}')
  assert '--host=192.0.2.1 cannot be served' in line_of(capsys, '--host=192.0.2.1')
  assert '--port=70000: give one of 1 to 65535' in line_of(capsys, '--port=70000')


def test_checkpoints_that_are_not_there(page, capsys):
  assert 'nothing' in line_of(capsys)
