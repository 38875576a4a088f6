"""The demo in a browser: what is asked is answered, and no other machine is asked for anything."""

import importlib.util
import json
import re
import sys
import urllib.request
import warnings

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from pixelbert_jax import predict
from pixelbert_jax.checkpoints import provenance
from pixelbert_jax.demo import MEGABYTES
from tests.support import tiny
from tests.support.browser import browser, complaints
from tests.support.processes import free_port, spawn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('quick_compiles')]

SECONDS = 120  # for what the page shows next, on a busy machine
# Runs the command, and writes down which other machines it asks for.
WATCHED = """
import runpy, sys
log = open(sys.argv.pop(1), 'w')
def watch(event, arguments):
  if event in ('socket.getaddrinfo', 'socket.connect', 'socket.sendto'):
    address = arguments[0 if event == 'socket.getaddrinfo' else 1]
    host = address[0] if isinstance(address, tuple) else address
    if host not in ('127.0.0.1', '::1', 'localhost', None):
      print(event, address, file=log, flush=True)
sys.addaudithook(watch)
runpy.run_module('pixelbert_jax.demo', run_name='__main__', alter_sys=True)
"""


class Page:
  """The open page, as a user sees it: only what is displayed."""

  def __init__(self, opened, address):
    self.opened = opened
    opened.get(address)
    self.wait(lambda: self.seen('[role=tab]'))

  def wait(self, condition):
    """Waits until a condition gives something, and returns that."""
    return WebDriverWait(self.opened, SECONDS).until(lambda _: condition())

  def seen(self, selector):
    found = self.opened.find_elements(By.CSS_SELECTOR, selector)
    return [element for element in found if element.is_displayed()]

  def open(self, name):
    """Opens a tab."""
    (tab,) = (tab for tab in self.seen('[role=tab]') if tab.text == name)
    tab.click()
    self.wait(lambda: tab.get_attribute('aria-selected') == 'true')

  def tabs(self):
    return [tab.text for tab in self.seen('[role=tab]')]

  def upload(self, path):
    """Gives the open tab a photo, in place of the one before."""
    for button in self.seen('[aria-label="Remove Image"]'):
      button.click()
      self.wait(lambda: not self.seen('.photo .image-frame img'))
    (panel,) = self.seen('[role=tabpanel]')
    panel.find_element(By.CSS_SELECTOR, 'input[type=file]').send_keys(str(path))

  def ask(self, text):
    """Types a text and presses the button; returns the reply, which has to be another one."""
    (box,) = self.seen('textarea')
    box.clear()
    box.send_keys(text)
    before = self.reply()
    self.seen('button.primary')[0].click()
    return self.wait(lambda: self.reply() not in ('', before) and self.reply())

  def reply(self):
    return '\n'.join(element.text for element in self.seen('.reply .prose'))

  def size(self, selector):
    """Waits for a picture, and returns its width and height in pixels."""
    sizes = 'return [arguments[0].naturalWidth, arguments[0].naturalHeight]'
    (picture,) = self.wait(lambda: self.seen(selector))
    self.wait(lambda: self.opened.execute_script(sizes, picture)[0])
    return tuple(self.opened.execute_script(sizes, picture))


