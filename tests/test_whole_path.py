"""From files as their owners publish them, or one's own, to a trained model, by the commands."""

import json

import numpy as np
import pytest
from PIL import Image

from data.build import build
from pixelbert_jax.main import main
from tests.support import corpora

VOCABULARY = '--config.text.vocabulary=data/scenes/vocab.txt'


def train(tmp_path, *arguments, task='pretrain'):
  """Trains a little; returns the metrics of the test split."""
  workdir = tmp_path / task
  fixed = [f'--config=configs/{task}.py:test', VOCABULARY, '--config.image.canvases=((64, 96),)']
  fixed += ['--config.image.longer=96', '--config.steps=2', f'--workdir={workdir}']
  fixed += [f'--config.data.data_dir={tmp_path / "built"}']
  assert main([*fixed, *arguments]) == 0
  last = json.loads((workdir / 'metrics.jsonl').read_text().splitlines()[-1])
  assert last['split'] == 'test'
  return last


@pytest.mark.slow
def test_coco_and_visual_genome_are_pretrained_on_together(tmp_path, capsys):
  coco_files, coco = corpora.karpathy('coco', {'train': 8, 'restval': 4, 'val': 6, 'test': 6})
  flickr_files, flickr = corpora.karpathy('flickr30k', {'train': 1, 'val': 1, 'test': 1})
  genome_files, _ = corpora.visual_genome(coco, flickr)
  captions = corpora.coco_captions(coco, {})
  files = coco_files | flickr_files | genome_files | captions
  corpora.as_zips(files, tmp_path / 'manual')
  for name in ('coco_karpathy', 'visual_genome/all'):
    build(name, tmp_path / 'built', tmp_path / 'manual', allow_bad=0.5)
  name = '--config.data.name=coco_karpathy+visual_genome/all'
  last = train(tmp_path, name, '--config.batch_size=4', '--config.texts_per_image=1')
  assert np.isfinite(last['loss'])
  out = capsys.readouterr().out
  assert 'mixture     train of coco_karpathy 12 images' in out
  assert '+ visual_genome/all' in out


@pytest.mark.slow
def test_twenty_photographs_of_ones_own(tmp_path):
  rows, asked, rng = ['image,caption'], ['image,question,answers'], np.random.default_rng(0)
  (tmp_path / 'photos').mkdir()
  for i in range(20):
    pixels = np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    Image.fromarray(pixels).save(tmp_path / f'photos/{i}.jpg')
    rows += [f'{i}.jpg,a photograph with number {i}', f'{i}.jpg,"colours, many of them: {i}"']
    asked += [f'{i}.jpg,is it colourful,yes', f'{i}.jpg,is it number {i},{"yes" if i else "no"}']
  tables = {'val_share': 0.2, 'test_share': 0.2}
  for name, lines in {'captions': rows, 'questions': asked}.items():
    tables[name] = str(tmp_path / f'{name}.csv')
    (tmp_path / f'{name}.csv').write_text('\n'.join(lines) + '\n')
  build('folder', tmp_path / 'built', tmp_path / 'photos', tables=tables)
  options = ['--config.data.name=folder', '--config.batch_size=4', '--config.texts_per_image=2']
  # Spelt letter by letter in the vocabulary of scenes, the texts are long.
  options += ['--config.text.length=48']
  last = train(tmp_path, *options)
  assert np.isfinite(last['loss'])
  start = f'--config.init_from={tmp_path / "pretrain"}'
  last = train(tmp_path, *options, start, task='vqa')
  assert 0 <= last['vqa_accuracy'] <= 1
  answered = json.loads((tmp_path / 'vqa/predictions/test.json').read_text())
  assert len(answered) == 8
  assert {row['answer'] for row in answered} <= {'yes', 'no'}
