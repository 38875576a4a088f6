"""Reads images and their captions from webdataset tar files."""

import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from data.archive import MAX_CAPTIONS, TooLarge, read
from data.entry import Tally
from data.images import SUFFIXES
from data.sources import DAMAGE, SourceError, Tar, key
from pixelbert_jax import jsons

IMAGES = tuple(f'.{suffix}' for suffix in SUFFIXES)
KEYS = ('caption', 'captions', 'split')


class Shards:
  """The tar files of a dataset.

  Attributes:
    read: (tar file, name) of each member that was an image, or a text beside one.
  """

  def __init__(self, tars: Iterable[Tar], tally: Tally):
    """Takes the files, and where to count what is left out of them."""
    self._tars, self._tally = tars, tally
    self._unread: Counter[str] = Counter()  # JSON keys
    self._first: dict[str, str] = {}  # a place of each
    self.read: set[tuple[str, str]] = set()

  def texts(self) -> Iterator[tuple[str, str, list[str], str]]:
    """Yields location, path, texts and split ('' if not given) of each image with a text.

    The texts of `a/b.jpg` are in `a/b.txt`, and in `a/b.json` as `captions` or `caption`.

    Raises:
      SourceError: an image is there twice, or a file beside it is not as it should be.
    """
    seen: dict[str, tuple[str, str]] = {}
    for tar in self._tars:
      for image in sorted(name for name in tar.files() if key(name).endswith(IMAGES)):
        earlier, name = seen.setdefault(key(image), (tar.name, image))
        if (earlier, name) != (tar.name, image):
          places = (earlier, tar.name) if name == image else (f'{earlier}/{name}', tar.name)
          raise SourceError(f'{image} is in both {" and ".join(places)}: rename one')
        self.read.add((tar.name, image))
        texts, split = self._beside(tar, image)
        if texts:
          yield f'{tar.name}/{image}', image, texts, split
        else:
          self._tally.leave_out('without text', _place(tar, image))
    for name, number in self._unread.items():
      self._tally.leave_out(
        f'not read of .json files ({", ".join(KEYS)} are)',
        f'{name} (in {number:,}, first {self._first[name]})',
        'keys',
      )

  def _beside(self, tar: Tar, image: str) -> tuple[list[str], str]:
    """Returns the texts of an image, each once and none empty, and its split."""
    found: list[tuple[str, str | None]] = []
    split = ''
    if name := self._member(tar, image, 'txt'):
      found.append((_place(tar, name), _text(tar, name)))
    if name := self._member(tar, image, 'json'):
      value, place = _object(tar, name), _place(tar, name)
      for unread in (name for name in value if name not in KEYS):
        self._unread[unread] += 1
        self._first.setdefault(unread, place)
      split = _checked(value.get('split', ''), str, f'{tar.name}/{name}: "split"')
      found += [(f'{place} {at}', text) for at, text in _captions(value, f'{tar.name}/{name}')]
    texts: list[str] = []
    for place, text in found:
      text = (text or '').strip()
      if not text:
        self._tally.leave_out('empty or null', place, 'captions')
      elif text in texts:
        self._tally.leave_out('given twice for its image', place, 'captions')
      else:
        texts.append(text)
    return texts, split

  def _member(self, tar: Tar, image: str, ending: str) -> str | None:
    """Returns the name of the file beside an image that has this ending, if it is there."""
    names = tar.names(f'{key(image).rpartition(".")[0]}.{ending}')
    if len(names) > 1:
      raise SourceError(f'{tar.name} holds both {names[0]} and {names[1]}: rename one')
    self.read.update((tar.name, name) for name in names)
    return names[0] if names else None


def _place(tar: Tar, name: str) -> str:
  return f'{pathlib.Path(tar.name).name}/{name}'


def _content(tar: Tar, name: str) -> bytes:
  try:
    return read(tar, name, MAX_CAPTIONS)
  except (*DAMAGE, TooLarge) as error:
    cure = 'is it the right file?' if isinstance(error, TooLarge) else 'pack it again'
    raise SourceError(f'{tar.name}/{name} cannot be read ({error}): {cure}') from error


def _text(tar: Tar, name: str) -> str:
  try:
    return _content(tar, name).decode('utf-8-sig').replace('\r\n', '\n')
  except UnicodeDecodeError as error:
    raise SourceError(f'{tar.name}/{name} is not UTF-8 text ({error}): save it as such') from error


def _object(tar: Tar, name: str) -> dict[str, Any]:
  try:
    value = jsons.parse(_content(tar, name))
  except ValueError as error:
    raise SourceError(f'{tar.name}/{name} cannot be read ({error}): is it JSON?') from error
  return _checked(value, dict, f'{tar.name}/{name}')


def _captions(value: dict[str, Any], where: str) -> Iterator[tuple[str, str | None]]:
  """Yields the place and text of each caption of a JSON file; a text may be null."""
  if 'captions' in value:
    cure = ', or name the key "caption" for a single text'
    for i, text in enumerate(_checked(value['captions'], list, f'{where}: "captions"', cure)):
      yield f'captions[{i}]', _checked(text, str | None, f'{where}: "captions"[{i}]')
  if 'caption' in value:
    cure = ', or name the key "captions" for several'
    yield 'caption', _checked(value['caption'], str | None, f'{where}: "caption"', cure)


def _checked(value: Any, kind: Any, where: str, cure: str = '') -> Any:
  """Returns a value of JSON; SourceError if it is not of the type that is due."""
  if not isinstance(value, kind):
    due = {str: 'a text', dict: 'an object', list: 'a list of texts'}.get(kind, 'a text')
    shown = repr(value) if len(repr(value)) <= 60 else f'{value!r:.60}...'
    raise SourceError(f'{where} is {jsons.NOUNS[type(value)]} ({shown}), expected {due}{cure}')
  return value
