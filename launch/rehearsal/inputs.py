"""Writes what a rehearsal has in place of the downloads: corpora as zips, a BERT and a CNN.

    python -m launch.rehearsal.inputs --raw=M --bert=DIR --cnn=FILE --photo=FILE \
      --config=configs/pretrain.py:r50

The photographs are generated, the weights random; layouts, names and sizes are the published ones.
"""

import functools
import pathlib
import sys
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from safetensors.numpy import save_file

from data import miniatures
from data.miniatures import Files
from launch.rehearsal import weights
from pixelbert_jax import commandline, configuration

# Height and width of most photographs of COCO.
SIZES = ((480, 640), (640, 480), (375, 500))
IMAGES = {'train': 6, 'restval': 4, 'val': 4, 'test': 4}  # of COCO, by Karpathy's split
WORDS = 30_522  # entries of the vocabulary of bert-base-uncased

# The zip in which a file is published, by the beginning of its path.
ZIPS = {
  'VG_100K/': 'images.zip',
  'VG_100K_2/': 'images2.zip',
  'annotations/': 'annotations_trainval2014.zip',
  'dataset_': 'caption_datasets.zip',
  'v2_OpenEnded_mscoco_train': 'v2_Questions_Train_mscoco.zip',
  'v2_OpenEnded_mscoco_val': 'v2_Questions_Val_mscoco.zip',
  'v2_OpenEnded_mscoco_test': 'v2_Questions_Test_mscoco.zip',
  'v2_mscoco_train': 'v2_Annotations_Train_mscoco.zip',
  'v2_mscoco_val': 'v2_Annotations_Val_mscoco.zip',
}


def corpora(shrink: int) -> Files:
  """Makes COCO, Visual Genome and VQA v2 of a few photographs, `shrink` times smaller each side."""

  @functools.cache
  def picture(seed: int) -> bytes:
    height, width = SIZES[seed % len(SIZES)]
    return miniatures.photograph(height // shrink, width // shrink, seed)

  coco_files, coco = miniatures.karpathy('coco', IMAGES, picture)
  splits = {'train': 1, 'val': 1, 'test': 1}
  flickr_files, flickr = miniatures.karpathy('flickr30k', splits, picture)
  listed = {name: x for name, x in flickr_files.items() if name.endswith('.json')}
  genome, _ = miniatures.visual_genome(coco, flickr, picture)
  asked, _, _ = miniatures.vqa(coco, picture)
  return coco_files | listed | genome | miniatures.coco_captions(coco, {}) | asked


def write_corpora(files: Files, folder: pathlib.Path) -> None:
  """Writes files as the zips in which they are published."""
  zips = defaultdict[str, Files](dict)
  for name, content in files.items():
    # The other images are in a zip named after their folder, other lists in one of their own.
    own = f'{name.partition("/")[0]}.zip'
    zips[next((z for start, z in ZIPS.items() if name.startswith(start)), own)][name] = content
  for name, members in zips.items():
    miniatures.as_zip(members, folder / name)


def write_cnn(path: pathlib.Path, tensors: weights.Tensors) -> None:
  """Writes a CNN as torchvision's .pth file, for which PyTorch is needed, or as safetensors."""
  if path.suffix != '.pth':
    save_file(tensors, path)
    return
  import torch

  torch.save({name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}, path)


def command(argv: Sequence[str]) -> None:
  """Writes the files that the flags name."""
  parser = commandline.Parser('launch.rehearsal.inputs', 'Writes the inputs of a rehearsal.')
  path = {'type': lambda text: pathlib.Path(commandline.path(text)), 'required': True}
  parser.add_argument('--raw', help='the folder of the corpora', **path)
  parser.add_argument('--bert', help='the folder of the BERT', **path)
  parser.add_argument('--cnn', help='the file of the CNN: .pth or .safetensors', **path)
  parser.add_argument('--photo', help='a photograph to ask a model about', **path)
  parser.add_argument('--config', required=True, help='configs/pretrain.py:VARIANT; gives sizes')
  parser.add_argument('--shrink', type=int, default=1, help='divides the sides of photographs')
  parser.add_argument('--words', type=int, default=WORDS, help='entries of the vocabulary')
  flags, overrides = parser.parse_overrides(argv)
  config = configuration.load(flags.config, overrides)
  files = corpora(flags.shrink)
  write_corpora(files, flags.raw)
  photographs = [name for name in files if name.endswith('.jpg')]
  flags.photo.write_bytes(files[photographs[0]])
  vocabulary = weights.vocabulary(flags.words)
  tensors = weights.draw(config, vocabulary)
  about = weights.bert_config(config, flags.words)
  weights.write_bert(flags.bert, weights.as_bert(tensors), about, vocabulary)
  weights.write_tokenizer(flags.bert, vocabulary, config.transformer.max_positions)
  write_cnn(flags.cnn, weights.as_cnn(tensors))
  size = sum(len(files[name]) for name in photographs)
  print(f'{len(photographs)} photographs, {size:,} bytes, and the lists of three corpora')
  print(f'{sum(x.size for x in tensors.values()):,} random weights of a BERT and a CNN')


if __name__ == '__main__':
  sys.exit(commandline.answer(command, sys.argv[1:]))
