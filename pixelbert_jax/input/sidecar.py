"""The sidecar of a split: its texts, ids and image sizes, memory-mapped.

A record of a dataset holds an image (or a pair of images) with all its texts. Beside the records,
each split has a folder of `.npy` files with every text, its image, and the image sizes, so that
planning an epoch does not read any image.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pixelbert_jax import files
from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.rows import Question, Row, Statement, check


@dataclasses.dataclass(frozen=True)
class Questions:
  """A table of Q questions, in the order of their images.

  Repeated strings are stored once, by number: `questions.strings.text(number)`.

  Attributes:
    text: ragged uint8, UTF-8.
    id: [Q] int64, the dataset's own.
    image: [Q] int64, image numbers, ascending.
    answers: ragged int32 over questions, string numbers; empty where answers are not public.
    multiple_choice_answer, question_type, answer_type: [Q] int32, string numbers.
    subset: [Q] int32, string number; '' for none.
    strings: ragged uint8, UTF-8.
    STRINGS: the columns of a string number for each question.
    NUMBERS: all columns that hold string numbers.
    IMAGES: the columns that hold image numbers.
  """

  STRINGS: ClassVar = ('multiple_choice_answer', 'question_type', 'answer_type', 'subset')
  NUMBERS: ClassVar = ('answers', *STRINGS)
  IMAGES: ClassVar = ('image',)

  text: Ragged
  id: np.ndarray
  image: np.ndarray
  answers: Ragged
  multiple_choice_answer: np.ndarray
  question_type: np.ndarray
  answer_type: np.ndarray
  subset: np.ndarray
  strings: Ragged

  def __len__(self) -> int:
    return len(self.id)

  @classmethod
  def of(cls, rows: Sequence[tuple[int, Question]]) -> 'Questions':
    """Makes the table from pairs (image number, question)."""
    questions = [q for _, q in rows]
    number = _Numbers()
    answers = Ragged.of(([number[a] for a in q.answers] for q in questions), np.int32)
    columns = {
      name: np.array([number[getattr(q, name)] for q in questions], np.int32)
      for name in cls.STRINGS
    }
    return cls(
      text=Ragged.of((q.text.encode() for q in questions), np.uint8),
      id=np.array([q.id for q in questions], np.int64),
      image=np.array([image for image, _ in rows], np.int64),
      answers=answers,
      strings=number.strings(),
      **columns,
    )


@dataclasses.dataclass(frozen=True)
class Statements:
  """A table of S statements about two images.

  Attributes:
    text: ragged uint8, UTF-8.
    identifier: [S] bytes, the dataset's own.
    label: [S] bool.
    left, right: [S] int64, image numbers.
    subset: [S] int32, string number; '' for none.
    strings: ragged uint8, UTF-8.
    NUMBERS: the columns that hold string numbers.
    IMAGES: the columns that hold image numbers.
  """

  NUMBERS: ClassVar = ('subset',)
  IMAGES: ClassVar = ('left', 'right')

  text: Ragged
  identifier: np.ndarray
  label: np.ndarray
  left: np.ndarray
  right: np.ndarray
  subset: np.ndarray
  strings: Ragged

  def __len__(self) -> int:
    return len(self.label)

  @classmethod
  def of(cls, statements: Sequence[Statement], images: Mapping[str, int]) -> 'Statements':
    """Makes the table, given the number of each image id; ValueError for an unknown image."""
    unknown = [s for s in statements if s.left not in images or s.right not in images]
    if unknown:
      raise ValueError(f'{unknown[0].identifier} is about an image that is not in the split')
    number = _Numbers()
    return cls(
      text=Ragged.of((s.text.encode() for s in statements), np.uint8),
      identifier=_ids(s.identifier for s in statements),
      label=np.array([s.label for s in statements], bool),
      left=np.array([images[s.left] for s in statements], np.int64),
      right=np.array([images[s.right] for s in statements], np.int64),
      subset=np.array([number[s.subset] for s in statements], np.int32),
      strings=number.strings(),
    )


@dataclasses.dataclass(frozen=True)
class Sidecar:
  """A split without its images: I images in record order, N captions in image order.

  Attributes:
    image_id: [I] bytes.
    size: [I, 2] int32, height and width of the image file.
    captions: ragged int64 over images: the captions of image i have the numbers
      `captions.start[i]` to `captions.start[i + 1]`; the values are the dataset's own ids.
    text: ragged uint8, the UTF-8 bytes of each caption.
    label: [N] bool.
    claim: [N] int32, string numbers; empty if the dataset has no claims.
    claims: ragged int32 over images, string numbers, sorted for each; without values if there are
      no claims.
    kinds: ragged uint8 over captions, a letter for each word; without values if there are none.
    rivals: ragged uint64 over captions.
    foils: ragged int32 over captions, string numbers of false texts that are like each.
    subset: [N] int32, string number; '' for none.
    strings: ragged uint8, UTF-8.
    questions, statements: empty tables if the dataset has none.
    NUMBERS: the columns that hold string numbers.
    IMAGES: the columns that hold image numbers.
  """

  NUMBERS: ClassVar = ('claim', 'claims', 'subset', 'foils')
  IMAGES: ClassVar = ()

  image_id: np.ndarray
  size: np.ndarray
  captions: Ragged
  text: Ragged
  label: np.ndarray
  claim: np.ndarray
  claims: Ragged
  kinds: Ragged
  rivals: Ragged
  foils: Ragged
  subset: np.ndarray
  strings: Ragged
  questions: Questions
  statements: Statements

  @property
  def caption_image(self) -> np.ndarray:
    """Image number of each caption, [N] int64."""
    return np.repeat(np.arange(len(self.captions)), np.diff(self.captions.start))

  def caption(self, i: int) -> str:
    """Returns the text of caption i."""
    return self.text.text(i)

  @classmethod
  def of(cls, rows: Iterable[Row]) -> 'Sidecar':
    """Makes the sidecar of rows given in record order.

    Raises:
      ValueError: only some captions have a claim or kinds; a claim is not one of its image; kinds
        are not one for each word, or are for more words than a mask has bits; a statement's image
        is not among the rows.
    """
    rows = list(rows)
    captions = [c for row in rows for c in row.captions]
    for row in rows:
      for c in row.captions:
        check(c, row, captions[0])
    claims = sorted({c for row in rows for c in row.claims})
    number_of = _Numbers((claim, i) for i, claim in enumerate(claims))
    return cls(
      image_id=_ids(row.image_id for row in rows),
      size=np.array([(row.height, row.width) for row in rows], np.int32).reshape(-1, 2),
      captions=Ragged.of(([c.id for c in row.captions] for row in rows), np.int64),
      text=Ragged.of((c.text.encode() for c in captions), np.uint8),
      label=np.array([c.label for c in captions], bool),
      claim=np.array([number_of[c.claim] for c in captions if c.claim], np.int32),
      claims=Ragged.of((sorted({number_of[c] for c in row.claims}) for row in rows), np.int32),
      kinds=Ragged.of(((c.kinds or '').encode() for c in captions), np.uint8),
      rivals=Ragged.of((c.rivals for c in captions), np.uint64),
      subset=np.array([number_of[c.subset] for c in captions], np.int32),
      foils=Ragged.of(([number_of[f] for f in c.foils] for c in captions), np.int32),
      strings=number_of.strings(),
      questions=Questions.of([(i, q) for i, row in enumerate(rows) for q in row.questions]),
      statements=Statements.of(
        [s for row in rows for s in row.statements], {row.image_id: i for i, row in enumerate(rows)}
      ),
    )

  def write(self, folder: pathlib.Path) -> None:
    """Writes one `.npy` file per array to `folder`, replacing it; whole or not at all."""
    with files.atomic(folder) as partial:
      partial.mkdir()
      for name, values in arrays(self).items():
        np.save(partial / f'{name}.npy', values)
      shutil.rmtree(folder, ignore_errors=True)

  @classmethod
  def open(cls, folder: pathlib.Path) -> 'Sidecar':
    """Memory-maps a written sidecar; FileNotFoundError if it is missing or incomplete."""
    return _open(cls, folder, '')


def arrays(table: Any) -> dict[str, np.ndarray]:
  """Lists the arrays of a table and its parts by name: 'text.values', 'questions.id', ..."""
  named: dict[str, np.ndarray] = {}
  for field in dataclasses.fields(table):
    value = getattr(table, field.name)
    parts = {'': value} if isinstance(value, np.ndarray) else arrays(value)
    named |= {f'{field.name}.{name}'.removesuffix('.'): part for name, part in parts.items()}
  return named


def _open(cls: Any, folder: pathlib.Path, prefix: str) -> Any:
  """Opens a table whose arrays are files, named as by `arrays`."""
  return cls(
    **{
      field.name: np.load(folder / f'{prefix}{field.name}.npy', mmap_mode='r')
      if field.type is np.ndarray
      else _open(field.type, folder, f'{prefix}{field.name}.')
      for field in dataclasses.fields(cls)
    }
  )


class _Numbers(dict):
  """Numbers of strings, in the order of their first look-up."""

  def __missing__(self, string: str) -> int:
    self[string] = len(self)
    return self[string]

  def strings(self) -> Ragged:
    return Ragged.of((string.encode() for string in self), np.uint8)


def _ids(ids: Iterable[str]) -> np.ndarray:
  return np.array([i.encode() for i in ids], np.bytes_)
