"""A built dataset is what was built: damage, exchanged files and other data are noticed."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from data.build import build, open_sealed
from data.builders import open_dataset
from pixelbert_jax.input import seal
from pixelbert_jax.input.dataset import DatasetError, RecordError
from tests.support.corpora import as_folder, image

FOLDER = 'folder/mine/1.3.0'


def make(root: pathlib.Path, manual: pathlib.Path, word: str = 'red', name: str = 'folder/mine'):
  """Builds a dataset of three images a split, with three captions each."""
  as_folder({f'{i}.jpg': image(i) for i in range(6)}, manual)
  rows = [
    f'{i}.jpg,a {word} dot {i} {k},{("train", "val")[i % 2]}' for i in range(6) for k in 'abc'
  ]
  table = manual.with_suffix('.csv')
  table.write_text('\n'.join(['image,caption,split', *rows]))
  build(name, root, manual, tables={'captions': table})
  return root / name.replace('/', os.sep) / '1.3.0'


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  """The folder of datasets with a small one."""
  root = tmp_path_factory.mktemp('built')
  make(root, root / 'photos')
  return root


@pytest.fixture
def own(built, tmp_path):
  """A copy of it."""
  shutil.copytree(built, tmp_path / 'own')
  return tmp_path / 'own'


def flip(path: pathlib.Path, at: int) -> None:
  content = bytearray(path.read_bytes())
  content[at] ^= 1
  path.write_bytes(content)


def checked(root: pathlib.Path):
  """Opens the dataset as a run does, and waits for its checks."""
  dataset = open_sealed('folder/mine', root)
  with dataset.verified():
    return dataset


@pytest.mark.parametrize('name', ['text.values', 'captions.values', 'label', 'size', 'image_id'])
def test_a_flipped_bit_of_a_sidecar_is_named_and_mended(name, own, capsys):
  path = own / FOLDER / 'sidecar/val' / f'{name}.npy'
  good = path.read_bytes()
  flip(path, -1)
  with pytest.raises(DatasetError) as error:
    checked(own)
  assert str(error.value) == (
    f'{own}/{FOLDER} is damaged (sidecar/val/{name}.npy is not what was built): run `python -m '
    f'data.build folder/mine --data_dir={own}`, which writes it again from the records'
  )
  build('folder/mine', own)
  assert path.read_bytes() == good
  assert 'the sidecars of val are written again from the records' in capsys.readouterr().err
  checked(own)


def test_damage_is_named_before_what_it_leads_to(own):
  flip(own / FOLDER / 'sidecar/train/text.values.npy', -1)
  dataset = open_sealed('folder/mine', own)
  with pytest.raises(DatasetError, match='is damaged') as error, dataset.verified():
    raise IndexError('of damaged arrays')
  assert isinstance(error.value.__cause__, IndexError)


@pytest.mark.parametrize(
  'what', ['sidecar/{}/text.values.npy', 'folder-{}.array_record-00000-of-00001']
)
def test_exchanged_files_of_the_same_shape_are_noticed(what, own):
  one, other = (own / FOLDER / what.format(split) for split in ('train', 'val'))
  assert one.stat().st_size == other.stat().st_size
  content = one.read_bytes()
  one.write_bytes(other.read_bytes())
  other.write_bytes(content)
  with pytest.raises(DatasetError, match=r'is damaged .* is not what was built'):
    checked(own)


def test_the_record_of_another_image_is_refused(own):
  # What the ends of a file of records do not show.
  dataset = checked(own)
  split = dataset['train']
  ids = np.array(split.sidecar.image_id)[[1, 0, 2]]
  sidecar = dataclasses.replace(split.sidecar, image_id=ids)
  other = dataclasses.replace(split, sidecar=sidecar)
  with pytest.raises(DatasetError, match=r'record 0 is of image 0.jpg, not of 2.jpg'):
    other.encoded(0)
  assert split.encoded(0) == image(0)


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json', 'metadata.json'])
@pytest.mark.parametrize('harm', ['meaning', 'cut', 'NUL', 'type'])
def test_damaged_json_is_one_line(file, harm, own):
  path = own / FOLDER / file
  good = path.read_bytes()
  digit = next(i for i, byte in enumerate(good) if chr(byte).isdigit())
  path.write_bytes(
    {
      'meaning': good[:digit] + bytes([good[digit] ^ 1]) + good[digit + 1 :],
      'cut': good[: len(good) // 2],
      'NUL': bytes(len(good)),
      'type': b'[7]',
    }[harm]
  )
  for call in (checked, lambda root: build('folder/mine', root)):
    with pytest.raises(DatasetError) as error:
      call(own)
    assert f'{own}/{FOLDER} is damaged ({file}' in str(error.value)
    assert str(error.value).endswith('delete that folder and build again')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('harm', ['gone', 'damaged'])
def test_a_dataset_without_a_seal_gets_one(harm, own, capsys):
  path = own / FOLDER / seal.FILE
  good = path.read_bytes()
  path.unlink() if harm == 'gone' else flip(path, 200)
  # Nothing tells that this is not what was built, but the records.
  flip(own / FOLDER / 'sidecar/train/label.npy', -1)
  dataset = checked(own)
  assert f'{own}/{FOLDER} has no whole {seal.FILE}: the sidecars of ' in capsys.readouterr().err
  assert path.read_bytes() == good
  assert dataset['train'].sidecar.label.all()


def test_a_dataset_that_cannot_get_a_seal_says_so(own, capsys, monkeypatch):
  (own / FOLDER / seal.FILE).unlink()
  monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root may write anywhere
  dataset = checked(own)
  assert 'damage, and other data, will not be noticed' in capsys.readouterr().err
  assert dataset.identity == {}


def test_identity_is_that_of_the_content(built, tmp_path):
  first = checked(built).identity['folder/mine']
  make(tmp_path / 'again', tmp_path / 'elsewhere')
  assert checked(tmp_path / 'again').identity['folder/mine'] == first
  make(tmp_path / 'other', tmp_path / 'photos', word='blue')
  other = checked(tmp_path / 'other').identity['folder/mine']
  for split in ('train', 'val'):
    assert other[split]['images'] == first[split]['images']
    assert other[split]['texts'] != first[split]['texts']


def test_a_damaged_record_is_named(own):
  (path,) = (own / FOLDER).glob('*-train.array_record*')
  flip(path, path.read_bytes().index(image(2)[-200:]))
  # So small a file is covered whole by the digest of its ends: the record speaks for itself.
  split = open_dataset('folder/mine', own)['train']
  with pytest.raises(RecordError) as error:
    split.encoded(1)
  assert str(error.value).startswith('2.jpg: record 1 cannot be read (')
  assert str(error.value).endswith(f'delete {own}/{FOLDER} and build again')
  assert '\n' not in str(error.value)
  assert [split.encoded(0), split.encoded(2)] == [image(0), image(4)]
  (own / FOLDER / seal.FILE).unlink()
  with pytest.raises(DatasetError, match=r'is damaged .a record of train cannot be read.'):
    build('folder/mine', own)


def test_the_seal_lists_every_file(built):
  folder = built / FOLDER
  content = json.loads((folder / seal.FILE).read_text())['seal']
  files = {p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()}
  assert content['files'].keys() == files - {seal.FILE}
  assert content['images'].keys() == {'train', 'val'}