@pytest.fixture
def visit(tmp_path):
  """Serves a checkpoint and visits its page; at the end nothing has gone wrong, or out."""
  if not importlib.util.find_spec('gradio'):
    pytest.skip("Gradio is missing: pip install -e '.[demo]'")
  command = [sys.executable, '-c', WATCHED, str(tmp_path / 'asked')]
  variables = {'XDG_CACHE_HOME': str(tmp_path / 'cache'), 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
  started = []

  def visit(checkpoint, *arguments):
    flags = [f'--checkpoint={checkpoint}', f'--port={free_port()}', *arguments]
    started.append(spawn([*command, *flags], **variables))
    line = started[0].stdout.readline()
    assert ' shows ' in line, started[0].communicate()[1]
    return Page(opened, line.split()[0])

  try:
    with browser() as opened:
      yield visit
      # Requests that failed, as all to other machines would, and errors of scripts.
      said = complaints(opened)
      assert [line for line in said if 'net::ERR' in line or 'Uncaught' in line] == []
  finally:
    for process in started:
      process.terminate()
      _, error = process.communicate()
  refused = 'InvalidPathError' in error  # which Gradio logs with its traceback
  assert refused or 'Traceback' not in error
  assert (tmp_path / 'asked').read_text() == ''


@pytest.fixture
def photos(tmp_path):
  """A folder of three photos and a text file that has the name of one."""
  folder, rng = tmp_path / 'photos', np.random.default_rng(0)
  folder.mkdir()
  for name in ('a', 'b', 'c'):
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    coarse.resize((90, 72), Image.Resampling.BICUBIC).save(folder / f'{name}.png')
  return folder


def load(folder, task):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # It was trained on scenes.
    return predict.load(tiny.write(folder, task))


def numbers(text) -> list[float]:
  return [float(number) for number in re.findall(r'\b[01]\.\d{3}\b', text)]


def test_a_question(visit, photos, tmp_path):
  model, question = load(tmp_path / 'vqa', 'vqa'), 'what colour is it'
  page = visit(tmp_path / 'vqa')
  assert page.tabs() == ['Ask a question']
  assert provenance.SCENES in page.opened.find_element(By.TAG_NAME, 'main').text
  assert 'upload one' in page.ask('is it red')
  page.upload(photos / 'a.png')
  assert page.size('.photo .image-frame img') == (90, 72)
  said = page.ask(question)
  answers = model.answer(photos / 'a.png', question)[0]
  assert [name for name, _ in answers if f' {name}\n' in f' {said}\n'] == [n for n, _ in answers]
  assert numbers(said)[: len(answers)] == pytest.approx([p for _, p in answers], abs=2e-3)
  assert page.size('.heat img') == model.heatmap(photos / 'a.png', question).picture().size


def answered(address, photo) -> str:
  """What the page's server sends to who names a file as a photo, without uploading it."""
  with urllib.request.urlopen(f'{address}config') as response:
    asked = next(x for x in json.load(response)['dependencies'] if len(x['inputs']) == 2)
  data = [{'path': str(photo), 'meta': {'_type': 'gradio.FileData'}}, 'what colour is it']
  body = {'data': data, 'fn_index': asked['id'], 'session_hash': 'x'}
  header = {'Content-Type': 'application/json'}
  join = urllib.request.Request(
    f'{address}gradio_api/queue/join', json.dumps(body).encode(), header
  )
  urllib.request.urlopen(join).close()
  with urllib.request.urlopen(
    f'{address}gradio_api/queue/data?session_hash=x', timeout=SECONDS
  ) as stream:
    return next(line.decode() for line in stream if b'process_completed' in line)


def test_only_what_was_uploaded_is_shown(visit, photos, tmp_path):
  load(tmp_path / 'vqa', 'vqa')
  page = visit(tmp_path / 'vqa')
  said = answered(page.opened.current_url, photos / 'a.png')
  assert '"success":false' in said
  assert 'data' not in json.loads(said.partition('data: ')[2])['output']
  assert '"success":false' in answered(
    page.opened.current_url, f'http://localhost:{free_port()}/a.png'
  )


def test_texts_and_a_folder(visit, photos, tmp_path):
  model, texts = load(tmp_path / 'pretrain', 'pretrain'), ['a red circle', 'a blue square']
  page = visit(tmp_path / 'pretrain', f'--folder={photos}')
  assert page.tabs() == ['Match texts', 'Fill a word', 'Find photos', 'Find texts']
  page.upload(photos / 'a.png')
  assert page.size('.photo .image-frame img') == (90, 72)
  expected = model.match(photos / 'a.png', texts)[0]
  assert numbers(page.ask('\n'.join(texts)))[:2] == pytest.approx(expected, abs=2e-3)
  assert page.size('.heat img')

  (tmp_path / 'notes.jpg').write_text('milk, eggs')
  page.upload(tmp_path / 'notes.jpg')
  page.wait(lambda: page.opened.find_elements(By.CSS_SELECTOR, '.photo .image-frame img'))
  assert page.ask('a star').startswith('notes.jpg: 10 bytes that are not a whole image')
  with open(tmp_path / 'large.png', 'wb') as file:
    file.truncate(MEGABYTES * 10**6 + 1)
  page.upload(tmp_path / 'large.png')
  assert 'size' in page.wait(lambda: ''.join(toast.text for toast in page.seen('.toast-wrap')))

  page.open('Fill a word')
  page.upload(photos / 'b.png')
  assert page.size('.photo .image-frame img') == (90, 72)
  assert f' {model.fill(photos / "b.png", "a [MASK] circle", k=1)[0][0][0]}\n' in page.ask(
    'a [MASK] circle'
  )
  page.open('Find photos')
  assert 'of 3 photos' in page.ask('a red circle')
  page.wait(lambda: len(page.seen('.gallery-item img, .thumbnail-lg img')) == 3)
  captions = [element.text for element in page.seen('.caption-label')]
  found = sorted(model.match(sorted(photos.iterdir()), 'a red circle')[:, 0], reverse=True)
  assert numbers('\n'.join(captions)) == pytest.approx(found, abs=2e-3)
