"""One's own images: CSV files and webdataset tars, to what every other dataset gives."""

import io
import json
import pathlib
import subprocess
import sys
import tarfile

import pytest

from data import build as build_lib
from pixelbert_jax.score import nlvr2
from tests.support.builds import built, captions, failure, strings
from tests.support.corpora import as_folder, image
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
    'split', 'images', 'questions', 'statements', 'bytes', 'seconds'
  ]  # fmt: skip


def test_pairs_across_splits_are_left_out_and_told(tmp_path, capsys):
  manual = as_folder(PHOTOS, tmp_path / 'm')
  names = list(PHOTOS)
  rows = [f'{a},{b},both,true' for a in names for b in names]
  pairs = csv_file(tmp_path / 'p.csv', 'left,right,sentence,label', *rows)
  tables = {'pairs': pairs, 'val_share': 0.25}
  dataset, out = built('folder', manual, tmp_path, capsys, tables=tables)
  assert len(dataset['val'].sidecar.statements) == 5 * 5
  assert len(dataset['train'].sidecar.statements) == 15 * 15
  assert 'with an image of another split are omitted' in out


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


def tar_file(path: pathlib.Path, files: dict[str, bytes]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, 'w') as tar:
    for name, content in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))


def test_webdataset(tmp_path, capsys):
  manual = tmp_path / 'm'
  said = {'captions': ['two', 'three '], 'split': 'train'}
  tar_file(
    manual / 'a-000.tar',
    {'0001.jpg': image(1), '0001.txt': 'eins ü\n'.encode(), '0001.json': b'{"split": "train"}'}
    | {'0002.png': image(2, 'PNG'), '0002.json': json.dumps(said).encode()},
  )
  tar_file(
    manual / 'a-001.tar',
    {'./0003.JPG': image(3), './0003.json': b'{"caption": "four", "split": "val"}'}
    | {'./0004.jpg': image(4)},
  )
  dataset, _ = built('folder', manual, tmp_path, capsys)
  train, val = dataset['train'], dataset['val']
  assert train.sidecar.image_id.tolist() == [b'0001.jpg', b'0002.png']
  assert captions(train.sidecar, 0) == [(0, 'eins ü')]
  assert captions(train.sidecar, 1) == [(1, 'two'), (2, 'three')]
  assert captions(val.sidecar, 0) == [(3, 'four')]
  assert [train.encoded(0), train.encoded(1), val.encoded(0)] == [
    image(1), image(2, 'PNG'), image(3)
  ]  # fmt: skip


@pytest.mark.parametrize('harm', ['cut', 'twice', 'json', 'leaves'])
def test_webdataset_that_is_wrong(harm, tmp_path, capsys):
  manual = tmp_path / 'm'
  files = {'0001.jpg': image(1, size=(200, 200)), '0001.txt': b'one', '0002.jpg': image(2)}
  files['0002.json'] = b'{"caption":' if harm == 'json' else b'{"caption": "two"}'
  if harm == 'leaves':
    files['../0003.jpg'] = image(3)
  tar_file(manual / 'a.tar', files)
  if harm == 'cut':
    whole = (manual / 'a.tar').read_bytes()
    (manual / 'a.tar').write_bytes(whole[:30_000])
  if harm == 'twice':
    tar_file(manual / 'b.tar', {'0001.jpg': image(9), '0001.txt': b'other'})
  line = failure('folder', manual, tmp_path, capsys)
  message = {
    'cut': f'{manual}/a.tar cannot be opened',
    'twice': f'0001.jpg is in both {manual}/a.tar and {manual}/b.tar',
    'json': f'{manual}/a.tar/0002.jpg: the text beside it cannot be read',
    'leaves': f"{manual}/a.tar holds '../0003.jpg'",
  }
  assert message[harm] in line


def test_the_command_takes_its_flags(captioned, tmp_path):
  manual, table = captioned
  command = [sys.executable, '-W', 'error', '-m', 'data.build', 'folder/mine', '--val_share=0.1']
  command += [f'--captions={table}', f'--manual_dir={manual}', f'--data_dir={tmp_path / "d"}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'folder/mine: built in' in done.stdout
  dataset = build_lib.open_dataset('folder/mine', tmp_path / 'd')
  assert {n: len(s.source) for n, s in dataset.splits.items()} == {'train': 18, 'val': 2}
