"""Fields of JSON objects: what is taken, and what the message says of the rest."""

import pytest

from pixelbert_jax import UserError
from pixelbert_jax.fields import Fields

VALUES = {
  'text': 'größer',
  'blank': '',
  'number': -7,
  'null': None,
  'true': True,
  'whole': 7.0,
  'digits': '7',
  'huge': 2**63,
  'half': '\ud800',
  'list': [{'a': 'x'}, 'y'],
}


def test_what_is_there_is_taken_as_it_is():
  fields = Fields(VALUES, 'f.json', 'line 3')
  assert (fields.text('text'), fields.text('blank')) == ('größer', '')
  assert (fields.number('number'), fields.number_or_null('number')) == (-7, -7)
  assert fields.number_or_null('null') is None
  assert (fields.name('number'), fields.name('digits')) == ('-7', '7')
  assert fields.choice('digits', {'7': 'seven'}) == 'seven'
  assert 'null' in fields
  assert 'absent' not in fields
  whole = Fields({'images': [{'sentences': [{'raw': 'x'}]}]}, 'f.json', '')
  (sentence,) = whole.objects('images')[0].objects('sentences')
  assert (sentence.at, sentence.text('raw')) == ('images[0].sentences[0]', 'x')


@pytest.mark.parametrize(
  ('method', 'name', 'message'),
  [
    *(('text', name, 'expected a text') for name in ('number', 'null', 'true', 'list', 'half')),
    *(('number', n, 'an integer') for n in ('null', 'true', 'whole', 'digits', 'huge', 'list')),
    *(('number_or_null', n, 'an integer') for n in ('true', 'whole', 'digits', 'absent')),
    *(('name', n, 'expected') for n in ('null', 'true', 'whole', 'absent')),
    *(('objects', n, 'expected a list') for n in ('text', 'null', 'number')),
    ('text', 'null', 'has "null": null, expected a text: mend it'),
    ('text', 'absent', 'has no "absent", expected a text'),
    ('objects', 'list', r'list\[1\] is "y", expected an object'),
  ],
)
def test_another_type_is_named(method, name, message):
  with pytest.raises(UserError, match=rf'^f.json line 3.*{message}'):
    getattr(Fields(VALUES, 'f.json', 'line 3'), method)(name)


def test_a_long_value_is_cut():
  with pytest.raises(UserError, match=r'"x": \["a{58}\.\.\., expected a text'):
    Fields({'x': ['a' * 1000]}, 'f.json', 'line 3').text('x')


@pytest.mark.parametrize('value', ['true', True, None, [], 'maybe'])
def test_a_choice_is_one_of_the_texts(value):
  with pytest.raises(UserError, match=r'"label": .*, expected "True" or "False"'):
    Fields({'label': value}, 'f.json', 'line 3').choice('label', {'True': 1, 'False': 0})
