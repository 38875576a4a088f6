"""Reads the user's own texts from CSV files, or from webdataset tar files."""

import csv
import dataclasses
import hashlib
import io
import itertools
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data.archive import Archive, SourceError, Tar
from data.images import SUFFIXES
from pixelbert_jax import jsons
from pixelbert_jax.input.rows import Caption, Question, Statement

SPLITS = ('train', 'val', 'test')
# Required columns of each table; `split` and `id` are optional.
COLUMNS = {
  'captions': ('image', 'caption'),
  'questions': ('image', 'question', 'answers'),
  'pairs': ('left', 'right', 'sentence', 'label'),
}
LABELS = {'true': True, '1': True, 'yes': True, 'false': False, '0': False, 'no': False}
IMAGES = tuple(f'.{suffix}' for suffix in SUFFIXES)


@dataclasses.dataclass
class Picture:
  """The texts of an image; `split` is '' if no table gives it."""

  split: str = ''
  captions: list[Caption] = dataclasses.field(default_factory=list)
  questions: list[Question] = dataclasses.field(default_factory=list)
  statements: list[Statement] = dataclasses.field(default_factory=list)


def read(tables: Mapping[str, Any], archive: Archive) -> dict[str, Picture]:
  """Reads all pictures by their paths, in the order of their first mention.

  Raises:
    SourceError: a table cannot be read, or contradicts itself or another.
  """
  pictures: dict[str, Picture] = {}
  given = {name: pathlib.Path(tables[name]) for name in COLUMNS if tables.get(name)}
  for name, path in given.items():
    seen: set[int] = set()
    for number, (where, row) in enumerate(_rows(path, COLUMNS[name])):
      try:
        # Without a column `id`, the id of a text is its row number.
        identifier = _id(row.get('id', str(number)))
        if identifier in seen:
          raise ValueError(f'id {identifier} repeats that of an earlier line')
        seen.add(identifier)
        _ADD[name](pictures, row, identifier, where)
      except ValueError as error:
        raise SourceError(f'{where}: {error}') from error
  if not given:
    ids = itertools.count()
    for where, image, texts, split in _tar_texts(archive):
      picture = _picture(pictures, image, split, where)
      picture.captions += [Caption(text, next(ids)) for text in texts]
  if not pictures:
    raise SourceError(
      f'folder: {", ".join(map(str, given.values())) or archive.path} has no texts of any image: '
      'give --captions, --questions or --pairs, or put webdataset tar files there'
    )
  return pictures


def fingerprint(tables: Mapping[str, Any]) -> str:
  """Computes a digest of the tables and shares that make the texts and splits."""
  digest = hashlib.sha256()
  for name in sorted(tables):
    value = tables[name]
    content = _text(pathlib.Path(value)) if name in COLUMNS else str(value)
    digest.update(f'{name} {len(content)} {content}'.encode())
  return digest.hexdigest()


def sources(tables: Mapping[str, Any], archive: Archive) -> list[str]:
  """Lists the tar files whose texts are read, which they are where no table is given."""
  given = any(tables.get(name) for name in COLUMNS)
  return [] if given else [tar.name for tar in _tars(archive)]


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text('utf-8-sig')
  except OSError as error:
    raise SourceError(f'{path.absolute()} cannot be read ({error.strerror})') from error
  except UnicodeDecodeError as error:
    raise SourceError(f'{path} cannot be read as UTF-8 ({error})') from error


