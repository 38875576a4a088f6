"""Builders of published corpora, on miniatures in the published layout."""

import errno
import gzip
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter

import numpy as np
import pytest

from data import build as build_lib
from data import corpus
from data.images import check
from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import DatasetError
from pixelbert_jax.input.selection import select
from pixelbert_jax.tasks.shortfall import shortfall
from tests.support import corpora
from tests.support.builds import built, captions, failure, strings
from tests.support.corpora import LAYOUTS, as_folder, as_json, image
from tests.support.paths import ROOT, shared

COCO = {'train': 7, 'restval': 4, 'val': 3, 'test': 4}


def table(out: str) -> dict[str, list[str]]:
  """The rows of the printed table by split."""
  lines = [line.split() for line in out.splitlines() if line.startswith('  ')]
  return {line[0]: line[1:] for line in lines}


# --- COCO and Flickr30K ----------------------------------------------------------------------


@pytest.mark.parametrize('layout', LAYOUTS)
def test_coco_karpathy(layout, tmp_path, capsys):
  files, images = corpora.coco(COCO)
  dataset, out = built('coco_karpathy', LAYOUTS[layout](files, tmp_path / 'm'), tmp_path, capsys)
  split_of = {'train': 'train', 'restval': 'train', 'val': 'val', 'test': 'test'}
  for name in ('train', 'val', 'test'):
    split, theirs = dataset[name], [i for i in images if split_of[i['split']] == name]
    assert [i.decode() for i in split.sidecar.image_id] == [str(i['cocoid']) for i in theirs]
    assert len(split.source) == len(theirs)
    for i, entry in enumerate(theirs):
      said = [(s['sentid'], s['raw'].strip()) for s in entry['sentences']]
      assert captions(split.sidecar, i) == said
      assert split.encoded(i) == files[f'{entry["filepath"]}/{entry["filename"]}']
      assert split.sidecar.size[i].tolist() == [30, 40]
  assert table(out)['train'][0] == '11'
  assert table(out)['all'][:2] == ['18', str(sum(len(i['sentences']) for i in images))]
  assert '  warning: val has 3 images in its files, 5,000 were published' in out
  assert '  warning: train has 11 images in its files, 113,287 were published' in out


def test_published_counts_of_coco_are_those_of_its_parts():
  published = build_lib.BUILDERS['coco_karpathy'].PUBLISHED
  assert published['train'] == {'images': 82_783 + 30_504, 'captions': 414_113 + 152_634}


@pytest.fixture(scope='module')
def in_both():
  """COCO with two images of train and one of each other split in Flickr30K; their ids by split."""
  _, images = corpora.karpathy('coco', COCO)
  ids = {split: [i['cocoid'] for i in images if i['split'] == split] for split in COCO}
  ids = {split: some[:1] for split, some in ids.items()}
  files, images = corpora.coco(COCO, [number for some in ids.values() for number in some])
  return files, images, ids


def coco_ids(dataset, split: str) -> set[int]:
  return {int(i) for i in dataset[split].sidecar.image_id}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_images_of_coco_in_flickr30k_are_left_out_of_train(layout, in_both, tmp_path, capsys):
  files, images, ids = in_both
  dataset, out = built('coco_karpathy', LAYOUTS[layout](files, tmp_path / 'm'), tmp_path, capsys)
  train = {i['cocoid'] for i in images if i['split'] in ('train', 'restval')}
  left_out = {*ids['train'], *ids['restval']}
  assert coco_ids(dataset, 'train') == train - left_out
  named = ', '.join(str(i['cocoid']) for i in images if i['cocoid'] in left_out)
  assert f'  train: 2 of 11 images left out: in Flickr30K: {named}\n' in out
  # What is counted beside the published numbers is what the files list.
  assert '  warning: train has 11 images in its files, 113,287 were published' in out
  for split in ('val', 'test'):
    assert coco_ids(dataset, split) == {i['cocoid'] for i in images if i['split'] == split}


