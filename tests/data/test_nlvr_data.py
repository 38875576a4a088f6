"""The NLVR builder, on a miniature of the corpus and on the real archives."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from data import build as build_lib
from data.nlvr import nlvr_dataset_builder
from pixelbert_jax.input.dataset import Split
from tests.support import corpora
from tests.support.corpora import as_folder, as_zip
from tests.support.paths import ROOT, shared


def failure(capsys, *args, **kwargs) -> str:
  """Runs a command that must fail, with one line and no traceback, and returns the line."""
  assert build_lib.command(['nlvr'], *args, **kwargs) == 1
  lines = capsys.readouterr().err.replace('\r', '\n').splitlines()
  assert lines[-1].startswith('error: ')
  assert sum(line.startswith(('error', 'Traceback')) for line in lines) == 1
  return lines[-1]


@pytest.fixture
def manual(tmp_path):
  path = tmp_path / 'manual'
  path.mkdir()
  return path


@pytest.mark.parametrize('layout', ['folder', 'folder below', 'zip', 'zip below', 'mixed'])
def test_miniature_reads_back(layout, tmp_path, manual):
  dev, test = corpora.nlvr('dev', 5), corpora.nlvr('test', 3)
  if layout == 'folder':
    as_folder(dev | test, manual)
  elif layout == 'folder below':
    as_folder(dev | test, manual / 'nlvr-master')
  elif layout == 'zip':
    as_zip(dev | test, manual / 'any.zip')
  elif layout == 'zip below':
    as_zip(dev, manual / 'a.zip', 'nlvr-master/')
    as_zip(test, manual / 'b.zip', 'nlvr-master/')
  else:
    as_folder(dev, manual)
    as_zip(test, manual / 'nlvr_test.zip')
    as_zip({'train2014/x.jpg': b'x'}, manual / 'another.zip')
  build_lib.build('nlvr', tmp_path / 'd', manual)
  dataset = build_lib.open_dataset('nlvr', tmp_path / 'd')
  assert {name: len(s.source) for name, s in dataset.splits.items()} == {'dev': 30, 'test': 18}
  for name, files in (('dev', dev), ('test', test)):
    assert_same(dataset[name], files, name)


def assert_same(split: Split, files: dict[str, bytes], name: str) -> None:
  """Every image of the files is in the split once, with its bytes and its example's fields."""
  lines = map(json.loads, files[f'nlvr/{name}/{name}.json'].splitlines())
  examples = {example['identifier']: example for example in lines}
  seen = set()
  for i, record in enumerate(split.source):
    image_id = record['image_id'].decode()
    example = examples[record['identifier'].decode()]
    assert image_id.startswith(f'{name}-{example["identifier"]}-')
    assert record['captions']['subset'][0].decode() == example['directory']
    path = f'nlvr/{name}/images/{example["directory"]}/{image_id}.png'
    assert record['image'] == files[path]
    assert split.sidecar.image_id[i] == image_id.encode()
    assert split.sidecar.caption(i) == example['sentence']
    assert split.sidecar.label[i] == (example['label'] == 'true')
    assert split.sidecar.captions[i].tolist() == [nlvr_dataset_builder.caption_id(image_id)]
    assert split.sidecar.size[i].tolist() == [10, 40]
    seen.add(path)
  assert seen == {path for path in files if path.endswith('.png')}


def test_order_is_that_of_the_file(tmp_path, manual):
  files = corpora.nlvr('dev', 5)
  as_folder(files, manual)
  build_lib.build('nlvr', tmp_path / 'd', manual)
  identifiers = [json.loads(line)['identifier'] for line in files['nlvr/dev/dev.json'].splitlines()]
  ids = [f'dev-{identifier}-{k}'.encode() for identifier in identifiers for k in range(6)]
  assert build_lib.open_dataset('nlvr', tmp_path / 'd')['dev'].sidecar.image_id.tolist() == ids


def undirected(files: dict[str, bytes], split: str) -> dict[str, bytes]:
  """The files of a split without the names of the folders of its images."""
  name = f'nlvr/{split}/{split}.json'
  lines = [json.loads(line) for line in files[name].splitlines()]
  kept = [{k: x for k, x in line.items() if k != 'directory'} for line in lines]
  return files | {name: b'\n'.join(map(corpora.as_json, kept))}


