"""Reads the fields of JSON objects without converting their types."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pixelbert_jax import UserError, jsons

T = TypeVar('T')
# Characters of a value that a message shows.
SHOWN = 60


class Fields:
  """The fields of an object in a JSON file.

  Nothing is converted: an id that is given as text or as null is an error, which names the file,
  the object and the field.

  Attributes:
    file: the file, for messages.
    at: the object in the file, for messages: 'line 3', 'images[2].sentences[0]'.
  """

  __slots__ = ('_error', '_values', 'at', 'file')

  def __init__(self, values: Any, file: Any, at: str, error: type[UserError] = UserError):
    """Takes an object as `json` reads it.

    Raises:
      error: `values` is not an object. All methods raise it for a field of another type.
    """
    if not isinstance(values, dict):
      raise error(f'{file} {at} is {_shown(values)}, expected an object: {_CURE}')
    self._values, self.file, self.at, self._error = values, file, at, error

  def __contains__(self, name: str) -> bool:
    return name in self._values

  def text(self, name: str) -> str:
    """Returns a text, which may be empty."""
    value = self._values.get(name)
    if not isinstance(value, str):
      raise self.fault(name, 'a text')
    if not value.isascii():
      try:
        value.encode()
      except UnicodeEncodeError as error:
        raise self.fault(name, 'a text without halves of characters') from error
    return value

  def number(self, name: str) -> int:
    """Returns an integer of at most 64 bits."""
    value = self._values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
      raise self.fault(name, 'an integer')
    return value

  def number_or_null(self, name: str) -> int | None:
    """Returns an integer, or None for null; a field that is not there is an error."""
    return None if self._values.get(name, 0) is None else self.number(name)

  def name(self, name: str) -> str:
    """Returns a name that some files give as a text and others as an integer."""
    return str(self.number(name)) if isinstance(self._values.get(name), int) else self.text(name)

  def choice(self, name: str, values: Mapping[str, T]) -> T:
    """Returns what `values` has for a text."""
    value = self._values.get(name)
    if not isinstance(value, str) or value not in values:
      raise self.fault(name, ' or '.join(f'"{value}"' for value in values))
    return values[value]

  def objects(self, name: str) -> list['Fields']:
    """Returns the objects of a list."""
    value = self._values.get(name)
    if not isinstance(value, list):
      raise self.fault(name, 'a list')
    at = f'{self.at}.{name}' if self.at else name
    return [Fields(x, self.file, f'{at}[{i}]', self._error) for i, x in enumerate(value)]

  def fault(self, name: str, expected: str) -> UserError:
    """Returns the error for a field that is not as expected."""
    given = f'"{name}": {_shown(self._values[name])}' if name in self else f'no "{name}"'
    return self.error(f'has {given}, expected {expected}: {_CURE}')

  def error(self, message: str) -> UserError:
    """Returns an error whose message goes on after the file and the object."""
    return self._error(f'{self.file} {self.at} {message}')


_CURE = 'mend it, or get the file again'


def _shown(value: Any) -> str:
  text = jsons.text(value)
  return text if len(text) <= SHOWN else f'{text[:SHOWN]}...'
