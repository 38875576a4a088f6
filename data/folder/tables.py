"""Reads the user's own texts from CSV files, or from webdataset tar files (`webdataset.py`)."""

import csv
import dataclasses
import hashlib
import io
import itertools
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from data.archive import MAX_CELL, MAX_TEXT, Archive
from data.entry import Tally
from data.folder.webdataset import IMAGES, Shards
from data.sources import MACOS, SourceError, Tar, is_inside, is_macos, key
from pixelbert_jax.input.rows import Caption, Question, Statement

SPLITS = ('train', 'val', 'test')
# Required columns of each table; `split` and `id` are optional.
COLUMNS = {
  'captions': ('image', 'caption'),
  'questions': ('image', 'question', 'answers'),
  'pairs': ('left', 'right', 'sentence', 'label'),
}
LABELS = {'true': True, '1': True, 'yes': True, 'false': False, '0': False, 'no': False}
OPTIONAL = ('split', 'id')
PATHS = ('image', 'left', 'right')
TEXTS = {'captions': 'captions', 'questions': 'questions', 'pairs': 'statements'}


@dataclasses.dataclass
class Picture:
  """The texts of an image.

  Attributes:
    name: its path, as it is spelled first.
    split: '' if no table gives it.
    captions, questions, statements: its texts.
  """

  name: str
  split: str = ''
  captions: list[Caption] = dataclasses.field(default_factory=list)
  questions: list[Question] = dataclasses.field(default_factory=list)
  statements: list[Statement] = dataclasses.field(default_factory=list)


def read(tables: Mapping[str, Any], archive: Archive, tally: Tally) -> dict[str, Picture]:
  """Reads all pictures by the keys of their paths, in the order of their first mention.

  Args:
    tables: CSV files by the names of their flags.
    archive: the images; and without tables, the texts.
    tally: counts what is left out.

  Raises:
    SourceError: a table cannot be read, or contradicts itself or another.
  """
  pictures: dict[str, Picture] = {}
  given = {name: pathlib.Path(tables[name]) for name in COLUMNS if tables.get(name)}
  shards = Shards(() if given else _tars(archive), tally)
  for name, path in given.items():
    _read_table(name, path, pictures, tally)
  if not given:
    ids = itertools.count()
    for where, image, texts, split in shards.texts():
      picture = _picture(pictures, image, split, where)
      picture.captions += [Caption(text, next(ids)) for text in texts]
  if not pictures:
    raise SourceError(
      f'folder: {", ".join(map(str, given.values())) or archive.path} has no texts of any image: '
      'give --captions, --questions or --pairs, or put webdataset tar files there'
    )
  used = {(source.name, file) for image in pictures for source, file in archive.files(image)}
  _count_unused(archive, given, used | shards.read, tally)
  return pictures


def _read_table(name: str, path: pathlib.Path, pictures: dict[str, Picture], tally: Tally) -> None:
  """Adds the rows of a table to the pictures, but those that say the same again."""
  ids: set[int] = set()
  lines: dict[tuple[str, ...], str] = {}
  others: dict[tuple[str, ...], str] = {}
  for number, (where, row) in enumerate(_rows(path, COLUMNS[name], tally)):
    try:
      # Without a column `id`, the id of a text is its row number.
      identifier = _id(row.get('id', str(number)))
      if identifier in ids:
        raise ValueError(f'id {identifier} repeats that of an earlier line')
      ids.add(identifier)
      content = _content(row, COLUMNS[name])
      line = where.removeprefix(f'{path} ')
      earlier = lines.setdefault(content, line)
      if earlier != line:
        for column in {*PATHS} & row.keys():
          _picture(pictures, row[column], row.get('split', ''), where)
        place = f'{path.name} {line} (as {earlier})'
        tally.leave_out('the same as an earlier line', place, TEXTS[name])
        continue
      if name != 'captions' and (earlier := others.setdefault(content[:-1], line)) != line:
        last = COLUMNS[name][-1]
        remark = f'{TEXTS[name]} come again with other {last}, all are kept'
        tally.keep(remark, f'{path.name} {line} (as {earlier})')
      _ADD[name](pictures, row, identifier, where)
    except ValueError as error:
      raise SourceError(f'{where}: {error}') from error


def _content(row: dict[str, str], columns: tuple[str, ...]) -> tuple[str, ...]:
  """Returns what a row says, in one spelling."""
  label = LABELS.get(row.get('label', '').lower())
  spelled = {column: key(row[column]) for column in columns if column in PATHS}
  return tuple((row | spelled | {'label': str(label)})[column] for column in columns)


