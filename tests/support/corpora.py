"""Miniatures of the published corpora with tiny images, and the ways in which users store them."""

import functools
import io
import pathlib
import tarfile
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data import miniatures
from data.miniatures import Files, as_json, as_zip


def image(seed: int, form: str = 'JPEG', size: tuple[int, int] = (40, 30)) -> bytes:
  """Draws a small image file, another one for each seed."""
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, form)
  return file.getvalue()


def as_folder(files: Files, root: pathlib.Path) -> pathlib.Path:
  """Writes files below a folder, which it returns."""
  for name, content in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return root


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

karpathy = functools.partial(miniatures.karpathy, picture=image)
visual_genome = functools.partial(miniatures.visual_genome, picture=image)
visual_genome_questions = miniatures.visual_genome_questions
coco_captions = miniatures.coco_captions
vqa = functools.partial(miniatures.vqa, picture=image)


def coco(splits: dict[str, int], shared: Sequence[int] = ()) -> tuple[Files, list[dict]]:
  """Makes all that coco_karpathy is built from; the images of these ids are in Flickr30K too."""
  files, images = karpathy('coco', splits)
  listed, flickr30k = karpathy('flickr30k', {'train': len(shared), 'val': 1, 'test': 1})
  numbers = [int(image['filename'].removesuffix('.jpg')) for image in flickr30k]
  files['dataset_flickr30k.json'] = listed['dataset_flickr30k.json']
  flickr_ids = dict(zip(shared, numbers, strict=False))
  return files | coco_captions(images, flickr_ids), images


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
