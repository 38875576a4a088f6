"""Readers of the published annotation files, gzipped or not, for the fields that scores need.

A dataset of one's own has no published ones: `write_vqa` makes them. `write_nlvr2` makes those of
the examples that are left where photographs are missing.
"""

import pathlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from pixelbert_jax import UserError, files, jsons
from pixelbert_jax.fields import Fields
from pixelbert_jax.score.nlvr import IMAGES
from pixelbert_jax.score.vqa import OFFICIAL, Question, scoring_of

Captions = Mapping[str, Sequence[str]]  # text ids by image id

# NLVR's files have the first two, NLVR2's the others.
LABELS = {'true': True, 'false': False, 'True': True, 'False': False}
_QUESTIONS = 'the questions file of VQA, with a list of "questions"'


def read_vqa(path: files.Path) -> list[Question]:
  """Reads `v2_mscoco_*_annotations.json`, or what `write_vqa` wrote.

  Raises:
    UserError: an entry is malformed or repeated; the message names it.
  """
  questions = {}
  value = _read(path, 'annotations', 'the annotations file of VQA')
  scoring = scoring_of(value.text('scoring'), path) if 'scoring' in value else OFFICIAL
  for entry in value.objects('annotations'):
    question = Question(
      question_id=entry.number('question_id'),
      image_id=entry.number('image_id'),
      question_type=entry.text('question_type'),
      answer_type=entry.text('answer_type'),
      answers=tuple(answer.text('answer') for answer in entry.objects('answers')),
      scoring=scoring,
    )
    if not question.answers:
      raise UserError(f'{path}: question {question.question_id} has no answers')
    if question.question_id in questions:
      raise UserError(f'{path}: question {question.question_id} is annotated twice')
    questions[question.question_id] = question
  return list(questions.values())


def read_vqa_question_ids(path: files.Path) -> list[int]:
  """Reads the question ids of `v2_OpenEnded_mscoco_*_questions.json`."""
  asked = _read(path, 'questions', _QUESTIONS).objects('questions')
  ids = [question.number('question_id') for question in asked]
  if repeated := [i for i, count in Counter(ids).items() if count > 1]:
    raise UserError(f'{path}: question {repeated[0]} is listed more than once')
  return ids


def write_vqa(path: files.Path, questions: Sequence[Question]) -> None:
  """Writes questions in the format of VQA's annotations, with the name of their scoring."""
  annotations = [
    {
      'question_id': q.question_id,
      'image_id': q.image_id,
      'question_type': q.question_type,
      'answer_type': q.answer_type,
      'answers': [{'answer_id': i, 'answer': answer} for i, answer in enumerate(q.answers, 1)],
    }
    for q in questions
  ]
  value = {'scoring': questions[0].scoring.name, 'annotations': annotations}
  files.write_text(path, jsons.text(value))


def _read(path: files.Path, key: str, expected: str) -> Fields:
  """Reads an object with a list under `key`; `expected` names the right file, for the message."""
  value = files.read_json(path)
  entries = value.get(key) if isinstance(value, dict) else None
  if not isinstance(entries, list):
    raise UserError(f'{path} has no list of "{key}": is it {expected}?')
  if not entries:
    raise UserError(f'{path} is empty: name a file with {key}')
  return Fields(value, path, '')


def read_nlvr2(path: files.Path) -> dict[str, bool]:
  """Reads the label of each example of an NLVR2 split (`dev.json`), by identifier."""
  return _read_labels(path, 4)


def write_nlvr2(path: files.Path, labels: Mapping[str, bool]) -> None:
  """Writes the labels of examples as the lines of `dev.json` that `read_nlvr2` needs."""
  lines = ({'identifier': name, 'label': str(label)} for name, label in labels.items())
  files.write_text(path, ''.join(f'{jsons.text(line)}\n' for line in lines))


def read_nlvr(path: files.Path) -> dict[str, bool]:
  """Reads the label of each *image* of an NLVR split (`dev.json`), by ids such as '1572-0-3'."""
  labels = _read_labels(path, 2)
  return {f'{name}-{k}': label for name, label in labels.items() for k in range(IMAGES)}


def _read_labels(path: files.Path, fields: int) -> dict[str, bool]:
  """Reads labels from JSON lines whose identifiers have `fields` parts joined by '-'."""
  labels: dict[str, bool] = {}
  for number, values in files.read_json_lines(path):
    example = Fields(values, path, f'line {number}')
    name, label = example.text('identifier'), example.choice('label', LABELS)
    if name.count('-') != fields - 1:
      raise UserError(f'{path} line {number}: identifier {name!r} does not have {fields} fields')
    if name in labels:
      raise UserError(f'{path} line {number} repeats the identifier {name!r}')
    labels[name] = label
  if not labels:
    raise UserError(f'{path} is empty: name a file with examples')
  return labels


def read_captions(path: files.Path) -> list[Captions]:
  """Reads captions as text ids by image id, in file order.

  Args:
    path: Karpathy's `dataset_*.json`, or `{"text id": "image id", ...}` of one split.

  Returns:
    One mapping per split. Karpathy's files give one per split and naming scheme of images:
    `cocoid` (`imgid` where it is missing), `filename`, and `filename` without its extension.
    Their text ids are `sentid`.

  Raises:
    UserError: the file has neither format.
  """
  value = files.read_json(path)
  if not isinstance(value, dict) or not value:
    raise UserError(f'{path} is neither a dataset_*.json nor {{"text id": "image id", ...}}')
  if isinstance(value.get('images'), list):
    return _read_karpathy(Fields(value, path, '').objects('images'))
  captions: dict[str, list[str]] = defaultdict(list)
  for text, image in value.items():
    if isinstance(image, bool) or not isinstance(image, int | str):
      raise UserError(f'{path}: text {text!r} has no image id, but {image!r}')
    captions[str(image)].append(text)
  return [dict(captions)]


def _read_karpathy(images: Sequence[Fields]) -> list[Captions]:
  captions: dict[tuple, dict[str, list[str]]] = defaultdict(dict)
  listed: dict[tuple, Fields] = {}
  for image in images:
    file, number = image.text('filename'), image.number('cocoid' if 'cocoid' in image else 'imgid')
    sentences = image.objects('sentences')
    texts = [sentence.number('sentid') for sentence in sentences]
    once = [('file', file), ('number', number), *(('sentid', text) for text in texts)]
    for key, entry in zip(once, (image, image, *sentences), strict=True):
      if listed.setdefault(key, entry) is not entry:
        raise entry.error(f'repeats the {key[0]} {key[1]} of {listed[key].at}: remove one of them')
    names = {'number': str(number), 'file': file, 'stem': pathlib.PurePath(file).stem}
    for kind, name in names.items():
      if texts:
        captions[image.text('split'), kind][name] = list(map(str, texts))
  return list(captions.values())


def captions_of(
  path: files.Path, splits: Sequence[Captions], image_ids: Collection[str]
) -> Captions:
  """Returns the element of `splits` that shares most image ids with `image_ids`.

  Args:
    path: of the annotations, for the message.
    splits: one mapping per split and naming scheme, from `read_captions`.
    image_ids: of the predictions.

  Raises:
    UserError: no element shares an id.
  """
  shared = [len(captions.keys() & set(image_ids)) for captions in splits]
  if not any(shared):
    raise UserError(f'{path} holds none of the images of the predictions: is it their dataset?')
  return splits[shared.index(max(shared))]
