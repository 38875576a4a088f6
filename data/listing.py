"""Reads lists in published JSON files; leaves out what is listed twice or has no text."""

import dataclasses
import string
import unicodedata
from collections.abc import Hashable, Iterator
from typing import Any

from data.archive import Archive
from data.entry import TEXTS, Entry, Tally
from data.sources import SourceError
from pixelbert_jax.fields import Fields

TWICE = 'listed twice'
ALIKE = 'reads like another of its image'


def objects(archive: Archive, path: str, key: str | None = None) -> Iterator[Fields]:
  """Yields the objects of a JSON list; `key` is its key in the file's object, if it has one."""
  file = archive.find(path)
  for number, value in enumerate(archive.json_items(path, key)):
    yield Fields(value, file, f'{key or ""}[{number}]', SourceError)


def lines(archive: Archive, path: str) -> Iterator[Fields]:
  """Yields the object of each line of a JSON lines file."""
  file = archive.find(path)
  for number, value in archive.json_lines(path):
    yield Fields(value, file, f'line {number}', SourceError)


class Once:
  """Contents of a file by id; an id may be repeated only with the same content."""

  def __init__(self, name: str):
    """Takes the kind of id, for messages: 'question_id', 'image'."""
    self._name = name
    self._listed: dict[Hashable, tuple[Any, str]] = {}

  def repeats(self, listed: Fields, key: Hashable, content: Any) -> bool:
    """Returns whether this content was listed under the id before.

    Raises:
      SourceError: another content was; the message names both places.
    """
    first, at = self._listed.setdefault(key, (content, listed.at))
    if at == listed.at:
      return False
    if first != content:
      raise listed.error(
        f'repeats {self._name} {key} of {at} with other content: remove the wrong one'
      )
    return True


def add(entries: list[Entry], entry: Entry, tally: Tally) -> None:
  """Counts an entry and appends it without its empty texts, or leaves it out if none is left."""
  tally.count(entry)
  kept = {}
  for kind in TEXTS:
    kept[kind] = []
    for text in getattr(entry, kind):
      if text.text.strip():
        kept[kind].append(text)
      else:
        tally.leave_out('empty', _name(text), kind)
  if any(kept.values()):
    entries.append(dataclasses.replace(entry, **kept))
  else:
    for image_id, _ in entry.images:
      tally.leave_out('without text', image_id)


def leave_out_repeated(kind: str, text: Any, tally: Tally) -> None:
  """Counts a text that is listed twice, and that it is left out."""
  leave_out_text(kind, text, TWICE, tally)


def leave_out_text(kind: str, text: Any, reason: str, tally: Tally) -> None:
  """Counts a text of an image that may be kept, and that it is left out."""
  tally.count(Entry((), **{kind: [text]}))
  tally.leave_out(reason, _name(text), kind)


def without_alike(entry: Entry, tally: Tally) -> Entry:
  """Returns an entry without the captions that read like an earlier one, and counts these."""
  kept, read = [], set[str]()
  for caption in entry.captions:
    words = as_read(caption.text)
    if words in read:
      tally.leave_out(ALIKE, f'{caption.id} of {entry.images[0][0]}', 'captions')
    else:
      read.add(words)
      kept.append(caption)
  return entry if len(kept) == len(entry.captions) else dataclasses.replace(entry, captions=kept)


def as_read(text: str) -> str:
  """Returns the words of a text, in lower case; a text of punctuation alone as it is written.

  Two texts that only differ in case, blanks and punctuation are alike (as in
  `pixelbert_jax/input/equal.py`, which also knows what a tokeniser makes of them).
  """
  return ' '.join(text.lower().translate(_BLANKED).split()) or text


class _Blanked(dict[int, int]):
  """The code of a blank for that of a punctuation mark, and any other for itself."""

  def __missing__(self, code: int) -> int:
    mark = chr(code) in string.punctuation or unicodedata.category(chr(code)).startswith('P')
    self[code] = ord(' ') if mark else code
    return self[code]


_BLANKED = _Blanked()


def _name(text: Any) -> str:
  return text.identifier if hasattr(text, 'identifier') else str(text.id)
