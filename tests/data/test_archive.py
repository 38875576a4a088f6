"""Raw files in folders, zips and tars: found alike, and nothing beyond them."""

import io
import json
import os
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import archive as archive_lib
from data.archive import Archive, SourceError
from tests.support.corpora import as_folder, as_zip

FILES = {'a.json': b'{"x": 1}', 'images/train/1.jpg': b'one', 'images/2.jpg': b'two'}


@pytest.mark.parametrize('below', ['', 'corpus-master/'])
@pytest.mark.parametrize('packed', [False, True])
def test_files_are_found_wherever_they_lie(packed, below, tmp_path):
  if packed:
    as_zip({f'__MACOSX/{n}': b'shadow' for n in FILES} | FILES, tmp_path / 'a.zip', below)
  else:
    as_folder({f'__MACOSX/{n}': b'shadow' for n in FILES}, tmp_path)
    as_folder(FILES, tmp_path / below)
  archive = Archive(tmp_path)
  for path, content in FILES.items():
    assert archive.read(path) == content
    where = f'{tmp_path}/a.zip/{below}{path}' if packed else f'{tmp_path}/{below}{path}'
    assert archive.find(path) == where
  assert archive.find('images/train')
  for path in ('b.json', 'images/1.jpg', 'images/3', 'mages/2.jpg', 'images/train/1.jp'):
    assert archive.find(path) is None
    with pytest.raises(FileNotFoundError):
      archive.read(path)


def test_folders_win_over_zips_and_each_holds_its_part(tmp_path):
  as_zip({'images/1.jpg': b'old', 'images/2.jpg': b'two'}, tmp_path / 'a.zip')
  as_folder({'images/1.jpg': b'new'}, tmp_path)
  archive = Archive(tmp_path)
  assert archive.read('images/1.jpg') == b'new'
  assert archive.read('images/2.jpg') == b'two'


def test_nothing_is_there_without_a_folder(tmp_path):
  assert Archive(tmp_path / 'absent').find('a.json') is None


@pytest.mark.parametrize(
  'path', ['../a.jpg', 'x/../../a.jpg', '/etc/a.jpg', '..\\a.jpg', 'C:\\a.jpg', 'x/..']
)
def test_a_path_that_leaves_the_folder(path, tmp_path):
  with pytest.raises(SourceError, match='leaves'):
    Archive(as_folder(FILES, tmp_path / 'm')).read(path)
  with zipfile.ZipFile(tmp_path / 'm' / 'evil.zip', 'w') as file:
    file.writestr(path, b'x')
  with pytest.raises(SourceError, match=r'evil\.zip holds .* leaves its folder'):
    Archive(tmp_path / 'm')


@pytest.mark.parametrize('path', ['a..b/c', '...', 'x/..y', 'ü/a b.jpg'])
def test_an_odd_path_that_stays(path):
  assert archive_lib.is_inside(path)


def test_a_truncated_zip_is_broken_and_the_rest_is_used(tmp_path):
  as_zip({'x/1.jpg': b'1' * 1000}, tmp_path / 'a.zip')
  as_zip({'y/2.jpg': b'2'}, tmp_path / 'b.zip')
  os.truncate(tmp_path / 'a.zip', 700)
  archive = Archive(tmp_path)
  assert [b.startswith(f'{tmp_path / "a.zip"} cannot be opened') for b in archive.broken] == [True]
  assert archive.read('y/2.jpg') == b'2'


def test_a_harmed_json_in_a_zip(tmp_path):
  as_zip({'a.json': b'{"sentence": 1}'}, tmp_path / 'a.zip')
  content = (tmp_path / 'a.zip').read_bytes().replace(b'sentence', b'sentents', 1)
  (tmp_path / 'a.zip').write_bytes(content)
  for read in (Archive.json, lambda *args: list(Archive.json_items(*args))):
    with pytest.raises(SourceError, match=r'a\.zip/a\.json cannot be read .*CRC'):
      read(Archive(tmp_path), 'a.json')


values = st.recursive(
  st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | st.text(),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
  ),
  max_leaves=8,
)

objects = st.dictionaries(st.text(max_size=3), values, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(objects, max_size=6), values, st.integers(1, 30), st.sampled_from([None, 1]))
def test_items_of_a_list_are_those_of_json(items, other, chunk, indent):
  text = json.dumps(items, indent=indent)
  assert list(archive_lib._items(io.StringIO(text), None, chunk)) == items
  # Neither what stands before nor strings that look like the key mislead.
  whole = {'info': other, 'x': '"wanted": [1]', 'wanted': items, 'y': other}
  if 'wanted' not in json.dumps(other):
    text = json.dumps(whole, indent=indent)
    assert list(archive_lib._items(io.StringIO(text), 'wanted', chunk)) == items


@settings(max_examples=60, deadline=None)
@given(st.lists(objects, min_size=1, max_size=4), st.integers(1, 30), st.floats(0, 0.999))
def test_part_of_a_list_is_an_error(items, chunk, share):
  text = json.dumps(items)
  with pytest.raises(ValueError, match=r'ends|no list'):
    list(archive_lib._items(io.StringIO(text[: int(share * len(text))]), None, chunk))


@pytest.mark.parametrize('text', ['[1, 2]', '[{"a": 1}, "x"]', '[[{}]]', '{"a": 1}', '', '[{}'])
def test_what_is_no_list_of_objects(text, tmp_path):
  archive = Archive(as_folder({'a.json': text.encode()}, tmp_path))
  with pytest.raises(SourceError, match=r'a\.json cannot be read'):
    list(archive.json_items('a.json'))