def test_all_of_coco_has_those_in_flickr30k_as_a_subset(in_both, tmp_path, capsys):
  files, images, ids = in_both
  dataset, out = built('coco_karpathy/all', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  train = {i['cocoid'] for i in images if i['split'] in ('train', 'restval')}
  marked = {*ids['train'], *ids['restval']}
  assert coco_ids(dataset, 'train') == train
  assert '  train: 2 images in Flickr30K, kept as subset flickr30k: ' in out
  assert 'left out' not in out

  def shown(selection: str) -> set[int]:
    sidecar = select(dataset, selection).sidecar
    return {int(sidecar.image_id[i]) for i in sidecar.caption_image}

  assert shown('train[!flickr30k]') == train - marked
  assert shown('train[flickr30k]') == marked
  with pytest.raises(UserError, match="test has no subset 'flickr30k'"):
    select(dataset, 'test[flickr30k]')


@pytest.mark.parametrize(
  ('file', 'source'),
  [
    ('dataset_flickr30k.json', 'caption_datasets.zip'),
    ('annotations/captions_train2014.json', 'annotations_trainval2014.zip'),
    ('annotations/captions_val2014.json', 'annotations_trainval2014.zip'),
  ],
)
def test_without_a_list_it_cannot_be_told_what_is_in_flickr30k(
  file, source, in_both, tmp_path, capsys
):
  files = in_both[0]
  manual = as_folder({k: v for k, v in files.items() if k != file}, tmp_path / 'm')
  line = failure('coco_karpathy', manual, tmp_path, capsys)
  assert line.startswith(f'{file} not found in {manual}: without it images of Flickr30K cannot be ')
  assert f'{source}, or build coco_karpathy/all' in line
  # The other splits have these images anyway.
  dataset, _ = built('coco_karpathy', manual, tmp_path, capsys, splits=['val', 'test'])
  assert list(dataset.splits) == ['val', 'test']
  dataset, out = built('coco_karpathy/all', manual, tmp_path, capsys)
  assert len(coco_ids(dataset, 'train')) == 11
  assert f'  train: {file} does not exist: no caption is marked flickr30k\n' in out


@pytest.mark.parametrize('layout', LAYOUTS)
def test_flickr30k(layout, tmp_path, capsys):
  files, images = corpora.karpathy('flickr30k', {'train': 5, 'val': 2, 'test': 3})
  dataset, out = built('flickr30k', LAYOUTS[layout](files, tmp_path / 'm'), tmp_path, capsys)
  for name in ('train', 'val', 'test'):
    split, theirs = dataset[name], [i for i in images if i['split'] == name]
    names = [i['filename'] for i in theirs]
    assert [f'{i.decode()}.jpg' for i in split.sidecar.image_id] == names
    for i, entry in enumerate(theirs):
      said = [(s['sentid'], s['raw'].strip()) for s in entry['sentences']]
      assert captions(split.sidecar, i) == said
      assert split.encoded(i) == files[f'flickr30k-images/{entry["filename"]}']
  assert '  warning: test has 15 captions in its files, 5,000 were published' in out


def test_only_some_splits_need_only_their_files(tmp_path, capsys):
  files, _ = corpora.coco(COCO)
  files = {name: content for name, content in files.items() if not name.startswith('train2014')}
  dataset, _ = built('coco_karpathy', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert list(dataset.splits) == ['val', 'test']
  with pytest.raises(DatasetError, match="has no split 'train', only val, test"):
    dataset['train']


@pytest.mark.parametrize(
  ('old', 'new', 'message'),
  [
    (b'"dataset": "coco"', b'"dataset": "flickr30k"', "'dataset': 'flickr30k'"),
    (b'"restval"', b'"dev"', 'has "split": "dev", expected "train" or "restval"'),
    (b'"sentences"', b'"captions"', 'images[0] has no "sentences", expected a list'),
    (b'"raw"', b'"text"', 'images[0].sentences[0] has no "raw", expected a text'),
    (b'"cocoid": 1001', b'"cocoid": 1000', 'repeats image 1000'),
    (b'{"images"', b'', 'cannot be read'),
  ],
)
def test_a_karpathy_file_that_is_not_as_published(old, new, message, tmp_path, capsys):
  files, _ = corpora.coco({'train': 3, 'restval': 2})
  assert old in files['dataset_coco.json']
  files['dataset_coco.json'] = files['dataset_coco.json'].replace(old, new)
  manual = as_folder(files, tmp_path / 'm')
  line = failure('coco_karpathy', manual, tmp_path, capsys, splits=['train'])
  assert line.startswith(f'{manual}/dataset_coco.json ')
  assert message in line


@pytest.mark.parametrize('share', [0, 0.5, 0.99])
def test_part_of_a_karpathy_file(share, tmp_path, capsys):
  files, _ = corpora.coco(COCO)
  text = files['dataset_coco.json']
  files['dataset_coco.json'] = text[: int(share * len(text))]
  manual = as_folder(files, tmp_path / 'm')
  line = failure('coco_karpathy', manual, tmp_path, capsys)
  assert line.startswith(f'{manual}/dataset_coco.json cannot be read')


def test_a_path_in_a_file_that_leaves_the_folder(tmp_path, capsys):
  files, _ = corpora.coco(COCO)
  as_folder({'secret/a.jpg': image(0)}, tmp_path)
  text = files['dataset_coco.json'].replace(b'"filepath": "val2014"', b'"filepath": "../secret"')
  manual = as_folder(files | {'dataset_coco.json': text}, tmp_path / 'm')
  line = failure('coco_karpathy', manual, tmp_path, capsys)
  assert "'../secret/COCO_val2014" in line
  assert f'leaves {manual}' in line


# --- Visual Genome ---------------------------------------------------------------------------


@pytest.fixture(scope='module')
def overlapping():
  """COCO, Flickr30K and Visual Genome with images in common."""
  coco_files, coco = corpora.karpathy('coco', COCO)
  flickr_files, flickr30k = corpora.karpathy('flickr30k', {'train': 2, 'val': 1, 'test': 1})
  files, regions = corpora.visual_genome(coco, flickr30k)
  # The first train image of COCO is in Flickr30K too, which only its captions file tells.
  shared = next(i['cocoid'] for i in coco if i['split'] == 'train')
  captions = corpora.coco_captions(coco, {shared: int(flickr30k[1]['filename'][:-4])})
  jsons = {k: v for k, v in (coco_files | flickr_files).items() if k.endswith('.json')}
  return files | jsons | captions, regions, coco, shared


def genome_ids(dataset) -> set[int]:
  return {int(i) for i in dataset['train'].sidecar.image_id}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_visual_genome_leaves_out_what_others_test_on(layout, overlapping, tmp_path, capsys):
  files, regions, coco, shared = overlapping
  dataset, out = built('visual_genome', LAYOUTS[layout](files, tmp_path / 'm'), tmp_path, capsys)
  tested = {i + 1 for i, image in enumerate(coco) if image['split'] in ('val', 'test')}
  flickr = {i + 1 for i, image in enumerate(coco) if image['cocoid'] == shared} | {len(regions)}
  assert genome_ids(dataset) == set(regions) - tested - flickr
  split = dataset['train']
  for i, image_id in enumerate(map(int, split.sidecar.image_id)):
    phrases = [(r['region_id'], r['phrase'].strip()) for r in regions[image_id] if r['phrase']]
    assert captions(split.sidecar, i) == phrases
    assert split.encoded(i) == files[f'VG_100K{"" if image_id % 2 == 0 else "_2"}/{image_id}.jpg']
  assert f'  train: 7 of {len(regions)} images left out: in val or test of COCO (Karpathy)' in out
  assert f'  train: 2 of {len(regions)} images left out: in Flickr30K' in out
  assert f'warning: train has {len(regions)} images in its files, 108,077 were published' in out
  assert table(out)['train'][2] == '9'


def test_visual_genome_all_takes_them(overlapping, tmp_path, capsys):
  files, regions, _, _ = overlapping
  files = {k: v for k, v in files.items() if not k.startswith(('dataset_', 'annotations'))}
  manual = as_folder(files, tmp_path / 'm')
  line = failure('visual_genome', manual, tmp_path, capsys)
  assert 'dataset_coco.json not found' in line
  assert 'cannot be omitted' in line
  assert 'visual_genome/all' in line
  dataset, out = built('visual_genome/all', manual, tmp_path, capsys)
  assert genome_ids(dataset) == set(regions)
  assert re.search('  train: 1 of [0-9]+ captions left out: empty: 34\n', out)


def test_without_the_captions_files_it_is_said_what_cannot_be_told(overlapping, tmp_path, capsys):
  files, regions, coco, _ = overlapping
  files = {k: v for k, v in files.items() if not k.startswith('annotations')}
  dataset, out = built('visual_genome', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  tested = {i + 1 for i, image in enumerate(coco) if image['split'] in ('val', 'test')}
  assert genome_ids(dataset) == set(regions) - tested - {len(regions)}
  assert 'annotations/captions_train2014.json does not exist' in out


def test_old_names_of_visual_genome(overlapping, tmp_path, capsys):
  files, regions, _, _ = overlapping
  data = json.loads(files['image_data.json'])
  for one in data:
    one['id'] = one.pop('image_id')
  old = [
    {'image_id': i, 'regions': [{'id': r['region_id'], 'phrase': r['phrase']} for r in some]}
    for i, some in regions.items()
  ]
  files = files | {'image_data.json': as_json(data), 'region_descriptions.json': as_json(old)}
  dataset, _ = built('visual_genome/all', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert genome_ids(dataset) == set(regions)
  ids = sorted(r['region_id'] for some in regions.values() for r in some if r['phrase'])
  assert dataset['train'].sidecar.captions.values.tolist() == ids


@pytest.mark.parametrize('half', ['region_descriptions.json', 'image_data.json'])
def test_half_a_file_of_visual_genome(half, overlapping, tmp_path, capsys):
  files = overlapping[0]
  files = files | {half: files[half][: len(files[half]) // 2]}
  line = failure('visual_genome', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert line.startswith(f'{tmp_path / "m" / half} cannot be read')


def test_files_of_two_versions_of_visual_genome(overlapping, tmp_path, capsys):
  files = overlapping[0]
  data = json.loads(files['image_data.json'])[:-1]
  files = files | {'image_data.json': as_json(data)}
  line = failure('visual_genome', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert 'does not list: they are not of the same version' in line


def test_an_image_of_coco_that_karpathys_file_lacks_is_left_out(overlapping, tmp_path, capsys):
  # It may be of test2015, on which VQA v2 tests.
  files, regions, _, _ = overlapping
  data = json.loads(files['image_data.json'])
  data[-2]['coco_id'] = 581_929
  files = files | {'image_data.json': as_json(data)}
  dataset, out = built('visual_genome', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert data[-2]['image_id'] not in genome_ids(dataset)
  assert (
    f'  train: 1 of {len(regions)} images left out: of COCO, but neither of train2014 nor of '
    f"val2014 in Karpathy's file: {data[-2]['image_id']}"
  ) in out


@pytest.mark.parametrize('layout', LAYOUTS)
def test_visual_genome_questions(layout, overlapping, tmp_path, capsys):
  files, regions, coco, shared = overlapping
  more, asked = corpora.visual_genome_questions(regions)
  manual = LAYOUTS[layout](files | more, tmp_path / 'm')
  dataset, out = built('visual_genome_questions', manual, tmp_path, capsys)
  tested = {i + 1 for i, image in enumerate(coco) if image['split'] in ('val', 'test')}
  flickr = {i + 1 for i, image in enumerate(coco) if image['cocoid'] == shared} | {len(regions)}
  assert genome_ids(dataset) == set(asked) - tested - flickr
  split = dataset['train']
  found, expected = split.sidecar.questions, {q['qa_id']: q for qas in asked.values() for q in qas}
  assert len(found) == sum(len(asked[i]) for i in genome_ids(dataset))
  types = {'Green.': 'other', 'Yes.': 'yes/no', 'Two.': 'number', 'A größer clock.': 'other'}
  for i in range(len(found)):
    question = expected[found.id[i]]
    assert int(split.sidecar.image_id[found.image[i]]) == question['image_id']
    assert found.text.text(i) == question['question'].strip()
    assert strings(found, found.answers[i]) == [question['answer']]
    assert strings(found, [found.multiple_choice_answer[i]]) == [question['answer']]
    assert strings(found, [found.question_type[i]]) == ['what is']
    assert strings(found, [found.answer_type[i]]) == [types[question['answer']]]
    folder = f'VG_100K{"" if question["image_id"] % 2 == 0 else "_2"}'
    assert split.encoded(found.image[i]) == files[f'{folder}/{question["image_id"]}.jpg']
  assert f'  train: 7 of {len(regions)} images left out: in val or test of COCO (Karpathy)' in out
  assert f'  train: 2 of {len(regions)} images left out: in Flickr30K' in out
  # Those of images that are left out are among the questions that the file has.
  assert f'warning: train has {len(expected)} questions in its files, 1,445,322 were' in out


def test_all_of_visual_genome_questions(overlapping, tmp_path, capsys):
  files, regions, _, _ = overlapping
  files = {k: v for k, v in files.items() if not k.startswith(('dataset_', 'annotations'))}
  files |= corpora.visual_genome_questions(regions)[0]
  manual = as_folder(files, tmp_path / 'm')
  line = failure('visual_genome_questions', manual, tmp_path, capsys)
  assert 'dataset_coco.json not found' in line
  assert 'or build visual_genome_questions/all, which has all images' in line
  dataset, _ = built('visual_genome_questions/all', manual, tmp_path, capsys)
  assert genome_ids(dataset) == set(regions)


# --- Images ----------------------------------------------------------------------------------

BAD = {
  'truncated': image(5)[:-60],
  'empty': b'',
  'text': b'<html>404</html>',
  'bomb': None,
  'format': image(5, 'PPM'),
}


def bomb() -> bytes:
  """A PNG of a few bytes that would be a gigapixel."""
  import struct
  import zlib

  def part(kind: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

  header = struct.pack('>IIBBBBB', 40_000, 30_000, 8, 2, 0, 0, 0)
  return b'\x89PNG\r\n\x1a\n' + part(b'IHDR', header) + part(b'IDAT', b'') + part(b'IEND', b'')


def test_bad_images_are_counted_named_and_allowed_only_by_flag(tmp_path, capsys):
  files, images = corpora.coco({'train': 0, 'restval': 20, 'val': 1, 'test': 1})
  files['train2014/any.jpg'] = b''
  paths = [f'val2014/{i["filename"]}' for i in images if i['split'] == 'restval']
  for path, content in zip(paths, BAD.values(), strict=False):
    files[path] = bomb() if content is None else content
  del files[paths[5]]
  files[paths[6]] = image(7, 'PNG')
  ids = [str(i['cocoid']) for i in images if i['split'] == 'restval']
  manual = as_folder(files, tmp_path / 'm')
  line = failure('coco_karpathy', manual, tmp_path, capsys)
  assert 'coco_karpathy train: 6 of 20 images' in line
  assert '--allow_bad=0.3' in line
  failure('coco_karpathy', manual, tmp_path, capsys, allow_bad=0.29)
  with warnings.catch_warnings():
    warnings.simplefilter('default')  # as in the command
    dataset, out = built('coco_karpathy', manual, tmp_path, capsys, allow_bad=0.31)
  assert [i.decode() for i in dataset['train'].sidecar.image_id] == ids[6:]
  assert f'  train: 1 of 20 images left out, missing: {ids[5]}\n' in out
  (line,) = [line for line in out.splitlines() if 'unreadable' in line]
  assert line.startswith(f'  train: 5 of 20 images left out, unreadable: {ids[0]} (')
  for image_id, why in zip(
    ids,
    ['truncated', 'zero bytes', 'not a whole image', 'pixels', 'a format that is read'],
    strict=False,
  ):
    assert re.search(rf'{image_id} \([^)]*{why}', line)
  assert '  train: 1 of 20 images kept, whose extension is of another format' in out
  assert dataset['train'].encoded(0) == files[paths[6]]
  metadata = json.loads((dataset.path / 'metadata.json').read_text())
  assert list(metadata['tally']['train']['bad']) == ids[:5]
  # It is still told when the dataset is met again.
  assert (
    '5 of 20 images left out, unreadable' in built('coco_karpathy', manual, tmp_path, capsys)[1]
  )


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF'])
def test_what_is_predicted_from_can_be_trained_on(form):
  found = check(image(5, form))
  assert (found.format, found.size) == (form, (30, 40))


# --- VQA v2 ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def asked():
  _, coco = corpora.karpathy('coco', COCO)
  return coco, *corpora.vqa(coco)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_vqa_v2(layout, asked, tmp_path, capsys):
  coco, files, questions, answers = asked
  files = files | {'dataset_coco.json': as_json({'dataset': 'coco', 'images': coco})}
  dataset, out = built('vqa_v2', LAYOUTS[layout](files, tmp_path / 'm'), tmp_path, capsys)
  held_out = {i['cocoid'] for i in coco if i['split'] == 'val'}
  for name, theirs in (('train', 'train2014'), ('val', 'val2014'), ('test', 'test2015')):
    split, expected = dataset[name], {q['question_id']: q for q in questions[theirs]}
    found = split.sidecar.questions
    assert sorted(found.id.tolist()) == sorted(expected)
    assert (np.diff(found.image) >= 0).all()
    for i in range(len(found)):
      question = expected[found.id[i]]
      assert found.text.text(i) == question['question']
      assert int(split.sidecar.image_id[found.image[i]]) == question['image_id']
      file = f'{theirs}/COCO_{theirs}_{question["image_id"]:012d}.jpg'
      assert split.encoded(found.image[i]) == files[file]
      hidden = {'answers': [], 'multiple_choice_answer': ''}
      given = hidden if name == 'test' else answers[question['question_id']]
      assert strings(found, found.answers[i]) == [a['answer'] for a in given['answers']]
      best = strings(found, [found.multiple_choice_answer[i]])
      assert best == [given['multiple_choice_answer']]
      marks = {
        'test': ('test-dev', {1, 1003}),
        'val': ('karpathy_val', held_out),
        'train': ('', ()),
      }
      mark, of = marks[name]
      subset = mark if question['image_id'] in of else ''
      assert strings(found, [found.subset[i]]) == [subset]
    assert len(found.answers.values) == (0 if name == 'test' else 10 * len(found))
  assert table(out)['test'][:2] == ['6', '18']
  assert '  test: 6 in test-dev' in out
  assert '  val: 9 in karpathy_val' in out
  assert '  warning: test has 6 test-dev in its files, 107,394 were published' in out


def test_vqa_val_without_karpathys_file_says_so(asked, tmp_path, capsys):
  _, files, _, _ = asked
  files = {k: v for k, v in files.items() if 'val2014' in k}
  dataset, out = built('vqa_v2', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert list(dataset.splits) == ['val']
  assert 'val: dataset_coco.json does not exist: no question is marked karpathy_val' in out
  assert 'not built: train, test' in out


@pytest.mark.parametrize('file', ['questions', 'annotations'])
def test_vqa_files_of_different_splits(file, asked, tmp_path, capsys):
  _, files, _, _ = asked
  name = (
    'v2_OpenEnded_mscoco_{}_questions.json'
    if file == 'questions'
    else 'v2_mscoco_{}_annotations.json'
  )
  files = files | {name.format('val2014'): files[name.format('train2014')]}
  line = failure('vqa_v2', as_folder(files, tmp_path / 'm'), tmp_path, capsys, splits=['val'])
  assert 'v2_mscoco_val2014_annotations.json has no answers to question' in line
  assert 'not of the same split' in line


@pytest.mark.parametrize(
  'file', ['OpenEnded_mscoco_train2014_questions', 'mscoco_train2014_annotations']
)
def test_half_a_file_of_vqa(file, asked, tmp_path, capsys):
  _, files, _, _ = asked
  name = f'v2_{file}.json'
  files = files | {name: files[name][: len(files[name]) // 2]}
  line = failure('vqa_v2', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert line.startswith(f'{tmp_path / "m" / name} cannot be read')


def test_more_answers_than_questions(asked, tmp_path, capsys):
  _, files, questions, _ = asked
  name = 'v2_OpenEnded_mscoco_val2014_questions.json'
  files = files | {name: as_json({'questions': questions['val2014'][:-2]})}
  line = failure('vqa_v2', as_folder(files, tmp_path / 'm'), tmp_path, capsys, splits=['val'])
  assert 'answers 2 questions that' in line


# --- NLVR2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize('layout', LAYOUTS)
def test_nlvr2(layout, tmp_path, capsys):
  files, lines = corpora.nlvr2({'train': 12, 'dev': 7, 'test1': 3, 'test2': 2})
  dataset, out = built('nlvr2', LAYOUTS[layout](files, tmp_path / 'm'), tmp_path, capsys)
  for name, split in dataset.splits.items():
    expected = {line['identifier']: line for line in lines[name]}
    found = split.sidecar.statements
    assert sorted(i.decode() for i in found.identifier) == sorted(expected)
    assert len(split.sidecar.image_id) == 2 * len(split.source)
    for i, identifier in enumerate(found.identifier):
      line, pair = expected[identifier.decode()], identifier.decode().rpartition('-')[0]
      assert found.text.text(i) == line['sentence']
      assert found.label[i] == (line['label'] == 'True')
      labels = [e['label'] for e in lines[name] if e['identifier'].rpartition('-')[0] == pair]
      subset = {1: '', 2: 'balanced' if len(set(labels)) == 2 else 'unbalanced'}[len(labels)]
      assert strings(found, [found.subset[i]]) == [subset]
      folder = f'images/train/{line["directory"]}' if name == 'train' else name
      for side, number in ((0, found.left[i]), (1, found.right[i])):
        assert split.sidecar.image_id[number].decode() == f'{pair}-img{side}'
        assert split.encoded(number) == files[f'{folder}/{pair}-img{side}.png']
        assert split.sidecar.size[number][0] == 30 + side
  assert table(out)['train'][:2] == ['24', '20']
  assert '  train: 12 of 24 images kept, whose extension is of another format' in out
  assert '  warning: dev has 12 statements in its files, 6,982 were published' in out
  assert '  train: 8 in balanced' in out


def test_nlvr2_of_the_first_release_has_all_of_train_in_one_folder(tmp_path, capsys):
  files, lines = corpora.nlvr2({'train': 4})
  files = {re.sub('images/train/[0-9]+/', 'images/train/', n): x for n, x in files.items()}
  kept = [{k: x for k, x in line.items() if k != 'directory'} for line in lines['train']]
  files['nlvr2/data/train.json'] = b'\n'.join(map(as_json, kept))
  dataset, out = built('nlvr2', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert 'missing' not in out
  assert len(dataset['train'].sidecar.statements) == len(kept)


def test_missing_images_of_nlvr2_are_named(tmp_path, capsys):
  files, lines = corpora.nlvr2({'dev': 30})
  gone = ['dev/dev-0-3-img0.png', 'dev/dev-2-1-img0.png', 'dev/dev-2-1-img1.png']
  for path in gone:
    del files[path]
  dataset, out = built('nlvr2', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  (said,) = re.findall('  dev: 3 of 60 images left out, missing: (.*)', out)
  assert sorted(said.split(', ')) == [pathlib.PurePath(path).stem for path in gone]
  split = dataset['dev']
  assert len(split.source) == 28
  pairs = {'dev-0-3', 'dev-2-1'}
  kept = [e['identifier'] for e in lines['dev'] if e['identifier'].rpartition('-')[0] not in pairs]
  assert sorted(i.decode() for i in split.sidecar.statements.identifier) == sorted(kept)
  for i, left in enumerate(split.sidecar.statements.left):
    pair = split.sidecar.statements.identifier[i].decode().rpartition('-')[0]
    assert split.sidecar.image_id[left].decode() == f'{pair}-img0'
    assert split.encoded(left) == files[f'dev/{pair}-img0.png']


def test_too_many_missing_images_of_nlvr2(tmp_path, capsys):
  files, _ = corpora.nlvr2({'dev': 5})
  for path in ('dev/dev-0-0-img0.png', 'dev/dev-0-1-img0.png'):
    del files[path]
  line = failure('nlvr2', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert 'nlvr2 dev: 2 of 10 images' in line


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ((b'"True"', b'true'), 'line 1 has "label": true, expected "True" or "False"'),
    ((b'dev-0-0-1', b'test1-0-0-1'), 'has "identifier": "test1-0-0-1", expected one of dev'),
    ((b'dev-0-0-1', b'dev-0-0-0'), 'line 3 repeats identifier dev-0-0-0 of line 1 with other'),
    ((b'"sentence"', b'"text"'), 'line 1 has no "sentence", expected a text'),
    ((b'}\n', b'\n'), 'delimiter'),
  ],
)
def test_a_line_that_is_not_of_nlvr2(change, message, tmp_path, capsys):
  files, _ = corpora.nlvr2({'dev': 2})
  name = 'nlvr2/data/dev.json'
  files[name] = files[name].replace(*change)
  line = failure('nlvr2', as_folder(files, tmp_path / 'm'), tmp_path, capsys)
  assert f'{name} line ' in line
  assert message in line


# --- What may happen to a build --------------------------------------------------------------


def test_a_truncated_zip(tmp_path, capsys):
  files, _ = corpora.coco(COCO)
  manual = LAYOUTS['zips'](files, tmp_path / 'm')
  os.truncate(manual / 'val2014.zip', (manual / 'val2014.zip').stat().st_size // 2)
  line = failure('coco_karpathy', manual, tmp_path, capsys)
  assert line.startswith(f'{manual}/val2014.zip cannot be opened')
  assert line.endswith('copy it again, or move it away')


def test_a_zip_with_a_path_that_leaves_it(tmp_path, capsys):
  files, _ = corpora.coco(COCO)
  manual = as_folder(files, tmp_path / 'm')
  corpora.as_zip({'../../evil.jpg': b'x'}, manual / 'more.zip')
  line = failure('coco_karpathy', manual, tmp_path, capsys)
  assert f"{manual}/more.zip holds '../../evil.jpg', a path that leaves its folder" in line


def test_what_is_missing_is_said_first(tmp_path, capsys):
  assert build_lib.command(['coco_karpathy'], tmp_path / 'd', tmp_path / 'm') == 1
  *needs, error = capsys.readouterr().err.splitlines()
  assert needs[1:] == [
    '  dataset_coco.json, for train, val, test: '
    'https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip '
    '(37 MB for all of them)',
    '  train2014, for train: http://images.cocodataset.org/zips/train2014.zip (13.5 GB)',
    '  val2014, for train, val, test: http://images.cocodataset.org/zips/val2014.zip (6.6 GB)',
  ]
  assert error.startswith(f'error: coco_karpathy: {tmp_path}/m (--manual_dir) is missing or empty')


@pytest.mark.parametrize('name', sorted(set(build_lib.BUILDERS) - {'scenes', 'boxes', 'folder'}))
def test_sizes_that_are_said_are_those_of_the_checksums(name):
  builder = build_lib.BUILDERS[name]
  infos = builder.url_infos or {}
  for need in {need for needs in builder.NEEDS.values() for need in needs}:
    assert need.source.startswith('http')
    # Visual Genome's two zips are named together.
    if need.source in infos:
      unit = {'GB': 1e9, 'MB': 1e6}[need.size.split()[1]]
      assert float(need.size.split()[0]) == pytest.approx(infos[need.source].size / unit, rel=0.01)
  assert name in ('nlvr', 'nlvr2', 'easy_vqa') or infos


def test_many_shards_are_one_split(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(corpus, 'SHARD', 4)
  files, images = corpora.coco({'train': 21, 'val': 4, 'test': 1})
  # A shard may come to nothing.
  gone = [i for i in images if i['split'] == 'train'][:4]
  for entry in gone:
    files[f'train2014/{entry["filename"]}'] = b''
  manual = as_folder(files, tmp_path / 'm')
  dataset, _ = built('coco_karpathy', manual, tmp_path, capsys, allow_bad=0.2)
  kept = [i for i in images if i['split'] == 'train'][4:]
  info = json.loads((dataset.path / 'dataset_info.json').read_text())['splits'][0]
  assert [int(length) for length in info['shardLengths']] == [0, 3, 3, 4, 3, 4]
  for i, entry in enumerate(kept):
    assert dataset['train'].encoded(i) == files[f'train2014/{entry["filename"]}']
    assert dataset['train'].sidecar.image_id[i].decode() == str(entry['cocoid'])


def run(tmp_path: pathlib.Path, limits: str = ':') -> subprocess.Popen:
  """The command on the files in tmp_path/m, as its own process, after a line of the shell."""
  command = [
    'bash',
    '-c',
    f'{limits}; exec "$@"',
    '-',
    sys.executable,
    '-m',
    'data.build',
    'coco_karpathy',
    '--splits=val',
  ]
  command += [f'--manual_dir={tmp_path / "m"}', f'--data_dir={tmp_path / "built"}']
  return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_a_killed_build_is_no_dataset_and_the_next_one_is(tmp_path, capsys):
  files, images = corpora.coco({'val': 1500})
  as_folder(files, tmp_path / 'm')
  process = run(tmp_path)
  while not list(tmp_path.glob('built/**/incomplete*/*.array_record*')) and process.poll() is None:
    time.sleep(0.01)
  process.kill()
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  assert list(tmp_path.glob('built/**/incomplete*'))
  with pytest.raises(DatasetError, match='is not built'):
    build_lib.open_dataset('coco_karpathy', tmp_path / 'built')
  dataset, _ = built('coco_karpathy', tmp_path / 'm', tmp_path, capsys, splits=['val'])
  assert len(dataset['val'].source) == len(images)
  assert not list(tmp_path.glob('built/**/incomplete*'))


def test_a_full_disk(tmp_path):
  files, _ = corpora.coco({'val': 60})
  as_folder(files, tmp_path / 'm')
  # As a disk that is full after 100 KiB of a file, for whoever writes it.
  process = run(tmp_path, 'ulimit -f 100')
  _, err = process.communicate()
  assert process.returncode == 1
  lines = err.replace('\r', '\n').splitlines()
  assert lines[-1].startswith(f'error: coco_karpathy cannot be built: {tmp_path}/built')
  assert 'there is room for' in lines[-1] or 'free' in lines[-1]
  assert 'Traceback' not in err
  assert not list((tmp_path / 'built').glob('**/*.array_record*'))
  with pytest.raises(DatasetError, match='is not built'):
    build_lib.open_dataset('coco_karpathy', tmp_path / 'built')


def test_a_disk_that_is_full_when_the_sidecar_comes(tmp_path, capsys, monkeypatch):
  files, _ = corpora.coco(COCO)
  manual = as_folder(files, tmp_path / 'm')

  def full(*args):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with monkeypatch.context() as patch:
    patch.setattr(np, 'save', full)
    assert build_lib.command(['coco_karpathy'], tmp_path / 'built', manual) == 1
  line = capsys.readouterr().err.splitlines()[-1]
  assert line.startswith('error: coco_karpathy cannot be built: ')
  assert 'No space left on device' in line
  with pytest.raises(DatasetError, match='is not built, or not wholly'):
    build_lib.open_dataset('coco_karpathy', tmp_path / 'built')
  dataset, _ = built('coco_karpathy', manual, tmp_path, capsys)
  assert len(dataset['train'].sidecar.image_id) == 11


# --- The real annotations --------------------------------------------------------------------


# Left and right, as PNG and as JPEG.
IMAGES = [[image(side, form, (8 + side, 6)) for side in (0, 1)] for form in ('PNG', 'JPEG')]


@pytest.mark.slow
def test_real_annotations_of_nlvr2_with_generated_images(tmp_path, capsys):
  for split in ('dev', 'test1'):
    text = gzip.decompress(shared(f'nlvr2_{split}.json.gz').read_bytes())
    as_folder({f'nlvr-master/nlvr2/data/{split}.json': text}, tmp_path / 'm')
    pairs = sorted(
      {json.loads(line)['identifier'].rpartition('-')[0] for line in text.splitlines()}
    )
    corpora.as_zip(
      {
        f'{split}/{pair}-img{side}.png': IMAGES[i % 2][side]
        for i, pair in enumerate(pairs)
        for side in (0, 1)
      },
      tmp_path / 'm' / f'{split}_img.zip',
    )
  dataset, out = built('nlvr2', tmp_path / 'm', tmp_path, capsys)
  counts = {'dev': (6982, 2300, 3562, 4051), 'test1': (6967, 2316, 3536, 4041)}
  for name, (statements, balanced, unbalanced, records) in counts.items():
    found = dataset[name].sidecar.statements
    assert len(found) == statements
    assert len(dataset[name].source) == records
    subsets = Counter(strings(found, found.subset))
    assert subsets['balanced'] == balanced
    assert subsets['unbalanced'] == unbalanced
    assert shortfall(dataset[name]) == {}
  assert 'warning' not in out
