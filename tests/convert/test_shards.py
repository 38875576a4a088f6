"""Weights in several files: what an index may name, and that the files agree with it."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pixelbert_jax import UserError
from pixelbert_jax.convert import shards

FILES = ('model-1-of-2.safetensors', 'model-2-of-2.safetensors')
INDEX = 'model.safetensors.index.json'


@pytest.fixture
def folder(tmp_path):
  """Two shards with an index, and beside their folder a file of the same form."""
  folder = tmp_path / 'bert'
  folder.mkdir()
  for name, value in zip('ab', (1, 2), strict=True):
    save_file({name: np.full(3, value, np.float32)}, folder / FILES[value - 1])
  save_file({'b': np.zeros(3, np.float32)}, tmp_path / FILES[1])
  index(folder, a=FILES[0], b=FILES[1])
  return folder


def index(folder, **where):
  (folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': where}))


def refusal(folder) -> str:
  with pytest.raises(UserError) as error:
    shards.read(folder, 'BERT')
  (line,) = str(error.value).splitlines()
  assert line.isprintable()
  return line


def test_all_shards_are_read(folder):
  tensors, names = shards.read(folder, 'BERT')
  assert {name: x.tolist() for name, x in tensors.items()} == {'a': [1] * 3, 'b': [2] * 3}
  assert names == [INDEX, *FILES]


@pytest.mark.parametrize(
  'name',
  [
    f'../{FILES[1]}',
    f'./{FILES[1]}',
    f'..\\{FILES[1]}',
    f'C:{FILES[1]}',
    f'{FILES[1]}:stream.safetensors',
    f'{FILES[1]}\0.safetensors',
    f'\x1b[1m{FILES[1]}',
    '{folder}/../' + FILES[1],
    '',
    '..',
    'pytorch_model.bin',
    3,
    None,
    [FILES[1]],
  ],
)
def test_a_name_that_leaves_the_folder_is_refused(name, folder):
  name = name.replace('{folder}', str(folder)) if isinstance(name, str) else name
  index(folder, a=FILES[0], b=name)
  assert f'{INDEX} names {name!r}, not a .safetensors file in its folder' in refusal(folder)


def test_a_link_that_leaves_the_folder_is_refused(folder):
  (folder / FILES[1]).unlink()
  (folder / FILES[1]).symlink_to(folder.parent / FILES[1])
  assert f'{INDEX} names {FILES[1]}, a link out of its folder' in refusal(folder)


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    ('<html>', f'{INDEX} line 1 column 1 is not JSON'),
    ('[]', f'{INDEX} names no files'),
    ('{"weight_map": {}}', f'{INDEX} names no files'),
    ('{"weight_map": ["a"]}', f'{INDEX} names no files'),
  ],
)
def test_an_index_that_is_none(content, said, folder):
  (folder / INDEX).write_text(content)
  assert said in refusal(folder)


def test_shards_that_are_not_those_of_the_index(folder):
  save_file({'a': np.zeros(3, np.float32)} | load_file(folder / FILES[1]), folder / FILES[1])
  assert f'{FILES[1]} has tensors of another shard: a' in refusal(folder)
  save_file({'c': np.zeros(3, np.float32)}, folder / FILES[1])
  assert f'{INDEX} names tensors that no shard has: b' in refusal(folder)
  (folder / FILES[1]).unlink()
  assert f'{INDEX} names {FILES[1]}, which is not there: download all' in refusal(folder)
