"""Prediction files in the official formats: written atomically, checked when read.

Files are read as strictly as by the evaluation servers: every id once, none missing, no unknown
ids, answers of the right type. An error lists all faults of a file.
"""

import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from pixelbert_jax import UserError, files, jsons

_SHOWN = 10  # faults in a message; the rest are counted
_NLVR2_NAME = re.compile('(.*)')  # the identifier itself
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
    self._faulty: set = set()

  def fault(self, message: str, name: int | str | None = None) -> None:
    """Records a fault, which `finish` raises, perhaps of the prediction for one id."""
    self._faults.append(f'{self._path}: {message}')
    self._faulty.add(name)

  def add(self, name: int | str, value: object) -> None:
    """Records a prediction; an unknown or repeated id is a fault."""
    if name not in self._wanted:
      self.fault(f'{self._noun} {name!r} is not among those to predict: remove it')
    elif name in self._predictions:
      self.fault(f'{self._noun} {name!r} is predicted more than once: keep one')
    self._predictions.setdefault(name, value)

  def finish(self) -> dict:
    """Returns the predictions in the order of the wanted ids.

    Raises:
      PredictionError: with all faults.
    """
    for name in self._wanted:
      if name not in self._predictions and name not in self._faulty:
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
  reader = Reader(path, 'question', question_ids)
  for number, entry in enumerate(entries, 1):
    name = entry.get('question_id') if isinstance(entry, dict) else None
    if type(name) is not int:  # isinstance would accept true and false.
      reader.fault(f'entry {number}: expected an integer "question_id", got {_short(name)}')
    elif not isinstance(answer := entry.get('answer'), str):
      reader.fault(f'question {name}: expected a string "answer", got {_short(answer)}', name)
    else:
      reader.add(name, answer)
  return reader.finish()


def write_vqa(path: files.Path, answers: Mapping[int, str]) -> None:
  """Writes the format of the evaluation server, in the order given."""
  entries = [{'question_id': int(q), 'answer': str(answer)} for q, answer in answers.items()]
  files.write_text(path, jsons.text(entries))


def read_nlvr2(path: files.Path, identifiers: Collection[str]) -> dict[str, bool]:
  """Reads `dev-850-0-0,True`, one example per line; case is ignored."""
  return _read_lines(path, 'example', identifiers, _NLVR2_NAME)


def write_nlvr2(path: files.Path, predictions: Mapping[str, bool]) -> None:
  """Writes `identifier,True|False` lines, in the order given."""
  _write_lines(path, (f'{name},{bool(value)}' for name, value in predictions.items()))


def read_nlvr(path: files.Path, image_ids: Collection[str]) -> dict[str, bool]:
  """Reads `dev-1572-0-3.png,true`, one image per line, as the prediction for '1572-0-3'.

  The name of the split is ignored, as by the official program: annotations lack it.
  """
  return _read_lines(path, 'image', image_ids, _NLVR_NAME)


def write_nlvr(path: files.Path, predictions: Mapping[str, bool], split: str) -> None:
  """Writes `<split>-<image id>.png,true|false` lines, in the order given."""
  _write_lines(
    path, (f'{split}-{name}.png,{str(bool(v)).lower()}' for name, v in predictions.items())
  )


def _read_lines(
  path: files.Path, noun: str, wanted: Collection[str], pattern: re.Pattern
) -> dict[str, bool]:
  """Reads lines of a name and true or false; the group of `pattern` is the id in a name."""
  reader = Reader(path, noun, wanted)
  for number, line in enumerate(io.StringIO(files.read_text(path)), 1):
    name, comma, value = line.strip().partition(',')
    if not comma:
      shown = _short(line.removesuffix('\n'))
      reader.fault(f'line {number} is {shown}: write an id, a comma, and true or false')
    elif not (match := pattern.fullmatch(name)):
      reader.fault(f'line {number} names {name!r}: write it as dev-1572-0-3.png')
    elif value.lower() not in ('true', 'false'):
      shown = f'{name!r} is predicted {_short(value)}'
      reader.fault(f'line {number}: {shown}: write true or false', match[1])
    else:
      reader.add(match[1], value.lower() == 'true')
  return reader.finish()


def _write_lines(path: files.Path, lines: Iterable[str]) -> None:
  files.write_text(path, ''.join(f'{line}\n' for line in lines))


def _short(value: object) -> str:
  shown = repr(value)
  return shown if len(shown) <= 40 else f'{shown[:37]}...'
