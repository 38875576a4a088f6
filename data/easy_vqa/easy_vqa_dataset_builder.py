"""easy-VQA (Zhou 2019): questions about images of one coloured shape, from a package of PyPI."""

import dataclasses
import hashlib
import importlib.util
import pathlib
from typing import Any

import tensorflow_datasets as tfds

from data import corpus
from data.archive import Archive, first
from data.entry import Entry, Need, Tally
from data.origin import Origin
from data.sources import SourceError
from pixelbert_jax.input.rows import Question
from pixelbert_jax.score.vqa import SHARES

PACKAGE = 'easy_vqa'
SOURCE = 'https://pypi.org/project/easy-vqa/'
# The package has no validation split.
VAL_SHARE = 0.1
# Ids of the questions of test follow those of train; a question's id is its number in its file.
FIRST_ID = {'train': 0, 'val': 0, 'test': 100_000}


def paths(name: str) -> tuple[str, ...]:
  """Returns where a file of the data lies, seen from above the package or from inside it."""
  return f'{PACKAGE}/data/{name}', f'data/{name}'


def _needs(split: str) -> tuple[Need, ...]:
  return tuple(Need(paths(f'{split}/{name}'), SOURCE) for name in ('questions.json', 'images'))


class Builder(corpus.CorpusBuilder):
  """easy-VQA: a record is an image with its questions; in the order of their first question.

  `train` and `test` are the package's own but for `val`, a tenth of the images of its train.
  """

  VERSION = tfds.core.Version('1.0.0')
  HOMEPAGE = SOURCE
  TEXTS = ('questions',)
  SCORING = SHARES
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    'train': _needs('train'),
    'val': _needs('train'),
    'test': _needs('test'),
  }
  # Published are 4,000 images and 38,575 questions of train, of which val is a part.
  PUBLISHED = {  # noqa: RUF012
    'train': {'images': 4_000 - 400, 'questions': 38_575 - 3_862},
    'val': {'images': 400, 'questions': 3_862},
    'test': {'images': 1_000, 'questions': 9_673},
  }

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    archive, theirs = self.request.archive, 'test' if split == 'test' else 'train'
    path = first(archive, paths(f'{theirs}/questions.json')) or ''
    asked = questions(archive, path, FIRST_ID[split])
    held_out = validation(list(asked)) if theirs == 'train' else set()
    tally.notes.append(f'read from {archive.find(path)}')
    entries = []
    for image, texts in asked.items():
      if split == 'test' or (split == 'val') == (image in held_out):
        file = path.replace('questions.json', f'images/{image}.png')
        entry = Entry(((f'{theirs}-{image}', file),), questions=texts)
        tally.count(entry)
        entries.append(entry)
    return entries

  def _splits_to_build(self) -> list[str]:
    archive = self.request.archive
    if not any(first(archive, need.paths) for needs in self.NEEDS.values() for need in needs):
      self.request = dataclasses.replace(self.request, archive=_installed(archive))
    return super()._splits_to_build()


def validation(images: list[int]) -> set[int]:
  """Chooses the images of train that are held out, by a hash of their number."""
  order = sorted(images, key=lambda image: hashlib.sha256(f'train-{image}'.encode()).digest())
  return set(order[: round(VAL_SHARE * len(images))])


def questions(archive: Archive, path: str, first_id: int) -> dict[int, list[Question]]:
  """Reads the questions of `questions.json` by image; SourceError if it is not as published."""
  by_image: dict[int, list[Question]] = {}
  for number, item in enumerate(archive.json(path, list)):
    if not _is_question(item):
      raise archive.unreadable(
        path, f'expected [question, answer, image], got {item!r}', f'[{number}]'
      )
    text, answer, image = item
    by_image.setdefault(image, []).append(
      Question(
        text,
        first_id + number,
        answers=(answer,),
        multiple_choice_answer=answer,
        question_type=' '.join(text.split()[:2]),
        answer_type=_kind(text, answer),
      )
    )
  return by_image


def _is_question(item: Any) -> bool:
  kinds = [str, str, int]
  return isinstance(item, list) and list(map(type, item)) == kinds and all(map(str, item[:2]))


def _kind(question: str, answer: str) -> str:
  """Returns what a question asks for; the package does not say."""
  if answer in ('yes', 'no'):
    return 'yes/no'
  return 'color' if 'color' in question.split() else 'shape'


def _installed(archive: Archive) -> Origin:
  """Opens the installed package; SourceError if there is none, and so no data at all."""
  if archive.broken:
    raise SourceError(f'{"; ".join(archive.broken)}: copy it again, or move it away')
  spec = importlib.util.find_spec(PACKAGE)
  folders = spec.submodule_search_locations if spec else None
  if not folders:
    raise SourceError(
      f'easy_vqa: the package is not installed, and neither it nor its wheel is in {archive.path} '
      '(--manual_dir): run `pip install easy-vqa`, or `pip download --no-deps easy-vqa` and give '
      "the wheel's folder"
    )
  return Origin(pathlib.Path(folders[0]))
