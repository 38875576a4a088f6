"""Overrides: of every field of every configuration, what is legal and the line for what is not."""

import time

import pytest
from ml_collections import ConfigDict

from pixelbert_jax import configuration
from pixelbert_jax.configuration import ConfigurationError
from pixelbert_jax.rules import Field
from tests.support.paths import ROOT

FILES = [f'{name}.py' for name in ('labels', 'pretrain', 'vqa', 'nlvr2', 'nlvr', 'retrieval')]
MANY = '1' + '0' * 30
WRONG = (
  *('', ' ', 'x', 'None', "'", '"a', '-1', '0', '1', '0.5', '1.5', '1e400', 'inf', '-inf', 'nan'),
  *(MANY, '9' * 5000, '[]', '()', '{}', '{1}', '[1, 2]', '(1, 2, 3, 4, 5)', '(0.5, 0.5)', '1j'),
  *('(True,)', "('a',)", '(nan,)', '((1, 2),)', '((0, 1),)', '(1e400, 1)', '(1, (2, 3))', "b'a'"),
  *('\0', 'a\nb', '\udcff', '(' * 300, '-' * 9000 + '1', '__import__("os")'),
)
# By type and rule: which of these are legal. The values of texts are words, for the most part.
ABOVE = {'1', '0.5', '1.5'}
FROM_0 = {'0', *ABOVE}
WORDS = {x for x in WRONG if x.strip() and x not in ('\0', 'a\nb', '\udcff')}
LEGAL = {
  ('bool', ''): set(),
  ('float', 'at least 0 and'): FROM_0,
  ('float', 'above 0 and at most 1,000,000,000'): ABOVE,
  ('float', 'above 0 and at most 10,000'): ABOVE,
  ('float', 'above 0 and at most 1'): {'1', '0.5'},
  ('float', 'above 0 and below 1'): {'0.5'},
  ('float', 'from 0 to 1'): {'0', '1', '0.5'},
  ('float', 'from 0 to below 1'): {'0', '0.5'},
  ('int', 'at least 0 and'): {'0', '1'},
  ('int', 'at least 1 and'): {'1'},
  ('int', 'at least 1, or -1'): {'1', '-1'},
  ('int', '1: '): {'1'},
  ('int', 'at least 2'): set(),
  ('int', 'at least 3'): set(),
  ('str', 'one of'): set(),
  ('str', "one of '', "): {''},
  ('str', 'fixed'): set(),
  ('str', 'the name of a task'): {*('x', 'None', '0', '1', '1e400', 'inf', 'nan', '1j', MANY)},
  ('str', 'a text of one line, in UTF-8'): {'', ' ', *WORDS},
  ('str', 'a text of one line, in UTF-8, and not empty'): WORDS,
  ('str', 'a checkpoint'): WORDS,
  ('tuple', 'one or more numbers'): {'1', '[1, 2]', '(1, 2, 3, 4, 5)'},
  ('tuple', '3 numbers'): set(),
  ('tuple', '2 numbers'): {'(0.5, 0.5)'},
  ('tuple', 'ascending'): {'[]', '()', '1', '0.5', '1.5', '[1, 2]', '(1, 2, 3, 4, 5)'},
  ('tuple', 'one number above 0'): {
    *('[]', '()', '1', '0.5', '1.5', '[1, 2]', '(1, 2, 3, 4, 5)', '(0.5, 0.5)'),
  },
  ('tuple', 'pairs'): {'((1, 2),)'},
}


def legal_of(kind: str, words: str) -> set[str]:
  """The legal values of a rule: of the longest of its beginnings in the table."""
  if words.endswith('as --config=FILE:VARIANT says'):
    words = 'fixed'
  begins = [k for k in LEGAL if k[0] == kind and words.startswith(k[1])]
  return LEGAL[max(begins, key=lambda k: len(k[1]))]


def rules(config) -> dict[str, tuple[str, str]]:
  """Type and words of the rule of each field; switches need none."""
  found = {}
  for name, value in configuration.flat(config):
    words = value.rule[0] if isinstance(value, Field) else ''
    found[name] = type(value.get() if isinstance(value, Field) else value).__name__, words
  return found


