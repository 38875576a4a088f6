"""The step that validation chose is known, said where it is damaged, and never cleaned away."""

import contextlib
import dataclasses
import json

import pytest

from pixelbert_jax import sharding
from pixelbert_jax.checkpoints import CheckpointError
from pixelbert_jax.checkpoints.checkpoint import Checkpoints, load, steps
from pixelbert_jax.checkpoints.saved import Manifest
from pixelbert_jax.checkpoints.scores import Scores
from tests.support.states import FILES, bits, make_state, save


@contextlib.contextmanager
def going_on(workdir, keep=1):
  """The checkpoints of a run that goes on in a workdir."""
  with contextlib.closing(Checkpoints(workdir, FILES, keep)) as checkpoints:
    yield checkpoints


@pytest.fixture
def workdir(tmp_path):
  """That of a run with the steps 10 and 20, of which 10 is the better."""
  folder = tmp_path / 'run'
  save(folder)
  with going_on(folder) as checkpoints:
    for step, score in {10: 0.9, 20: 0.1}.items():
      checkpoints.save(step, make_state(step))
      checkpoints.score(step, score)
  return folder


def damage(path):
  content = bytearray(path.read_bytes())
  content[20] ^= 1
  path.write_bytes(content)


def manifest(workdir, step):
  return workdir / f'checkpoints/{step}/manifest/metadata'


def test_a_damaged_manifest_of_the_chosen_step_is_said_and_the_step_kept(workdir, capsys):
  damage(manifest(workdir, 10))
  said = f'{workdir}/checkpoints/10 is damaged (its manifest is damaged ('
  assert load(workdir).step == 20
  captured = capsys.readouterr()
  assert captured.err.startswith(said)
  assert captured.err.endswith('): taking step 20\n')
  with going_on(workdir) as checkpoints:
    assert checkpoints.chosen == (10, 0.9)
    for step in (30, 40):
      checkpoints.save(step, make_state(step))
      checkpoints.score(step, 0.3)
    step, score, variables = checkpoints.load_chosen(sharding.make_mesh())
  assert steps(workdir) == [10, 40]
  assert capsys.readouterr().err.startswith(said)
  assert (step, score) == (40, 0.3)
  assert bits(variables) == bits(make_state(40).variables)


def test_scores_are_known_from_later_steps_where_their_file_is_damaged(workdir, capsys):
  path = workdir / 'checkpoints/scores.json'
  damage(path)
  assert load(workdir).step == 10
  assert capsys.readouterr().err.startswith(f'{path} is damaged (')
  path.unlink()
  damage(manifest(workdir, 10))  # Its own repeats no score of its own.
  with going_on(workdir) as checkpoints:
    assert checkpoints.chosen == (10, 0.9)
  assert capsys.readouterr().err == ''


def test_a_step_of_unknown_score_may_be_the_chosen_one(workdir, capsys):
  # As an earlier version left it: each manifest holds its own score.
  (workdir / 'checkpoints/scores.json').unlink()
  for step, score in {10: 0.9, 20: 0.1}.items():
    path = manifest(workdir, step)
    old = dataclasses.replace(Manifest.unseal(path.read_text()), score=score, scores={})
    path.write_text(json.dumps(old.sealed()))
  assert load(workdir).step == 10
  damage(manifest(workdir, 10))
  assert load(workdir).step == 20
  assert f'{workdir}/checkpoints/10 is damaged' in capsys.readouterr().err
  with going_on(workdir) as checkpoints:
    assert checkpoints.chosen == (20, 0.1)
    checkpoints.save(30, make_state(30))
    checkpoints.save(40, make_state(40))
  assert '10: damaged manifest, so the score is unknown: kept' in capsys.readouterr().err
  assert steps(workdir) == [10, 20, 40]


def test_a_step_without_a_score_is_known_to_have_none(workdir):
  with going_on(workdir) as checkpoints:
    checkpoints.save(30, make_state(30))
    assert not checkpoints.is_scored(30)
    checkpoints.score(30, None)
  scores = Scores(workdir)
  assert scores.of == {10: 0.9, 30: None}
  assert scores.ranked[0] == 10


def test_a_step_is_discarded_unless_it_has_a_score(workdir):
  with going_on(workdir, keep=2) as checkpoints:
    checkpoints.save(30, make_state(30))
    checkpoints.discard(30)
    checkpoints.discard(20)
  assert steps(workdir) == [10, 20]
  assert (workdir / 'checkpoints/30.damaged').is_dir()


def test_with_every_chosen_step_damaged_it_is_an_error(workdir):
  with going_on(workdir) as checkpoints:
    for step in (10, 20):
      damage(manifest(workdir, step))
    with pytest.raises(CheckpointError, match=r'step 10: .*; step 20: ') as caught:
      checkpoints.load_chosen(sharding.make_mesh())
  assert '\n' not in str(caught.value)
