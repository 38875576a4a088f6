"""A workdir belongs to one configuration and one vocabulary."""

import json

import pytest

from pixelbert_jax.checkpoints.checkpoint import CheckpointError
from pixelbert_jax.checkpoints.workdir import claim_workdir, read_files

CONFIG = {
  'seed': 0,
  'epochs': 2.0,
  'log_every': 1,
  'eval_every': 2,
  'save_every': 3,
  'keep': 2,
  'threads': 2,
  'betas': (0.9, 0.999),
  'data': {'name': 'scenes', 'data_dir': ''},
  'cnn': {'width': 8},
}


@pytest.fixture
def claim(tmp_path):
  """Claims one workdir with a configuration like CONFIG but for some fields."""
  words = tmp_path / 'words.txt'
  words.write_text('[PAD]\ncat\n')

  def run(**changes):
    config = json.loads(json.dumps(CONFIG)) | {'betas': CONFIG['betas']}
    for name, value in changes.items():
      group, _, field = name.rpartition('__')
      (config[group] if group else config)[field] = value
    claim_workdir(tmp_path / 'run', config, {'vocab.txt': words.read_bytes()})

  run.path = tmp_path / 'run'
  return run


def test_a_workdir_holds_configuration_and_vocabulary(claim):
  claim()
  assert json.loads((claim.path / 'config.json').read_text()) == json.loads(json.dumps(CONFIG))
  assert (claim.path / 'vocab.txt').read_text() == '[PAD]\ncat\n'
  claim()  # The same again is welcome.


def test_another_configuration_is_refused_and_what_differs_is_named(claim):
  claim()
  before = {path.name: path.read_bytes() for path in claim.path.iterdir()}
  with pytest.raises(CheckpointError) as caught:
    claim(seed=1, cnn__width=16, cnn__groups=2, betas=(0.9, 0.99), epochs=3.0)
  message = str(caught.value)
  assert '\n' not in message
  for part in (
    str(claim.path),
    'seed is 0 there and 1 here',
    'cnn.width is 8 there and 16 here',
    "cnn.groups is 'absent' there and 2 here",
    'betas is [0.9, 0.999] there and [0.9, 0.99] here',
  ):
    assert part in message
  assert 'epochs' not in message
  assert {path.name: path.read_bytes() for path in claim.path.iterdir()} == before


@pytest.mark.parametrize(
  'name',
  ['data.data_dir', 'epochs', 'log_every', 'eval_every', 'save_every', 'keep', 'threads'],
)
def test_what_may_change_may_change_and_is_noted(claim, name):
  claim()
  claim(**{name.replace('.', '__'): 99})
  config = json.loads((claim.path / 'config.json').read_text())
  group, _, field = name.rpartition('.')
  assert (config[group] if group else config)[field] == 99


def test_another_vocabulary_is_refused_and_the_first_entry_named(claim, tmp_path):
  claim()
  (tmp_path / 'words.txt').write_text('[PAD]\ndog\nbird\n')
  with pytest.raises(CheckpointError) as caught:
    claim()
  assert "2 lines differ, the first is line 2: 'cat' there and 'dog' here" in str(caught.value)
  assert 'another vocab.txt' in str(caught.value)
  assert (claim.path / 'vocab.txt').read_text() == '[PAD]\ncat\n'
  (tmp_path / 'words.txt').write_text('[PAD]\ncat')  # The last newline is no entry.
  claim()


@pytest.mark.parametrize('damage', [b'{"seed": 0', b'[]', b'{"seed": \xff}'])
def test_a_damaged_configuration_is_one_line_and_can_be_written_anew(claim, damage):
  claim()
  path = claim.path / 'config.json'
  path.write_bytes(damage)
  with pytest.raises(CheckpointError, match=rf'{path} is damaged.*: delete it') as caught:
    claim()
  assert '\n' not in str(caught.value)
  path.unlink()
  claim()
  assert json.loads(path.read_text()) == json.loads(json.dumps(CONFIG))


@pytest.mark.parametrize('name', ['answers.json', 'trained_on.json'])
def test_a_damaged_file_of_the_run_is_one_line(claim, name):
  claim()
  assert read_files(claim.path).keys() == {'vocab.txt'}
  (claim.path / name).write_bytes(b'["scenes"')
  with pytest.raises(CheckpointError, match=rf'{claim.path}/{name} is damaged') as caught:
    read_files(claim.path)
  assert '\n' not in str(caught.value)
  (claim.path / name).write_bytes(b'["scenes"]')
  assert read_files(claim.path)[name] == b'["scenes"]'
