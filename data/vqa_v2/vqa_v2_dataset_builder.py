"""VQA v2 (Goyal et al. 2017): questions about COCO images, ten answers each."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from data import corpus, karpathy
from data.archive import Archive, SourceError, first
from data.entry import Entry, Need, Tally
from data.vqa_v2 import answers
from pixelbert_jax.input.rows import Question
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.tasks.answers import LEAST, answer_list

HOMEPAGE = 'https://visualqa.org/download.html'
COCO = 'http://images.cocodataset.org/zips'
FILES = 'https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa'
ANSWERED = ('multiple_choice_answer', 'question_type', 'answer_type')
# Ours -> the owners'.
SPLITS = {'train': 'train2014', 'val': 'val2014', 'test': 'test2015'}


def questions_path(split: str) -> str:
  return f'v2_OpenEnded_mscoco_{split}_questions.json'


def annotations_path(split: str) -> str:
  return f'v2_mscoco_{split}_annotations.json'


def _needs(name: str, answers: str, images: str) -> tuple[Need, ...]:
  split = SPLITS[name.lower()]
  questions = [split, 'test-dev2015'] if name == 'Test' else [split]
  asked = f'{FILES}/v2_Questions_{name}_mscoco.zip'
  return (
    *(Need((questions_path(s),), asked, '21 MB at most') for s in questions),
    *(
      [Need((annotations_path(split),), f'{FILES}/v2_Annotations_{name}_mscoco.zip', answers)]
      if answers
      else []
    ),
    Need((split,), f'{COCO}/{split}.zip', images),
  )


class Builder(corpus.CorpusBuilder):
  """One record an image with its questions, in the order in which the file first asks of it.

  Of `test`, whose answers are not public, the questions of test-dev are a subset; of `val`, those
  about COCO's Karpathy val, `karpathy_val`: nothing else trains on these.
  """

  VERSION = tfds.core.Version('1.1.0')
  HOMEPAGE = HOMEPAGE
  TEXTS = ('questions',)
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    'train': _needs('Train', '21 MB', '13.5 GB'),
    'val': _needs('Val', '10 MB', '6.6 GB'),
    'test': _needs('Test', '', '13.3 GB'),
  }
  PUBLISHED = {  # noqa: RUF012
    'train': {'images': 82_783, 'questions': 443_757},
    'val': {'images': 40_504, 'questions': 214_354},
    'test': {'images': 81_434, 'questions': 447_793, 'test-dev': 107_394},
  }

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    archive, theirs = self.request.archive, SPLITS[split]
    of_image = questions(archive, split, self._subset(split, tally))
    found = []
    for image_id, asked in of_image.items():
      path = f'{theirs}/COCO_{theirs}_{image_id:012d}.jpg'
      entry = Entry(((str(image_id), path),), questions=asked)
      tally.count(entry)
      found.append(entry)
    return found

  def remarks(self, sidecars: Mapping[str, Sidecar]) -> list[str]:
    if not {'train', 'val'} <= sidecars.keys():
      return []
    found = answer_list([sidecars[split].questions for split in ('train', 'val')])
    lines = [f'{len(found):,} answers stand with {LEAST} or more questions of train and val']
    if not answers.is_published(found):
      lines.append(f'warning: that is not the published list of {answers.PUBLISHED[0]:,}')
    return lines

  def _subset(self, split: str, tally: Tally) -> Callable[[int, int], str]:
    """The subset of a question, by its id and that of its image."""
    archive = self.request.archive
    if split == 'test':
      asked = archive.json_items(questions_path('test-dev2015'), 'questions')
      chosen = {question['question_id'] for question in asked}
      return lambda question, image: 'test-dev' if question in chosen else ''
    if split == 'val' and first(archive, karpathy.need('coco').paths):
      coco = karpathy.images(archive, 'coco')
      held_out = {int(image['cocoid']) for image in coco if image['split'] == 'val'}
      return lambda question, image: 'karpathy_val' if image in held_out else ''
    if split == 'val':
      tally.notes.append('dataset_coco.json is not there: no question is marked karpathy_val')
    return lambda question, image: ''


def questions(
  archive: Archive, split: str, subset: Callable[[int, int], str]
) -> dict[int, list[Question]]:
  """The questions of a split by image.

  Args:
    archive: the files.
    split: train, val or test, which has no answers.
    subset: that of a question, by its id and that of its image.

  Raises:
    SourceError: questions and annotations are not those of the split, or not of each other.
  """
  path = questions_path(SPLITS[split])
  given = {} if split == 'test' else annotations(archive, annotations_path(SPLITS[split]))
  found: dict[int, list[Question]] = {}
  for number, asked in enumerate(archive.json_items(path, 'questions')):
    try:
      image, text, question = int(asked['image_id']), asked['question'], int(asked['question_id'])
    except (KeyError, TypeError, ValueError) as error:
      raise archive.unreadable(path, error, f'question number {number}') from error
    answer = given.pop(question, None)
    if split != 'test' and (answer is None or answer.pop('image') != image):
      raise SourceError(
        f'{archive.find(annotations_path(SPLITS[split]))} has no answers to question {question} of '
        f'{archive.find(path)}: they are not of the same split or version, get both from {HOMEPAGE}'
      )
    found.setdefault(image, []).append(
      Question(text, question, subset=subset(question, image), **(answer or {}))
    )
  if given:
    raise SourceError(
      f'{archive.find(annotations_path(SPLITS[split]))} answers {len(given):,} questions that '
      f'{archive.find(path)} does not ask, {next(iter(given))} for one: get both from {HOMEPAGE}'
    )
  return found


def annotations(archive: Archive, path: str) -> dict[int, dict[str, Any]]:
  """By question id, the fields of `Question` that are answers, and `image`."""
  found = {}
  for number, item in enumerate(archive.json_items(path, 'annotations')):
    try:
      found[int(item['question_id'])] = {
        'image': int(item['image_id']),
        # Of millions of answers few differ: each is kept once.
        'answers': tuple(sys.intern(a['answer']) for a in item['answers']),
        **{n: sys.intern(item[n]) for n in ANSWERED},
      }
    except (KeyError, TypeError, ValueError) as error:
      raise archive.unreadable(path, error, f'annotation number {number}') from error
  return found
