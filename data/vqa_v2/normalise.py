"""How the official VQA scorer normalises an answer, its quirks included.

`normalisation.json` holds the scorer's own tables (github.com/GT-Vision-Lab/VQA, BSD-2-Clause),
which define the metric as they are, spelling mistakes included.
"""

import json
import pathlib
import re

_TABLES = json.loads(pathlib.Path(__file__).with_name('normalisation.json').read_text('utf-8'))
_NUMBER_WITH_COMMA = re.compile(r'\d,\d')
# The scorer means to spare the point of a number; its look-behind is spelled wrongly, so only
# what follows counts.
_POINT = re.compile(r'\.(?!\d)')
# It passes a flag where the number of replacements belongs.
_MOST_POINTS = 32


def normalise(answer: str) -> str:
  """The answer as the scorer compares it."""
  words = _without_punctuation(answer.replace('\n', ' ').replace('\t', ' ').strip()).lower().split()
  words = [_TABLES['numbers'].get(word, word) for word in words]
  words = [word for word in words if word not in _TABLES['articles']]
  return ' '.join(_TABLES['contractions'].get(word, word) for word in words)


def _without_punctuation(text: str) -> str:
  """A mark next to a blank vanishes and any other becomes one; beside '1,000' all vanish."""
  vanish = bool(_NUMBER_WITH_COMMA.search(text))
  bare = text
  for mark in _TABLES['punctuation']:
    beside = f'{mark} ' in text or f' {mark}' in text
    bare = bare.replace(mark, '' if vanish or beside else ' ')
  return _POINT.sub('', bare, count=_MOST_POINTS)
