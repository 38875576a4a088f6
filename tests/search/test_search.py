"""`search`: the photos of a folder by a text, and texts by a photo, by the API and the command."""

import json
import os
import re
import shlex
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from configs import retrieval
from data.scenes import vocabulary
from pixelbert_jax import UserError, disk, lock, predict, search
from pixelbert_jax.experiment import resolve
from pixelbert_jax.predict import HeadError, TextError, photos
from pixelbert_jax.search import index as index_lib
from pixelbert_jax.search import updates
from pixelbert_jax.search.__main__ import main
from tests.support import tiny
from tests.support.paths import ROOT

SIZES = ((64, 64), (40, 60), (96, 64), (500, 400), (20, 20), (33, 90), (64, 130), (120, 50))
COUNT = 40
TEXTS = ('a red circle', 'a small blue square is here', 'a star left of a large circle', 'a square')

pytestmark = [
  pytest.mark.usefixtures('quick_compiles'),
  pytest.mark.filterwarnings('ignore:trained on rendered scenes'),
]


def picture(number: int) -> Image.Image:
  rng = np.random.default_rng(number)
  height, width = SIZES[number % len(SIZES)]
  coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
  return coarse.resize((width, height), Image.Resampling.BICUBIC)


def two_stage_checkpoint(folder):
  """A checkpoint of retrieval with a first stage, at random."""
  config = retrieval.get_config('test')
  config.first_stage = 8
  config.image.longer, config.image.canvases = 96, tiny.CANVASES
  config.text.vocabulary = str(vocabulary.FILE)
  return tiny.write_untrained(folder, resolve(config), encoder_scale=3)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with checkpoints and with `photos`, some of which lie in a folder of it."""
  place = tmp_path_factory.mktemp('search')
  two_stage_checkpoint(place / 'retrieval')
  for task in ('pretrain', 'vqa'):
    tiny.write(place / task, task)
  (place / 'photos/more').mkdir(parents=True)
  for i in range(COUNT):
    picture(i).save(place / 'photos' / ('more' if i % 3 == 0 else '') / f'{i:02d}.png')
  return place


@pytest.fixture(scope='module')
def models(place):
  """A model with a first stage, and one without."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return {name: predict.load(place / name) for name in ('retrieval', 'pretrain')}


@pytest.fixture(scope='module')
def indexed(place, models):
  """Indexes of `photos` by both models."""
  opened = {}
  for name, model in models.items():
    arguments = model, place / 'photos', place / f'index-{name}'
    assert search.update(*arguments).added == COUNT
    opened[name] = search.Index.open(*arguments)
  return opened


@pytest.fixture
def copy(place, tmp_path):
  """A copy of `photos`, with the times of its files."""
  return shutil.copytree(place / 'photos', tmp_path / 'photos')


def exact(model, folder, text):
  """The probabilities by `predict`, by path."""
  paths = [str(path) for path in sorted(folder.rglob('*.png'))]
  return dict(zip(paths, model.match(paths, text)[:, 0].tolist(), strict=True))


# --- What is found -----------------------------------------------------------------------


@pytest.mark.parametrize('name', ['retrieval', 'pretrain'])
def test_scores_are_those_of_match_and_the_best_come_first(name, indexed, models, place):
  for text in TEXTS:
    expected = exact(models[name], place / 'photos', text)
    found = indexed[name].find(text, k=COUNT, rerank=COUNT)
    assert dict(found) == pytest.approx(expected, abs=1e-5)
    values = [p for _, p in found]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 0.01
    assert indexed[name].find(text, k=3, rerank=COUNT) == found[:3]


def test_a_shortlist_is_by_cosines_and_ranked_by_probabilities(indexed, models, place):
  model, index = models['retrieval'], indexed['retrieval']
  paths = [str(path) for path in sorted((place / 'photos').rglob('*.png'))]
  vectors = []
  for path in paths:
    group = [model.runner.reader(path)]
    seen = model.runner._see(group)
    vectors.append(model.module.apply(model.variables, *seen, False, method='image_vector')[0])
  for text in TEXTS:
    tokens = model.tokenizer([text])[0]
    mask = tokens != model.tokenizer.pad_id
    vector = model.module.apply(model.variables, tokens, mask, False, method='text_vector')[0]
    cosines = np.array(vectors) @ np.array(vector)
    listed = {paths[i] for i in np.argsort(-cosines)[:7]}
    found = index.find(text, k=5, rerank=7)
    expected = {
      path: p for path, p in exact(model, place / 'photos', text).items() if path in listed
    }
    best = sorted(expected, key=expected.get, reverse=True)[:5]
    assert [path for path, _ in found] == best
    assert {path for path, _ in index.find(text, k=7, rerank=1)} == listed


