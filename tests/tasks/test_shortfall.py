"""What a dataset was built without is said wherever a score is: in a run, its table, its files."""

import json

import pytest

from configs import nlvr2
from data import build as build_lib
from data.builders import open_dataset
from data.coco_karpathy import coco_karpathy_dataset_builder
from data.listing import TWICE
from data.miniatures import as_json
from data.vqa_v2 import vqa_v2_dataset_builder
from pixelbert_jax.evaluate import evaluate
from pixelbert_jax.input.joined import join_splits
from pixelbert_jax.input.selection import select
from pixelbert_jax.loop import DONE
from pixelbert_jax.score import __main__ as score
from pixelbert_jax.tasks.shortfall import remark, scores, shortfall
from pixelbert_jax.train import train
from tests.support import corpora
from tests.support.builds import built
from tests.support.corpora import as_folder
from tests.support.runs import metrics, short_config

STEPS = 2

pytestmark = pytest.mark.usefixtures('quick_compiles')


# --- Runs -----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  """NLVR2, of which a photograph of test1 is missing: its folder, and the statements left there."""
  folder = tmp_path_factory.mktemp('pairs')
  files, lines = corpora.nlvr2({'train': 12, 'dev': 6, 'test1': 12})
  del files['test1/test1-0-1-img1.png']
  manual = as_folder(files, folder / 'manual')
  assert build_lib.command(['nlvr2'], folder / 'built', manual) == 0
  names = [line['identifier'] for line in lines['test1']]
  return folder / 'built', [name for name in names if not name.startswith('test1-0-1-')]


@pytest.fixture
def config(pairs, vocabulary):
  config = short_config(nlvr2, pairs[0], STEPS)
  config.data.name, config.data.validation, config.data.test = 'nlvr2', 'dev', 'test1'
  config.text.vocabulary = str(vocabulary)
  config.image.shorter, config.image.longer = 32, 64
  return config


def test_a_run_says_of_how_many_statements_its_scores_are(pairs, config, tmp_path, capsys):
  left = len(pairs[1])
  said = f'test1 has {left} of 6,967 statements: the dataset was built without the others'
  assert train(config, tmp_path / 'run') == DONE
  out = capsys.readouterr().out
  before, after = out.split('on test1')
  assert f'left out    {said}\n' in before  # before hours of work
  assert 'left out    dev has 10 of 6,982 statements' in before
  assert 'left out    train has 20 of 86,373 statements' in before
  assert f'\n{said}\n' in after
  assert 'statements built' not in after  # as if it were a score
  last = metrics(tmp_path / 'run')[-1]
  assert (last['statements_built'], last['statements_expected']) == (left, 6967)
  # Of a run that has ended the table comes from its log.
  assert train(config, tmp_path / 'run') == DONE
  assert said in capsys.readouterr().out

  evaluate(config, str(tmp_path / 'run'), tmp_path / 'evaluated')
  assert capsys.readouterr().out.endswith(f'\n{said}\n')
  found = json.loads((tmp_path / 'evaluated/predictions/test1_metrics.json').read_text())
  assert (found['statements_built'], found['statements_expected']) == (left, 6967)


def test_what_is_left_of_a_split_is_scored_by_the_command(pairs, config, tmp_path, capsys):
  assert train(config, tmp_path / 'run') == DONE
  folder, left = tmp_path / 'run/predictions', pairs[1]
  capsys.readouterr()
  command = ['nlvr2', f'--predictions={folder}/test1.csv']
  assert score.main([*command, f'--annotations={folder}/test1_annotations.json']) == 0
  assert capsys.readouterr().out.endswith(f'scored: {len(left)} of 6,967 statements\n')
  command += [f'--annotations={folder}/test1_annotations.json', '--json']
  assert score.main(command) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['accuracy'] == metrics(tmp_path / 'run')[-1]['nlvr_accuracy']
  assert found['scored'] == f'{len(left)} of 6,967 statements'


