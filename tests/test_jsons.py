"""JSON of others: what is parsed, and the one line for what is not."""

import gzip
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_jax import UserError, files, jsons

DEEPEST = '[' * jsons.DEPTH + ']' * jsons.DEPTH

# Text, and words of the line that refuses it.
REFUSED = {
  'nothing': ('', 'line 1 column 1 is not JSON'),
  'half a file': ('[{"a":\n 1}, {"a"', 'line 2 column 10 is not JSON'),
  'more than one value': ('{} {}', 'Extra data'),
  'single quotes': ("{'a': 1}", 'line 1 column 2 is not JSON'),
  'a line break in a text': ('["a\nb"]', 'Invalid control character'),
  'NaN': ('[1, NaN]', 'has NaN'),
  'infinity': ('[-Infinity]', 'has -Infinity'),
  'infinite fraction': ('[1e400]', 'has 1e400'),
  'long fraction': (f'[{"9" * 400}.0]', 'has 9999'),
  'ten thousand digits': (f'[{"9" * 10_000}]', 'has a number of 10,000 digits'),
  'beyond int64': (f'[{2**63}]', f'has {2**63}, which is more than 64 bits hold'),
  'below int64': (f'[{-(2**63) - 1}]', 'more than 64 bits hold'),
  'a key twice': ('[{"a": 1, "b": {"c": 1, "d": 2, "c": 3}}]', "has the key 'c' twice"),
  'deep lists': ('[' * 100_000, 'nests lists and objects more than 100 deep'),
  'whole deep lists': (f'[{DEEPEST}]', 'more than 100 deep'),
  'deep objects': ('{"a":' * 101 + '1' + '}' * 101, 'more than 100 deep'),
  'deep behind texts': ('["]]]", "\\"]]", ' * 101 + '1' + ']' * 101, 'more than 100 deep'),
  'half a pair': (r'["\ud83d"]', r'half a surrogate pair, \ud83d'),
  'the other half': (r'["a\uDE00"]', 'half a surrogate pair'),
  'half after a whole': (r'["\ud83d\ude00\ud83d"]', 'half a surrogate pair'),
  'not UTF-8': (b'["\xe9"]', 'is not UTF-8'),
  'UTF-16': ('[1]'.encode('utf-16'), 'is not UTF-8'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_text_that_is_refused_is_one_line_with_its_path(name, tmp_path):
  text, words = REFUSED[name]
  (tmp_path / 'a.json').write_bytes(text.encode() if isinstance(text, str) else text)
  with pytest.raises(jsons.JsonError) as raised:
    files.read_json(tmp_path / 'a.json')
  line = str(raised.value)
  assert line.startswith(f'{tmp_path}/a.json ')
  assert words in line
  assert '\n' not in line
  assert len(line) < 300 + len(str(tmp_path))
  assert isinstance(raised.value, UserError)


PARSED = {
  'mark of the byte order': (b'\xef\xbb\xbf[1]', [1]),
  'the largest numbers': (f'[{2**63 - 1}, {-(2**63)}, 1e308]', [2**63 - 1, -(2**63), 1e308]),
  'a pair': (r'["\ud83d\ude00"]', ['\U0001f600']),
  'no escape': (r'["\\ud83d"]', ['\\ud83d']),
  'brackets in texts': (
    f'["{"[" * 500}", "\\"{"{" * 500}"]',
    ['[' * 500, '"' + '{' * 500],
  ),
  'many lists, none deep': ('[' + '[],' * 5000 + '[]]', [[]] * 5001),
  'lines that end in CR LF': ('{"a":\r\n1}\r\n', {'a': 1}),
}


@pytest.mark.parametrize('name', PARSED)
def test_a_text_that_is_parsed(name):
  text, value = PARSED[name]
  assert jsons.parse(text) == value


def test_depth_up_to_the_limit():
  assert json.dumps(jsons.parse(DEEPEST)) == DEEPEST
  assert jsons.parse_part(f'  {DEEPEST}x', 2)[1] == 2 + len(DEEPEST)
  for text in (f'[{DEEPEST}]', '[' * 100_000):
    with pytest.raises(jsons.JsonError, match='more than 100 deep'):
      jsons.parse_part(text, 0)


VALUES = st.recursive(
  st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
  | st.floats(allow_nan=False, allow_infinity=False),
  lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(value=VALUES, ascii_only=st.booleans(), many=st.booleans())
def test_whatever_json_writes_is_read_back(value, ascii_only, many):
  value = [value] * 60 if many else value
  assert jsons.parse(json.dumps(value, ensure_ascii=ascii_only)) == value


@settings(max_examples=300, deadline=None)
@given(st.text('[]{}",:\\u0129deE+-. \nNaInfty', max_size=80))
def test_any_text_is_parsed_as_json_does_or_refused(text):
  try:
    value = jsons.parse(text)
  except jsons.JsonError:
    return
  assert value == json.loads(text)


@pytest.mark.parametrize(
  ('text', 'kind', 'words'),
  [('[]', dict, 'is a list, not an object'), ('"x"', list, 'is a text, not a list')],
)
def test_a_value_of_another_type(text, kind, words, tmp_path):
  (tmp_path / 'a').write_text(text)
  with pytest.raises(jsons.JsonError, match=f'a {words}'):
    files.read_json(tmp_path / 'a', kind)
  for value, own in (({'a': 1}, dict), ([1], list)):
    assert jsons.parse(json.dumps(value), own) == value


def test_a_line_of_json_lines_is_named(tmp_path):
  (tmp_path / 'a').write_text('{"a": 1}\n\n{"a": NaN}\n')
  read = files.read_json_lines(tmp_path / 'a')
  assert next(read) == (1, {'a': 1})
  with pytest.raises(jsons.JsonError, match=f'^{tmp_path}/a line 3 has NaN'):
    next(read)


@pytest.mark.parametrize('packed', [False, True])
def test_a_file_is_read_up_to_a_size(packed, tmp_path):
  content = bytes(1000)
  (tmp_path / 'a').write_bytes(gzip.compress(content) if packed else content)
  assert files.read_bytes(tmp_path / 'a', 1000) == content
  with pytest.raises(UserError, match='a has more than the 999 bytes that are read'):
    files.read_bytes(tmp_path / 'a', 999)


def test_a_bomb_is_not_unpacked(tmp_path):
  (tmp_path / 'a').write_bytes(gzip.compress(bytes(50_000_000)) * 20)  # a gigabyte
  began = time.process_time()
  with pytest.raises(UserError, match='unpacked'):
    files.read_bytes(tmp_path / 'a', 1_000_000)
  assert time.process_time() - began < 0.2