@pytest.mark.parametrize('name', ['retrieval', 'pretrain'])
def test_texts_of_a_photo_of_the_folder_and_of_another(name, indexed, models, place, monkeypatch):
  index, inside = indexed[name], place / 'photos/01.png'
  expected = dict(zip(TEXTS, models[name].match(inside, TEXTS)[0].tolist(), strict=True))
  assert dict(index.texts(picture(1), TEXTS)) == pytest.approx(expected, abs=1e-5)
  monkeypatch.setattr(models[name].runner, 'see', None)  # the CNN
  found = index.texts(inside, [*TEXTS, TEXTS[0]], k=4)
  assert dict(found) == pytest.approx(expected, abs=1e-5)
  assert [text for text, _ in found] == sorted(expected, key=expected.get, reverse=True)
  assert index.texts(inside, TEXTS, k=2, rerank=4) == found[:2]
  if index.first_stage:
    assert len(index.texts(inside, TEXTS, k=1, rerank=1)) == 1


def test_without_a_first_stage_it_says_how_long_it_takes(indexed, monkeypatch, capfd):
  monkeypatch.setattr(index_lib, 'QUIET', 0.0)
  indexed['pretrain'].find('a star', k=1)
  said = capfd.readouterr().err
  assert f'{COUNT} of {COUNT} photos are scored, since this model has no first stage: ' in said
  assert f'/{COUNT} [' in said  # progress


# --- What is kept ------------------------------------------------------------------------


def test_only_what_changed_is_seen_again(models, copy, tmp_path, monkeypatch):
  model, read = models['retrieval'], []
  arguments = model, copy, tmp_path / 'index'
  call = photos.Reader.__call__
  monkeypatch.setattr(
    photos.Reader, '__call__', lambda self, p, n=0: read.append(str(p)) or call(self, p, n)
  )
  monkeypatch.setattr(updates, 'BYTES', 1)
  assert search.update(*arguments).photos == len(read) == COUNT
  assert len(list((tmp_path / 'index').glob('*'))) > 2  # parts
  read.clear()
  assert (search.update(*arguments).added, read) == (0, [])
  picture(100).save(copy / '01.png')
  picture(101).save(copy / 'new.jpg')
  (copy / '02.png').unlink()
  os.utime(copy / '04.png', ns=(1, 1))
  index = search.Index.open(*arguments)
  assert index.stale() == 4
  done = search.update(*arguments)
  assert (done.photos, done.added, done.dropped) == (COUNT, 3, 3)
  assert sorted(read) == [str(copy / name) for name in ('01.png', '04.png', 'new.jpg')]
  monkeypatch.undo()
  index = search.Index.open(*arguments)
  assert index.stale() == 0
  found = dict(index.find('a star', k=COUNT, rerank=COUNT))
  paths = sorted(str(path) for path in copy.rglob('*.*'))
  expected = model.match(paths, 'a star')[:, 0].tolist()
  assert found == pytest.approx(dict(zip(paths, expected, strict=True)), abs=1e-5)


def test_a_killed_update_is_gone_on_with(models, copy, tmp_path, monkeypatch):
  arguments = models['retrieval'], copy, tmp_path / 'index'
  monkeypatch.setattr(updates, 'BYTES', 1)
  see, done_before = models['retrieval'].runner.see, []

  def killed(*rest):
    for group in see(*rest):
      if len(done_before) > 9:
        raise KeyboardInterrupt
      done_before.extend(group[0])
      yield group

  monkeypatch.setattr(models['retrieval'].runner, 'see', killed)
  with pytest.raises(KeyboardInterrupt):
    search.update(*arguments)
  half = tmp_path / 'index/.photos-000003.safetensors.elsewhere-1.partial'
  half.write_bytes(b'half')
  monkeypatch.setattr(models['retrieval'].runner, 'see', see)
  done = search.update(*arguments)
  assert (done.photos, done.added) == (COUNT, COUNT - len(done_before))
  assert done.added > 0
  assert not half.exists()
  assert len(search.Index.open(*arguments)) == COUNT