def test_a_whole_split_has_no_remark(few_scenes, dataset, tmp_path, capsys):
  assert shortfall(dataset['test']) == {}
  assert remark('test', {'nlvr_accuracy': 0.5}) == ''
  assert train(short_config(nlvr2, few_scenes, STEPS), tmp_path / 'run') == DONE
  out = capsys.readouterr().out
  assert 'built without' not in out
  assert 'left out' not in out
  assert not (tmp_path / 'run/predictions/test_annotations.json').exists()


def test_the_remark_names_every_kind_and_is_no_score():
  found = {'text_recall_at_1': 0.5, 'images_built': 4990, 'images_expected': 5000}
  found |= {'captions_built': 24_960, 'captions_expected': 25_010}
  said = 'test has 4,990 of 5,000 images and 24,960 of 25,010 captions: '
  assert remark('test', found) == f'{said}the dataset was built without the others'
  assert scores(found) == {'text_recall_at_1': 0.5}


# --- What a split ought to have -------------------------------------------------------------


def test_captions_of_missing_images_are_counted(tmp_path, capsys, monkeypatch):
  files, images = corpora.karpathy('coco', {'train': 2, 'restval': 0, 'val': 2, 'test': 6})
  gone = next(i for i in images if i['split'] == 'test')
  del files[f'{gone["filepath"]}/{gone["filename"]}']
  total = sum(len(i['sentences']) for i in images if i['split'] == 'test')
  lost = len(gone['sentences'])
  name, manual = 'coco_karpathy/all', as_folder(files, tmp_path / 'm')
  found, _ = built(name, manual, tmp_path, capsys, allow_bad=0.2)
  assert shortfall(found['test']) == {
    'images_built': 5,
    'images_expected': 5000,
    'captions_built': total - lost,
    'captions_expected': 25_010,
  }
  # Where nothing is published, as of one's own data, the files say how many there are.
  monkeypatch.setattr(coco_karpathy_dataset_builder.Builder, 'PUBLISHED', {})
  found = open_dataset(name, tmp_path / 'built')
  expected = {'captions_built': total - lost, 'captions_expected': total}
  assert shortfall(found['test']) == expected
  assert shortfall(found['val']) == {}
  assert shortfall(join_splits({n: found[n] for n in ('val', 'test')})) == {
    name: number + len(found['val'].sidecar.text) for name, number in expected.items()
  }


def test_what_is_listed_twice_is_expected_once(tmp_path, capsys, monkeypatch):
  files, lines = corpora.nlvr2({'dev': 3})
  files['nlvr2/data/dev.json'] += as_json(lines['dev'][0]) + b'\n'
  found, out = built('nlvr2', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert TWICE in out
  assert shortfall(found['dev'])['statements_built'] == len(lines['dev'])
  builder = build_lib.BUILDERS['nlvr2']
  monkeypatch.setattr(builder, 'PUBLISHED', {})
  assert shortfall(open_dataset('nlvr2', tmp_path / 'built')['dev']) == {}


def test_questions_of_a_part_of_a_split(tmp_path, capsys, monkeypatch):
  _, coco = corpora.karpathy('coco', {'train': 4, 'restval': 2, 'val': 5, 'test': 4})
  files, _, _ = corpora.vqa(coco)
  files |= {'dataset_coco.json': as_json({'dataset': 'coco', 'images': coco})}
  held_out = [i['cocoid'] for i in coco if i['split'] == 'val']
  del files[f'val2014/COCO_val2014_{held_out[0]:012d}.jpg']
  manual = as_folder(files, tmp_path / 'm')
  monkeypatch.setattr(vqa_v2_dataset_builder.Builder, 'PUBLISHED', {})
  found, _ = built('vqa_v2', manual, tmp_path, capsys, allow_bad=0.2)
  others = 3 * (len([i for i in coco if i['filepath'] == 'val2014']) - len(held_out))

  def of(selection):
    return shortfall(select(found, selection))

  assert of('val') == {
    'questions_built': others + 3 * (len(held_out) - 1),
    'questions_expected': others + 3 * len(held_out),
  }
  assert of('val[karpathy_val]') == {
    'questions_built': 3 * (len(held_out) - 1),
    'questions_expected': 3 * len(held_out),
  }
  assert of('val[!karpathy_val]') == {}
  assert of('train+val[karpathy_val]')['questions_expected'] == 3 * len(held_out) + 12
