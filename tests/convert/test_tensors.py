"""Files of tensors: whatever is wrong in one is a line, and nothing in it is run."""

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch

from pixelbert_jax import UserError
from pixelbert_jax.convert.tensors import Source, read_file


def refusal(path) -> str:
  """What reading a file says, in one line that a terminal shows as it is."""
  with pytest.raises(UserError) as error:
    Source('BERT').sort(read_file(path), str, {})
  (line,) = str(error.value).splitlines()
  assert line.isprintable()
  return line


# --- safetensors -------------------------------------------------------------------------


def tensor(dtype='F32', shape=(2,), offsets=(0, 8)):
  return {'dtype': dtype, 'shape': list(shape), 'data_offsets': list(offsets)}


def safetensors_file(path, header, size=8, length=None):
  """Writes a header, as JSON or bytes, with its length and so many zeros behind it."""
  header = header if isinstance(header, bytes) else json.dumps(header).encode()
  length = len(header) if length is None else length
  path.write_bytes(struct.pack('<Q', length) + header + bytes(size))


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
TWICE += b',"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    ({'header': {'a': tensor(), 'b': tensor(offsets=(4, 12))}, 'size': 12}, 'invalid offset'),
    ({'header': {'a': tensor(), 'b': tensor(offsets=(12, 20))}, 'size': 20}, 'invalid offset'),
    ({'header': {'a': tensor()}, 'size': 4}, 'file not fully covered'),
    ({'header': {'a': tensor()}, 'size': 12}, 'file not fully covered'),
    ({'header': {'a': tensor()}, 'length': 1 << 62}, 'header too large'),
    ({'header': {'a': tensor()}, 'length': 200 << 20}, 'header too large'),
    ({'header': {'a': tensor(shape=(1 << 62, 4))}}, 'overflow computing buffer size'),
    ({'header': {'a': tensor(shape=(-2,))}}, 'invalid JSON in header'),
    ({'header': {'a': tensor('X8')}}, 'unknown variant `X8`'),
    ({'header': TWICE}, 'invalid offset'),
    ({'header': b'{"a":' + b'[' * 100_000, 'size': 0}, 'recursion limit exceeded'),
    ({'header': b'[1]'}, 'invalid JSON in header'),
    ({'header': {'a': tensor('F8_E4M3', (8,))}}, "'a' is of type F8_E4M3: save float32"),
    ({'header': {'a': tensor('C64', (1,))}}, 'a is of type complex64, not an array of numbers'),
    ({'header': {'a': tensor('BOOL', (8,))}}, 'a is of type bool, not an array of numbers'),
    ({'header': {'\x1b[1ma\n': tensor()}}, r"'\x1b[1ma\n' is no name of a tensor"),
  ],
)
def test_a_damaged_safetensors_file_is_a_line(content, said, tmp_path):
  safetensors_file(tmp_path / 'x.safetensors', **content)
  assert said in refusal(tmp_path / 'x.safetensors')


@pytest.mark.parametrize('value', [float('nan'), float('-inf'), 1e300])
def test_numbers_that_are_not_finite_in_float32(value, tmp_path):
  path = tmp_path / 'x.safetensors'
  safetensors_file(path, {'a': tensor('F64', (1,))}, size=0)
  path.write_bytes(path.read_bytes() + struct.pack('<d', value))
  assert 'a holds numbers that are not finite' in refusal(path)


# --- PyTorch -----------------------------------------------------------------------------

SAVE_AGAIN = 'save it again: safetensors.torch.save_file(model.state_dict(), '


class RunsCode:
  """Pickled, it creates a folder when it is read by an unpickler that lets it."""

  def __init__(self, folder):
    self.folder = folder

  def __reduce__(self):
    return os.mkdir, (str(self.folder),)


def old_file(path):
  """A file in the form of PyTorch before 0.1.10."""
  with tarfile.open(path, 'w') as archive:
    for name in ('pickle', 'storages', 'tensors', 'sys_info'):
      archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def script(path):
  with warnings.catch_warnings(action='ignore'):  # It is deprecated; old files have it.
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def packed(path):
  """A file of PyTorch that was packed once more, so that a few bytes unpack to many."""
  torch.save({'a': torch.zeros(1 << 20)}, path)
  with zipfile.ZipFile(path) as archive:
    records = {name: archive.read(name) for name in archive.namelist()}
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, content in records.items():
      archive.writestr(name, content)


def ran(path):
  return path.with_name('ran')


@pytest.mark.parametrize(
  ('write', 'said'),
  [
    (lambda p: torch.save({'a': RunsCode(ran(p))}, p), 'may run code (posix.mkdir): not read'),
    (
      lambda p: torch.save({'a': RunsCode(ran(p))}, p, _use_new_zipfile_serialization=False),
      'may run code (posix.mkdir): not read',
    ),
    (
      lambda p: torch.save(torch.nn.Linear(2, 2), p),
      'may run code (torch.nn.modules.linear.Linear',
    ),
    (script, 'of a format that may run code (TorchScript archives): not read'),
    (old_file, 'of a format that may run code (legacy .tar format): not read'),
    (lambda p: p.write_bytes(pickle.dumps({'a': np.ones(3)}, 2)), 'numpy._core.multiarray._recon'),
    (lambda p: p.write_bytes(b'<html>'), 'x.pth cannot be read (Unsupported operand 60): download'),
    (lambda p: p.write_bytes(b''), 'x.pth cannot be read (EOFError): download it again'),
    (packed, 'x.pth cannot be read (it unpacks to 4,19'),
  ],
)
def test_a_file_of_pytorch_that_is_refused_says_how_to_save_it_again(write, said, tmp_path):
  write(tmp_path / 'x.pth')
  line = refusal(tmp_path / 'x.pth')
  assert said in line
  assert SAVE_AGAIN in line
  assert not ran(tmp_path / 'x.pth').exists()


def test_a_tensor_of_more_numbers_than_its_file(tmp_path):
  torch.save({'a': torch.as_strided(torch.ones(1), (1 << 20, 1 << 20), (0, 0))}, tmp_path / 'x.pth')
  assert 'a has 1,099,511,627,776 numbers, but the file fewer' in refusal(tmp_path / 'x.pth')


@pytest.mark.parametrize('value', [[torch.ones(1)], torch.ones(1), 3])
def test_no_dictionary(value, tmp_path):
  torch.save(value, tmp_path / 'x.pth')
  assert 'expected a dictionary of tensors, got' in refusal(tmp_path / 'x.pth')
