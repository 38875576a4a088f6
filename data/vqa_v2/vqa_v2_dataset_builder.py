"""VQA v2 (Goyal et al. 2017): questions about COCO images, each with ten answers."""

import collections
import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from data import corpus, karpathy
from data.archive import Archive, first
from data.entry import Entry, Need, Tally
from data.listing import TWICE, Once, add, leave_out_repeated, objects
from data.sources import SourceError
from data.vqa_v2 import answers
from pixelbert_jax.fields import Fields
from pixelbert_jax.input.rows import Question
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.tasks.answers import LEAST, answer_list

HOMEPAGE = 'https://visualqa.org/download.html'
COCO = 'http://images.cocodataset.org/zips'
FILES = 'https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa'
ANSWERED = ('multiple_choice_answer', 'question_type', 'answer_type')
# By question id: the image id, and the answer fields of `Question`.
Annotations = dict[int, tuple[int, dict[str, Any]]]
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
    entries: list[Entry] = []
    by_image = questions(self.request.archive, split, self._subset(split, tally), tally)
    for image_id, asked in by_image.items():
      path = f'{published}/COCO_{published}_{image_id:012d}.jpg'
      add(entries, Entry(((str(image_id), path),), questions=asked), tally)
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
      asked = objects(archive, questions_path('test-dev2015'), 'questions')
      chosen = {question.number('question_id') for question in asked}
      return lambda question, image: 'test-dev' if question in chosen else ''
    if split == 'val' and first(archive, karpathy.need('coco').paths):
      coco = karpathy.images(archive, 'coco')
      held_out = {image.number('cocoid') for image in coco if image.text('split') == 'val'}
      return lambda question, image: 'karpathy_val' if image in held_out else ''
    if split == 'val':
      tally.notes.append('dataset_coco.json does not exist: no question is marked karpathy_val')
    return lambda question, image: ''


def questions(
  archive: Archive, split: str, subset: Callable[[int, int], str], tally: Tally
) -> dict[int, list[Question]]:
  """Reads the questions of a split, by image id.

  Args:
    archive: the files.
    split: train, val or test, which has no answers.
    subset: returns the subset from the ids of a question and its image.
    tally: counts what is listed twice.

  Raises:
    SourceError: questions and annotations do not belong to the split, or not to each other.
  """
  path = questions_path(SPLITS[split])
  given = {} if split == 'test' else annotations(archive, annotations_path(SPLITS[split]), tally)
  once, by_image = Once('question_id'), collections.defaultdict(list)
  for asked in objects(archive, path, 'questions'):
    image, number = asked.number('image_id'), asked.number('question_id')
    question = Question(asked.text('question'), number, subset=subset(number, image))
    if once.repeats(asked, number, (image, question.text)):
      leave_out_repeated('questions', question, tally)
    elif split == 'test':
      by_image[image].append(question)
    else:
      answer = _answer(archive.find(annotations_path(SPLITS[split])), asked, given)
      by_image[image].append(dataclasses.replace(question, **answer))
  unasked = given.keys() - {q.id for asked in by_image.values() for q in asked}
  if unasked:
    raise SourceError(
      f'{archive.find(annotations_path(SPLITS[split]))} answers {len(unasked):,} questions that '
      f'{archive.find(path)} lacks, such as {min(unasked)}: get both from {HOMEPAGE}'
    )
  return by_image


def _answer(file: str | None, asked: Fields, given: Annotations) -> dict[str, Any]:
  """Returns the answer fields of a question; SourceError if the file does not give them."""
  image, number = asked.number('image_id'), asked.number('question_id')
  answered_image, answer = given.get(number, (image, {}))
  if answered_image != image:
    said = f'says that question {number} is about image {answered_image}, and not {image} as in'
  elif not answer:
    said = f'has no answers to question {number} of'
  else:
    return answer
  raise SourceError(
    f'{file} {said} {asked.file} {asked.at}: they are not of the same split or version, get both '
    f'from {HOMEPAGE}'
  )


def annotations(archive: Archive, path: str, tally: Tally) -> Annotations:
  """Reads by question id the image id and the answer fields of `Question`."""
  answered: Annotations = {}
  once = Once('question_id')
  for item in objects(archive, path, 'annotations'):
    number, answers = item.number('question_id'), item.objects('answers')
    if not answers:
      raise item.fault('answers', 'those of ten annotators')
    # Millions of answers have few distinct values, each stored once.
    fields = {name: sys.intern(item.text(name)) for name in ANSWERED}
    fields['answers'] = tuple(sys.intern(answer.text('answer')) for answer in answers)
    answer = item.number('image_id'), fields
    if once.repeats(item, number, answer):
      tally.leave_out(TWICE, f'{path} {item.at}', 'entries')
    else:
      answered[number] = answer
  return answered
