"""From published weights to a checkpoint: a BERT and a CNN, or an export, checked as a whole."""

import copy
import functools
import json
import os
import pathlib
import shlex
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from pixelbert_jax.checkpoints import checkpoint
from pixelbert_jax.checkpoints.workdir import TRAINED_ON
from pixelbert_jax.convert import bert as bert_lib
from pixelbert_jax.convert import cnn as cnn_lib
from pixelbert_jax.convert import names
from pixelbert_jax.convert.names import Variables, WeightsError
from pixelbert_jax.convert.tensors import (
  Source,
  check_empty,
  digest,
  digest_of_tensors,
  read_file,
)
from pixelbert_jax.experiment import make_model
from pixelbert_jax.models.heads import Model
from pixelbert_jax.train import init_variables

# What a source may lack, each as a whole: Pixel-BERT's own, and the heads of BERT.
MAY_LACK = ('projection.', 'semantic', 'itm.', 'bert.pooler.', 'cls.predictions.')

CNN_HINT = (
  'cnn.width, groups, group_width and stem of the configuration have to be those of the file'
)
BERT_HINT = 'config.json has to be that of the weights'


def take(
  bert: str,
  cnn: str,
  config: ConfigDict,
  output: str | os.PathLike,
  words: Sequence[str] = (),
) -> str:
  """Writes a checkpoint of a BERT and a CNN; what neither has stays at random.

  Args:
    bert: a Hugging Face folder or hub id.
    cnn: a file.
    config: which sizes of the Transformer, and the image normalisation, are replaced in.
    output: a folder that does not exist yet, or is empty.
    words: of the command line, that made `config`.

  Returns:
    What was done, and how to go on.

  Raises:
    UserError: something does not fit; nothing is written.
  """
  check_empty(output)
  given, config = config, copy.deepcopy(config)
  config.cnn.batch_norm = config.cnn.batch_norm or 'frozen'
  folder = bert_lib.find(bert)
  bert_lib.configure(config, folder, bert)
  text = bert_lib.read(folder, bert)
  vocabulary = bert_lib.vocabulary(folder, text)
  image = cnn_lib.read(pathlib.Path(cnn))
  cnn_lib.configure(config, image)
  model, like = build(config, vocabulary)
  lacking = check(text, image, names.expected(like))
  random = at_random(model, config.seed, like, lacking)
  tensors = text.tensors | image.tensors | names.to_torch(random)
  variables = names.from_torch(tensors, like)
  record = {'bert': text, 'cnn': image}
  write(output, config.to_dict(), variables, vocabulary, record, list(random), [])
  t = config.transformer
  return '\n'.join(
    [
      f'{output} is a checkpoint',
      f'  BERT       {len(text.origins)} tensors of {bert}: {t.layers} layers, width {t.width}',
      f'  CNN        {len(image.origins)} tensors of {cnn}: stages {tuple(config.cnn.stages)}',
      f'  at random  {", ".join(sorted(random)) or "nothing"}',
      f'  left out   {names.some([*text.left_out, *image.left_out]) or "nothing"}',
      f'start from it: {start_command(words, given, config, output)}',
    ]
  )


def start_command(
  words: Sequence[str], given: ConfigDict, config: ConfigDict, output: str | os.PathLike
) -> str:
  """How to train from a checkpoint of `config`, which the sources changed from what was given."""
  changed = [
    f'--config.{part}.{field}={value}'
    for part in ('transformer', 'image', 'text')
    for field, value in config[part].items()
    if value != given[part][field]
  ]
  start = ['python', '-m', 'pixelbert_jax.main', *words, f'--config.init_from={output}', *changed]
  return shlex.join(start)


