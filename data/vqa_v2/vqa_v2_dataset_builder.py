"""VQA v2 (Goyal et al. 2017): questions about COCO images, each with ten answers."""

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
# Our name -> name in the published files.
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
  """VQA v2: a record is an image with its questions; in the order of their first question.

  Subsets are `test-dev` of `test`, whose answers are not public, and `karpathy_val` of `val`: the
  questions about images of COCO's Karpathy val, on which no other dataset here trains.
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
    published = SPLITS[split]
    by_image = questions(self.request.archive, split, self._subset(split, tally))
    entries = []
    for image_id, asked in by_image.items():
      path = f'{published}/COCO_{published}_{image_id:012d}.jpg'
      entry = Entry(((str(image_id), path),), questions=asked)
      tally.count(entry)
      entries.append(entry)
    return entries

  def remarks(self, sidecars: Mapping[str, Sidecar]) -> list[str]:
    if not {'train', 'val'} <= sidecars.keys():
      return []
    frequent = answer_list([sidecars[split].questions for split in ('train', 'val')])
    lines = [f'{len(frequent):,} answers occur with {LEAST} or more questions of train and val']
    if not answers.is_published(frequent):
      lines.append(f'warning: this is not the published list of {answers.PUBLISHED[0]:,} answers')
    return lines

  def _subset(self, split: str, tally: Tally) -> Callable[[int, int], str]:
    """Returns a function from the ids of a question and its image to the subset."""
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
      tally.notes.append('dataset_coco.json does not exist: no question is marked karpathy_val')
    return lambda question, image: ''


def questions(
  archive: Archive, split: str, subset: Callable[[int, int], str]
) -> dict[int, list[Question]]:
  """Reads the questions of a split, by image id.

  Args:
    archive: the files.
    split: train, val or test, which has no answers.
    subset: returns the subset from the ids of a question and its image.

  Raises:
    SourceError: questions and annotations do not belong to the split, or not to each other.
  """
  path = questions_path(SPLITS[split])
  given = {} if split == 'test' else annotations(archive, annotations_path(SPLITS[split]))
  by_image: dict[int, list[Question]] = {}
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
    by_image.setdefault(image, []).append(
      Question(text, question, subset=subset(question, image), **(answer or {}))
    )
  if given:
    raise SourceError(
      f'{archive.find(annotations_path(SPLITS[split]))} answers {len(given):,} questions that '
      f'{archive.find(path)} lacks, such as {next(iter(given))}: get both from {HOMEPAGE}'
    )
  return by_image


def annotations(archive: Archive, path: str) -> dict[int, dict[str, Any]]:
  """Reads by question id the answer fields of `Question`, and `image`."""
  answered = {}
  for number, item in enumerate(archive.json_items(path, 'annotations')):
    try:
      answered[int(item['question_id'])] = {
        'image': int(item['image_id']),
        # Millions of answers have few distinct values, each stored once.
        'answers': tuple(sys.intern(a['answer']) for a in item['answers']),
        **{n: sys.intern(item[n]) for n in ANSWERED},
      }
    except (KeyError, TypeError, ValueError) as error:
      raise archive.unreadable(path, error, f'annotation number {number}') from error
  return answered
