"""A dataset is compared with the raw files that it was built from."""

import io
import os
import pathlib
import shutil
import tarfile

import pytest

from data import build as build_lib
from pixelbert_jax.input.dataset import DatasetError
from tests.support import corpora
from tests.support.builds import built
from tests.support.corpora import LAYOUTS, as_folder, as_zips, image


def refused(name: str, manual: pathlib.Path, tmp_path: pathlib.Path, **options) -> str:
  """Builds a dataset that was built from other files: the error."""
  with pytest.raises(DatasetError) as error:
    build_lib.build(name, tmp_path / 'built', manual, **options)
  line = str(error.value)
  assert '\n' not in line
  assert f'{name} in {tmp_path}/built/{name}' in line
  assert 'was built from other tables, shares or files (' in line
  assert 'delete that folder' in line
  return line


def tar(path: pathlib.Path, word: str) -> pathlib.Path:
  """Writes a webdataset file of four images, and returns its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, 'w') as file:
    for n in range(4):
      for name, content in ((f'{n}.jpg', image(n)), (f'{n}.txt', f'a {word} dot'.encode())):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
  return path.parent


def test_a_mended_tar_of_the_same_size_and_time(tmp_path, capsys):
  manual = tar(tmp_path / 'm/s.tar', 'blue')
  before = (manual / 's.tar').stat()
  dataset, _ = built('folder', manual, tmp_path, capsys)
  tar(manual / 's.tar', 'red')
  assert (manual / 's.tar').stat().st_size == before.st_size
  assert '(s.tar is changed)' in refused('folder', manual, tmp_path)
  # The right texts after all.
  tar(manual / 's.tar', 'blue')
  _, out = built('folder', manual, tmp_path, capsys)
  assert 'folder: already built' in out
  # A copy in another place, and one more.
  shutil.copytree(manual, tmp_path / 'moved')
  built('folder', tmp_path / 'moved', tmp_path, capsys)
  tar(tmp_path / 'moved/t.tar', 'green')
  assert '(t.tar is new)' in refused('folder', tmp_path / 'moved', tmp_path)
  assert dataset['train'].sidecar.caption(0) == 'a blue dot'


def test_another_folder_of_photos(tmp_path, capsys):
  photos = {f'{i}.jpg': image(i) for i in range(5)}
  (tmp_path / 'c.csv').write_text('image,caption\n' + ''.join(f'{p},a dot\n' for p in photos))
  options = {'tables': {'captions': tmp_path / 'c.csv'}}
  manual = as_folder(photos, tmp_path / 'm')
  built('folder', manual, tmp_path, capsys, **options)
  same = as_folder(photos | {'5.jpg': b'of no table'}, tmp_path / 'same')
  built('folder', same, tmp_path, capsys, **options)
  other = as_folder(photos | {'3.jpg': image(33)}, tmp_path / 'other')
  assert '(3.jpg is changed)' in refused('folder', other, tmp_path, **options)
  (manual / '1.jpg').unlink()
  assert '(1.jpg is gone)' in refused('folder', manual, tmp_path, **options)
  shares = {'tables': options['tables'] | {'val_share': 0.2}}
  assert '(the tables or shares differ)' in refused('folder', same, tmp_path, **shares)
  # Without any files, it is only shown.
  built('folder', None, tmp_path, capsys)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_changed_annotations_and_images_of_a_corpus(layout, tmp_path, capsys):
  files, _ = corpora.coco({'train': 4, 'val': 2, 'test': 2})
  lay = LAYOUTS[layout]
  built('coco_karpathy', lay(files, tmp_path / 'm'), tmp_path, capsys)
  built('coco_karpathy', lay(files, tmp_path / 'm'), tmp_path, capsys)
  # In another layout they are the same files.
  built('coco_karpathy', as_zips(files, tmp_path / 'zips'), tmp_path, capsys)
  json = {'dataset_coco.json': files['dataset_coco.json'].replace(b'A gr', b'B gr')}
  line = refused('coco_karpathy', lay(files | json, tmp_path / 'texts'), tmp_path)
  assert '(dataset_coco.json is changed): delete that folder and build again' in line
  photo = next(name for name in files if name.startswith('val'))
  changed = files[photo][:-40] + bytes([files[photo][-40] ^ 1]) + files[photo][-39:]
  other = lay(files | {photo: changed}, tmp_path / 'photos')
  assert f'({photo} is changed)' in refused('coco_karpathy', other, tmp_path)


def test_what_was_missing_and_is_there_now(tmp_path, capsys):
  files, _ = corpora.coco({'train': 4, 'val': 2, 'test': 2})
  photo = next(name for name in files if name.startswith('val'))
  lacking = {name: content for name, content in files.items() if name != photo}
  manual = as_folder(lacking, tmp_path / 'm')
  built('coco_karpathy', manual, tmp_path, capsys, allow_bad=0.9)
  built('coco_karpathy', manual, tmp_path, capsys)
  as_folder({photo: files[photo]}, manual)
  assert f'({photo} is new)' in refused('coco_karpathy', manual, tmp_path)


def test_raw_files_that_are_gone_are_said(tmp_path, capsys):
  files, _ = corpora.coco({'train': 4, 'val': 2, 'test': 2})
  manual = as_folder(files, tmp_path / 'm')
  built('coco_karpathy', manual, tmp_path, capsys)
  shutil.rmtree(manual / 'val2014')
  build_lib.build('coco_karpathy', tmp_path / 'built', manual)
  assert 'of the raw files are not in' in capsys.readouterr().err
  build_lib.build('coco_karpathy', tmp_path / 'built')
  assert capsys.readouterr().err == ''


def test_unchanged_files_are_not_read_again(tmp_path, capsys):
  manual = tar(tmp_path / 'm/s.tar', 'blue')
  built('folder', manual, tmp_path, capsys)
  before = (manual / 's.tar').stat()
  with (manual / 's.tar').open('r+b') as file:
    file.seek(600)
    file.write(b'?')
  os.utime(manual / 's.tar', ns=(before.st_atime_ns, before.st_mtime_ns))
  # The one way to deceive it: size, time to the nanosecond and inode are all the same.
  built('folder', manual, tmp_path, capsys)