def test_an_index_of_another_checkpoint_is_refused_and_made_again(models, copy, tmp_path):
  home = tmp_path / 'index'
  search.update(models['pretrain'], copy, home)
  with pytest.raises(UserError, match=r'index is an index by another checkpoint: add --index'):
    search.Index.open(models['retrieval'], copy, home)
  done = search.update(models['retrieval'], copy, home)
  assert (done.photos, done.added, done.dropped) == (COUNT, COUNT, COUNT)
  assert search.Index.open(models['retrieval'], copy, home).first_stage


def test_it_lies_in_the_cache_and_nothing_beside_the_photos(models, copy, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  before = sorted(copy.rglob('*'))
  done = search.update(models['retrieval'], copy)
  assert done.home.is_relative_to(tmp_path / 'cache')
  assert sorted(copy.rglob('*')) == before
  assert done.bytes == sum(path.stat().st_size for path in done.home.iterdir())
  monkeypatch.chdir(tmp_path)
  assert len(search.Index.open(models['retrieval'], 'photos')) == COUNT


def test_what_cannot_be_read_is_left_out_and_named(models, copy, tmp_path):
  (copy / 'text.jpg').write_text('not a photo')
  (copy / 'empty.png').touch()
  (copy / 'film.MP4').touch()
  (copy / 'README').touch()
  (copy / '.hidden.jpg').touch()
  done = search.update(models['retrieval'], copy, tmp_path / 'index')
  assert (done.photos, done.added) == (COUNT, COUNT)
  assert [reason.split(':')[0] for reason in sorted(done.left_out)] == [
    str(copy / 'empty.png'),
    str(copy / 'text.jpg'),
  ]
  assert done.others == {'.mp4': 1, 'no ending': 1}


# --- Mistakes ----------------------------------------------------------------------------


def test_folders_that_cannot_be_indexed(models, place, tmp_path):
  model = models['retrieval']
  with pytest.raises(UserError, match=r'none: no such folder'):
    search.update(model, tmp_path / 'none')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match=r'empty: no photos \(JPEG.*: it holds nothing$'):
    search.update(model, tmp_path / 'empty')
  (tmp_path / 'empty/a.jpg').write_text('text')
  home = tmp_path / 'index'
  with pytest.raises(UserError, match=r'none of its 1 photos can be read, such as .*a\.jpg: 4 byt'):
    search.update(model, tmp_path / 'empty', home)
  assert not home.exists()
  with pytest.raises(UserError, match=r'has no index in .*index: add --index'):
    search.Index.open(model, place / 'photos', home)


def test_an_index_of_another_folder(models, place, copy, indexed):
  home = place / 'index-retrieval'
  for call in (search.update, search.Index.open):
    with pytest.raises(UserError, match=r'is the index of .*photos: give another --index_dir'):
      call(models['retrieval'], copy, home)
  assert len(search.Index.open(models['retrieval'], place / 'photos', home)) == COUNT


def test_a_damaged_part(models, copy, tmp_path):
  arguments = models['retrieval'], copy, tmp_path / 'index'
  search.update(*arguments)
  (part,) = (tmp_path / 'index').glob('*.safetensors')
  content = part.read_bytes()
  for damaged in (content[:-1], content[:100], b'', b'text'):
    part.write_bytes(damaged)
    for call in (search.update, search.Index.open):
      with pytest.raises(UserError, match=r'000001\.safetensors is damaged, or no part of an inde'):
        call(*arguments)


def test_a_full_disk_is_said_and_what_was_written_counts(models, copy, tmp_path, monkeypatch):
  arguments = models['retrieval'], copy, tmp_path / 'index'
  monkeypatch.setattr(updates, 'BYTES', 1)
  room = [10**9, 10]
  monkeypatch.setattr(disk, 'room', lambda path: room.pop(0) if room[1:] else room[0])
  with pytest.raises(UserError, match=r'cannot be written \(No space .*give another --index_dir'):
    search.update(*arguments)
  monkeypatch.undo()
  assert 0 < search.update(*arguments).added < COUNT


def test_one_process_writes_at_a_time(models, copy, tmp_path):
  home = tmp_path / 'index'
  words = r'the index in .* is in use by .*, or give another --index_dir'
  with lock.held(home / 'lock', 'it', 'wait'), pytest.raises(lock.LockError, match=words):
    search.update(models['retrieval'], copy, home)


@pytest.mark.parametrize('text', ['', '  '])
def test_an_empty_text(text, indexed):
  with pytest.raises(TextError, match='is empty'):
    indexed['retrieval'].find(text)
  with pytest.raises(TextError, match='no texts'):
    indexed['retrieval'].texts(picture(0), [])