def _count_unused(
  archive: Archive, given: Mapping[str, pathlib.Path], used: set[tuple[str, str]], tally: Tally
) -> None:
  """Counts all files below the folder of images that are not used."""
  read = {path.absolute() for path in given.values()}
  read |= {pathlib.Path(source.name) for source in archive.sources}
  if given:
    image = 'no table names it'
    reads = 'the tables are, and images that they name'
  else:
    image = 'not in a tar file'
    reads = 'images in tar files are, and the .txt and .json files of their names'
  for source in archive.sources:
    for name in source.files():
      path = pathlib.Path(source.name, name)
      shown = str(path.relative_to(archive.path))
      if is_macos(name):
        tally.leave_out(MACOS, shown, 'files')
      elif (source.name, name) in used or path in read:
        continue
      elif key(name).endswith(IMAGES):
        tally.leave_out(image, shown)
      else:
        tally.leave_out(f'not read ({reads})', shown, 'files')


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
    if path.stat().st_size > MAX_TEXT:
      raise SourceError(f'{path} has more than the {MAX_TEXT:,} bytes that are read: split it')
    text = path.read_text('utf-8-sig')
  except OSError as error:
    raise SourceError(f'{path.absolute()} cannot be read ({error.strerror})') from error
  except UnicodeDecodeError as error:
    raise SourceError(f'{path} cannot be read as UTF-8 ({error})') from error
  if '\0' in text:
    line = text.count('\n', 0, text.index('\0')) + 1
    raise SourceError(f'{path} line {line} holds a NUL: save it again as CSV in UTF-8')
  return text


def _rows(
  path: pathlib.Path, columns: tuple[str, ...], tally: Tally
) -> Iterator[tuple[str, dict[str, str]]]:
  """Yields the location ('FILE line N') and cells of each row of a CSV file."""
  csv.field_size_limit(MAX_CELL)
  reader = csv.DictReader(io.StringIO(_text(path), newline=''), strict=True)
  try:
    reader.fieldnames = _header(path, reader.fieldnames or [], columns, tally)
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
    if 'field limit' in str(error):
      raise SourceError(
        f'{path}, before line {reader.line_num + 1}: a cell has more than the {MAX_CELL:,} '
        'characters that are read: is a quote not closed?'
      ) from error
    raise SourceError(f'{path} line {reader.line_num} is not CSV ({error})') from error


def _header(
  path: pathlib.Path, header: Sequence[str], columns: tuple[str, ...], tally: Tally
) -> list[str]:
  """Returns the names of the columns, after counting those that are not read."""
  header = [name.strip() for name in header]
  missing = [column for column in columns if column not in header]
  if missing:
    raise SourceError(
      f'{path} has no column {missing[0]!r}: its first line must name {", ".join(columns)} '
      f'(and may name split, id), but it is {",".join(header)!r}'
    )
  known = (*columns, *OPTIONAL)
  for i, name in enumerate(header):
    if name not in known:
      tally.leave_out(f'not read ({", ".join(known)} are)', f'{path.name}: {name!r}', 'columns')
    elif name in header[:i]:
      raise SourceError(
        f'{path} names the column {name!r} twice, as number {header.index(name) + 1} and '
        f'{i + 1}: rename or remove one'
      )
  return header


def _picture(pictures: dict[str, Picture], image: str, split: str, where: str) -> Picture:
  """Returns the picture of a path, creating it; SourceError if it has another split already."""
  if split and split not in SPLITS:
    raise SourceError(f'{where}: split is {split!r}, expected one of {", ".join(SPLITS)}')
  if not is_inside(image) or not key(image):
    raise SourceError(
      f'{where}: {image!r} leaves the folder of images, or names it: name a file below it'
    )
  if any(unicodedata.category(c) in ('Cc', 'Cs') for c in image):
    raise SourceError(f'{where}: {image!r} holds what is no character: rename that file')
  picture = pictures.setdefault(key(image), Picture(image, split))
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
  sides[0].statements.append(
    Statement(row['sentence'], name, label, *(side.name for side in sides))
  )


_ADD: dict[str, Callable[[dict[str, Picture], dict[str, str], int, str], None]] = {
  'captions': _add_caption,
  'questions': _add_question,
  'pairs': _add_pair,
}


def _tars(archive: Archive) -> list[Tar]:
  return [source for source in archive.sources if isinstance(source, Tar)]
