"""Prediction files in the official formats: written atomically, checked when read.

Files are read as strictly as by the evaluation servers: every id once, none missing, no unknown
ids, answers of the right type. An error lists all faults of a file.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pixelbert_jax import UserError, files

_SHOWN = 10  # faults in a message; the rest are counted
_NLVR_NAME = re.compile(r'[^-,]+-(\d+-\d+-\d+)(?:\.png)?')


class PredictionError(UserError):
  """A prediction file that an evaluation server would refuse.

  Attributes:
    faults: one line each, with the file and the id; the message shows the first ten.
  """

  def __init__(self, faults: Sequence[str]):
    self.faults = list(faults)
    more = len(self.faults) - _SHOWN
    shown = self.faults[:_SHOWN] + ([f'and {more:,} more faults'] if more > 0 else [])
    super().__init__('\n'.join(shown))


class Reader:
  """A collector of the predictions of a file and of its faults."""

  def __init__(self, path: files.Path, noun: str, wanted: Collection):
    self._path, self._noun = path, noun
    self._wanted = dict.fromkeys(wanted)  # an ordered set
    self._predictions: dict = {}
    self._faults: list[str] = []

  def fault(self, message: str) -> None:
    """Records a fault, which `finish` raises."""
    self._faults.append(f'{self._path}: {message}')

  def add(self, name: int | str, value: object) -> None:
    """Records a prediction; an unknown or repeated id is a fault."""
    if name not in self._wanted:
      self.fault(f'{self._noun} {name!r} is not among those to predict: remove it')
    elif name in self._predictions:
      self.fault(f'{self._noun} {name!r} is predicted more than once: keep one')
    self._predictions.setdefault(name, value)

  def finish(self, reported: Collection = ()) -> dict:
    """Returns the predictions in the order of the wanted ids.

    Args:
      reported: ids with a recorded fault, which are not reported as missing again.

    Raises:
      PredictionError: with all faults.
    """
    for name in self._wanted:
      if name not in self._predictions and name not in reported:
        self.fault(f'{self._noun} {name!r} has no prediction: add one')
    if self._faults:
      raise PredictionError(self._faults)
    return {name: self._predictions[name] for name in self._wanted}


def read_vqa(path: files.Path, question_ids: Collection[int]) -> dict[int, str]:
  """Reads `[{"question_id": 1, "answer": "yes"}, ...]`.

  Args:
    path: the file.
    question_ids: the questions that must be answered.

  Raises:
    PredictionError: with every fault.
  """
  entries = files.read_json(path)
  if not isinstance(entries, list):
    raise UserError(f'{path} is not a list: write [{{"question_id": 1, "answer": "yes"}}, ...]')
  reader, reported = Reader(path, 'question', question_ids), set()
  for number, entry in enumerate(entries, 1):
    name = entry.get('question_id') if isinstance(entry, dict) else None
    if type(name) is not int:  # isinstance would accept true and false.
      reader.fault(f'entry {number}: expected an integer "question_id", got {_short(name)}')
    elif not isinstance(answer := entry.get('answer'), str):
      reader.fault(f'question {name}: expected a string "answer", got {_short(answer)}')
      reported.add(name)
    else:
      reader.add(name, answer)
  return reader.finish(reported)


def write_vqa(path: files.Path, answers: Mapping[int, str]) -> None:
  """Writes the format of the evaluation server, in the order given."""
  entries = [{'question_id': int(q), 'answer': str(answer)} for q, answer in answers.items()]
  files.write_text(path, json.dumps(entries))


def read_nlvr2(path: files.Path, identifiers: Collection[str]) -> dict[str, bool]:
  """Reads `dev-850-0-0,True`, one example per line; case is ignored."""
  return _read_lines(path, Reader(path, 'example', identifiers), lambda name: name)


def write_nlvr2(path: files.Path, predictions: Mapping[str, bool]) -> None:
  """Writes `identifier,True|False` lines, in the order given."""
  _write_lines(path, (f'{name},{bool(value)}' for name, value in predictions.items()))


def read_nlvr(path: files.Path, image_ids: Collection[str]) -> dict[str, bool]:
  """Reads `dev-1572-0-3.png,true`, one image per line, as the prediction for '1572-0-3'.

  The name of the split is ignored, as by the official program: annotations lack it.
  """

  def image_id(name: str) -> str | None:
    match = _NLVR_NAME.fullmatch(name)
    return match and match[1]

  return _read_lines(path, Reader(path, 'image', image_ids), image_id)


def write_nlvr(path: files.Path, predictions: Mapping[str, bool], split: str) -> None:
  """Writes `<split>-<image id>.png,true|false` lines, in the order given."""
  _write_lines(
    path, (f'{split}-{name}.png,{str(bool(v)).lower()}' for name, v in predictions.items())
  )


def _read_lines(
  path: files.Path, reader: Reader, parse_name: Callable[[str], str | None]
) -> dict[str, bool]:
  """Reads lines of a name and true or false; `parse_name` returns the id, None if malformed."""
  reported = set()
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
      reported.add(key)
    else:
      reader.add(key, value.lower() == 'true')
  return reader.finish(reported)


def _write_lines(path: files.Path, lines: Iterable[str]) -> None:
  files.write_text(path, ''.join(f'{line}\n' for line in lines))


def _short(value: object) -> str:
  shown = repr(value)
  return shown if len(shown) <= 40 else f'{shown[:37]}...'
