"""Examples out of prediction files, with what the split says of them."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from pixelbert_jax import files
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.score import predictions
from pixelbert_jax.tasks.statements import caption_name

SHOWN = 6  # right ones, and as many wrong ones
RANKED = 5  # images of a caption, and captions of an image
HALF = 0.5  # the least score of an answer that counts as right
Item = TypeVar('Item')


@dataclasses.dataclass(frozen=True)
class Example:
  """A prediction.

  Attributes:
    name: its id in the prediction file.
    given: the answer.
    score: as the files beside it say, formatted; '' if they do not.
    unit: what the score is.
    right: whether it is right; None if that is not known.
    text: the question or statement; '' without the split.
    truth: the true answer; '' if it is not known.
    answers: the true answers as shown, where annotators gave several.
    kind: the type of the answer.
    images: their numbers in the split.
  """

  name: str
  given: str
  score: str = ''
  unit: str = 'score'
  right: bool | None = None
  text: str = ''
  truth: str = ''
  answers: str = ''
  kind: str = ''
  images: tuple[int, ...] = ()


def read(path: pathlib.Path, split: Split | None) -> list[Example]:
  """Reads the predictions of a split, if they are of single texts; `path` is `Task.report`'s."""
  if path.with_suffix('.csv').exists():
    return _statements(path, split)
  if path.exists() and isinstance(entries := files.read_json(path), list):
    return _questions(path, entries, split)
  return []


def _questions(path: pathlib.Path, entries: list[Any], split: Split | None) -> list[Example]:
  """Makes the examples of answers in the form of VQA's server."""
  beside = path.with_name(f'{path.stem}_scores.json')
  scores = files.read_json(beside, dict) if beside.exists() else {}
  known = _question_facts(split.sidecar) if split else {}
  made = []
  for entry in entries:
    name = str(entry['question_id'])
    score = scores.get(name)
    right = None if score is None else score >= HALF
    shown = '' if score is None else f'{score:.3g}'
    made.append(Example(name, entry['answer'], shown, right=right, **known.get(name, {})))
  return made


def _question_facts(sidecar: Sidecar) -> dict[str, dict[str, Any]]:
  table = sidecar.questions
  string = [table.strings.text(i) for i in range(len(table.strings))]
  facts = {}
  for row, name in enumerate(table.id.tolist()):
    given = collections.Counter(string[a] for a in table.answers[row]).most_common(3)
    facts[str(name)] = {
      'text': table.text.text(row),
      'truth': string[table.multiple_choice_answer[row]] if given else '',
      'answers': ', '.join(f'{answer} ({n})' if n > 1 else answer for answer, n in given),
      'kind': string[table.answer_type[row]],
      'images': (int(table.image[row]),),
    }
  return facts


def _statements(path: pathlib.Path, split: Split | None) -> list[Example]:
  """Makes the examples of judgements in the form of NLVR's or NLVR2's server."""
  logits = files.read_json(path.with_name(f'{path.stem}_logits.json'), dict)
  csv = path.with_suffix('.csv')
  nlvr2 = files.read_text(csv).partition('\n')[0].partition(',')[0] in logits
  given = (predictions.read_nlvr2 if nlvr2 else predictions.read_nlvr)(csv, logits)
  known = _statement_facts(path, split.sidecar, nlvr2) if split else {}
  made = []
  for name, answer in given.items():
    facts = known.get(name, {})
    right = facts['truth'] == str(answer) if facts else None
    made.append(Example(name, str(answer), f'{logits[name]:.3f}', 'logit', right, **facts))
  return made


def _statement_facts(
  path: pathlib.Path, sidecar: Sidecar, nlvr2: bool
) -> dict[str, dict[str, Any]]:
  facts = {}
  table = sidecar.statements
  if nlvr2:
    for row, name in enumerate(table.identifier.tolist()):
      images = int(table.left[row]), int(table.right[row])
      facts[name.decode()] = _facts(table.text.text(row), table.label[row], *images)
    return facts
  shown = pairs(path)
  if sidecar.label.all() and not shown:
    return {}  # An earlier version did not say which image a text was shown with.
  number = {name.decode(): i for i, name in enumerate(sidecar.image_id)}
  for row, image in enumerate(sidecar.caption_image.tolist()):
    name, text = caption_name(sidecar, row, image), sidecar.caption(row)
    if name in shown:
      facts[name] = _facts(text, shown[name][1], number[shown[name][0]])
    elif not shown:
      facts[name] = _facts(text, sidecar.label[row], image)
  return facts


def pairs(path: pathlib.Path) -> dict[str, tuple[str, bool]]:
  """Reads the image and the label of each text that was mismatched at random; {} of others."""
  beside = path.with_name(f'{path.stem}_pairs.json')
  return files.read_json(beside, dict) if beside.exists() else {}


def _facts(text: str, label: bool, *images: int) -> dict[str, Any]:
  return {'text': text, 'truth': str(bool(label)), 'answers': str(bool(label)), 'images': images}


# --- Retrieval ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Hit:
  """An image or a caption that was found: its id, text, score, and whether it is a right one."""

  name: str
  text: str
  score: str
  right: bool | None
  image: int | None


@dataclasses.dataclass(frozen=True)
class Query:
  """An image with the captions found for it, or a caption with the images, the best first."""

  name: str
  text: str
  image: int | None
  hits: list[Hit]

  @property
  def right(self) -> bool | None:
    """Whether the best hit is a right one; None if that is not known."""
    return self.hits[0].right


def gallery(path: pathlib.Path, split: Split | None) -> tuple[list[Query], list[Query]]:
  """Reads the captions with their images, and the images with their captions, that were found."""
  lists = files.read_json(path) if path.exists() else []
  if not isinstance(lists, dict):
    return [], []
  number, owner, texts = _owners(split.sidecar) if split else ({}, {}, {})
  texts = {str(t): text for hits in lists['captions'].values() for t, text, _ in hits} | texts

  def hit(image: str, text: str, score: float, found: str) -> Hit:
    right = owner[text] == image if text in owner else None
    return Hit(found, texts[text], f'{score:.4f}', right, number.get(image))

  captions = [
    Query(t, texts[t], None, [hit(i, t, score, i) for i, score in hits[:RANKED]])
    for t, hits in lists['images'].items()
    if t in texts
  ]
  images = [
    Query(i, '', number.get(i), [hit(i, str(t), score, str(t)) for t, _, score in hits[:RANKED]])
    for i, hits in lists['captions'].items()
  ]
  return captions, images


def _owners(sidecar: Sidecar) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
  """Returns the number of each image by id, and by caption id the id of its image, and its text."""
  names = [name.decode() for name in sidecar.image_id]
  captions = list(map(str, sidecar.captions.values.tolist()))
  owner = {t: names[i] for t, i in zip(captions, sidecar.caption_image.tolist(), strict=True)}
  texts = {t: sidecar.caption(row) for row, t in enumerate(captions)}
  return {name: i for i, name in enumerate(names)}, owner, texts


# --- Choice ------------------------------------------------------------------------------------


def spread(items: Sequence[Item], number: int) -> list[Item]:
  """Chooses at most a number of items, spread evenly over all of them."""
  chosen = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
  return [items[i] for i in chosen]
