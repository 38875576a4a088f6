"""The table of datasets by name, and access to those that are built."""

import os
import pathlib
import re
import shlex
from collections.abc import Mapping

import tensorflow_datasets as tfds

from data.boxes import boxes_dataset_builder
from data.coco_karpathy import coco_karpathy_dataset_builder
from data.corpus import CorpusBuilder
from data.easy_vqa import easy_vqa_dataset_builder
from data.entry import Tally
from data.flickr30k import flickr30k_dataset_builder
from data.folder import folder_dataset_builder
from data.listing import TWICE
from data.nlvr import nlvr_dataset_builder
from data.nlvr2 import nlvr2_dataset_builder
from data.scenes import scenes_dataset_builder
from data.visual_genome import visual_genome_dataset_builder
from data.visual_genome_questions import visual_genome_questions_dataset_builder
from data.vqa_v2 import vqa_v2_dataset_builder
from pixelbert_jax import commandline
from pixelbert_jax.input.dataset import (
  Dataset,
  DatasetError,
  is_built,
  open_built,
  open_seal,
  quiet,
)

BUILDERS = {
  'boxes': boxes_dataset_builder.Builder,
  'coco_karpathy': coco_karpathy_dataset_builder.Builder,
  'easy_vqa': easy_vqa_dataset_builder.Builder,
  'folder': folder_dataset_builder.Builder,
  'flickr30k': flickr30k_dataset_builder.Builder,
  'nlvr': nlvr_dataset_builder.Builder,
  'nlvr2': nlvr2_dataset_builder.Builder,
  'scenes': scenes_dataset_builder.Builder,
  'visual_genome': visual_genome_dataset_builder.Builder,
  'visual_genome_questions': visual_genome_questions_dataset_builder.Builder,
  'vqa_v2': vqa_v2_dataset_builder.Builder,
}

Path = str | os.PathLike
TfdsBuilder = tfds.core.DatasetBuilder


def open_dataset(name: str, data_dir: Path | None = None) -> Dataset:
  """Opens a built dataset by its name.

  Raises:
    DatasetError: it is damaged, or not built, or not completely; the message has the command that
      builds it.
  """
  builder = find_builder(name, data_dir)
  open_seal(builder)
  if not is_built(builder):
    manual = ' --manual_dir=M' if isinstance(builder, CorpusBuilder) else ''
    root = shlex.quote(str(builder.data_dir_root))
    raise DatasetError(
      f'{name} is not built, or not wholly, in {builder.data_dir}: '
      f'run `python -m data.build {name} --data_dir={root}{manual}`'
    )
  tallies = (builder.info.metadata or {}).get('tally', {})
  published = getattr(builder, 'PUBLISHED', {})
  whole = {
    split: expected(Tally(**tallies.get(split, {})), published.get(split, {}))
    for split in builder.info.splits
  }
  return open_built(name, builder, whole)


def expected(tally: Tally, published: Mapping[str, int]) -> dict[str, int]:
  """Counts what a split would have if nothing had been left out of it.

  Returns:
    The numbers of images, captions, ... and of the texts of subsets: as published, else of texts
    alone as the raw files list them, each once. Images may be listed without a text to score.
  """
  listed = {name: number for name, number in tally.read.items() if name != 'images'}
  for kind, reasons in tally.others.items():
    if kind in listed:
      listed[kind] -= len(reasons.get(TWICE, ()))
  return listed | dict(published)


@quiet()
def find_builder(name: str, data_dir: Path | None) -> TfdsBuilder:
  """Finds the TFDS builder of a dataset, built or not, by its name.

  Raises:
    DatasetError: no dataset has that name, the folder is a bucket, or what is built there is
      damaged.
  """
  base, _, config = name.partition('/')
  if base not in BUILDERS:
    near = [x for x in BUILDERS if base and x.startswith(base)] or commandline.near(
      base, list(BUILDERS)
    )
    known = f'known are {", ".join(sorted(BUILDERS))}'
    raise DatasetError(f'no dataset {name!r}{commandline.did_you_mean(near[:1]) or ":"} {known}')
  cls = BUILDERS[base]
  if getattr(cls, 'ANY_CONFIG', False) and re.fullmatch('[A-Za-z0-9_-]+', config):
    config = tfds.core.BuilderConfig(name=config)
  elif '/' in name and config not in cls.builder_configs:
    known = ', '.join(f'{base}/{c}' for c in cls.builder_configs) or base
    raise DatasetError(f'no dataset {name!r}: known are {known}')
  root = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  if '://' in os.fspath(root):
    # ArrayRecord would silently find no records there.
    raise DatasetError(f'{root} is a bucket: mount it (gcsfuse) or copy it to a disk, see DATA.md')
  root = pathlib.Path(root).expanduser().absolute()
  try:
    return cls(data_dir=root, config=config or None, file_format='array_record')
  except Exception as error:  # TFDS raises almost anything for damaged files.
    name = config.name if isinstance(config, tfds.core.BuilderConfig) else config
    default = cls.BUILDER_CONFIGS[0].name if cls.BUILDER_CONFIGS else ''
    path = root / cls.name / (name or default) / str(cls.VERSION)
    raise DatasetError(
      f'{path} is damaged (dataset_info.json cannot be read): delete that folder and build again'
    ) from error
