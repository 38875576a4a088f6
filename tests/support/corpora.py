"""Miniatures of the published corpora, in their owners' layout and with its oddities."""

import io
import json
import pathlib
import tarfile
import zipfile

import numpy as np
from PIL import Image

Files = dict[str, bytes]


def image(seed: int, form: str = 'JPEG', size: tuple[int, int] = (40, 30)) -> bytes:
  """Draws a small image file, another one for each seed."""
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, form)
  return file.getvalue()


def as_json(value: object) -> bytes:
  return json.dumps(value).encode()


def as_folder(files: Files, root: pathlib.Path) -> pathlib.Path:
  """Writes files below a folder, which it returns."""
  for name, content in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return root


def as_zip(files: Files, path: pathlib.Path, below: str = '') -> pathlib.Path:
  """Writes files into a zip, and returns its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in files.items():
      archive.writestr(below + name, content)
  return path.parent


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
  """Adds a file to a tar that is being written."""
  info = tarfile.TarInfo(name)
  info.size = len(content)
  tar.addfile(info, io.BytesIO(content))


def as_tar(files: Files, path: pathlib.Path) -> pathlib.Path:
  """Writes files into a tar, and returns its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, 'w') as tar:
    for name, content in files.items():
      add(tar, name, content)
  return path.parent


def as_zips(files: Files, root: pathlib.Path) -> pathlib.Path:
  """Zips each top folder and the rest, with macOS's metadata files; returns `root`."""
  tops = {name.partition('/')[0] if '/' in name else 'rest' for name in files}
  for top in tops:
    mine = {n: c for n, c in files.items() if (n.partition('/')[0] if '/' in n else 'rest') == top}
    shadows = {f'__MACOSX/{name}': b'shadow' for name in mine}
    as_zip(shadows | mine, root / f'{top}.zip')
  return root


def as_zip_below(files: Files, root: pathlib.Path) -> pathlib.Path:
  """Zips files below a leading folder, as GitHub does; returns `root`."""
  return as_zip(files, root / 'all.zip', 'corpus-master/')


LAYOUTS = {'folder': as_folder, 'zips': as_zips, 'zip below': as_zip_below}


def karpathy(dataset: str, splits: dict[str, int]) -> tuple[Files, list[dict]]:
  """Makes Karpathy's file and its images; ids run on over the splits, which are mixed in it."""
  files, images = {}, []
  order = [split for split, n in splits.items() for _ in range(n)]
  for i, split in enumerate(np.random.default_rng(0).permutation(order).tolist()):
    captions = 5 + i % 3 if dataset == 'coco' else 5
    sentences = [
      # Some end in a space.
      {
        'tokens': ['a'],
        'raw': f'A größer {split} {i}.{k} .' + ' ' * (k % 2),
        'imgid': i,
        'sentid': 100 * i + k,
      }
      for k in range(captions)
    ]
    entry = {
      'split': split,
      'imgid': i,
      'sentids': [s['sentid'] for s in sentences],
      'sentences': sentences,
    }
    if dataset == 'coco':
      folder = 'train2014' if split == 'train' else 'val2014'
      entry |= {
        'cocoid': 1000 + i,
        'filepath': folder,
        'filename': f'COCO_{folder}_{1000 + i:012d}.jpg',
      }
      path = f'{folder}/{entry["filename"]}'
    else:
      entry |= {'filename': f'{36979 + i}.jpg'}
      path = f'flickr30k-images/{entry["filename"]}'
    images.append(entry)
    files[path] = image(i)
  files[f'dataset_{dataset}.json'] = as_json({'images': images, 'dataset': dataset})
  return files, images


def visual_genome(coco: list[dict], flickr30k: list[dict]) -> tuple[Files, dict[int, list[dict]]]:
  """Makes Visual Genome, an image for each of COCO's first and more; and its regions by image."""
  data, regions, files = [], [], {}
  places = [image['cocoid'] for image in coco] + [None] * 6
  for i, coco_id in enumerate(places):
    folder = 'VG_100K' if i % 2 else 'VG_100K_2'
    # The last of those of COCO, a train image, is in Flickr30K, and one of the others as well.
    flickr_id = int(flickr30k[0]['filename'][:-4]) if i == len(places) - 1 else None
    data.append(
      {
        'image_id': i + 1,
        'url': f'https://cs.stanford.edu/people/rak248/{folder}/{i + 1 + 9 * (i == 2)}.jpg',
        'width': 40,
        'height': 30,
      }
      | {'coco_id': coco_id, 'flickr_id': flickr_id}
    )
    phrases = [f'the clock {i}.{k} is green in colour ' for k in range(1 + i % 4)] + [''] * (i == 3)
    regions.append(
      {
        'id': i + 1,
        'regions': [
          {
            'region_id': 10 * i + k,
            'image_id': i + 1,
            'phrase': phrase,
            'x': 1,
            'y': 2,
            'width': 3,
            'height': 4,
          }
          for k, phrase in enumerate(phrases)
        ],
      }
    )
    files[f'{folder}/{i + 1}.jpg'] = image(1000 + i)
  files['image_data.json'] = as_json(data)
  files['region_descriptions.json'] = as_json(regions)
  return files, {region['id']: region['regions'] for region in regions}