def take_export(bert: str, output: str | os.PathLike) -> str:
  """Writes a checkpoint of a folder that `export` wrote, the same to the bit.

  Args:
    bert: the folder.
    output: a folder that does not exist yet, or is empty.

  Returns:
    What was done.

  Raises:
    UserError: it is not whole, or not an export; nothing is written.
  """
  check_empty(output)
  folder = pathlib.Path(bert)
  path = folder / 'config.json'
  export = bert_lib.read_json(path) if path.is_file() else {}
  config = export.get('training_config')
  if not config:
    raise WeightsError(
      f'--bert={bert} is not a folder that --export wrote: a BERT takes --cnn and --config too'
    )
  source = Source(bert)
  source.sort(read_file(folder / 'model.safetensors'), str, {})
  vocabulary = bert_lib.vocabulary(folder, source)
  files = ('config.json', 'vocab.txt', 'model.safetensors')
  source.files = {name: digest(folder / name) for name in files if (folder / name).is_file()}
  _, like = build(ConfigDict(config), vocabulary)
  variables = names.from_torch(source.tensors, like)
  trained_on = export['trained_on'].get('datasets', config['data']['name'].split('+'))
  # Tuned there, on nobody knows what.
  if digest_of_tensors(source.tensors) != export.get('tensors_sha256'):
    trained_on = list(dict.fromkeys([*trained_on, 'pytorch']))
  write(output, config, variables, vocabulary, {'export': source}, [], trained_on)
  return f'{output} is a checkpoint of {len(source.tensors)} tensors of {bert}'


def build(config: ConfigDict, vocabulary: bytes) -> tuple[Model, Variables]:
  """The model of a configuration and the shapes of its variables."""
  model = make_model(config, len(bert_lib.entries(vocabulary)))
  return model, jax.eval_shape(functools.partial(initial, model, config.seed))


def initial(model: Model, seed: int) -> Variables:
  """The variables that a run from scratch begins with."""
  texts = {'token_ids': np.int32, 'token_mask': bool, 'mlm_position': np.int32}
  batch = {name: np.zeros((1, 1, 4), dtype) for name, dtype in texts.items()}
  batch |= {'image': np.zeros((1, 64, 64, 3), np.uint8), 'size': np.full((1, 2), 64, np.int32)}
  return init_variables(model, seed, batch)


def check(text: Source, image: Source, wanted: names.Shapes) -> set[str]:
  """Compares both sources with what is wanted; returns which tensors they may and do lack.

  Raises:
    WeightsError: tensors are missing, unexpected or of another shape.
  """
  lacking = set()
  for head in MAY_LACK:
    whole = {name for name in wanted if name.startswith(head)}
    if not whole & text.tensors.keys():
      lacking |= whole
  types = text.tensors.get(names.TOKEN_TYPES, np.zeros((2, 0)))
  width = wanted[names.POSITIONS][1]
  texts = {n: shape for n, shape in wanted.items() if not n.startswith('cnn.') and n not in lacking}
  texts[names.TOKEN_TYPES] = (max(len(types), 1), width)
  images = {name: shape for name, shape in wanted.items() if name.startswith('cnn.')}
  for source, own, hint in ((text, texts, BERT_HINT), (image, images, CNN_HINT)):
    found = {name: x.shape for name, x in source.tensors.items()}
    names.check(found, own, source.place, hint)
  return lacking


def at_random(model: Model, seed: int, like: Variables, lacking: set[str]) -> dict[str, np.ndarray]:
  """Our arrays of the tensors that are lacking, by path: as of a run from scratch."""
  paths = {slot.ours for slot in names.slots(like) if slot.name in lacking}

  @jax.jit  # which leaves out all that is not asked for
  def draw() -> dict[str, jax.Array]:
    arrays = names.flat(initial(model, seed))
    return {path: arrays[path] for path in paths}

  return jax.device_get(draw())


def write(
  output: str | os.PathLike,
  config: dict[str, Any],
  variables: Variables,
  vocabulary: bytes,
  sources: dict[str, Source],
  random: list[str],
  trained_on: list[str],
) -> None:
  """Writes the checkpoint with `conversion.json`: what became of every tensor of the sources."""
  places = {slot.name: str(slot) for slot in names.slots(variables)}
  places[names.TOKEN_TYPES] = f'{places[names.POSITIONS]}, to which row 0 is added'
  conversion: dict[str, Any] = {
    kind: {
      'source': source.place,
      'sha256': source.files,
      'taken': {old: places[new] for new, old in source.origins.items()},
      'left_out': source.left_out,
    }
    for kind, source in sources.items()
  }
  conversion['at_random'] = sorted(random)
  files = {
    'conversion.json': (json.dumps(conversion, indent=2) + '\n').encode(),
    TRAINED_ON: (json.dumps(trained_on) + '\n').encode(),
  }
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'vocab.txt'
    path.write_bytes(vocabulary)
    checkpoint.write_model(output, config, variables, path, files)
