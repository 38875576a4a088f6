"""A run remembers the data it is trained on."""

import json

import pytest

from pixelbert_jax.checkpoints import CheckpointError, DamagedError, provenance

DATA = {
  'mine': {
    'train': {'texts': 'a', 'images': 'b'},
    'val': {'texts': 'c', 'images': 'd'},
    'extra': {'texts': 'e', 'images': 'f'},
  }
}


def changed(**parts):
  return {'mine': DATA['mine'] | {name: DATA['mine'][name] | part for name, part in parts.items()}}


@pytest.fixture
def workdir(tmp_path):
  content = provenance.remember(tmp_path / 'run', DATA, {'train', 'val'})
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / provenance.DATA).write_bytes(content)
  return tmp_path / 'run'


@pytest.mark.parametrize(
  'now', [DATA, {}, changed(extra={'texts': 'x'}), {'mine': {'train': DATA['mine']['train']}}]
)
def test_the_same_data_go_on(now, workdir):
  content = (workdir / provenance.DATA).read_bytes()
  assert provenance.remember(workdir, now, {'train', 'val'}) == content
  assert json.loads(content)['mine'].keys() == {'train', 'val'}


@pytest.mark.parametrize(
  ('now', 'what'),
  [
    (changed(train={'texts': 'x'}), 'train has other texts'),
    (
      changed(train={'texts': 'x', 'images': 'y'}, val={'images': 'z'}),
      'train has other texts and images, val has other images',
    ),
  ],
)
def test_other_data_are_refused(now, what, workdir):
  with pytest.raises(CheckpointError) as error:
    provenance.remember(workdir, now, {'train', 'val'})
  assert str(error.value) == (
    f'{workdir} holds a run on another mine ({what}): the dataset was built again from other files '
    'since. Take another --workdir, or put the old dataset back'
  )


@pytest.mark.parametrize(
  'content', [b'', b'{"mine": {', b'[]', b'{"mine": 3}', b'{"mine": {"a": 1}}']
)
def test_a_damaged_memory_is_one_line(content, workdir):
  (workdir / provenance.DATA).write_bytes(content)
  with pytest.raises((DamagedError, CheckpointError), match=str(workdir)):
    provenance.remember(workdir, DATA | {'mine': DATA['mine'] | {'a': {}}}, {'train'})
