"""data.build on a toy dataset: what it promises of any builder."""

import io
import json
import os
import pathlib
import shutil
import threading

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data import build as build_lib
from pixelbert_jax import lock
from pixelbert_jax.input.dataset import DatasetError
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.seal import FILE

COUNTS = {'train': 12, 'val': 3}


class Toy(tfds.core.GeneratorBasedBuilder):
  """A few JPEGs whose widths differ, two captions each."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='plain'), tfds.core.BuilderConfig(name='other'))

  def _info(self):
    features = {
      'image': tfds.features.Image(encoding_format='jpeg'),
      'image_id': tfds.features.Text(),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split, n) for split, n in COUNTS.items()}

  def _generate_examples(self, split, count):
    for i in range(count):
      file = io.BytesIO()
      Image.new('RGB', (8 + i, 8)).save(file, 'JPEG')
      yield i, {'image': io.BytesIO(file.getvalue()), 'image_id': f'{split}-{i}'}

  @staticmethod
  def sidecar_rows(example):
    image_id = example['image_id'].decode()
    with Image.open(io.BytesIO(example['image'])) as image:
      width, height = image.size
    number = int(image_id.split('-')[1])
    captions = [Caption(f'{image_id} caption {k}', 10 * number + k) for k in range(2)]
    return [Row(image_id, height, width, captions)]


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  monkeypatch.setitem(build_lib.BUILDERS, 'toy', Toy)


def error_line(capsys) -> str:
  """The one line on stderr of a failed command, apart from progress bars."""
  lines = capsys.readouterr().err.replace('\r', '\n').splitlines()
  errors = [line for line in lines if line.startswith('error: ')]
  assert len(errors) == 1
  assert 'Traceback' not in '\n'.join(lines)
  assert lines[-1] == errors[0]
  return errors[0]


def folder(tmp_path) -> pathlib.Path:
  return tmp_path / 'toy' / 'plain' / '1.0.0'


def test_builds_records_and_sidecars_in_the_same_order(tmp_path):
  builder = build_lib.build('toy', tmp_path)
  dataset = build_lib.open_dataset('toy', tmp_path)
  assert pathlib.Path(builder.data_dir) == dataset.path == folder(tmp_path)
  assert {name: len(split.source) for name, split in dataset.splits.items()} == COUNTS
  for name, split in dataset.splits.items():
    ids = [record['image_id'] for record in split.source]
    assert list(split.sidecar.image_id) == ids
    assert sorted(ids) == sorted(f'{name}-{i}'.encode() for i in range(COUNTS[name]))
    for i, record in enumerate(split.source):
      assert Image.open(io.BytesIO(record['image'])).size == tuple(split.sidecar.size[i][::-1])
      assert split.sidecar.caption(2 * i + 1) == f'{ids[i].decode()} caption 1'


def test_table(tmp_path, capsys):
  assert build_lib.command(['toy', 'toy/other'], tmp_path) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == f'toy: built in {folder(tmp_path)}'
  assert lines[1].split() == ['split', 'images', 'captions', 'bytes', 'seconds']
  assert lines[2].split()[:3] == ['train', '12', '24']
  assert lines[4].split()[:3] == ['all', '15', '30']
  assert lines[5].startswith('toy/other: built in ')
  assert 'TensorFlow' not in '\n'.join(lines)


def test_a_built_dataset_is_left(tmp_path, capsys):
  build_lib.build('toy', tmp_path)
  files = {p: p.stat().st_mtime_ns for p in folder(tmp_path).rglob('*')}
  assert build_lib.command(['toy'], tmp_path) == 0
  assert f'toy: already built in {folder(tmp_path)}' in capsys.readouterr().out
  assert {p: p.stat().st_mtime_ns for p in folder(tmp_path).rglob('*')} == files


def test_data_dir_comes_from_the_environment(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  build_lib.build('toy')
  assert folder(tmp_path).exists()
  assert build_lib.open_dataset('toy').path == folder(tmp_path)


def test_first_config_is_the_default(tmp_path):
  build_lib.build('toy', tmp_path)
  assert build_lib.open_dataset('toy/plain', tmp_path).path == folder(tmp_path)
  with pytest.raises(DatasetError, match='toy/other is not built'):
    build_lib.open_dataset('toy/other', tmp_path)


@pytest.mark.parametrize('name', ['nonsense', 'toy/nonsense', 'toy/', 'nlvr/easy', ''])
def test_unknown_name(name, tmp_path, capsys):
  assert build_lib.command([name], tmp_path) == 1
  assert f'no dataset {name!r}' in error_line(capsys)


def test_no_name(tmp_path, capsys):
  assert build_lib.command([], tmp_path) == 1
  assert 'name a dataset to build: boxes, coco_karpathy, ' in error_line(capsys)


def test_unprepared_names_the_command(tmp_path):
  with pytest.raises(DatasetError) as error:
    build_lib.open_dataset('toy', tmp_path)
  assert f'`python -m data.build toy --data_dir={tmp_path}`' in str(error.value)
  assert not any(tmp_path.iterdir())


def test_unknown_split(tmp_path, capsys):
  assert build_lib.command(['toy'], tmp_path, splits=['train', 'extra']) == 1
  assert f"toy in {folder(tmp_path)} has no split 'extra', only train, val" in error_line(capsys)
  with pytest.raises(DatasetError, match="no split 'extra'"):
    build_lib.open_dataset('toy', tmp_path)['extra']


@pytest.mark.parametrize('harm', ['folder', 'file', 'truncated', 'empty', 'other'])
def test_a_harmed_sidecar_is_mended_by_building_again(harm, tmp_path):
  build_lib.build('toy', tmp_path)
  sidecar = folder(tmp_path) / 'sidecar'
  good = {p.name: p.read_bytes() for p in (sidecar / 'train').iterdir()}
  if harm == 'folder':
    shutil.rmtree(sidecar / 'train')
  elif harm == 'file':
    (sidecar / 'train' / 'label.npy').unlink()
  elif harm == 'truncated':
    os.truncate(sidecar / 'train' / 'text.values.npy', 300)
  elif harm == 'empty':
    os.truncate(sidecar / 'train' / 'text.values.npy', 0)
  else:  # the sidecar of another split
    shutil.rmtree(sidecar / 'train')
    shutil.copytree(sidecar / 'val', sidecar / 'train')
  with pytest.raises(DatasetError, match=r'python -m data\.build toy'):
    build_lib.open_dataset('toy', tmp_path)
  build_lib.build('toy', tmp_path)
  assert {p.name: p.read_bytes() for p in (sidecar / 'train').iterdir()} == good


@pytest.mark.parametrize('size', [None, 0, 100, 0.5])
def test_lost_records_are_found(size, tmp_path):
  build_lib.build('toy', tmp_path)
  (records,) = folder(tmp_path).glob('toy-train.*')
  if size is None:
    records.unlink()
  else:
    os.truncate(records, size if isinstance(size, int) else int(size * records.stat().st_size))
  for call in (build_lib.open_dataset, build_lib.build):
    with pytest.raises(DatasetError, match=f'{folder(tmp_path)} is damaged .*train'):
      call('toy', tmp_path)


def test_a_count_unlike_the_info_is_found(tmp_path):
  build_lib.build('toy', tmp_path)
  path = folder(tmp_path) / 'dataset_info.json'
  info = json.loads(path.read_text())
  info['splits'][0]['shardLengths'] = ['11']
  path.write_text(json.dumps(info))
  for call in (build_lib.open_dataset, build_lib.build):
    with pytest.raises(DatasetError, match=r'dataset_info\.json is not what was built'):
      call('toy', tmp_path)
  (folder(tmp_path) / FILE).unlink()  # as in datasets of earlier versions
  with pytest.raises(DatasetError, match=r'python -m data\.build toy'):
    build_lib.open_dataset('toy', tmp_path)
  with pytest.raises(DatasetError, match='train has 12 records of 11'):
    build_lib.build('toy', tmp_path)


def test_lost_info_is_found(tmp_path):
  build_lib.build('toy', tmp_path)
  (folder(tmp_path) / 'dataset_info.json').unlink()
  with pytest.raises(DatasetError, match=f'{folder(tmp_path)} is damaged'):
    build_lib.build('toy', tmp_path)


def test_an_interrupted_build_does_not_pass_as_whole(tmp_path, monkeypatch):
  def interrupted(example):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(Toy, 'sidecar_rows', staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
      build_lib.build('toy', tmp_path)
  with pytest.raises(DatasetError, match='is not built'):
    build_lib.open_dataset('toy', tmp_path)
  build_lib.build('toy', tmp_path)
  assert set(build_lib.open_dataset('toy', tmp_path).splits) == set(COUNTS)


def test_what_a_killed_build_left_is_cleared(tmp_path):
  leftover = folder(tmp_path).with_name('incomplete.ABC123_1.0.0')
  leftover.mkdir(parents=True)
  (leftover / 'toy-train.array_record').write_bytes(b'half')
  with pytest.raises(DatasetError, match='is not built'):
    build_lib.open_dataset('toy', tmp_path)
  build_lib.build('toy', tmp_path)
  assert not leftover.exists()
  assert folder(tmp_path).exists()


def test_a_second_build_waits_for_the_first(tmp_path, capsys):
  path = tmp_path / '.toy-plain-1.0.0.lock'
  build_lib.build('toy', tmp_path / 'first')
  built = []
  waiting = threading.Thread(target=lambda: built.append(build_lib.build('toy', tmp_path)))
  with lock.held(path, 'toy', ''):
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert not folder(tmp_path).exists()
    shutil.copytree(folder(tmp_path / 'first'), folder(tmp_path))
    files = {p: p.stat().st_mtime_ns for p in folder(tmp_path).rglob('*')}
  waiting.join(60)
  assert dict(built[0].info.splits).keys() == COUNTS.keys()
  assert {p: p.stat().st_mtime_ns for p in folder(tmp_path).rglob('*')} == files
  assert f'is in use by process {os.getpid()} on' in capsys.readouterr().err
  assert not path.exists()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  assert build_lib.command(['toy'], tmp_path / 'file') == 1
  assert str(tmp_path / 'file') in error_line(capsys)


def test_a_bucket_is_to_be_mounted(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert build_lib.command(['toy'], 'gs://bucket/data') == 1
  assert 'gs://bucket/data is a bucket: mount it' in error_line(capsys)
  assert not any(tmp_path.iterdir())
