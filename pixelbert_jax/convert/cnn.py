"""Reads an ImageNet CNN: ResNets and ResNeXts of torchvision and timm, Detectron's ResNeXt-152."""

import pathlib
import re
from typing import Any

from pixelbert_jax.checkpoints import saved
from pixelbert_jax.convert import caffe2
from pixelbert_jax.convert.names import WeightsError
from pixelbert_jax.convert.tensors import Source, read_file

# Of RGB in 0..1: the normalisation of torchvision and timm.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

UNWANTED = {
  r'cnn\.fc\.(weight|bias)': 'ImageNet classifier',
  r'cnn\..*\.num_batches_tracked': 'count of batches, not used here',
}


def read(path: pathlib.Path) -> Source:
  """Reads the CNN in a file, under the names of `names.py`.

  Raises:
    WeightsError: the file cannot be read, or is not a dictionary of tensors.
  """
  if path.is_dir():
    raise WeightsError(f'--cnn={path} is a folder: give the file of weights in it')
  if not path.is_file():
    raise WeightsError(f'--cnn={path}: no such file')
  entries = read_file(path)
  source = Source(str(path), saved.digests(path.parent, [path.name]))
  if path.suffix == '.pkl':
    source.sort(entries, lambda name: _rename(caffe2.rename(name)), caffe2.UNWANTED)
    source.tensors = caffe2.as_torchvision(source.tensors)
  else:
    source.sort(entries, _rename, UNWANTED)
  return source


def _rename(name: str) -> str:
  return 'cnn.' + re.sub(r'^(module\.|backbone\.|cnn\.)+', '', name)


def configure(config: Any, source: Source) -> None:
  """Checks `config.cnn` against the depth of a CNN, and sets its image normalisation.

  Raises:
    WeightsError: the depths differ, or the file is Detectron's and the configuration not for it.
  """
  blocks = [re.match(r'cnn\.layer(\d)\.(\d+)\.', name) for name in source.tensors]
  last = dict(sorted((int(m[1]), int(m[2])) for m in blocks if m))  # block of each stage
  stages = tuple(1 + block for block in last.values())
  if not stages:
    raise WeightsError(
      f'{source.place} holds no ResNet of bottlenecks (layer1.0.conv1.weight, ...): '
      f'its tensors are {", ".join(list(source.tensors)[:3]) or "none"}'
    )
  if stages != tuple(config.cnn.stages):
    raise WeightsError(
      f'{source.place} has another depth: its stages have {stages} blocks, cnn.stages of the '
      f'configuration is {tuple(config.cnn.stages)}: give the variant of this CNN '
      '(r50, x101, x152), or another file'
    )
  config.image.mean, config.image.deviation = MEAN, DEVIATION
  if source.place.endswith('.pkl'):
    _check_folded(config, source.place)
    config.image.mean, config.image.deviation = caffe2.MEAN, caffe2.DEVIATION


def _check_folded(config: Any, place: str) -> None:
  if config.cnn.batch_norm != 'frozen':
    raise WeightsError(
      f"{place} has its statistics folded into scale and shift: cnn.batch_norm must be 'frozen'"
    )
  if config.cnn.groups == 1:
    # Only the stride differs from torchvision; names and shapes do not.
    raise WeightsError(
      f"{place}: of Detectron's pickles only ResNeXts are supported, and cnn.groups is 1; its "
      "ResNets stride in the 1x1 convolutions: give torchvision's or timm's"
    )