def _rows(path: pathlib.Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
  """Yields the location ('FILE line N') and cells of each row of a CSV file."""
  reader = csv.DictReader(io.StringIO(_text(path), newline=''), strict=True)
  try:
    header = reader.fieldnames or []
    missing = [column for column in columns if column not in header]
    if missing:
      raise SourceError(
        f'{path} has no column {missing[0]!r}: its first line must name {", ".join(columns)} '
        f'(and may name split, id), but it is {",".join(header)!r}'
      )
    for row in reader:
      where = f'{path} line {reader.line_num}'
      if None in row or None in row.values():
        raise SourceError(
          f'{where} does not have as many cells as the first line: quote commas ("a, b")'
        )
      row = {name: cell.strip() for name, cell in row.items()}
      empty = [column for column in (*columns, 'split') if row.get(column) == '']
      if empty:
        raise SourceError(f'{where} has no {empty[0]}')
      yield where, row
  except csv.Error as error:
    raise SourceError(f'{path} line {reader.line_num} is not CSV ({error})') from error


def _picture(pictures: dict[str, Picture], image: str, split: str, where: str) -> Picture:
  """Returns the picture of a path, creating it; SourceError if it has another split already."""
  if split and split not in SPLITS:
    raise SourceError(f'{where}: split is {split!r}, expected one of {", ".join(SPLITS)}')
  picture = pictures.setdefault(image, Picture(split))
  if picture.split != split:
    raise SourceError(
      f'{where}: {image} is in split {split!r}, but above in {picture.split!r}: give it one split'
    )
  return picture


def _id(text: str) -> int:
  if not re.fullmatch('[0-9]{1,18}', text):
    raise ValueError(f'id is {text!r}, expected an integer of at most 18 digits')
  return int(text)


def _add_caption(
  pictures: dict[str, Picture], row: dict[str, str], identifier: int, where: str
) -> None:
  picture = _picture(pictures, row['image'], row.get('split', ''), where)
  picture.captions.append(Caption(row['caption'], identifier))


def _add_question(
  pictures: dict[str, Picture], row: dict[str, str], identifier: int, where: str
) -> None:
  answers = [answer.strip() for answer in row['answers'].split('|')]
  if '' in answers:
    raise ValueError(
      f'column answers is {row["answers"]!r}, whose answer number {answers.index("") + 1} is '
      "empty: write one for each annotator, separated by '|'"
    )
  best = Counter(answers).most_common(1)[0][0]
  picture = _picture(pictures, row['image'], row.get('split', ''), where)
  picture.questions.append(Question(row['question'], identifier, answers, best))


def _add_pair(
  pictures: dict[str, Picture], row: dict[str, str], identifier: int, where: str
) -> None:
  label = LABELS.get(row['label'].lower())
  if label is None:
    raise ValueError(f'label is {row["label"]!r}, expected true or false')
  left, right = row['left'], row['right']
  sides = [_picture(pictures, image, row.get('split', ''), where) for image in (left, right)]
  # In the format of NLVR2, for its scores: every statement has its own sentence and pair.
  name = f'own-{identifier}-0-0'
  sides[0].statements.append(Statement(row['sentence'], name, label, left, right))


_ADD: dict[str, Callable[[dict[str, Picture], dict[str, str], int, str], None]] = {
  'captions': _add_caption,
  'questions': _add_question,
  'pairs': _add_pair,
}


def _tars(archive: Archive) -> list[Tar]:
  return [source for source in archive.sources if isinstance(source, Tar)]


def _tar_texts(archive: Archive) -> Iterator[tuple[str, str, list[str], str]]:
  """Yields location, path, texts and split ('' if not given) of each image in the tar files.

  The texts of `a/b.jpg` are in `a/b.txt`, or in `a/b.json` as `caption` or `captions`.
  """
  seen: dict[str, str] = {}
  for tar in _tars(archive):
    names = set(tar.files())
    for image in sorted(name for name in names if name.lower().endswith(IMAGES)):
      if image in seen:
        raise SourceError(f'{image} is in both {seen[image]} and {tar.name}: rename one')
      seen[image] = tar.name
      stem, where = image.rpartition('.')[0], f'{tar.name}/{image}'
      texts, split = [], ''
      try:
        if f'{stem}.txt' in names:
          texts.append(tar.open(f'{stem}.txt').read().decode('utf-8').strip())
        if f'{stem}.json' in names:
          value = jsons.parse(tar.open(f'{stem}.json').read(), dict)
          split = value.get('split', '')
          captions = value.get('captions', [value['caption']] if 'caption' in value else [])
          texts += [text.strip() for text in captions if text.strip() not in texts]
      except (ValueError, AttributeError, TypeError) as error:
        raise SourceError(f'{where}: the text beside it cannot be read ({error})') from error
      if any(texts):
        yield where, image, list(filter(None, texts)), split
