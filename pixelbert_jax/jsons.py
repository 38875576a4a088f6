"""JSON: parsed within limits and as strictly as its grammar is, and written so."""

import collections
import functools
import gc
import hashlib
import json
import math
import re
from typing import Any, NoReturn

import numpy as np

from pixelbert_jax import UserError

DEPTH = 100  # of lists and objects inside each other
NOUNS = {dict: 'an object', list: 'a list', str: 'a text', bool: 'true or false'}
NOUNS |= {int: 'a number', float: 'a number', type(None): 'null'}
_TOO_DEEP = f'nests lists and objects more than {DEPTH} deep: is it the right file?'
_NOT_NESTING = bytes(set(range(256)) - set(b'[]{}"'))
_HALF = re.compile(
  rb'\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F]..)'
)


class JsonError(UserError, ValueError):
  """Text that is not JSON, or beyond what is read; the message follows the name of the file."""


def parse(content: bytes | str, kind: type = object, bits: int = 64) -> Any:
  """Parses JSON within limits, so that whatever it holds can be shown, stored and encoded.

  Beyond the grammar of JSON (which has no NaN), it refuses: more than DEPTH lists and objects
  inside each other, whole numbers of more than `bits` bits, fractions beyond float64, a key that
  comes twice in an object, half a surrogate pair, text that is not UTF-8.

  Args:
    content: the text; bytes may begin with a byte order mark.
    kind: type of the value that is due.
    bits: of whole numbers, with their sign.

  Raises:
    JsonError: it is anything else. The message is to follow the name of the file.
  """
  try:
    data = content.encode() if isinstance(content, str) else content
    text = data.decode('utf-8-sig')
  except UnicodeError as error:
    raise JsonError(f'is not UTF-8 text ({error}): write it again as such') from error
  _check_nesting(data)
  running = gc.isenabled()
  gc.disable()  # Of millions of new objects none is garbage: looking for it takes 40% of the time.
  try:
    value = _decoder(bits).decode(text)
  except json.JSONDecodeError as error:
    raise JsonError(
      f'line {error.lineno} column {error.colno} is not JSON ({error.msg}): is the file whole?'
    ) from error
  except RecursionError as error:
    raise JsonError(_TOO_DEEP) from error
  finally:
    if running:
      gc.enable()
  if not isinstance(value, kind):
    raise JsonError(f'is {NOUNS[type(value)]}, not {NOUNS[kind]}: is it the right file?')
  return value


def parse_part(text: str, at: int) -> tuple[Any, int]:
  """Parses the value that begins at `at`, and returns it with its end; for files read in parts.

  Raises:
    JsonError: the value is beyond a limit (`parse`).
    json.JSONDecodeError: there is no whole value.
  """
  try:
    value, end = _decoder(64).raw_decode(text, at)
  except RecursionError as error:
    raise JsonError(_TOO_DEEP) from error
  _check_nesting(text[at:end].encode())
  return value, end


def text(value: Any, **options: Any) -> str:
  """Formats JSON as `json.dumps` does; ValueError for NaN and infinity, which are no JSON."""
  return json.dumps(value, allow_nan=False, **options)


def digest(value: Any) -> str:
  """Computes the SHA-256 of a value as JSON, whatever the order of its keys."""
  return hashlib.sha256(text(value, sort_keys=True).encode()).hexdigest()


def _check_nesting(data: bytes) -> None:
  """Checks what the parser does not, at a tenth of its time, on bytes that may not be JSON."""
  if b'\\' in data:
    data = data.replace(b'\\\\', b'').replace(b'\\"', b'')
    if b'\\ud' in data or b'\\uD' in data:
      for found in _HALF.finditer(data):
        if found[1]:
          half = found[1].decode(errors='replace')
          raise JsonError(f'has half a surrogate pair, {half}: write whole characters')
  if data.count(b'[') + data.count(b'{') <= DEPTH:
    return
  # Brackets and the quotes of strings, of which those that hold no bracket go first.
  nesting = data.translate(None, _NOT_NESTING).replace(b'""', b'')
  if b'"' in nesting:
    nesting = re.sub(rb'"[^"]*"', b'', nesting)
  bracket = np.frombuffer(nesting, np.uint8)
  step = np.where((bracket == ord('[')) | (bracket == ord('{')), np.int8(1), np.int8(-1))
  if np.cumsum(step, dtype=np.int32).max(initial=0) > DEPTH:
    raise JsonError(_TOO_DEEP)


@functools.cache
def _decoder(bits: int) -> json.JSONDecoder:
  def whole(digits: str) -> int:
    number = int(digits) if len(digits) <= bits else None
    if number is None or not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
      shown = digits if len(digits) <= 40 else f'a number of {len(digits):,} digits'
      raise JsonError(f'has {shown}, which is more than {bits} bits hold: is it the right file?')
    return number

  def fraction(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
      raise JsonError(f'has {digits[:40]}, which is more than 64 bits hold: is it the right file?')
    return number

  def no_number(name: str) -> NoReturn:
    raise JsonError(f'has {name}, which is not JSON: leave it out')

  def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
      (twice, _), *_ = collections.Counter(key for key, _ in pairs).most_common(1)
      raise JsonError(f'has the key {twice[:80]!r} twice in one object: keep one')
    return value

  return json.JSONDecoder(
    object_pairs_hook=distinct, parse_int=whole, parse_float=fraction, parse_constant=no_number
  )
