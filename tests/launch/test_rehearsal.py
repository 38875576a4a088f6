"""The rehearsal: a user's commands, the whole way, and on where it stopped."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModel

from launch.rehearsal import __main__ as rehearsal
from launch.rehearsal.__main__ import Rehearsal
from launch.rehearsal.stages import Places, Stage, Way
from pixelbert_jax import UserError, configuration
from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.input import image as image_lib
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.models.heads import Model
from pixelbert_jax.predict import load
from pixelbert_jax.score import annotations, predictions, vqa
from tests.support.paths import ROOT
from tests.support.runs import metrics

COMMAND = [sys.executable, '-m', 'launch.rehearsal']


def configured(words):
  """The checked configuration that a command names; None if it names none."""
  given = [word.removeprefix('--config=') for word in words if word.startswith('--config=')]
  if not given:
    return None
  overrides = [w.removeprefix('--config.') for w in words if w.startswith('--config.')]
  config = configuration.load(str(ROOT / given[0]), overrides)
  config.init_from = config.init_from or 'anything'  # convert and evaluations need none
  configuration.check(config)
  return config


@pytest.mark.parametrize('small', [False, True])
def test_configurations_take_the_commands(small):
  stages = {stage.name: stage for stage in Way(Places.below('DIR', True), 2, small)}
  found = {name: configured([*s.words, *s.shorter]) for name, s in stages.items()}
  named = {name: config for name, config in found.items() if config}
  assert set(named) == {'inputs', 'convert', 'pretrain', 'vqa', 'test-dev', 'val'}
  assert {config.batch_size // config.texts_per_image for config in named.values()} >= {2}
  real = configured(stages['pretrain'].words)
  assert real.batch_size == 4096
  for name in ('pretrain', 'vqa'):
    assert configured(stages[name].words).steps == 0
    # The model and the canvases of a rehearsal are the paper's, unless it is to be small.
    assert (named[name].cnn == real.cnn) == (not small)
    assert (named[name].image == real.image) == (not small)
  assert named['vqa'].data.train == 'train+val[!karpathy_val]'


def test_dry_run_prints_the_commands_and_makes_nothing(tmp_path, capsys):
  folder = tmp_path / 'r'
  rehearsal.command([f'--folder={folder}', '--dry_run'])
  printed = capsys.readouterr().out
  commands = re.findall(r'^python .*$', printed, re.MULTILINE)
  assert len(commands) == len(list(Way(Places())))
  assert f'--workdir={folder}/runs/pretrain-r50-s0' in printed
  assert not folder.exists()


def test_a_failed_stage_is_shown_and_the_rest_is_not_done_twice(tmp_path, capsys):
  first = Stage('first', ['-c', 'pass'])
  lines = 'for i in range(99): print("line", i)\n'
  broken = Stage('second', ['-c', f'{lines}import sys; sys.exit(3)'])
  with pytest.raises(UserError, match=r'second failed with exit code 3; .*logs/second\.log'):
    Rehearsal(tmp_path).run([first, broken])
  out = capsys.readouterr().out
  assert 'line 98' in out
  assert 'line 80' not in out
  assert 'line 0' in (tmp_path / 'logs/second.log').read_text()

  made = tmp_path / 'made'
  made.mkdir()
  (made / 'half').touch()  # of a try that was killed
  mended = Stage('second', ['-c', f'import os; os.mkdir({str(made)!r})'], makes=str(made))
  Rehearsal(tmp_path).run([first, mended])
  out = capsys.readouterr().out
  assert re.search(r'^first .*done before', out, re.MULTILINE)
  assert not re.search(r'^second .*done before', out, re.MULTILINE)
  assert not any(made.iterdir())

  other = dataclasses.replace(first, shorter=['more'])
  with pytest.raises(UserError, match='another rehearsal, whose stage first'):
    Rehearsal(tmp_path).run([other])


def test_memory_and_time_are_those_of_the_stage(tmp_path):
  # From a process of its own: a stage counts the memory of what starts it, and this one has much.
  large = 'import time; x = b"x" * 300_000_000; time.sleep(0.3)'
  run = (
    'import pathlib; from launch.rehearsal.__main__ import Rehearsal, Stage; '
    f'stages = [Stage("large", ["-c", {large!r}]), Stage("small", ["-c", ""])]; '
    f'Rehearsal(pathlib.Path({str(tmp_path)!r})).run(stages)'
  )
  subprocess.run([sys.executable, '-c', run], cwd=ROOT, check=True)
  own = Rehearsal(tmp_path)
  assert 0.3 < own.done['large']['gigabytes'] < 0.5
  assert 0.3 < own.done['large']['seconds'] < 20
  assert own.done['small']['gigabytes'] < 0.3


# --- The whole way -----------------------------------------------------------------------


@pytest.fixture(scope='module')
def rehearse(compiled_programs, tmp_path_factory):
  """Rehearses with a small model in a folder; what it printed, and its exit code."""
  folder = tmp_path_factory.mktemp('rehearsal')

  def run(*flags):
    done = subprocess.run(
      [*COMMAND, f'--folder={folder}', *flags],
      cwd=ROOT,
      env=os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'},
      capture_output=True,
      text=True,
      check=False,
    )
    return done.stdout, done.stderr, done.returncode

  return folder, run


def same_outputs(run: pathlib.Path, export: pathlib.Path, photo: pathlib.Path) -> None:
  """Asserts that the exported model computes what the checkpoint does, of the same pixels."""
  model = load(run)
  module: Model = model.module
  pixels = image_lib.decode(photo.read_bytes())
  config = model.config.image
  size = image_lib.target_size(np.array(pixels.shape[:2]), config.shorter, config.longer)
  canvas = np.zeros((1, *pixels.shape), np.uint8)
  image_lib.place(pixels, canvas[0])
  image = image_lib.resize(canvas, np.array([pixels.shape[:2]]), size[None], (96, 96))
  image = image_lib.normalise(image, module.backbone.mean, module.backbone.deviation)
  ids, _ = Tokenizer(run / 'vocab.txt', 16)(['a clock [MASK]', 'größer'])
  ids = ids.reshape(1, 2, -1)
  position = np.broadcast_to(np.arange(16), ids.shape)
  inputs = np.asarray(image), size[None], ids, ids > 0, position
  ours = jax.jit(lambda *x: module.apply(model.variables, *x, False))(*inputs)
  exported = AutoModel.from_pretrained(export, trust_remote_code=True)
  with torch.no_grad():
    theirs = exported(
      pixel_values=torch.from_numpy(inputs[0].transpose(0, 3, 1, 2).copy()),
      image_size=torch.from_numpy(inputs[1]),
      input_ids=torch.from_numpy(ids[0]),
      attention_mask=torch.from_numpy(ids[0] > 0),
    )
  for name in ('mlm_logits', 'itm_logits'):
    expected = np.asarray(ours[name]).reshape(theirs[name].shape)
    assert expected.std() > 0
    np.testing.assert_allclose(theirs[name], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_whole_way(rehearse, tmp_path):
  folder, run = rehearse
  out, err, code = run('--small', f'--output={tmp_path}/out.jsonl')
  assert code == 0, out[-3000:] + err[-3000:]
  runs, lists = folder / 'runs', folder / 'lists'
  pretrained, tuned = runs / 'pretrain-r50-s0', runs / 'vqa-r50_trainval-s0'

  # A step on VQA was chosen on Karpathy's val; test2015 has no answers to score.
  logged = {x: [line['split'] for line in metrics(x)] for x in (pretrained, tuned)}
  assert logged[pretrained][-1] == 'test'
  assert logged[tuned] == ['train', 'val[karpathy_val]', 'test']
  assert metrics(tuned)[-1]['chosen_step'] == 1
  before, after = (
    by_name(checkpoint.load(x).variables) for x in (folder / 'converted', pretrained)
  )
  assert any((before[name] != after[name]).any() for name in before)

  asked = annotations.read_vqa(lists / 'v2_mscoco_val2014_annotations.json')
  found = predictions.read_vqa(f'{tuned}-val/predictions/val.json', [q.question_id for q in asked])
  accuracy = vqa.summarise(vqa.per_question(found, asked), asked)['accuracy']
  assert len(asked) == 3 * 12
  printed = float(
    re.search(r'^VQA accuracy on val ([\d.]+)%, of 36 questions', out, re.MULTILINE)[1]
  )
  assert 0 <= printed <= 100
  assert printed == pytest.approx(100 * accuracy, abs=0.005)

  answered = json.loads(
    pathlib.Path(f'{tuned}-test-dev/predictions/test[test-dev].json').read_text()
  )
  listed = json.loads((lists / 'v2_OpenEnded_mscoco_test-dev2015_questions.json').read_text())
  ids = sorted(question['question_id'] for question in listed['questions'])
  assert sorted(row['question_id'] for row in answered) == ids
  assert all(set(row) == {'question_id', 'answer'} for row in answered)

  again = by_name(checkpoint.load(folder / 'again').variables)
  assert {name: x.tobytes() for name, x in again.items()} == {
    name: x.tobytes() for name, x in after.items()
  }
  same_outputs(pretrained, folder / 'export', folder / 'photo.jpg')

  line = json.loads((tmp_path / 'out.jsonl').read_text())
  assert set(line['stages']) == {stage.name for stage in Way(Places())}
  assert all(0.01 < took['gigabytes'] < 20 for took in line['stages'].values())
  assert 'logit of one image and text by the model and its export' in out
  assert f'{sum(took["seconds"] for took in line["stages"].values()):.1f} s' in out

  # Stopped before the end of an export, it goes on there.
  record = json.loads((folder / 'rehearsal.json').read_text())
  del record['export']
  (folder / 'rehearsal.json').write_text(json.dumps(record))
  (folder / 'export/vocab.txt').unlink()
  out, err, code = run('--small')
  assert code == 0, err[-3000:]
  assert out.count('(done before)') == len(record)
  out, err, code = run('--small', '--images=4')
  assert code == 1
  assert 'take another --folder' in err
