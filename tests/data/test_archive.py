"""Raw files in folders, zips and tars: found alike, and nothing beyond them."""

import io
import json
import os
import tarfile
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import archive as archive_lib
from data.archive import Archive, TooLarge
from data.sources import SourceError
from tests.support.corpora import add, as_folder, as_tar, as_zip

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


def test_folders_and_zips_each_hold_their_part(tmp_path):
  as_zip({'images/1.jpg': b'one', 'images/2.jpg': b'two'}, tmp_path / 'a.zip')
  as_folder({'images/1.jpg': b'one'}, tmp_path)
  archive = Archive(tmp_path)
  assert archive.read('images/1.jpg') == b'one'
  assert archive.read('images/2.jpg') == b'two'
  assert archive.left_out == {
    'the same file again, in another place': [f'{tmp_path}/a.zip/images/1.jpg']
  }


SPELLINGS = [
  'x/ä.jpg',
  './x/ä.jpg',
  'x//ä.jpg',
  'x/./ä.jpg',
  'x\\ä.jpg',
  'x/a\u0308.jpg',
  'x/ä.JPG',
]


@pytest.mark.parametrize('kind', ['folder', 'zip', 'tar'])
@pytest.mark.parametrize('stored', ['x/ä.jpg', 'x/a\u0308.Jpg', 'x\\ä.JPG'])
def test_one_file_in_any_spelling(stored, kind, tmp_path):
  write = {'folder': as_folder, 'zip': as_zip, 'tar': as_tar}[kind]
  write({stored: b'one'}, tmp_path if kind == 'folder' else tmp_path / f'a.{kind}')
  archive = Archive(tmp_path)
  assert {archive.read(path) for path in SPELLINGS} == {b'one'}
  for other in ('X/ä.jpg', 'x/Ä.jpg', 'x/ä.jpeg', 'x/a.jpg', 'xä.jpg'):
    assert archive.find(other) is None


@pytest.mark.parametrize(
  ('wanted', 'first', 'second'),
  [
    ('x/1.jpg', 'x/1.jpg', 'a.zip/x/1.jpg'),
    ('x/1.jpg', 'a.zip/x/1.jpg', 'b.zip/x/1.jpg'),
    ('x/1.jpg', 'a.zip/x/1.jpg', 'a.zip/x/1.JPG'),
    ('x/1.jpg', 'x/1.jpg', 'x/1.JPG'),
    ('x/1.JPG', 'x/1.jpg', 'x/1.JPG'),
    ('1.jpg', 'x/1.jpg', 'y/1.jpg'),
    ('1.jpg', 'a.zip/x/1.jpg', 'y/1.jpg'),
    ('ä.jpg', 'ä.jpg', 'a\u0308.jpg'),
  ],
)
def test_a_name_that_fits_two_files(wanted, first, second, tmp_path):
  places: dict = {}
  for content, path in ((b'one', first), (b'two', second)):
    root, _, name = path.rpartition('.zip/')
    places.setdefault(root and tmp_path / f'{root}.zip', {})[name] = content
  for root, files in places.items():
    as_zip(files, root) if root else as_folder(files, tmp_path)
  with pytest.raises(SourceError, match=f'{wanted} is both .* which differ') as error:
    Archive(tmp_path).read(wanted)
  assert f'{tmp_path}/{first}' in str(error.value)
  assert f'{tmp_path}/{second}' in str(error.value)


def test_the_whole_path_is_taken_before_one_in_a_top_folder(tmp_path):
  as_folder({'1.jpg': b'one', 'x/1.jpg': b'two'}, tmp_path)
  archive = Archive(tmp_path)
  assert (archive.read('1.jpg'), archive.read('x/1.jpg')) == (b'one', b'two')


def test_what_is_skipped_in_archives_is_named(tmp_path):
  shadows = {'__MACOSX/x/._1.jpg': b'', 'x/._1.jpg': b'', 'x/.DS_Store': b''}
  as_zip(shadows | {'x/1.jpg': b'one'}, tmp_path / 'a.zip')
  with tarfile.open(tmp_path / 'b.tar', 'w') as tar:
    for content in (b'old', b'new'):
      add(tar, 'y/2.jpg', content)
    for kind, name in ((tarfile.LNKTYPE, 'y/3.jpg'), (tarfile.SYMTYPE, 'y/4.jpg')):
      info = tarfile.TarInfo(name)
      info.type, info.linkname = kind, 'y/2.jpg'
      tar.addfile(info)
  archive = Archive(tmp_path)
  assert archive.read('y/2.jpg') == b'new'
  assert archive.find('x/._1.jpg') is None
  assert archive.left_out == {
    'metadata of macOS': [f'{tmp_path}/a.zip/{name}' for name in shadows],
    'its name comes again in the same archive, the last is used': [f'{tmp_path}/b.tar/y/2.jpg'],
    'a link in a tar file': [f'{tmp_path}/b.tar/y/3.jpg', f'{tmp_path}/b.tar/y/4.jpg'],
  }


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


