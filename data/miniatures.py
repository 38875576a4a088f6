"""Miniatures of the published corpora, in their owners' layout and with its oddities.

They stand in for the corpora in `python -m launch.rehearsal` and in tests.
A `Picture` draws the image file of a seed. The seed of an image of COCO is its id.
"""

import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

Files = dict[str, bytes]  # content by path
Picture = Callable[[int], bytes]


def photograph(height: int, width: int, seed: int) -> bytes:
  """Generates a JPEG with the spectrum of photographs, about 160 KB at 640x480."""
  rng = np.random.default_rng(seed)
  frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
  spectrum = rng.normal(size=(4, *frequency.shape, 2)) @ (1, 1j)
  pixels = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / width) ** 1.2, (height, width))
  pixels = np.moveaxis(pixels[0] + 0.5 * pixels[1:], 0, -1)
  pixels = (120 + 45 * pixels / pixels.std()).clip(0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=92)
  return file.getvalue()


def as_json(value: object) -> bytes:
  return json.dumps(value).encode()


def as_zip(files: Files, path: pathlib.Path, below: str = '') -> pathlib.Path:
  """Writes files into a zip, and returns its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in files.items():
      archive.writestr(below + name, content)
  return path.parent


def karpathy(dataset: str, splits: dict[str, int], picture: Picture) -> tuple[Files, list[dict]]:
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
    files[path] = picture(entry.get('cocoid', i))
  files[f'dataset_{dataset}.json'] = as_json({'images': images, 'dataset': dataset})
  return files, images


def visual_genome(
  coco: list[dict], flickr30k: list[dict], picture: Picture
) -> tuple[Files, dict[int, list[dict]]]:
  """Makes Visual Genome, an image for each of COCO's first and more; and its regions by image."""
  data, regions, files = [], [], {}
  places = [image['cocoid'] for image in coco] + [None] * 6
  for i, coco_id in enumerate(places):
    folder = 'VG_100K' if i % 2 else 'VG_100K_2'
    # The last of those of COCO, a train image, is in Flickr30K, and one of the others as well.
    flickr_id = int(flickr30k[0]['filename'][:-4]) if i == len(places) - 1 else None
    files[f'{folder}/{i + 1}.jpg'] = content = picture(1000 + i)
    width, height = Image.open(io.BytesIO(content)).size
    data.append(
      {
        'image_id': i + 1,
        'url': f'https://cs.stanford.edu/people/rak248/{folder}/{i + 1 + 9 * (i == 2)}.jpg',
        'width': width,
        'height': height,
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
  files['image_data.json'] = as_json(data)
  files['region_descriptions.json'] = as_json(regions)
  return files, {region['id']: region['regions'] for region in regions}


def visual_genome_questions(images: Iterable[int]) -> tuple[Files, dict[int, list[dict]]]:
  """Makes the questions of these images of Visual Genome; and them by image."""
  answers = ['Green.', 'Yes.', 'Two.', 'A größer clock.']
  asked = {
    i: [
      {
        'a_objects': [],
        'q_objects': [],
        'image_id': i,
        'qa_id': 986_000 + 10 * i + k,
        'question': f'What is at place {i}.{k}? ',
        'answer': answers[(i + k) % len(answers)],
      }
      for k in range(1 + i % 4)
    ]
    for i in images
  }
  listed = [{'id': i, 'qas': qas} for i, qas in asked.items()]
  return {'question_answers.json': as_json(listed)}, asked


def coco_captions(coco: list[dict], flickr_ids: dict[int, int]) -> Files:
  """Makes COCO's own captions files, of which only `flickr_url` is used."""
  files = {}
  for year in ('train2014', 'val2014'):
    url = 'http://farm5.staticflickr.com/4153/{}_db_z.jpg'
    images = [
      {'id': i['cocoid'], 'file_name': i['filename']}
      | {'flickr_url': url.format(flickr_ids.get(i['cocoid'], 7))}
      for i in coco
      if i['filepath'] == year
    ]
    captions = [{'id': 1, 'image_id': 1, 'caption': '"images": ['}]
    files[f'annotations/captions_{year}.json'] = as_json(
      {'info': {'images': 'none'}, 'annotations': captions, 'images': images, 'licenses': []}
    )
  return files


def vqa(coco: list[dict], picture: Picture) -> tuple[Files, dict[str, list[dict]], dict[int, dict]]:
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
      files[f'{split}/COCO_{split}_{i:012d}.jpg'] = picture(i)
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
