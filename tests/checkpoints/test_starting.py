"""A run starts from a checkpoint by name: what fits is taken, what does not is said."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelbert_jax import UserError, sharding
from pixelbert_jax.checkpoints.checkpoint import CheckpointError, write_model
from pixelbert_jax.checkpoints.starting import starting_point, take

CONFIG = {
  'data': {'test': 'test'},
  'image': {'mean': [0.5, 0.5, 0.5], 'deviation': [0.2, 0.2, 0.2]},
  'cnn': {'stages': [1, 1], 'width': 8, 'groups': 1, 'group_width': 0, 'stem': '7x7'},
  'transformer': {'layers': 2, 'width': 32, 'heads': 2, 'mlp_width': 64, 'max_positions': 64},
}


def make_variables(seed, width=32, heads=('itm',), dtype=np.float32):
  """A tree like a model's, with these heads."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
  params = {'backbone': {'text': draw(5, width), 'cnn': {'kernel': draw(3, 3, 4, 8)}}}
  params |= {head: {'kernel': draw(width, 2), 'bias': draw(2)} for head in heads}
  return {'params': params, 'batch_stats': {'backbone': {'mean': draw(8)}}}


@pytest.fixture
def start(tmp_path):
  """Starts a model with fresh variables from a checkpoint of others."""
  (tmp_path / 'words.txt').write_text('[PAD]\ncat\ndog\n')
  mesh = sharding.make_mesh()

  def run(there, here, log=(), **fields):
    config = json.loads(json.dumps(CONFIG)) | {'text': {'vocabulary': str(tmp_path / 'words.txt')}}
    write_model(tmp_path / 'C', config, there, {'vocab.txt': b'[PAD]\ncat\ndog\n'})
    if log:
      (tmp_path / 'C/metrics.jsonl').write_text(''.join(f'{json.dumps(x)}\n' for x in log))
    for name, value in fields.items():
      *groups, field = name.split('__')
      functools.reduce(dict.__getitem__, groups, config)[field] = value
    here = jax.device_put(here, sharding.state_sharding(mesh, here))
    return take(starting_point(str(tmp_path / 'C'), tmp_path / 'run', mesh), config, here)

  run.folder = tmp_path / 'C'
  return run


def assert_equal(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_of_a_run_that_goes_on_it_is_said(start, capsys):
  variables, lines = make_variables(1), [{'step': 5, 'split': x} for x in ('train', 'test')]
  said = 'that run has not ended: its model is that of step 0'
  for number in (1, 2):
    shutil.rmtree(start.folder, ignore_errors=True)
    start(variables, variables, log=lines[:number])
    assert (said in capsys.readouterr().out) is (number == 1)


def test_all_is_taken_where_all_fits(start, capsys):
  there, here = make_variables(1), make_variables(2)
  found = start(there, here, cnn__batch_norm='frozen')  # which may differ
  assert_equal(found, there)
  assert capsys.readouterr().out == (
    f'starting from {start.folder}, step 0: 5 of 5 arrays of parameters and statistics\n'
  )


def test_another_head_stays_random_and_is_named(start, capsys):
  there, here = make_variables(1, heads=('itm', 'mlm')), make_variables(2, heads=('itm', 'vqa'))
  found = start(there, here)
  expected = there['params'] | {'vqa': here['params']['vqa']}
  del expected['mlm']
  assert_equal(found, {'params': expected, 'batch_stats': there['batch_stats']})
  out = capsys.readouterr().out
  assert '5 of 7 arrays' in out
  assert '  at random: params/vqa/bias, params/vqa/kernel\n' in out
  assert '  not taken: params/mlm/bias, params/mlm/kernel\n' in out


def test_arrays_lie_and_have_the_type_that_the_state_has(start):
  there, here = make_variables(1, dtype=jnp.bfloat16), make_variables(2)
  found = start(there, here)
  for x in jax.tree.leaves(found):
    assert x.dtype == np.float32
    assert isinstance(x.sharding, jax.NamedSharding)
  np.testing.assert_array_equal(
    found['params']['itm']['bias'], there['params']['itm']['bias'].astype(np.float32)
  )


def test_another_width_names_the_field_and_the_shapes(start):
  with pytest.raises(CheckpointError) as caught:
    start(make_variables(1, width=32), make_variables(2, width=48), transformer__width=48)
  message = str(caught.value)
  assert message.startswith(f'init_from: {start.folder} is of another model: ')
  assert 'transformer.width is 32 there and 48 here' in message
  assert 'params/backbone/text is [5, 32] there and [5, 48] here' in message
  assert '\n' not in message


@pytest.mark.parametrize(
  ('field', 'value', 'part'),
  [
    ('transformer__heads', 4, 'transformer.heads is 2 there and 4 here'),
    ('cnn__stages', (1, 2), 'cnn.stages is [1, 1] there and [1, 2] here'),
    ('pixel_position', 'sine2d', "pixel_position is 'none' there and 'sine2d' here"),
    ('image__mean', (0, 0, 0), 'image.mean is [0.5, 0.5, 0.5] there and [0, 0, 0] here'),
  ],
)
def test_arrays_that_fit_but_would_mean_something_else_are_refused(start, field, value, part):
  with pytest.raises(CheckpointError) as caught:
    start(make_variables(1), make_variables(2), **{field: value})
  assert part in str(caught.value)


def test_another_vocabulary_is_refused(start, tmp_path):
  (tmp_path / 'other.txt').write_text('[PAD]\nbird\ncat\nfish\n')
  with pytest.raises(CheckpointError) as caught:
    start(make_variables(1), make_variables(2), text__vocabulary=str(tmp_path / 'other.txt'))
  assert "3 lines differ, the first is line 2: 'cat' there and 'bird' here" in str(caught.value)
  assert str(tmp_path / 'other.txt') in str(caught.value)


def test_where_to_start_from_must_be_said(tmp_path):
  mesh = sharding.make_mesh()
  with pytest.raises(UserError, match=r'pixelbert_jax\.convert .* --config\.init_from=scratch'):
    starting_point('', tmp_path, mesh)
  assert starting_point('scratch', tmp_path, mesh) is None
  with pytest.raises(UserError, match=f'init_from: {tmp_path}/nowhere: no such folder'):
    starting_point(f'{tmp_path}/nowhere', tmp_path / 'run', mesh)
  # A run that goes on needs what it started from no more.
  (tmp_path / 'run/checkpoints/5').mkdir(parents=True)
  assert starting_point(f'{tmp_path}/nowhere', tmp_path / 'run', mesh) is None
