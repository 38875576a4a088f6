"""Prediction files in the official forms: written whole or not at all, checked when read.

A file is read as strictly as the evaluation servers do: every id once, none missing, none that is
not asked for, nothing but answers of the right kind. All faults are gathered before it is refused.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pixelbert_jax import UserError, files

_SHOWN = 10  # faults; the rest are counted
_NLVR_NAME = re.compile(r'[^-,]+-(\d+-\d+-\d+)(?:\.png)?')


class PredictionError(UserError):
  """A prediction file that a server would refuse.

  Attributes:
    faults: one line each with the file and the id; the message has the first ten.
  """

  def __init__(self, faults: Sequence[str]):
    self.faults = list(faults)
    more = len(self.faults) - _SHOWN
    shown = self.faults[:_SHOWN] + ([f'and {more:,} more faults'] if more > 0 else [])
    super().__init__('\n'.join(shown))


class Reader:
  """Gathers the predictions of a file and what is wrong with it."""

  def __init__(self, path: files.Path, noun: str, wanted: Collection):
    self._path, self._noun = path, noun
    self._wanted = dict.fromkeys(wanted)  # in order, and quick to look into
    self._found: dict = {}
    self._faults: list[str] = []

  def fault(self, what: str) -> None:
    """Notes what is wrong; the file is refused at the end."""
    self._faults.append(f'{self._path}: {what}')

  def add(self, name: int | str, value: object) -> None:
    """Notes a prediction, or that its id is unknown or came before."""
    if name not in self._wanted:
      self.fault(f'{self._noun} {name!r} is not among those to predict: remove it')
    elif name in self._found:
      self.fault(f'{self._noun} {name!r} is predicted more than once: keep one')
    self._found.setdefault(name, value)

  def finish(self, excused: Collection = ()) -> dict:
    """The predictions in the order of the ids, or PredictionError with all that was noted.

    Of missing ids, `excused` are those of which a fault is told already.
    """
    for name in self._wanted:
      if name not in self._found and name not in excused:
        self.fault(f'{self._noun} {name!r} has no prediction: add one')
    if self._faults:
      raise PredictionError(self._faults)
    return {name: self._found[name] for name in self._wanted}


def read_vqa(path: files.Path, question_ids: Collection[int]) -> dict[int, str]:
  """Reads `[{"question_id": 1, "answer": "yes"}, ...]`.

  Args:
    path: the file.
    question_ids: those that must be answered.

  Raises:
    PredictionError: with every fault.
  """
  entries = files.read_json(path)
  if not isinstance(entries, list):
    raise UserError(f'{path} is not a list: write [{{"question_id": 1, "answer": "yes"}}, ...]')
  reader, told = Reader(path, 'question', question_ids), set()
  for number, entry in enumerate(entries, 1):
    name = entry.get('question_id') if isinstance(entry, dict) else None
    if type(name) is not int:  # Not isinstance: true and false are integers to it.
      reader.fault(f'entry {number} has no integer "question_id" but {_short(name)}')
      continue
    answer = entry.get('answer')
    if not isinstance(answer, str):
      reader.fault(f'question {name} has no string "answer" but {_short(answer)}')
    else:
      reader.add(name, answer)
      continue
    told.add(name)
  return reader.finish(told)


def write_vqa(path: files.Path, answers: Mapping[int, str]) -> None:
  """Writes the evaluation server's form, in the order given."""
  entries = [{'question_id': int(q), 'answer': str(answer)} for q, answer in answers.items()]
  files.write_text(path, json.dumps(entries))


def read_nlvr2(path: files.Path, identifiers: Collection[str]) -> dict[str, bool]:
  """Reads `dev-850-0-0,True`, one line an example; capitals do not matter."""
  return _read_lines(path, Reader(path, 'example', identifiers), lambda name: name)


def write_nlvr2(path: files.Path, predictions: Mapping[str, bool]) -> None:
  """Writes `identifier,True|False` lines, in the order given."""
  _write_lines(path, (f'{name},{bool(value)}' for name, value in predictions.items()))


def read_nlvr(path: files.Path, image_ids: Collection[str]) -> dict[str, bool]:
  """Reads `dev-1572-0-3.png,true`, one line an image, as predictions of '1572-0-3'.

  The split's name is not part of the annotations: as officially, it is not looked at.
  """

  def image_id(name: str) -> str | None:
    match = _NLVR_NAME.fullmatch(name)
    return match and match[1]

  return _read_lines(path, Reader(path, 'image', image_ids), image_id)


def write_nlvr(path: files.Path, predictions: Mapping[str, bool], split: str) -> None:
  """Writes `<split>-<image id>.png,true|false` lines of images '1572-0-3', in the order given."""
  _write_lines(
    path, (f'{split}-{name}.png,{str(bool(v)).lower()}' for name, v in predictions.items())
  )


def _read_lines(
  path: files.Path, reader: Reader, parse_name: Callable[[str], str | None]
) -> dict[str, bool]:
  """Lines of a name and true or false; `parse_name` gives the id, or None if it is none."""
  told = set()
  lines = files.read_text(path).split('\n')
  if lines[-1] == '':
    lines.pop()
  for number, line in enumerate(lines, 1):
    name, comma, value = line.strip().partition(',')
    if not comma:
      reader.fault(f'line {number} is {_short(line)}: write an id, a comma, and true or false')
    elif (key := parse_name(name)) is None:
      reader.fault(f'line {number} names {name!r}: write it as dev-1572-0-3.png')
    elif value.lower() not in ('true', 'false'):
      reader.fault(f'line {number}: {name!r} is predicted {_short(value)}: write true or false')
      told.add(key)
    else:
      reader.add(key, value.lower() == 'true')
  return reader.finish(told)


def _write_lines(path: files.Path, lines: Iterable[str]) -> None:
  files.write_text(path, ''.join(f'{line}\n' for line in lines))


def _short(value: object) -> str:
  shown = repr(value)
  return shown if len(shown) <= 40 else f'{shown[:37]}...'