def coco_captions(coco: list[dict], flickr_ids: dict[int, int]) -> Files:
  """Makes COCO's own captions files, of which only `flickr_url` is used."""
  files = {}
  for year in ('train2014', 'val2014'):
    url = 'http://farm5.staticflickr.com/4153/{}_db_z.jpg'
    images = [
      {'id': i['cocoid'], 'file_name': i['filename'], 'width': 40, 'height': 30}
      | {'flickr_url': url.format(flickr_ids.get(i['cocoid'], 7))}
      for i in coco
      if i['filepath'] == year
    ]
    captions = [{'id': 1, 'image_id': 1, 'caption': '"images": ['}]
    files[f'annotations/captions_{year}.json'] = as_json(
      {'info': {'images': 'none'}, 'annotations': captions, 'images': images, 'licenses': []}
    )
  return files


def vqa(coco: list[dict]) -> tuple[Files, dict[str, list[dict]], dict[int, dict]]:
  """Makes VQA's files on COCO's images and six of test2015; its questions and answers by split."""
  files: Files = {}
  asked: dict[str, list[dict]] = {}
  answers: dict[int, dict] = {}
  images = {
    'train2014': [i['cocoid'] for i in coco if i['filepath'] == 'train2014'],
    'val2014': [i['cocoid'] for i in coco if i['filepath'] == 'val2014'],
    # Question 1003000 is about image 1003: ids of questions and images meet.
    'test2015': [1, 1003, 1003000, 4, 5, 6],
  }
  for split, ids in images.items():
    asked[split] = [
      {'image_id': i, 'question': f'How many "questions": [{i}, {k}]?', 'question_id': 1000 * i + k}
      for k in range(3)
      for i in ids
    ]
    for i in ids:
      files[f'{split}/COCO_{split}_{i:012d}.jpg'] = image(i)
    files[f'v2_OpenEnded_mscoco_{split}_questions.json'] = as_json(
      {'info': {}, 'task_type': 'Open-Ended', 'data_subtype': split, 'questions': asked[split]}
    )
    if split != 'test2015':
      given = [_answers(question) for question in asked[split]]
      answers |= {a['question_id']: a for a in given}
      files[f'v2_mscoco_{split}_annotations.json'] = as_json({'info': {}, 'annotations': given})
  dev = [q for q in asked['test2015'] if q['image_id'] in (1, 1003)]
  files['v2_OpenEnded_mscoco_test-dev2015_questions.json'] = as_json({'questions': dev})
  return files, asked, answers


def _answers(question: dict) -> dict:
  number = question['question_id']
  answers = [['yes', 'no', 'Two', '2', 'größer', ''][(number + k // 4) % 6] for k in range(10)]
  return {
    'question_type': 'how many',
    'multiple_choice_answer': answers[0],
    'answers': [
      {'answer': answer, 'answer_confidence': 'yes', 'answer_id': k + 1}
      for k, answer in enumerate(answers)
    ],
    'image_id': question['image_id'],
    'answer_type': 'number',
    'question_id': number,
  }


def nlvr(split: str, examples: int) -> Files:
  """Makes a split of NLVR, six images an example; `hidden` has fewer fields than the others."""
  files, lines = {}, []
  for i in range(examples):
    identifier, directory = f'{100 + i // 2}-{i % 2}', str(i // 4)
    line: dict = {
      'sentence': f'There is ünique box {i} .',
      'label': 'true' if i % 3 else 'false',
      'identifier': identifier,
    }
    if split != 'hidden':
      line |= {'directory': directory, 'evals': {'r0': 'true'}}
    lines.append(line | {'structured_rep': [[{'y_loc': 80, 'type': 'circle', 'color': 'Black'}]]})
    for k in range(6):
      path = f'nlvr/{split}/images/{directory}/{split}-{identifier}-{k}.png'
      files[path] = _rgba(10 * i + k)
  return files | {f'nlvr/{split}/{split}.json': b'\n'.join([*map(as_json, lines), b''])}


def _rgba(seed: int) -> bytes:
  pixels = np.random.default_rng(seed).integers(0, 256, (10, 40, 4), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels, 'RGBA').save(file, 'PNG')
  return file.getvalue()


def nlvr2(pairs: dict[str, int], seed: int = 0) -> tuple[Files, dict[str, list[dict]]]:
  """Makes NLVR2 with this many pairs per split, one or two sentences each; its lines by split."""
  files: Files = {}
  lines: dict[str, list[dict]] = {}
  for split, number in pairs.items():
    lines[split] = []
    for i in range(number):
      pair = f'{split}-{i // 4}-{i % 4}'
      labels = [['True', 'False'], ['True', 'True'], ['False']][i % 3]
      for k, label in enumerate(labels):
        line = {'identifier': f'{pair}-{k}', 'sentence': f'Both images {i} show ü.', 'label': label}
        line |= {'left_url': 'http://a/1.jpg', 'right_url': 'http://a/2.jpg', 'synset': 'dog'}
        line |= {'query': 'two dogs7', 'writer': '61', 'validation': {'61': label}}
        held_out = {'extra_validations': {'154': label, '139': 'False'}}
        lines[split].append(line | ({'directory': i % 5} if split == 'train' else held_out))
      folder = f'images/train/{i % 5}' if split == 'train' else split
      for side in (0, 1):
        # Many that are called png are JPEGs.
        form = 'JPEG' if i % 2 else 'PNG'
        files[f'{folder}/{pair}-img{side}.png'] = image(
          seed + 10 * i + side, form, (20 + i, 30 + side)
        )
    # Sentences of a pair do not follow each other.
    lines[split].sort(key=lambda line: line['identifier'][::-1])
    files[f'nlvr2/data/{split}.json'] = b'\n'.join(map(as_json, lines[split])) + b'\n'
  return files, lines
