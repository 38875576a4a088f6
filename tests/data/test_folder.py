"""One's own images: CSV files and webdataset tars, to what every other dataset gives."""

import json
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

from data import build as build_lib
from data.folder.tables import SPLITS
from pixelbert_jax.score import nlvr2
from tests.support.builds import built, captions, failure, strings
from tests.support.corpora import add, as_folder, as_tar, as_zip, image
from tests.support.paths import ROOT

PHOTOS = {f'photos/{i:02d}.jpg': image(i) for i in range(20)}


def csv_file(path: pathlib.Path, *rows: str) -> pathlib.Path:
  path.write_text('\n'.join(rows) + '\n', encoding='utf-8')
  return path


@pytest.fixture
def captioned(tmp_path):
  """Twenty photos, two captions each, in a CSV file."""
  rows = [f'photos/{i:02d}.jpg,"Bild {i}, größer: {k}"' for k in range(2) for i in range(20)]
  return as_folder(PHOTOS, tmp_path / 'm'), csv_file(tmp_path / 'c.csv', 'image,caption', *rows)


def test_captions(captioned, tmp_path, capsys):
  manual, table = captioned
  dataset, out = built('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert list(dataset.splits) == ['train']
  sidecar = dataset['train'].sidecar
  assert [i.decode() for i in sidecar.image_id] == list(PHOTOS)
  for i, path in enumerate(PHOTOS):
    expected = [(i, f'Bild {i}, größer: 0'), (20 + i, f'Bild {i}, größer: 1')]
    assert captions(sidecar, i) == expected
    assert dataset['train'].encoded(i) == PHOTOS[path]
  assert out.splitlines()[2].split()[:3] == ['train', '20', '40']


def test_captions_that_read_alike_are_one_in_train_only(tmp_path, capsys):
  said = ('a dog', 'A dog.', 'a cat')
  rows = [f'photos/{i:02d}.jpg,{text},{split}' for i, split in enumerate(SPLITS) for text in said]
  table = csv_file(tmp_path / 'c.csv', 'image,caption,split', *rows)
  manual = as_folder(PHOTOS, tmp_path / 'm')
  dataset, out = built('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert captions(dataset['train'].sidecar, 0) == [(0, 'a dog'), (2, 'a cat')]
  assert captions(dataset['val'].sidecar, 0) == [(3, 'a dog'), (4, 'A dog.'), (5, 'a cat')]
  assert len(dataset['test'].sidecar.text) == 3
  alike = 'captions left out: reads like another of its image: 1 of photos/00.jpg'
  assert f'  train: 1 of 3 {alike}\n' in out


def test_texts_longer_than_the_default_are_counted(captioned, tmp_path, capsys):
  manual, table = captioned
  rows = [f'photos/{i:02d}.jpg,"a red circle, {"and " * (20 * i)}"' for i in range(4)]
  table = csv_file(tmp_path / 'long.csv', 'image,caption', *rows)
  _, out = built('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert 'train: 2 of 4 texts have more than 38 words and punctuation marks, up to 64' in out
  assert 'text.length=40 cuts these' in out


def test_shares_are_held_out_by_image(captioned, tmp_path, capsys):
  manual, table = captioned
  tables = {'captions': table, 'val_share': 0.1, 'test_share': 0.2}
  dataset, _ = built('folder', manual, tmp_path, capsys, tables=tables)
  ids = {name: set(split.sidecar.image_id.tolist()) for name, split in dataset.splits.items()}
  assert {name: len(some) for name, some in ids.items()} == {'train': 14, 'val': 2, 'test': 4}
  assert len(set.union(*ids.values())) == 20
  # The same images again, whatever the order of the rows.
  lines = table.read_text().splitlines()
  table.write_text('\n'.join([lines[0], *lines[:0:-1]]))
  again, _ = built('folder/again', manual, tmp_path, capsys, tables=tables)
  assert {n: set(s.sidecar.image_id.tolist()) for n, s in again.splits.items()} == ids


def test_questions_pairs_and_splits_by_column(tmp_path, capsys):
  manual = as_folder(PHOTOS, tmp_path / 'm')
  questions = csv_file(
    tmp_path / 'q.csv',
    'split,image,question,answers,id',
    'val,photos/03.jpg,what?,cat,77',
    'train,photos/01.jpg,"how many?",2|2|3|two,5',
    'val,photos/03.jpg,where?,here|there,78',
  )
  pairs = csv_file(
    tmp_path / 'p.csv',
    'left,right,sentence,label,split',
    'photos/01.jpg,photos/02.jpg,both ü,TRUE,train',
    'photos/03.jpg,photos/04.jpg,one,0,val',
  )
  tables = {'questions': questions, 'pairs': pairs}
  dataset, out = built('folder', manual, tmp_path, capsys, tables=tables)
  val, train = dataset['val'].sidecar, dataset['train'].sidecar
  assert val.image_id.tolist() == [b'photos/03.jpg', b'photos/04.jpg']
  assert val.questions.id.tolist() == [77, 78]
  assert val.questions.image.tolist() == [0, 0]
  assert strings(val.questions, val.questions.answers[0]) == ['cat']
  assert strings(val.questions, val.questions.answers[1]) == ['here', 'there']
  assert strings(train.questions, train.questions.answers[0]) == ['2', '2', '3', 'two']
  assert strings(train.questions, train.questions.multiple_choice_answer) == ['2']
  assert train.statements.text.text(0) == 'both ü'
  assert train.statements.label.tolist() == [True]
  assert val.statements.label.tolist() == [False]
  # As NLVR2's own scores read them: none is of one sentence, or one pair, with another.
  names = [name.decode() for side in (train, val) for name in side.statements.identifier]
  labels = dict(zip(names, (True, False), strict=True))
  assert nlvr2.summarise({names[0]: True, names[1]: False}, labels) == {
    'accuracy': 0.5,
    'consistency': 0.5,
  }
  assert val.statements.left.tolist() == [0]
  assert val.statements.right.tolist() == [1]
  assert dataset['val'].encoded(1) == PHOTOS['photos/04.jpg']
  assert out.splitlines()[1].split() == [
    'split', 'images', 'questions', 'statements', 'left', 'out', 'bytes', 'seconds'
  ]  # fmt: skip
  assert '  all: 16 images left out: no table names it: photos/00.jpg, photos/05.jpg, ' in out


def test_pairs_across_splits_are_left_out_and_told(tmp_path, capsys):
  manual = as_folder(PHOTOS, tmp_path / 'm')
  names = list(PHOTOS)
  rows = [f'{a},{b},both,true' for a in names for b in names]
  pairs = csv_file(tmp_path / 'p.csv', 'left,right,sentence,label', *rows)
  tables = {'pairs': pairs, 'val_share': 0.25}
  dataset, out = built('folder', manual, tmp_path, capsys, tables=tables)
  assert len(dataset['val'].sidecar.statements) == 5 * 5
  assert len(dataset['train'].sidecar.statements) == 15 * 15
  assert '  train: 75 of 300 statements left out: its images are in different splits: ' in out
  metadata = json.loads((dataset.path / 'metadata.json').read_text())
  left_out = metadata['tally']['val']['others']['statements']
  assert len(left_out['its images are in different splits']) == 75
  assert re.fullmatch(' *all( +[0-9]+){2} +150 +.*', out.splitlines()[4].replace(',', ''))


@pytest.mark.parametrize(
  ('name', 'rows', 'message'),
  [
    ('captions', ['image,text', 'photos/00.jpg,x'], "has no column 'caption'"),
    ('questions', ['image,question', 'photos/00.jpg,x'], "has no column 'answers'"),
    ('pairs', ['left,right,label', 'a,b,true'], "has no column 'sentence'"),
    ('captions', [''], "has no column 'image'"),
    ('captions', ['image,caption', 'photos/00.jpg,a, b'], 'line 2 does not have as many cells'),
    ('captions', ['image,caption', 'photos/00.jpg'], 'line 2 does not have as many cells'),
    ('captions', ['image,caption', 'photos/00.jpg,a', 'photos/01.jpg, '], 'line 3 has no caption'),
    ('captions', ['image,caption', 'photos/00.jpg,"a'], 'is not CSV'),
    ('captions', ['image,caption,split', 'photos/00.jpg,a,dev'], "split is 'dev', expected one of"),
    (
      'captions',
      ['image,caption,split', 'photos/00.jpg,a,val', 'photos/00.jpg,b,train'],
      "line 3: photos/00.jpg is in split 'train', but above in 'val'",
    ),
    ('captions', ['image,caption,id', 'photos/00.jpg,a,x'], "id is 'x', expected an integer"),
    ('captions', ['image,caption,id', 'a,a,7', 'b,b,07'], 'line 3: id 7 repeats that of an'),
    ('pairs', ['left,right,sentence,label', 'a,b,c,maybe'], "label is 'maybe', expected true"),
    (
      'questions',
      ['image,question,answers', 'photos/00.jpg,what?,red|'],
      "line 2: column answers is 'red|', whose answer number 2 is empty",
    ),
    (
      'questions',
      ['image,question,answers', 'photos/00.jpg,what?,|'],
      "column answers is '|', whose answer number 1 is empty",
    ),
    ('captions', ['image,caption'], 'has no texts of any image'),
    (
      'captions',
      ['image,caption,x,caption', 'photos/00.jpg,a,b,c'],
      "names the column 'caption' twice, as number 2 and 4",
    ),
    ('captions', ['image,caption', f'photos/00.jpg,{"a" * 140_000}'], 'more than the 131,072'),
    (
      'captions',
      ['image,caption,split', 'photos/00.jpg,a,val', './photos/00.JPG,a,train'],
      "line 3: ./photos/00.JPG is in split 'train', but above in 'val'",
    ),
    ('captions', ['image,caption', '/secret.jpg,a'], "'/secret.jpg' leaves"),
    ('captions', ['image,caption', 'C:\\secret.jpg,a'], 'leaves'),
    ('captions', ['image,caption', '"secret\n.jpg",a'], "'secret\\n.jpg' holds what is no"),
    ('captions', ['image,caption', '../secret.jpg,a'], "'../secret.jpg' leaves"),
    ('captions', ['image,caption', 'photos/gone.jpg,a'], 'photos/gone.jpg (missing)'),
  ],
)
def test_a_table_that_is_wrong(name, rows, message, tmp_path, capsys):
  as_folder({'secret.jpg': image(0)}, tmp_path)
  manual = as_folder(PHOTOS, tmp_path / 'm')
  table = csv_file(tmp_path / 't.csv', *rows)
  line = failure('folder', manual, tmp_path, capsys, tables={name: table})
  assert message in line
  assert 'secret' in line or 'gone' in line or str(table) in line


def test_a_table_that_is_not_there_or_not_utf8(tmp_path, capsys):
  manual = as_folder(PHOTOS, tmp_path / 'm')
  (tmp_path / 'latin.csv').write_bytes('image,caption\nphotos/00.jpg,größer\n'.encode('latin-1'))
  for name, why in (('gone.csv', '(No such file'), ('latin.csv', 'as UTF-8')):
    tables = {'captions': tmp_path / name}
    line = failure('folder', manual, tmp_path, capsys, tables=tables)
    assert f'{tmp_path / name} cannot be read {why}' in line


def test_a_bad_image_in_a_pair(tmp_path, capsys):
  manual = as_folder(PHOTOS | {'photos/01.jpg': b''}, tmp_path / 'm')
  rows = ['photos/00.jpg,photos/01.jpg,both,true']
  pairs = csv_file(tmp_path / 'p.csv', 'left,right,sentence,label', *rows)
  options = {'tables': {'pairs': pairs}, 'allow_bad': 0.9}
  line = failure('folder', manual, tmp_path, capsys, **options)
  assert "photos/01.jpg (zero bytes) is in a pair ('both')" in line


def test_other_tables_do_not_pass_as_built(captioned, tmp_path, capsys):
  manual, table = captioned
  built('folder', manual, tmp_path, capsys, tables={'captions': table})
  _, out = built('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert 'folder: already built' in out
  table.write_text(table.read_text().replace('Bild', 'Foto'))
  assert build_lib.command(['folder'], tmp_path / 'built', manual, tables={'captions': table}) == 1
  assert 'was built from other tables' in capsys.readouterr().err
  table.rename(tmp_path / 'moved.csv')
  assert build_lib.command(['folder'], tmp_path / 'built', manual, tables={'captions': table}) == 1
  assert f'{table} cannot be read' in capsys.readouterr().err
  (tmp_path / 'moved.csv').rename(table)
  dataset, _ = built('folder/new', manual, tmp_path, capsys, tables={'captions': table})
  assert dataset['train'].sidecar.caption(0) == 'Foto 0, größer: 0'
  old = build_lib.open_dataset('folder', tmp_path / 'built')
  assert old['train'].sidecar.caption(0) == 'Bild 0, größer: 0'


def test_tables_are_of_folder_alone(captioned, tmp_path, capsys):
  manual, table = captioned
  line = failure('nlvr', manual, tmp_path, capsys, tables={'captions': table})
  assert '--captions is for the dataset `folder`' in line


def test_shares_that_leave_nothing(captioned, tmp_path, capsys):
  manual, table = captioned
  tables = {'captions': table, 'val_share': 0.5, 'test_share': 0.5}
  assert 'sum to less than 1' in failure('folder', manual, tmp_path, capsys, tables=tables)
  tables = {'captions': csv_file(tmp_path / 's.csv', 'image,caption,split', 'photos/00.jpg,a,val')}
  tables['val_share'] = 0.1
  assert 'without a column `split`' in failure('folder', manual, tmp_path, capsys, tables=tables)


def test_a_split_that_no_image_is_in(captioned, tmp_path, capsys):
  manual, table = captioned
  options = {'tables': {'captions': table}, 'splits': ['train', 'val']}
  line = failure('folder', manual, tmp_path, capsys, **options)
  assert "no image is in split 'val'" in line
  assert '--val_share=0.1' in line


def test_webdataset(tmp_path, capsys):
  manual = tmp_path / 'm'
  said = {'captions': ['two', 'three '], 'split': 'train'}
  as_tar(
    {'0001.jpg': image(1), '0001.txt': 'eins ü\n'.encode(), '0001.json': b'{"split": "train"}'}
    | {'0002.png': image(2, 'PNG'), '0002.json': json.dumps(said).encode()},
    manual / 'a-000.tar',
  )
  as_tar(
    {'./0003.JPG': image(3), './0003.json': b'{"caption": "four", "split": "val"}'}
    | {'./0004.jpg': image(4)},
    manual / 'a-001.tar',
  )
  dataset, out = built('folder', manual, tmp_path, capsys)
  train, val = dataset['train'], dataset['val']
  assert train.sidecar.image_id.tolist() == [b'0001.jpg', b'0002.png']
  assert captions(train.sidecar, 0) == [(0, 'eins ü')]
  assert captions(train.sidecar, 1) == [(1, 'two'), (2, 'three')]
  assert captions(val.sidecar, 0) == [(3, 'four')]
  assert [train.encoded(0), train.encoded(1), val.encoded(0)] == [
    image(1), image(2, 'PNG'), image(3)
  ]  # fmt: skip
  assert '  all: 1 images left out: without text: a-001.tar/0004.jpg\n' in out


@pytest.mark.parametrize('harm', ['cut', 'twice', 'json', 'leaves'])
def test_webdataset_that_is_wrong(harm, tmp_path, capsys):
  manual = tmp_path / 'm'
  files = {'0001.jpg': image(1, size=(200, 200)), '0001.txt': b'one', '0002.jpg': image(2)}
  files['0002.json'] = b'{"caption":' if harm == 'json' else b'{"caption": "two"}'
  if harm == 'leaves':
    files['../0003.jpg'] = image(3)
  as_tar(files, manual / 'a.tar')
  if harm == 'cut':
    whole = (manual / 'a.tar').read_bytes()
    (manual / 'a.tar').write_bytes(whole[:30_000])
  if harm == 'twice':
    as_tar({'0001.jpg': image(9), '0001.txt': b'other'}, manual / 'b.tar')
  line = failure('folder', manual, tmp_path, capsys)
  message = {
    'cut': f'{manual}/a.tar cannot be opened',
    'twice': f'0001.jpg is in both {manual}/a.tar and {manual}/b.tar',
    'json': f'{manual}/a.tar/0002.json cannot be read (line 1 column 12 is not JSON',
    'leaves': f"{manual}/a.tar holds '../0003.jpg'",
  }
  assert message[harm] in line


def others(dataset, split: str = 'all') -> dict:
  """What is left out of a built dataset, by kind and reason; what is kept although odd."""
  tally = json.loads((dataset.path / 'metadata.json').read_text())['tally'].get(split, {})
  reasons = {'images': tally.get('left_out', {})} | tally.get('others', {})
  return {
    kind: found for kind, found in (reasons | {'kept': tally.get('kept', {})}).items() if found
  }


def test_one_picture_in_many_spellings(tmp_path, capsys):
  names = ['photos/00.jpg', './photos/00.jpg', 'photos//00.JPG', 'photos\\00.jpg']
  manual = as_folder(PHOTOS, tmp_path / 'm')
  rows = [f'{name},text {i}' for i, name in enumerate(names)]
  table = csv_file(tmp_path / 'c.csv', 'image,caption', *rows)
  pairs = csv_file(
    tmp_path / 'p.csv', 'left,right,sentence,label', f'photos/1.JPG,{names[2]},x,yes'
  )
  (manual / 'photos/1.jpg').write_bytes(image(99))
  tables = {'captions': table, 'pairs': pairs}
  dataset, _ = built('folder', manual, tmp_path, capsys, tables=tables)
  sidecar = dataset['train'].sidecar
  assert sidecar.image_id.tolist() == [b'photos/00.jpg', b'photos/1.JPG']
  assert captions(sidecar, 0) == [(i, f'text {i}') for i in range(4)]
  assert (sidecar.statements.left.tolist(), sidecar.statements.right.tolist()) == ([1], [0])
  assert dataset['train'].encoded(1) == image(99)


def test_an_image_that_fits_two_files(captioned, tmp_path, capsys):
  manual, table = captioned
  as_zip({'photos/00.jpg': image(77)}, manual / 'more.zip')
  line = failure('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert f'{manual}/photos/00.jpg and {manual}/more.zip/photos/00.jpg, which differ' in line
  as_zip({'photos/00.jpg': PHOTOS['photos/00.jpg']}, manual / 'more.zip')
  dataset, _ = built('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert others(dataset)['files'] == {
    'the same file again, in another place': ['more.zip/photos/00.jpg']
  }


def test_what_is_not_read_of_tables_is_counted_and_named(tmp_path, capsys):
  files = {f'photos/{i}.jpg': image(i) for i in range(4)}
  files |= {'photos/._0.jpg': b'', '.DS_Store': b'', 'notes.txt': b'x', 'photos/9.jpg': image(9)}
  manual = as_folder(files, tmp_path / 'm')
  as_zip({'__MACOSX/a.txt': b'', 'a.txt': b'x', 'b.jpg': image(5)}, manual / 'z.zip')
  table = csv_file(
    manual / 'c.csv',
    '\ufeffimage, caption,author,author',
    'photos/0.jpg,a,x,y',
    'photos/1.jpg,a,x,y',
    './photos/0.jpg, a ,z,z',
  )
  questions = csv_file(
    tmp_path / 'q.csv',
    'image,question,answers,id',
    'photos/2.jpg,what?,red,5',
    'photos/2.jpg,what?,red,6',
    'photos/2.jpg,what?,blue,7',
  )
  pairs = csv_file(
    tmp_path / 'p.csv',
    'left,right,sentence,label',
    'photos/2.jpg,photos/3.jpg,x,true',
    'photos/2.jpg,photos/3.JPG,x,1',
    'photos/2.jpg,photos/3.jpg,x,no',
  )
  tables = {'captions': table, 'questions': questions, 'pairs': pairs}
  dataset, out = built('folder', manual, tmp_path, capsys, tables=tables)
  again = 'the same as an earlier line'
  mac = ['.DS_Store', 'photos/._0.jpg', 'z.zip/__MACOSX/a.txt']
  assert others(dataset) == {
    'images': {'no table names it': ['photos/9.jpg', 'z.zip/b.jpg']},
    'columns': {'not read (image, caption, split, id are)': ["c.csv: 'author'"] * 2},
    'captions': {again: ['c.csv line 4 (as line 2)']},
    'questions': {again: ['q.csv line 3 (as line 2)']},
    'statements': {again: ['p.csv line 3 (as line 2)']},
    'files': {
      'not read (the tables are, and images that they name)': ['notes.txt', 'z.zip/a.txt'],
      'metadata of macOS': mac,
    },
    'kept': {
      'questions come again with other answers, all are kept': ['q.csv line 4 (as line 2)'],
      'statements come again with other label, all are kept': ['p.csv line 4 (as line 2)'],
    },
  }
  sidecar = dataset['train'].sidecar
  assert [captions(sidecar, i) for i in (0, 1)] == [[(0, 'a')], [(1, 'a')]]
  assert sidecar.questions.id.tolist() == [5, 7]
  assert sidecar.statements.label.tolist() == [True, False]
  assert f'  all: 3 files left out: metadata of macOS: {", ".join(mac)}\n' in out
  assert '  all: 1 captions left out: the same as an earlier line: c.csv line 4 (as line 2)' in out
  (total,) = [line for line in out.splitlines() if line.startswith('  all  ')]
  assert total.split()[1:9] == ['4', '2', '2', '2', '2', '3', '2', '5']


def test_images_that_are_the_same_bytes(tmp_path, capsys):
  names = ['a', 'b', 'c', 'd']
  manual = as_folder({f'{n}.jpg': image(int(n == 'd')) for n in names}, tmp_path / 'm')
  splits = ['train', 'train', 'val', 'test']
  rows = [f'{n}.jpg,text,{split}' for n, split in zip(names, splits, strict=True)]
  table = csv_file(tmp_path / 'c.csv', 'image,caption,split', *rows)
  dataset, out = built('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert (
    '  all: 1 images are in two splits (a leak), by their bytes: val/c.jpg = train/a.jpg' in out
  )
  assert '  train: 1 images have the bytes of another image of the split: b.jpg = a.jpg' in out
  assert {name: len(split.source) for name, split in dataset.splits.items()} == {
    'train': 2, 'val': 1, 'test': 1
  }  # fmt: skip


def test_a_split_of_which_no_image_is_left(tmp_path, capsys):
  manual = as_folder({'a.jpg': b'nothing', 'b.jpg': image(1)}, tmp_path / 'm')
  rows = ['b.jpg,x,train', 'a.jpg,x,val', 'c.jpg,x,val']
  table = csv_file(tmp_path / 'c.csv', 'image,caption,split', *rows)
  line = failure('folder', manual, tmp_path, capsys, tables={'captions': table}, allow_bad=1)
  assert 'folder val: none of its 2 images in' in line
  assert 'a.jpg (7 bytes that are not a whole image' in line
  assert not [path for path in (tmp_path / 'built').rglob('*') if path.is_file()][1:]  # the lock
  line = failure('folder', manual, tmp_path, capsys, tables={'captions': table})
  assert '2 of 2 images' in line


def test_an_image_that_expands_beyond_reason_is_a_bad_image(captioned, tmp_path, capsys):
  manual, table = captioned
  (manual / 'photos/00.jpg').unlink()
  with zipfile.ZipFile(manual / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as file:
    file.writestr('photos/00.jpg', bytes(80 << 20))
  dataset, out = built(
    'folder', manual, tmp_path, capsys, tables={'captions': table}, allow_bad=0.1
  )
  assert len(dataset['train'].source) == 19
  assert 'unreadable: photos/00.jpg (83,886,080 bytes, packed into' in out


def test_what_is_not_read_of_tars_is_counted_and_named(tmp_path, capsys):
  said = {'captions': ['one', ' ', None, 'two', 'one'], 'caption': 'three', 'url': 'u', 'width': 3}
  files = {
    '1.jpg': image(1),
    '1.txt': '\ufeffone\r\n'.encode(),
    '1.JSON': json.dumps(said).encode(),
  }
  files |= {'2.jpg': image(2), '2.json': '\ufeff{"caption": null,\r\n "url": ""}'.encode()}
  files |= {'3.jpg': image(3), '3.txt': b'old', '4.txt': b'alone', '3.cls': b'7'}
  files |= {'._3.jpg': b'', '__MACOSX/3.jpg': b''}
  manual = as_folder({'loose.jpg': image(5), 'c.csv': b'x', 'b.tar.gz': b'x'}, tmp_path / 'm')
  with tarfile.open(manual / 's.tar', 'w') as tar:
    for name, content in files.items():
      add(tar, name, content)
    add(tar, '3.txt', b'new')
  dataset, out = built('folder', manual, tmp_path, capsys)
  sidecar = dataset['train'].sidecar
  assert sidecar.image_id.tolist() == [b'1.jpg', b'3.jpg']
  assert captions(sidecar, 0) == [(0, 'one'), (1, 'two'), (2, 'three')]
  assert captions(sidecar, 1) == [(3, 'new')]
  unread = 'not read (images in tar files are, and the .txt and .json files of their names)'
  assert others(dataset) == {
    'images': {'without text': ['s.tar/2.jpg'], 'not in a tar file': ['loose.jpg']},
    'captions': {
      'empty or null': [
        's.tar/1.JSON captions[1]', 's.tar/1.JSON captions[2]', 's.tar/2.json caption'
      ],
      'given twice for its image': ['s.tar/1.JSON captions[0]', 's.tar/1.JSON captions[4]'],
    },
    'keys': {
      'not read of .json files (caption, captions, split are)': [
        'url (in 2, first s.tar/1.JSON)', 'width (in 1, first s.tar/1.JSON)'
      ]
    },
    'files': {
      unread: ['b.tar.gz', 'c.csv', 's.tar/4.txt', 's.tar/3.cls'],
      'metadata of macOS': ['s.tar/._3.jpg', 's.tar/__MACOSX/3.jpg'],
      'its name comes again in the same archive, the last is used': ['s.tar/3.txt'],
    },
  }  # fmt: skip
  assert (
    '  all: 2 keys left out: not read of .json files (caption, captions, split are): url' in out
  )


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('json', '{"captions": "red dot"}', '"captions" is a text (\'red dot\'), expected a list of'),
    ('json', '{"captions": {"en": "x"}}', '"captions" is an object'),
    ('json', '{"captions": 5}', '"captions" is a number (5)'),
    ('json', '{"captions": null}', '"captions" is null'),
    ('json', '{"captions": ["a", 5]}', '"captions"[1] is a number (5), expected a text'),
    ('json', '{"caption": ["a"]}', '"caption" is a list'),
    ('json', '{"caption": true}', '"caption" is true or false'),
    ('json', '{"caption": "a", "split": 1}', '"split" is a number (1), expected a text'),
    ('json', '{"caption": "a", "split": "dev"}', "split is 'dev', expected one of"),
    ('json', '["a"]', "is a list (['a']), expected an object"),
    ('json', '{"caption": "a", "caption": "b"}', "the key 'caption' twice"),
    ('json', '{"caption": "\\ud800"}', 'half a surrogate pair'),
    ('json', '[' * 100_000, 'nests lists and objects'),
    ('txt', b'gr\xf6', 'is not UTF-8 text'),
    ('txt', bytes((16 << 20) + 1), '16,777,217 bytes'),
  ],
)
def test_a_text_beside_an_image_that_is_of_another_type(name, content, message, tmp_path, capsys):
  content = content if isinstance(content, bytes) else content.encode()
  manual = as_tar({'1.jpg': image(1), f'1.{name}': content}, tmp_path / 'm' / 's.tar')
  line = failure('folder', manual, tmp_path, capsys)
  assert f'{manual}/s.tar/1.' in line
  assert message in line


def test_the_command_takes_its_flags(captioned, tmp_path):
  manual, table = captioned
  command = [sys.executable, '-W', 'error', '-m', 'data.build', 'folder/mine', '--val_share=0.1']
  command += [f'--captions={table}', f'--manual_dir={manual}', f'--data_dir={tmp_path / "d"}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'folder/mine: built in' in done.stdout
  dataset = build_lib.open_dataset('folder/mine', tmp_path / 'd')
  assert {n: len(s.source) for n, s in dataset.splits.items()} == {'train': 18, 'val': 2}
