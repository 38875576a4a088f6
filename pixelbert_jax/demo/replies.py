"""The replies of the page: what the model says, as HTML, and the pictures that go with it."""

import dataclasses
import html
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from pixelbert_jax import UserError
from pixelbert_jax.predict import ImageError, Model, TextError, photos, remarks

if TYPE_CHECKING:
  from pixelbert_jax.search import Index

TEXTS = 200  # most texts at once
FOUND = 12  # photos, or texts, that a search shows
THUMBNAIL = 256  # pixels of the longer side of a photo that was found

Rows = Sequence[tuple[str, float]]


class Reply(NamedTuple):
  """What a request gets.

  Attributes:
    text: HTML; whatever the user or a file has named is escaped in it.
    pictures: the heat map, or a list of photos, each with the line below it; None after an error.
  """

  text: str
  pictures: Any


class Replies:
  """The replies of a model.

  Methods take the path of a photo ('' is none) and a text, as they come from the page. An error of
  the user is a reply too: a line without pictures.
  """

  def __init__(self, model: Model, index: 'Index | None' = None):
    self._model, self._index = model, index

  def answer(self, photo: str, question: str) -> Reply:
    """Answers a question."""
    return self._mapped('answer', photo, question, lambda: self._model.answer(photo, question)[0])

  def fill(self, photo: str, text: str) -> Reply:
    """Lists words for the [MASK] of a text."""
    return self._mapped('fill', photo, text, lambda: self._model.fill(photo, text)[0])

  def match(self, photo: str, texts: str) -> Reply:
    """Compares texts, one a line, with a photo; the heat map is that of the most probable one."""

    def rows() -> Rows:
      each = lines(texts)
      return list(zip(each, self._model.match(photo, each)[0].tolist(), strict=True))

    return self._mapped('match', photo, '', rows)

  def texts(self, photo: str, texts: str) -> Reply:
    """Ranks texts, one a line, by a photo."""
    index = self._index
    assert index is not None
    return self._mapped('match', photo, '', lambda: index.texts(photo, lines(texts), FOUND))

  def find(self, text: str) -> Reply:
    """Finds photos of the folder by a text."""
    index = self._index
    assert index is not None

    def reply() -> Reply:
      rows, unknown = index.find(text, FOUND), self._model.unknown_words(text)
      pictures, gone = [], []
      for path, p in rows:
        name = os.path.relpath(path, index.folder)
        try:
          pictures.append((thumbnail(path), remarks.row(name, p, unknown)))
        except ImageError:
          gone.append(f'{name} cannot be read any more')
      said = [*remarks.legend([unknown]), *remarks.remarks('find', [p for _, p in rows]), *gone]
      title = (
        f'{len(rows)} of {len(index):,} photos, each with the probability that the text is true'
      )
      return Reply(paragraphs([f'{title} of it', *said]), pictures)

    return self._said(reply)

  def _mapped(self, head: str, photo: str, text: str, rows: Callable[[], Rows]) -> Reply:
    """Replies with rows, and the heat map of the text or, if that is '', of the best row's."""

    def reply() -> Reply:
      if not photo:
        raise ImageError('no photo: upload one, or click an example')
      found = rows()
      best = max(found, key=lambda row: row[1])
      heat = self._model.heatmap(photo, text or best[0])
      heat = dataclasses.replace(heat, title=remarks.title(head, heat.title, best))
      unknown = [self._model.unknown_words(text or name) for name, _ in found]
      said = [*remarks.legend(unknown), *remarks.remarks(head, [p for _, p in found])]
      shown = table(remarks.TITLES[head], found, unknown) + paragraphs(said)
      return Reply(shown, heat.picture())

    return self._said(reply, os.path.join(os.path.dirname(photo), ''))

  def _said(self, reply: Callable[[], Reply], folder: str = '') -> Reply:
    """Makes a reply, to which warnings are added; no line names the folder of the upload."""
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      try:
        text, pictures = reply()
      except UserError as error:
        line = html.escape(str(error).replace(folder, ''))
        return Reply(f'<p class="error" role="alert">{line}</p>', None)
    notes = remarks.notes(caught, self._model.note)
    return Reply(text + paragraphs([note.replace(folder, '') for note in notes]), pictures)


def heading(name: str, model: Model) -> str:
  """Says as HTML what the model is, and what it was trained on."""
  known = ', '.join(model.trained_on) or 'nothing'
  lines = [
    f'<h1>{html.escape(name)}</h1>',
    f'<p>Pixel-BERT, task {html.escape(model.config.name)}, trained on {html.escape(known)}.</p>',
  ]
  if model.note:
    lines.append(f'<p class="caveat">This model was {html.escape(model.note)}.</p>')
  return ''.join(lines)


def lines(texts: str) -> list[str]:
  """Returns the lines that are not blank; TextError if there are none, or too many."""
  found = [line.strip() for line in texts.splitlines() if line.strip()]
  if not 1 <= len(found) <= TEXTS:
    raise TextError(f'{len(found):,} texts: give 1 to {TEXTS}, each on a line of its own')
  return found


def table(title: str, rows: Rows, unknown: Sequence[Sequence[str]]) -> str:
  """Formats rows as an HTML table, each with a bar, and with a mark if it has unknown words."""
  body = ''.join(
    f'<tr><td>{remarks.number(p)}{remarks.MARK if words else ""}</td>'
    f'<td>{html.escape(name)}<div class="bar" style="width: {100 * p:.1f}%"></div></td></tr>'
    for (name, p), words in zip(rows, unknown, strict=True)
  )
  return f'<table class="rows"><caption>{html.escape(title)}</caption>{body}</table>'


def paragraphs(said: Sequence[str]) -> str:
  """Formats remarks as HTML."""
  return ''.join(f'<p class="remark">{html.escape(line)}</p>' for line in said)


def thumbnail(path: str) -> Image.Image:
  """Reads a photo, upright, at THUMBNAIL pixels; ImageError if it cannot be read any more."""
  picture = Image.fromarray(photos.pixels_of(path))
  picture.thumbnail((THUMBNAIL, THUMBNAIL))
  return picture
