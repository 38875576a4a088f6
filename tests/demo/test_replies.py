"""The replies of the demo's page, without a browser."""

import html

import numpy as np
import pytest
from PIL import Image

from pixelbert_jax import predict, search
from pixelbert_jax.checkpoints import provenance
from pixelbert_jax.demo.replies import FOUND, TEXTS, THUMBNAIL, Replies, heading, thumbnail
from pixelbert_jax.predict import remarks
from tests.support import tiny

pytestmark = pytest.mark.usefixtures('quick_compiles')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Checkpoints by the names of their tasks, and photos in folders."""
  folder = tmp_path_factory.mktemp('demo')
  for task in ('vqa', 'pretrain'):
    tiny.write(folder / task, task)
  rng = np.random.default_rng(0)
  (folder / 'photos').mkdir()
  for i in range(FOUND + 2):
    pixels = rng.integers(0, 256, (300, 400, 3) if i == 3 else (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'photos/{i}.png')
  (folder / 'photos/<b>.png').write_bytes((folder / 'photos/0.png').read_bytes())
  return folder


@pytest.fixture(scope='module')
def load(folder):
  """Models by the names of their tasks."""
  return tiny.loader(folder)


@pytest.fixture(scope='module')
def matching(load, folder):
  """Replies of a model that can match, with a folder to search."""
  model, where = load('pretrain'), (folder / 'photos', folder / 'index')
  search.update(model, *where)
  return Replies(model, search.Index.open(model, *where))


@pytest.fixture
def photo(folder):
  return str(folder / 'photos/1.png')


def error_of(reply) -> str:
  """Returns the one line of a reply that is an error."""
  assert reply.pictures is None
  assert reply.text.startswith('<p class="error" role="alert">')
  assert reply.text.count('<p') == 1
  return reply.text.partition('>')[2].removesuffix('</p>')


# --- What is said ----------------------------------------------------------------------------


def test_answers_with_their_numbers_and_a_heat_map(load, photo):
  model = load('vqa')
  reply = Replies(model).answer(photo, 'what colour is it')
  rows = model.answer(photo, 'what colour is it')[0]
  places = [reply.text.index(f'<td>{remarks.number(p)}</td><td>{name}<') for name, p in rows]
  assert places == sorted(places)
  assert remarks.TITLES['answer'] in reply.text
  for line in remarks.remarks('answer', [p for _, p in rows]):
    assert line in reply.text
  assert reply.pictures.size == model.heatmap(photo, 'what colour is it').picture().size


def test_texts_are_compared_line_by_line(load, matching, photo):
  texts = ['a red circle', 'a blue square', 'a star']
  reply = matching.match(photo, '\n a red circle \na blue square\n\na star\n')
  for text, p in zip(texts, load('pretrain').match(photo, texts)[0], strict=True):
    assert f'<td>{remarks.number(p)}</td><td>{text}<' in reply.text
  assert isinstance(reply.pictures, Image.Image)


def test_words_for_the_mask(load, matching, photo):
  reply = matching.fill(photo, 'a [MASK] circle')
  for word, p in load('pretrain').fill(photo, 'a [MASK] circle')[0]:
    assert f'<td>{remarks.number(p)}</td><td>{html.escape(word)}<' in reply.text


def test_unknown_words_are_marked_once_and_escaped(matching, photo):
  reply = matching.match(photo, 'a <i>yak</i>\na red circle')
  assert reply.text.count(remarks.MARK) == 2  # the row's, and the legend's
  assert '&lt;i&gt;yak' in reply.text
  assert '<i>' not in reply.text
  assert reply.text.count('vocabulary') == 1


def test_what_is_not_read_of_a_long_text_is_said(matching, photo):
  assert 'is not read' in matching.match(photo, 'a red circle is here and ' * 8).text


def test_the_top_says_what_the_model_was_trained_on(load, tmp_path):
  top = heading('<runs>', load('vqa'))
  assert 'trained on scenes.' in top
  assert provenance.SCENES in top
  assert '<runs>' not in top
  files = {'trained_on.json': b'["coco_karpathy", "vqa_v2"]'}
  top = heading('runs', predict.load(tiny.write(tmp_path / 'photographs', 'vqa', files)))
  assert 'trained on coco_karpathy, vqa_v2.' in top
  assert 'means nothing' not in top


# --- The folder ------------------------------------------------------------------------------


def test_photos_of_a_text_are_the_most_probable(load, matching, folder):
  reply = matching.find('a red circle')
  assert f'{FOUND} of 15 photos' in reply.text
  paths = sorted((folder / 'photos').iterdir())
  values = load('pretrain').match(paths, 'a red circle')[:, 0]
  best = sorted(map(remarks.number, values), reverse=True)[:FOUND]
  assert [line[: len(best[0])] for _, line in reply.pictures] == best
  assert {line.split()[-1] for _, line in reply.pictures} <= {path.name for path in paths}


def test_thumbnails_are_small(folder):
  assert thumbnail(str(folder / 'photos/3.png')).size == (THUMBNAIL, 192)


def test_texts_of_a_photo_are_ranked(load, matching, photo):
  texts = ['a red circle', 'a blue square', 'a star']
  values = dict(zip(texts, load('pretrain').match(photo, texts)[0].tolist(), strict=True))
  reply = matching.texts(photo, '\n'.join(texts))
  places = [reply.text.index(f'<td>{text}<') for text in sorted(texts, key=values.get)]
  assert places == sorted(places, reverse=True)


# --- Errors ----------------------------------------------------------------------------------


def test_a_text_file_sent_as_a_photo(matching, tmp_path):
  (tmp_path / 'notes.jpg').write_text('milk, eggs')
  line = error_of(matching.match(str(tmp_path / 'notes.jpg'), 'a cat'))
  assert line.startswith('notes.jpg: 10 bytes that are not a whole image')
  assert str(tmp_path) not in line


@pytest.mark.parametrize(
  ('method', 'text', 'said'),
  [
    ('match', '', f'0 texts: give 1 to {TEXTS}'),
    ('match', 'a\n' * (TEXTS + 1), f'{TEXTS + 1} texts: give 1 to {TEXTS}'),
    ('texts', ' \n', '0 texts'),
    ('fill', 'a red circle', 'has no [MASK]'),
    ('fill', '', 'is empty'),
  ],
)
def test_texts_that_cannot_be_used(matching, photo, method, text, said):
  assert said in error_of(getattr(matching, method)(photo, text))


def test_nothing_given(load, matching, photo):
  assert 'is empty' in error_of(Replies(load('vqa')).answer(photo, ''))
  assert 'is empty' in error_of(matching.find(''))
  assert 'upload one' in error_of(matching.match('', 'a red circle'))


def test_photos_of_too_many_pixels(matching, tmp_path, monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100 * 100)
  Image.new('RGB', (101, 100)).save(tmp_path / 'large.png')
  line = error_of(matching.match(str(tmp_path / 'large.png'), 'a cat'))
  assert line.startswith('large.png: ')
  assert 'million pixels: reduce it first' in line


def test_a_photo_that_is_gone_since(load, tmp_path):
  for name in ('gone', 'there'):
    Image.new('RGB', (64, 64)).save(tmp_path / f'{name}.png')
  model, where = load('pretrain'), (tmp_path, tmp_path / '.index')
  search.update(model, *where)
  replies = Replies(model, search.Index.open(model, *where))
  (tmp_path / 'gone.png').unlink()
  text, pictures = replies.find('a red circle')
  assert 'gone.png cannot be read any more' in text
  assert str(tmp_path) not in text
  ((_, line),) = pictures
  assert 'there.png' in line