@pytest.mark.parametrize('file', FILES)
def test_every_field_but_a_switch_has_a_rule(file):
  config = configuration.load(str(ROOT / 'configs' / file))
  assert [n for n, (kind, words) in rules(config).items() if not words and kind != 'bool'] == []


@pytest.mark.parametrize('file', FILES)
def test_every_value_of_every_field_is_legal_or_one_line(file):
  config, began = configuration.load(f'{ROOT / "configs" / file}:test'), time.process_time()
  configuration.check(config)
  for name, (kind, words) in rules(config).items():
    legal = legal_of(kind, words)
    for text in WRONG:
      line = refusal(config, name, text)
      mistaken = line.startswith((f'config.{name} must be ', f'config.{name}: expected '))
      # What is legal may still contradict another field.
      assert mistaken == (text not in legal), (name, text, line)
      assert line == '' or mistaken or 'config.' in line
  assert time.process_time() - began < 5


def refusal(config: ConfigDict, name: str, text: str) -> str:
  """The line that refuses an override, '' if none does; the configuration stays as it was."""
  before = dict(configuration.flat(config))[name]
  before = before.get() if isinstance(before, Field) else before
  try:
    configuration.override(config, name, text)
    configuration.check(config)
  except ConfigurationError as error:
    line = str(error)
    assert '\n' not in line
    assert len(line.encode()) < 500
    return line
  finally:
    config.update_from_flattened_dict({name: before})
  return ''


def test_a_rule_that_were_missing_would_be_noticed(monkeypatch):
  config = configuration.load(f'{ROOT / "configs/pretrain.py"}:test')
  fields = dict(configuration.flat(config))
  monkeypatch.setattr(fields['epochs'], 'rule', (fields['epochs'].rule[0], lambda x: True))
  assert refusal(config, 'epochs', '-1') == ''
  assert '-1' not in legal_of('float', fields['epochs'].rule[0])


# Overrides of pretrain.py:test that are right by themselves, and words of the line.
CONTRADICTIONS = {
  'batch and texts': (['texts_per_image=3'], 'batch_size 16 is not a multiple'),
  'batch and parts': (['micro_batches=3'], '4 images do not divide among 3 micro_batches'),
  'width and heads': (['transformer.heads=3'], 'width 32 is not a multiple of its 3 heads'),
  'length and positions': (['text.length=65'], 'text.length 65 is more than'),
  'sides': (['image.longer=32'], 'image.longer 32 is less than'),
  'stride and stages': (['cnn.total_stride=64'], 'must be one of [8, 16], not 64'),
  'groups and width': (['cnn.groups=32'], 'go together'),
  'pixels and cells': (['sampled_pixels=17'], 'sampled_pixels 17 is more than the 16'),
  'pixels of the smallest canvas': (
    ['sampled_pixels=8', 'image.canvases=((64, 64), (64, 16))'],
    'more than the 4 that a canvas of 64x16 has',
  ),
  'canvas and stride': (['image.canvases=((64, 64), (8, 64))'], '8x64 is smaller than'),
  'stages beyond reason': (['cnn.stages=(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)'], 'features'),
  'all devices twice': (['mesh.fsdp=-1'], 'are both -1'),
}


@pytest.mark.parametrize('name', CONTRADICTIONS)
def test_fields_that_contradict_each_other(name):
  overrides, words = CONTRADICTIONS[name]
  overrides = [*overrides, 'cnn.total_stride=16384'] if 'stages=' in overrides[0] else overrides
  config = configuration.load(f'{ROOT / "configs/pretrain.py"}:test', overrides)
  with pytest.raises(ConfigurationError) as raised:
    configuration.check(config)
  assert words in str(raised.value)
  assert '\n' not in str(raised.value)


def test_the_hardest_of_fewer_captions():
  config = configuration.load(f'{ROOT / "configs/retrieval.py"}:test', ['hardest=4'])
  with pytest.raises(ConfigurationError, match=r'hardest 4 is not less than config\.texts_per_im'):
    configuration.check(config)


def test_a_variant_is_not_a_field_to_set():
  config = configuration.load(f'{ROOT / "configs/pretrain.py"}:test', ['variant=r50'])
  with pytest.raises(ConfigurationError, match=r'as --config=FILE:VARIANT says'):
    configuration.check(config)