@pytest.mark.parametrize(
  ('split', 'names'),
  [
    ('hidden', {}),
    ('hidden', {'nlvr/hidden/hidden.json': 'nlvr/hidden/hidden_final.json'}),
    # The first release had no folder `nlvr`, and named no directories.
    ('dev', {'nlvr/': ''}),
  ],
)
@pytest.mark.parametrize('layout', ['folder', 'zip below'])
def test_a_split_that_does_not_say_where_its_images_are(split, names, layout, tmp_path, manual):
  whole = corpora.nlvr(split, 9)
  files = undirected(whole, split)
  for old, new in names.items():
    files = {path.replace(old, new, 1): content for path, content in files.items()}
  corpora.LAYOUTS[layout](files, manual)
  build_lib.build('nlvr', tmp_path / 'd', manual)
  found = build_lib.open_dataset('nlvr', tmp_path / 'd')[split]
  paths = [path for path in whole if path.endswith('.png')]
  assert [f'{i.decode()}.png' for i in found.sidecar.image_id] == [
    pathlib.PurePath(path).name for path in paths
  ]
  for record, path in zip(found.source, paths, strict=True):
    assert record['image'] == whole[path]
    assert record['captions']['subset'][0].decode() == pathlib.PurePath(path).parent.name


def test_images_in_two_folders_if_none_is_named(tmp_path, manual, capsys):
  files = undirected(corpora.nlvr('hidden', 5), 'hidden')
  files['nlvr/hidden/images/1/hidden-100-1-4.png'] = files[
    'nlvr/hidden/images/0/hidden-100-1-4.png'
  ]
  as_folder(files, manual)
  line = failure(capsys, tmp_path / 'd', manual)
  assert 'hidden.json line 2 has no "directory"' in line
  assert 'in nlvr/hidden/images/0 and nlvr/hidden/images/1' in line


def test_caption_ids_are_distinct():
  assert nlvr_dataset_builder.caption_id('dev-1572-0-3') == 201572003
  ids = {
    nlvr_dataset_builder.caption_id(f'{split}-{sentence}-{image}-{k}')
    for split in ('train', 'dev', 'test', 'hidden')
    for sentence in (0, 1, 10, 99999)
    for image in (0, 1, 10, 99)
    for k in range(6)
  }
  assert len(ids) == 4 * 4 * 4 * 6


def test_only_the_wanted_splits(tmp_path, manual, capsys):
  as_folder(corpora.nlvr('dev', 2) | corpora.nlvr('test', 2), manual)
  build_lib.build('nlvr', tmp_path / 'd', manual, ['dev'])
  assert list(build_lib.open_dataset('nlvr', tmp_path / 'd').splits) == ['dev']
  line = failure(capsys, tmp_path / 'd', manual, ['dev', 'test'])
  assert f"{tmp_path / 'd' / 'nlvr' / '1.3.0'} has no split 'test', only dev" in line
  assert 'delete that folder' in line


def test_missing_archive(tmp_path, manual, capsys):
  for path in (tmp_path / 'absent', manual):
    line = failure(capsys, tmp_path / 'd', path)
    assert f'{path} (--manual_dir) is missing or empty' in line
    assert 'nlvr/dev/dev.json' in line
    assert 'https://github.com/lil-lab/nlvr' in line
  (manual / 'readme.txt').write_text('')
  line = failure(capsys, tmp_path / 'd', manual)
  assert 'nlvr/dev/dev.json, nlvr/test/test.json' in line
  assert f'not found in {manual}' in line
  assert 'https://github.com/lil-lab/nlvr' in line
  as_folder(corpora.nlvr('dev', 2), manual)
  line = failure(capsys, tmp_path / 'd', manual, ['dev', 'train'])
  assert f'error: nlvr/train/train.json not found in {manual}' in line
  line = failure(capsys, tmp_path / 'd', manual, ['val'])
  assert "nlvr has no split 'val'" in line
  assert not (tmp_path / 'd' / 'nlvr' / '1.3.0').exists()


def test_truncated_zip(tmp_path, manual, capsys):
  as_zip(corpora.nlvr('dev', 2), manual / 'nlvr_dev.zip')
  as_zip(corpora.nlvr('test', 2), manual / 'nlvr_test.zip')
  os.truncate(manual / 'nlvr_dev.zip', 5000)
  line = failure(capsys, tmp_path / 'd', manual)
  assert f'{manual / "nlvr_dev.zip"} cannot be opened' in line
  # What does not need it can be built.
  build_lib.build('nlvr', tmp_path / 'd', manual, ['test'])