@pytest.mark.parametrize('harm', ['header', 'joined', 'short', 'size', 'name'])
def test_a_tar_that_would_lose_members_is_broken(harm, tmp_path):
  file = tmp_path / 'a.tar'
  as_tar({'1.jpg': b'1' * 600, '2.jpg': b'2' * 600, '3.jpg': b'3'}, file)
  content = bytearray(file.read_bytes())
  at = content.index(b'2.jpg')
  if harm == 'header':  # `tarfile` takes it for the end.
    content[at] ^= 1
  elif harm == 'joined':
    content += bytes(content)
  elif harm == 'short':
    content = content[:700]
  elif harm == 'size':  # Negative: it leads back to where it came from.
    content[at + 124 : at + 136] = (-2048 & (1 << 96) - 1).to_bytes(12, 'big')
    content[at + 124] = 0xFF
  else:  # A long name of a gigabyte.
    content[at + 124 : at + 136] = b'10000000000\0'
    content[at + 156 : at + 157] = b'L'
  if harm in ('size', 'name'):
    content[at + 148 : at + 156] = b' ' * 8
    content[at + 148 : at + 156] = b'%06o\0 ' % sum(content[at : at + 512])
  file.write_bytes(content)
  archive = Archive(tmp_path)
  assert archive.find('1.jpg') is None
  (message,) = archive.broken
  assert message.startswith(f'{file} cannot be opened')


def zip_of_zeros(path, size: int, method: int = zipfile.ZIP_DEFLATED) -> None:
  with zipfile.ZipFile(path, 'w', method) as archive, archive.open('a.jpg', 'w') as member:
    for _ in range(size >> 20):
      member.write(bytes(1 << 20))


def test_a_member_that_expands_beyond_reason(tmp_path):
  zip_of_zeros(tmp_path / 'a.zip', 80 << 20)
  with pytest.raises(TooLarge, match=r'83,886,080 bytes, packed into .* 200 times'):
    Archive(tmp_path).read('a.jpg')
  with pytest.raises(TooLarge, match='more than the 1,048,576'):
    Archive(tmp_path).read('a.jpg', 1 << 20)
  with pytest.raises(SourceError, match=r'a\.zip/a\.jpg cannot be read \(83,886,080 bytes, packed'):
    Archive(tmp_path).text('a.jpg')


@pytest.mark.parametrize('method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_header_that_claims_less_than_there_is(method, tmp_path):
  zip_of_zeros(tmp_path / 'a.zip', 32 << 20, method)
  content = (tmp_path / 'a.zip').read_bytes()
  (tmp_path / 'a.zip').write_bytes(
    content.replace((32 << 20).to_bytes(4, 'little'), (4096).to_bytes(4, 'little'))
  )
  archive = Archive(tmp_path)
  tracemalloc.start()
  with pytest.raises(zipfile.BadZipFile):
    archive.read('a.jpg')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < (16 << 20 if method == zipfile.ZIP_DEFLATED else 128 << 20)


def test_a_file_with_holes_is_not_read(tmp_path):
  with (tmp_path / 'a.json').open('wb') as file:
    file.truncate(archive_lib.MAX_TEXT + 1)
  archive = Archive(tmp_path)
  with pytest.raises(SourceError, match=r'1,073,741,825 bytes, more than .* is it the right file'):
    archive.json('a.json')
  with pytest.raises(TooLarge):
    archive.read('a.json')


@pytest.mark.parametrize(
  ('text', 'why'), [(b'[' * 100_000, 'nests .* deep'), (b'{"a": 1, "a": 2}', "the key 'a' twice")]
)
def test_json_that_is_not_taken_as_it_comes(text, why, tmp_path):
  archive = Archive(as_folder({'a.json': text}, tmp_path))
  with pytest.raises(SourceError, match=rf'a\.json cannot be read .*{why}'):
    archive.json('a.json')
  with pytest.raises(SourceError, match=r'a\.json cannot be read'):
    list(archive.json_items('a.json'))


def test_a_byte_order_mark_in_json(tmp_path):
  text = '\ufeff[{"a": 1}]'.encode()
  archive = Archive(as_folder({'a.json': text}, tmp_path))
  assert list(archive.json_items('a.json')) == archive.json('a.json', list) == [{'a': 1}]
  assert list(archive.json_lines('a.json'))


@pytest.mark.parametrize('flag', [b'\x01\x00', b'\x00\x00'])
def test_a_zip_that_cannot_be_unpacked(flag, tmp_path):
  """With a password, or by an unknown method."""
  as_zip({'a.json': b'{}'}, tmp_path / 'a.zip')
  content = bytearray((tmp_path / 'a.zip').read_bytes())
  for at, entry in ((6, content.index(b'PK\x03\x04')), (8, content.index(b'PK\x01\x02'))):
    content[entry + at : entry + at + 2] = flag
    content[entry + at + 2 : entry + at + 4] = b'\x00\x00' if flag[0] else b'\x63\x00'
  (tmp_path / 'a.zip').write_bytes(content)
  with pytest.raises(SourceError, match=r'a\.zip/a\.json cannot be read'):
    Archive(tmp_path).json('a.json')


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


def test_a_zip_with_a_file_without_name(tmp_path):
  path = as_zip({'a': b'1'}, tmp_path / 's.zip') / 's.zip'
  content = bytearray(path.read_bytes())
  directory = content.index(b'PK\x01\x02')
  # The one letter of the name becomes an extra field.
  content[directory + 28], content[directory + 30] = 0, 1
  path.write_bytes(content)
  with pytest.raises(SourceError, match=r"s\.zip holds '', a path that leaves its folder"):
    Archive(tmp_path)
