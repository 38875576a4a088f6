"""`python -m pixelbert_jax.plan`: the real step of a small configuration, for a slice of TPUs."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys

import pytest

from pixelbert_jax.plan import __main__ as plan
from pixelbert_jax.plan import corpus
from tests.support.paths import ROOT

COMMAND = [sys.executable, '-m', 'pixelbert_jax.plan']
SMALL = '--config=configs/pretrain.py:test', '--topology=v5e:2x4'
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is missing: pip install -e .[plan]'
)


def run(*arguments):
  """Runs the command; whatever the tests set of JAX is not for it."""
  done = subprocess.run(
    [*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout, done.stderr


@needs_libtpu
def test_a_small_configuration_end_to_end(tmp_path):
  record, dump = tmp_path / 'made/plan.jsonl', tmp_path / 'dump'
  flags = f'--record={record}', f'--dump={dump}', '--config.micro_batches=2'
  out, err = run(*SMALL, '--images_per_chip=4', *flags)
  planned = json.loads(record.read_text())
  assert (planned['config'], planned['topology'], planned['chips']) == (
    'pretrain:test',
    'v5e:2x4',
    8,
  )
  train, evaluate = planned['programs']
  assert list(train['programs']) == ['micro-batch', 'update']
  assert list(evaluate['programs']) == ['evaluation']
  said = re.findall(r'^compiling ([\w-]+), 4 images a chip of 64x64', err, re.MULTILINE)
  assert said == ['micro-batch', 'update', 'evaluation']
  assert len(list(dump.glob('*.hlo'))) == 3

  # 4 images on 8 chips, twice, with 4 texts each.
  assert train['batch_size'] == 4 * 8 * 2 * 4
  assert train['images_per_batch'] == 64
  # 8,000 scenes have 8 captions each: two groups of 4.
  assert train['steps_per_epoch'] == 16_000 // 64
  for program in train['programs'].values():
    assert program['arguments'] > 4 * 4 * 64 * 64 * 3
    assert program['memory'] < planned['chip_memory']
  # Gradients are summed over the chips, once in each micro-batch.
  assert train['collectives']['all-reduce']['bytes'] > 0
  assert {'stem', 'layer1', 'layer2', 'encoder', 'optimizer', 'resize'} <= train['parts'].keys()
  assert train['parts']['optimizer']['bytes'] > 0
  assert 'optimizer' not in evaluate['parts']
  # The gradient takes about twice the forward pass, but that of fewer pixels; images need none.
  assert 1.5 < train['flops'] / 2 / evaluate['flops'] < 3
  assert train['flops_recomputed'] == 0
  for name in ('flops', 'bytes', 'cycles', 'mfu'):
    assert train['seconds'][name] > 0
    rate, seconds = train['speed'][name], train['seconds'][name]
    assert rate['pairs_per_second'] == pytest.approx(train['batch_size'] / seconds)
    assert rate['hours_per_epoch'] == pytest.approx(250 * seconds / 3600)
  assert train['loops_counted_once'] == evaluate['loops_counted_once'] == []

  for words in ('plan        pretrain:test on v5e:2x4: 8 x TPU v5e', 'all-reduce', 'at 40% MFU'):
    assert words in out
  assert re.search(r'^memory      update: \d', out, re.MULTILINE)


MISTAKES = {
  'no topology': ((SMALL[0],), ['--topology']),
  'no such chip': ((SMALL[0], '--topology=v9:2x2'), ['v9', 'v5e', 'a100']),
  'no shape': ((SMALL[0], '--topology=v5e'), ['sides of a slice', '2x4']),
  'GPUs as a slice': ((SMALL[0], '--topology=a100:2x4'), ['a number of GPUs']),
  'no images': ((*SMALL, '--images_per_chip=0'), ['--images_per_chip', 'less than 1']),
  'nothing to use': ((*SMALL, '--spare=1'), ['--spare']),
  'a fit of evaluation': ((*SMALL, '--fit', '--mode=evaluate'), ['--fit is for training']),
  'a mistyped flag': ((*SMALL, '--all_canvasses'), ['did you mean --all_canvases']),
  'a mistyped field': ((*SMALL, '--config.sed=1'), ['config.sed', 'seed']),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line(mistake, capsys, monkeypatch):
  monkeypatch.chdir(ROOT)
  arguments, words = MISTAKES[mistake]
  assert plan.main(arguments) == 1
  line = capsys.readouterr().err
  assert line.startswith('error: ')
  assert line.count('\n') == 1
  for word in words:
    assert word in line


@pytest.mark.parametrize(
  ('topology', 'package'), [('v5e:2x4', 'libtpu'), ('a100:8', 'jax-cuda12-plugin')]
)
def test_a_compiler_that_is_missing(topology, package, capsys, monkeypatch):
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert plan.main([SMALL[0], f'--topology={topology}']) == 1
  line = capsys.readouterr().err
  assert line.count('\n') == 1
  assert 'pip install' in line
  assert package in line


@needs_libtpu
@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--topology=v5e:3x5'], ['--topology=v5e:3x5', 'name a slice that exists']),
    ([SMALL[1], '--config.batch_size=20'], ['5 images', '8 chips', '--images_per_chip']),
    ([SMALL[1], '--config.mesh.fsdp=3'], ['mesh', '8 devices']),
  ],
)
def test_what_only_the_compiler_knows_is_one_line_too(flags, words):
  done = subprocess.run(
    [*COMMAND, SMALL[0], *flags], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 1
  (line,) = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  for word in words:
    assert word in line


def test_the_page_names_flags_that_exist():
  page = (ROOT / 'docs/plan.md').read_text()
  commands = re.findall(r'^    python -m pixelbert_jax\.plan (.*)$', page, re.MULTILINE)
  assert len(commands) >= 3
  for command in commands:
    flags, overrides = plan.parser().parse_overrides(shlex.split(command))
    assert (ROOT / flags.config.partition(':')[0]).is_file()
    assert overrides == []


# --- The length of an epoch --------------------------------------------------------------


@pytest.mark.parametrize(
  ('texts', 'images'), [(1, 566_747), (4, 113_287), (5, 113_287), (8, 113_287)]
)
def test_groups_of_coco(texts, images):
  sources = corpus.find('pretrain', 'coco_karpathy', 'train')
  assert corpus.groups(sources, texts) == images


def test_a_mixture_has_the_groups_of_its_sources_or_their_shares():
  sources = corpus.find('pretrain', 'coco_karpathy+visual_genome', 'train')
  coco, genome = (corpus.groups([source], 1) for source in sources)
  assert corpus.groups(sources, 1) == coco + genome
  assert corpus.groups(sources, 1, (1.0, 1.0)) == 2 * coco


def test_counts_of_scenes_are_those_of_the_whole_dataset():
  assert corpus.find('vqa', 'scenes', 'train') != corpus.find('nlvr', 'scenes', 'train')
  assert corpus.find('vqa', 'my_own', 'train') is None
  (both,) = corpus.find('vqa', 'vqa_v2', 'train+val[!karpathy_val]')
  assert both.texts == 443_757 + 214_354
  # Visual Genome has no val.
  mixture = corpus.find('vqa', 'vqa_v2+visual_genome_questions/all', 'train+val[!karpathy_val]')
  assert [source.texts for source in mixture] == [443_757 + 214_354, 1_445_322]
  assert corpus.find('vqa', 'visual_genome_questions+vqa_v2', 'train+val') is None