def harmed(files: dict[str, bytes], kind: str) -> str:
  """Harms the fourth image of the files in place; returns its image id."""
  path = sorted(path for path in files if path.endswith('.png'))[3]
  if kind == 'missing':
    del files[path]
  elif kind == 'truncated':
    files[path] = files[path][:-200]
  elif kind == 'flipped':
    content = bytearray(files[path])
    content[len(content) // 2] ^= 1
    files[path] = bytes(content)
  else:
    files[path] = b'no image'
  return pathlib.PurePath(path).stem


@pytest.mark.parametrize('kind', ['missing', 'truncated', 'flipped', 'other'])
def test_few_unreadable_images_are_named(kind, tmp_path, manual, capsys):
  files = corpora.nlvr('dev', 34)
  image_id = harmed(files, kind)
  as_zip(files, manual / 'nlvr_dev.zip')
  assert build_lib.command(['nlvr'], tmp_path / 'd', manual) == 0
  out = capsys.readouterr().out
  assert '  dev: 1 of 204 images' in out
  assert image_id in out
  assert '  warning: dev has 204 images in its files, 5,934 were published' in out
  split = build_lib.open_dataset('nlvr', tmp_path / 'd')['dev']
  assert len(split.source) == len(split.sidecar.image_id) == 203
  assert image_id.encode() not in split.sidecar.image_id


def test_many_unreadable_images_are_an_error(tmp_path, manual, capsys):
  files = corpora.nlvr('dev', 33)
  image_id = harmed(files, 'truncated')
  as_folder(files, manual)
  line = failure(capsys, tmp_path / 'd', manual)
  assert '1 of 198 images in ' in line
  assert '--allow_bad=0.0051' in line
  assert image_id in line
  assert not (tmp_path / 'd' / 'nlvr' / '1.3.0').exists()


def test_a_zip_with_a_harmed_json(tmp_path, manual, capsys):
  files = corpora.nlvr('dev', 2)
  as_zip(files, manual / 'nlvr_dev.zip')
  content = (manual / 'nlvr_dev.zip').read_bytes()
  (manual / 'nlvr_dev.zip').write_bytes(content.replace(b'sentence', b'sentents', 1))
  line = failure(capsys, tmp_path / 'd', manual)
  assert 'nlvr_dev.zip/nlvr/dev/dev.json cannot be read' in line


@pytest.mark.parametrize(
  'harm',
  [
    (b'"label": "true"', b'"label": "maybe"'),
    (b'"sentence"', b'"text"'),
    (b'"100-1"', b'"100"'),
    (b'"100-1"', b'"100-0"'),
    (b'}\n', b'\n'),
    (b'{"sentence"', b'\xff{"sentence"'),
  ],
)
def test_a_line_that_is_no_example(harm, tmp_path, manual, capsys):
  files = corpora.nlvr('dev', 2)
  files['nlvr/dev/dev.json'] = files['nlvr/dev/dev.json'].replace(*harm)
  as_folder(files, manual)
  line = failure(capsys, tmp_path / 'd', manual)
  assert f'{manual}/nlvr/dev/dev.json line ' in line


def run(*args: str) -> subprocess.Popen:
  command = [sys.executable, '-W', 'error', '-m', 'data.build', *args]
  return subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def test_two_commands_at_once(tmp_path, manual):
  as_zip(corpora.nlvr('dev', 5), manual / 'nlvr_dev.zip')
  args = ('nlvr', f'--data_dir={tmp_path / "d"}', f'--manual_dir={manual}', '--splits=dev')
  for process in [run(*args), run(*args)]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert 'built in' in out
    assert 'TensorFlow' not in out + err
    assert 'deprecated' not in out + err
  assert [p.name for p in (tmp_path / 'd' / 'nlvr').iterdir()] == ['1.3.0']
  assert len(build_lib.open_dataset('nlvr', tmp_path / 'd')['dev'].source) == 30


def test_command_fails_with_one_line(tmp_path):
  process = run('nlvr', f'--data_dir={tmp_path}')
  out, err = process.communicate(timeout=60)
  assert process.returncode == 1
  assert out == ''
  *needs, error = err.splitlines()
  assert error.startswith('error: nlvr: ')
  # Before it, each file that is missing, where it comes from and how large it is.
  assert needs[0].startswith(f'nlvr: not in {tmp_path}')
  assert len(needs) == 1 + 4
  assert '  nlvr/train/train.json, for train: https://github.com/lil-lab/nlvr (200 MB)' in needs


@pytest.mark.slow
def test_real_archives(tmp_path):
  archives = {split: shared(f'nlvr_{split}.zip') for split in ('dev', 'test')}
  build_lib.build('nlvr', tmp_path, archives['dev'].parent, list(archives))
  dataset = build_lib.open_dataset('nlvr', tmp_path)
  true = {'dev': 6 * 547, 'test': 6 * 556}
  for name, count in (('dev', 5934), ('test', 5940)):
    split = dataset[name]
    assert len(split.source) == len(split.sidecar.text) == count
    assert split.sidecar.label.sum() == true[name]
    assert (split.sidecar.size == (100, 400)).all()
    assert len(np.unique(split.sidecar.captions.values)) == count
  with zipfile.ZipFile(archives['dev']) as archive:
    for i in range(0, 5934, 600):
      record = dataset['dev'].source[i]
      image_id, directory = record['image_id'].decode(), record['captions']['subset'][0].decode()
      path = f'nlvr/dev/images/{directory}/{image_id}.png'
      assert record['image'] == archive.read(path)
      assert dataset['dev'].sidecar.image_id[i].decode() == image_id