@pytest.mark.parametrize('value', [0, -1, 1.5, '2', True])
def test_numbers_that_cannot_be(value, indexed, place):
  index = indexed['retrieval']
  for name in ('k', 'rerank'):
    words = f'{name}=.*: give a whole number of at least 1'
    with pytest.raises(UserError, match=words):
      index.find('a star', **{name: value})
    with pytest.raises(UserError, match=words):
      index.texts(place / 'photos/01.png', TEXTS, **{name: value})


# --- The command -------------------------------------------------------------------------


@pytest.fixture
def said(place, tmp_path, capsys):
  """What the command prints, and on stderr; its exit code is checked."""

  def said(*arguments, code=0, task='retrieval', folder=place / 'photos'):
    command = [f'--checkpoint={place / task}', f'--folder={folder}', *arguments]
    assert main([*command, f'--index_dir={tmp_path / "index"}']) == code
    return capsys.readouterr()

  return said


def test_the_command_indexes_and_finds(said, indexed, copy):
  (copy / 'text.jpg').write_text('not a photo')
  out = said('--index', folder=copy).out.splitlines()
  assert re.fullmatch(rf'{COUNT} photos in \S+ \(\S+ kB\): {COUNT} added, 0 dropped', out[0])
  assert out[1] == 'left out 1, which cannot be read:'
  assert 'text.jpg: 11 bytes that are not' in out[2]
  assert len(out) == 3
  captured = said('--text=a red circle', '--k=3', folder=copy)
  assert 'new, changed, gone or unreadable since it was indexed: 1;' in captured.err
  title, *rows, last = captured.out.splitlines()
  assert title == 'photos, each with the probability that the text is true of it:'
  found = indexed['retrieval'].find('a red circle', k=3)
  names = [f'{p:.3f}  {path}'.replace(indexed['retrieval'].folder, str(copy)) for path, p in found]
  assert rows[:3] == names
  assert last.startswith('This model was trained on rendered scenes')
  captured = said('--text=a red zebra', '--k=2', '--json', folder=copy)
  assert 'zebra' not in captured.err  # It is said with the rows.
  found_json = json.loads(captured.out)
  assert found_json['text'] == 'a red zebra'
  assert [row['unknown_words'] for row in found_json['photos']] == [['zebra']] * 2


def test_the_command_finds_texts(said, indexed, place, tmp_path):
  (tmp_path / 'texts.txt').write_text('\n'.join(['', *TEXTS, '  ']))
  asked = f'--image={place / "photos/01.png"}', f'--texts={tmp_path / "texts.txt"}'
  lines = said('--index', *asked, '--k=2').out.splitlines()
  found = indexed['retrieval'].texts(place / 'photos/01.png', TEXTS, k=2)
  assert lines[1] == 'texts, each with the probability that it is true of the photo:'
  assert lines[2:4] == [f'{p:.3f}  {text}' for text, p in found]


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], 'give --index, --text, or --image and --texts'),
    (['--text='], '--text is empty'),
    (['--text=a', '--image=b', '--texts=c'], 'give --text, or --image and --texts'),
    (['--image=b'], '--image and --texts belong together'),
    (['--text=a', '--k=0'], '--k=0: give a whole number of at least 1'),
    (['--image=b', '--texts=none.txt'], 'none.txt does not exist'),
  ],
)
def test_mistakes_on_the_command_line(arguments, words, said):
  captured = said(*arguments, code=1)
  assert captured.err.startswith(f'error: {words}')
  assert captured.err.count('\n') == 1


def test_a_checkpoint_that_cannot_match(said):
  words = 'is of vqa and cannot match (--text): it can answer (--question)'
  for flag in ('--index', '--text=a star'):
    assert words in said(flag, task='vqa', code=1).err
  assert issubclass(HeadError, UserError)


def test_the_page_runs_as_it_stands(place, tmp_path, monkeypatch, capsys):
  page = (ROOT / 'docs/search.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  commands = re.findall(r'^    python -m pixelbert_jax.search (.*)$', page, re.MULTILINE)
  assert len(commands) == 3
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'C').symlink_to(place / 'retrieval')
  (tmp_path / 'photos').symlink_to(place / 'photos')
  picture(1).save('photo.jpg')
  (tmp_path / 'texts.txt').write_text('\n'.join(TEXTS))
  for command in commands:
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs/retrieval-two-stage').symlink_to(place / 'retrieval')
  exec(code, {})
  assert 'photos/' in capsys.readouterr().out
