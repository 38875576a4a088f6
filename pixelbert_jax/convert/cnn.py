"""An ImageNet CNN in: torchvision's and timm's ResNets and ResNeXts, Detectron's ResNeXt-152."""

import pathlib
import re
from typing import Any

from pixelbert_jax.convert import caffe2
from pixelbert_jax.convert.names import WeightsError
from pixelbert_jax.convert.tensors import Source, digest, read_file

# Of RGB in 0..1: what torchvision and timm normalise by before their ResNets.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

UNWANTED = {
  r'cnn\.fc\.(weight|bias)': 'classifier of ImageNet',
  r'cnn\..*\.num_batches_tracked': 'count of batches, which nothing here depends on',
}


def read(path: pathlib.Path) -> Source:
  """The CNN in a file, under the names of `names.py`.

  Raises:
    WeightsError: the file cannot be read, or is no dictionary of tensors.
  """
  if path.is_dir():
    raise WeightsError(f'--cnn={path} is a folder: give the file in it that holds the weights')
  if not path.is_file():
    raise WeightsError(f'--cnn={path}: no such file')
  source = Source(str(path))
  if path.suffix == '.pkl':
    source.sort(caffe2.read_pickle(path), caffe2.rename, caffe2.UNWANTED)
    tensors = caffe2.as_torchvision(source.tensors)
    source.tensors = {f'cnn.{name}': x for name, x in tensors.items()}
    source.origins = {f'cnn.{name}': old for name, old in source.origins.items()}
  else:
    source.sort(read_file(path), _rename, UNWANTED)
  source.files = {path.name: digest(path)}
  return source


def _rename(name: str) -> str:
  return 'cnn.' + re.sub(r'^(module\.|backbone\.|cnn\.)+', '', name)


def configure(config: Any, source: Source) -> None:
  """Checks `config.cnn` against the depth of a CNN, and sets what it was normalised by.

  Raises:
    WeightsError: the file is of another depth, or Detectron's and the configuration not for it.
  """
  blocks = [re.match(r'cnn\.layer(\d)\.(\d+)\.', name) for name in source.tensors]
  numbers = {(int(m[1]), int(m[2])) for m in blocks if m}
  stages = tuple(
    1 + max(block for stage, block in numbers if stage == wanted)
    for wanted in sorted({stage for stage, _ in numbers})
  )
  if not stages:
    raise WeightsError(
      f'{source.place} holds no ResNet of bottlenecks (layer1.0.conv1.weight, ...): '
      f'its tensors are {", ".join(list(source.tensors)[:3]) or "none"}'
    )
  if stages != tuple(config.cnn.stages):
    raise WeightsError(
      f'{source.place} is of another depth: its stages have {stages} blocks, cnn.stages of the '
      f'configuration is {tuple(config.cnn.stages)}: take the variant of this CNN '
      '(r50, x101, x152), or another file'
    )
  config.image.mean, config.image.deviation = MEAN, DEVIATION
  if source.place.endswith('.pkl'):
    _check_folded(config, source.place)
    config.image.mean, config.image.deviation = caffe2.MEAN, caffe2.DEVIATION


def _check_folded(config: Any, place: str) -> None:
  if config.cnn.batch_norm != 'frozen':
    raise WeightsError(
      f"{place} has its statistics folded into scale and shift: cnn.batch_norm has to be 'frozen'"
    )
  if config.cnn.groups == 1:
    # They have the same names and shapes as torchvision's.
    raise WeightsError(
      f"{place}: of Detectron's pickles only ResNeXts are taken, and cnn.groups is 1; its ResNets "
      "stride in the 1x1 convolutions: take torchvision's or timm's"
    )
