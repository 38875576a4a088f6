"""What all commands share: --help, what is said of near misses, and quiet."""

import importlib
import re
import subprocess
import sys

import pytest

from pixelbert_jax import UserError, commandline, configuration
from pixelbert_jax import __main__ as everything
from tests.support.paths import ROOT

COMMANDS = (
  'data.build',
  *(f'pixelbert_jax.{name}' for name in everything.commands()),
  'pixelbert_jax.bad_batch',
)


def help_of(command, capsys):
  module = importlib.import_module(command)
  if not hasattr(module, 'main'):
    module = importlib.import_module(f'{command}.__main__')
  with pytest.raises(SystemExit) as ended:
    module.main(['--help'])
  assert ended.value.code == 0
  return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('command', COMMANDS)
def test_help_has_an_example(command, capsys):
  assert f'\n    python -m {command} ' in help_of(command, capsys)


def test_the_package_lists_its_commands():
  listed = subprocess.run(
    [sys.executable, '-m', 'pixelbert_jax'], capture_output=True, text=True, check=True, cwd=ROOT
  ).stdout
  for name, text in everything.commands().items():
    assert re.search(rf'^python -m pixelbert_jax\.{name} +{re.escape(text)}$', listed, re.M)
  assert {'main', 'predict', 'demo', 'search', 'report'} < everything.commands().keys()


def test_help_lists_configurations_and_where_their_fields_are(capsys):
  shown = help_of('pixelbert_jax.main', capsys)
  for file in (ROOT / 'configs').glob('[a-z]*.py'):
    variants = getattr(importlib.import_module(f'configs.{file.stem}'), 'VARIANTS', None)
    if variants is not None:  # base.py is none.
      assert f'  configs/{file.name}: {", ".join(x for x in variants if x)}\n' in shown
  assert 'configs/base.py describes the fields' in shown


def test_help_of_convert_shows_its_three_uses(capsys):
  shown = help_of('pixelbert_jax.convert', capsys)
  for use in ('--cnn=resnet50.pth', '--checkpoint=C --export=DIR', '--checkpoint=DIR --output=C'):
    assert use in shown


def test_help_goes_before_mistakes(capsys):
  from pixelbert_jax.main import main

  with pytest.raises(SystemExit):
    main(['--batch_size=3', '--help'])
  assert 'configs/pretrain.py' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    ('lr', ['optimizer.cnn_rate', 'optimizer.transformer_rate']),
    ('optimizer.learning_rate', ['optimizer.cnn_rate', 'optimizer.transformer_rate']),
    ('weight_decay', ['optimizer.cnn_decay', 'optimizer.transformer_decay']),
    ('tranformer.width', ['transformer.width']),
    ('vision.width', ['cnn.width', 'transformer.width']),
    ('num_layers', ['transformer.layers']),
    ('bs', ['batch_size']),
    ('dataset', ['data.name']),
    ('nothing_like_it', []),
  ],
)
def test_fields_that_end_alike(name, fields):
  assert configuration.fields_like('configs/pretrain.py:test', name) == fields


def test_no_field_is_meant_where_the_configuration_is_wrong():
  assert configuration.fields_like('configs/pretrian.py', 'lr') == []


def test_a_flag_that_is_a_choice_of_another():
  parser = commandline.Parser('x', 'X.')
  parser.add_argument('--mode', choices=('train', 'evaluate'))
  parser.add_argument('task', choices=('vqa', 'nlvr'))
  with pytest.raises(UserError, match=r'unknown flag --eval: did you mean --mode=evaluate\?'):
    parser.parse_args(['--eval', 'vqa'])


def test_quiet_hides_all_but_results_and_stderr(capsys):
  with commandline.quiet():
    print('progress')
    commandline.result('table')
    print('warning', file=sys.stderr)
  print('after')
  assert capsys.readouterr() == ('table\nafter\n', 'warning\n')
