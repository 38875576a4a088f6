"""The type of numbers: float32 on GPUs without units for bfloat16, and what a run began in."""

import json

import pytest

from configs import pretrain
from pixelbert_jax import number_type
from pixelbert_jax.number_type import chosen, suited


@pytest.mark.parametrize(
  ('dtype', 'platform', 'capability', 'expected'),
  [
    ('bfloat16', 'gpu', '7.0', 'float32'),  # V100
    ('bfloat16', 'gpu', '7.5', 'float32'),  # T4
    ('bfloat16', 'gpu', '8.0', 'bfloat16'),  # A100
    ('bfloat16', 'gpu', '10.0', 'bfloat16'),  # B200
    ('bfloat16', 'gpu', 'gfx942', 'bfloat16'),  # of AMD
    ('bfloat16', 'gpu', '', 'bfloat16'),
    ('bfloat16', 'tpu', '', 'bfloat16'),
    ('bfloat16', 'cpu', '', 'bfloat16'),
    ('float32', 'gpu', '9.0', 'float32'),
  ],
)
def test_what_suits_a_device(dtype, platform, capability, expected):
  assert suited(dtype, platform, capability) == expected


class T4:
  """What JAX tells of a T4."""

  device_kind, platform, compute_capability = 'Tesla T4', 'gpu', '7.5'


@pytest.fixture
def _on_t4(monkeypatch):
  monkeypatch.setattr(number_type.jax, 'devices', lambda: [T4])


@pytest.mark.usefixtures('_on_t4')
def test_a_new_run_takes_what_suits_the_device_and_says_so(tmp_path, capsys):
  assert chosen(pretrain.get_config('r50'), tmp_path) == 'float32'
  assert capsys.readouterr().err == (
    'computing in float32, since Tesla T4 has no units for bfloat16; --config.dtype sets it\n'
  )
  assert chosen(pretrain.get_config('test'), tmp_path) == 'float32'
  assert capsys.readouterr().err == ''


@pytest.mark.usefixtures('_on_t4')
@pytest.mark.parametrize('began', ['float32', 'bfloat16'])
def test_a_run_goes_on_as_it_began(began, tmp_path, capsys):
  (tmp_path / 'config.json').write_text(json.dumps({'dtype': began}))
  assert chosen(pretrain.get_config('r50'), tmp_path) == began
  assert ('computing in float32, as' in capsys.readouterr().err) == (began == 'float32')
