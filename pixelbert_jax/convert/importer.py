"""Imports published weights into a checkpoint: a BERT and a CNN, or an exported folder."""

import contextlib
import copy
import functools
import os
import pathlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from pixelbert_jax import files, jsons
from pixelbert_jax.checkpoints import checkpoint, provenance
from pixelbert_jax.checkpoints.checksum import by_name
from pixelbert_jax.checkpoints.workdir import VOCABULARY, check_empty
from pixelbert_jax.convert import bert as bert_lib
from pixelbert_jax.convert import cnn as cnn_lib
from pixelbert_jax.convert import names
from pixelbert_jax.convert.names import Variables, WeightsError
from pixelbert_jax.convert.tensors import Source, digest_of_tensors, one_line
from pixelbert_jax.experiment import init_variables, make_model, make_task
from pixelbert_jax.input.vocabulary import entries
from pixelbert_jax.models.heads import Model
from pixelbert_jax.tasks import answers
from pixelbert_jax.tasks import labels as labels_lib
from pixelbert_jax.tasks.base import Task

# Modules that a source may lack, if it lacks all of their tensors: those that only Pixel-BERT
# has, and the heads of BERT.
MAY_LACK = (
  *('projection.', 'semantic', 'cell_position.', 'itm.'),
  *('bert.pooler.', 'cls.predictions.'),
)

CNN_HINT = 'cnn.width, groups, group_width and stem of the configuration must be those of the file'
BERT_HINT = 'config.json must belong to the weights'


def import_weights(
  bert: str,
  cnn: str,
  config: ConfigDict,
  output: str | os.PathLike,
  words: Sequence[str] = (),
) -> str:
  """Writes a checkpoint of a BERT and a CNN; parameters that neither has are initialised randomly.

  Args:
    bert: a Hugging Face folder or hub id.
    cnn: a file.
    config: the configuration. In a copy, sizes of the Transformer and the image normalisation are
      replaced by those of the weights.
    output: a folder that does not exist yet, or is empty.
    words: of the command line, that made `config`.

  Returns:
    A summary, and the command that starts from the checkpoint.

  Raises:
    UserError: the weights do not fit; nothing is written.
  """
  check_empty(output)  # before minutes of work
  given, config = config, copy.deepcopy(config)
  config.cnn.batch_norm = config.cnn.batch_norm or 'frozen'
  folder = bert_lib.find(bert)
  text = bert_lib.read(folder, bert)
  bert_lib.configure(config, folder, text)
  vocabulary = bert_lib.vocabulary(folder, text)
  image = cnn_lib.read(pathlib.Path(cnn))
  cnn_lib.configure(config, image)
  model, like = build(config, vocabulary)
  missing = check(text, image, names.expected(like))
  random = at_random(model, config.seed, like, missing)
  tensors = text.tensors | image.tensors | names.to_torch(random)
  variables = names.from_torch(tensors, like)
  sources = {'bert': text, 'cnn': image}
  own = {VOCABULARY: vocabulary, provenance.FILE: provenance.encode(())}
  write(output, config.to_dict(), variables, own, sources=sources, random=random)
  t = config.transformer
  return '\n'.join(
    [
      f'{output} is a checkpoint',
      f'  BERT       {len(text.origins)} tensors of {bert}: {t.layers} layers, width {t.width}',
      f'  CNN        {len(image.origins)} tensors of {cnn}: stages {tuple(config.cnn.stages)}',
      f'  at random  {", ".join(sorted(random)) or "nothing"}',
      f'  omitted    {names.some([*text.left_out, *image.left_out]) or "nothing"}',
      f'start from it: {start_command(words, given, config, output)}',
    ]
  )


def start_command(
  words: Sequence[str], given: ConfigDict, config: ConfigDict, output: str | os.PathLike
) -> str:
  """Returns the command that trains from the checkpoint.

  It overrides the fields in which `config`, adapted to the weights, differs from `given`.
  """
  changed = [
    f'--config.{part}.{field}={value}'
    for part in ('transformer', 'image', 'text')
    for field, value in config[part].items()
    if value != given[part][field]
  ]
  start = ['python', '-m', 'pixelbert_jax.main', *words, f'--config.init_from={output}', *changed]
  return shlex.join(start)


def import_export(place: str, output: str | os.PathLike) -> str:
  """Writes a checkpoint from a folder that `export` wrote, with bitwise equal parameters.

  Args:
    place: the folder, or an address on the hub, as for `bert.find`.
    output: a folder that does not exist yet, or is empty.

  Returns:
    A summary.

  Raises:
    UserError: the folder is not an export, or not complete; nothing is written.
  """
  check_empty(output)
  loaded, source = load_export(place)
  write(output, loaded.config, loaded.variables, loaded.files, sources={'export': source})
  return f'{output} is a checkpoint of {len(source.tensors)} tensors of {place}'


def load_export(place: str) -> tuple[checkpoint.Loaded, Source]:
  """Loads the model of a folder that `export` wrote; its files have the vocabulary, too.

  Args:
    place: the folder, or an address on the hub, as for `bert.find`.

  Raises:
    UserError: the folder is not an export, or not complete.
  """
  folder = bert_lib.find(place)
  export = read_config(folder, place)
  with as_exported(folder / 'config.json'):
    config, labels = ConfigDict(export['training_config']), export.get('id2label', {})
    listed = jsons.text([labels[number] for number in sorted(labels, key=int)]).encode()
    # Each task reads its own file.
    task = make_task(config, files={answers.FILE: listed, labels_lib.FILE: listed})
    steps = export['trained_on'].get('steps', 0)
    trained_on = export['trained_on'].get('datasets', config.data.name.split('+'))
  source = bert_lib.read_export(folder, place)
  vocabulary, path = bert_lib.vocabulary(folder, source), folder / VOCABULARY
  with as_exported(folder / 'config.json'):
    _, like = build(config, vocabulary, task)
  # The tensors were tuned in PyTorch, on unknown data.
  if digest_of_tensors(source.tensors) != export.get('tensors_sha256'):
    trained_on = [*trained_on, 'pytorch']
  loaded = checkpoint.Loaded(
    config=export['training_config'],
    variables=names.from_torch(source.tensors, like),
    # tokenizer.json may be all there is.
    vocabulary=path if path.is_file() else files.temporary(VOCABULARY, vocabulary),
    files={VOCABULARY: vocabulary, **task.files(), provenance.FILE: provenance.encode(trained_on)},
    step=steps,
    folder=epath.Path(folder),
  )
  return loaded, source


def read_config(folder: pathlib.Path, place: str) -> dict[str, Any]:
  """Reads the `config.json` of an export; WeightsError if the folder is none."""
  path = folder / 'config.json'
  export = files.read_json(path) if path.is_file() else {}
  if not isinstance(export, dict) or not export.get('training_config'):
    raise WeightsError(
      f'{place} is not a folder that --export wrote: with a BERT give --cnn and --config too'
    )
  return export


@contextlib.contextmanager
def as_exported(path: pathlib.Path) -> Iterator[None]:
  """Raises WeightsError for whatever goes wrong inside, which a damaged `config.json` explains."""
  try:
    yield
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise WeightsError(
      f'{path} is not as --export wrote it ({one_line(error)}): export it again'
    ) from error


def build(
  config: ConfigDict, vocabulary: bytes, task: Task | None = None
) -> tuple[Model, Variables]:
  """Returns the model of a configuration, or a task, and the shapes of its variables."""
  model = make_model(config, len(entries(vocabulary, VOCABULARY)), task)
  return model, jax.eval_shape(functools.partial(initial, model, config.seed))


def initial(model: Model, seed: int) -> Variables:
  """Returns the variables that a run from scratch starts with."""
  texts = {'token_ids': np.int32, 'token_mask': bool, 'mlm_position': np.int32}
  batch = {name: np.zeros((1, 1, 4), dtype) for name, dtype in texts.items()}
  batch |= {'image': np.zeros((1, 64, 64, 3), np.uint8), 'size': np.full((1, 2), 64, np.int32)}
  return init_variables(model, seed, batch)


def check(text: Source, image: Source, wanted: names.Shapes) -> set[str]:
  """Checks the shapes of both sources; returns the names of tensors that may be and are missing.

  Raises:
    WeightsError: tensors are missing, unexpected or have the wrong shape.
  """
  missing = set()
  for prefix in MAY_LACK:
    module = {name for name in wanted if name.startswith(prefix)}
    if not module & text.tensors.keys():
      missing |= module
  types = text.tensors.get(names.TOKEN_TYPES, np.zeros((2, 0)))
  texts = {n: shape for n, shape in wanted.items() if not n.startswith('cnn.') and n not in missing}
  texts[names.TOKEN_TYPES] = (max(len(types), 1), wanted[names.POSITIONS][1])
  images = {name: shape for name, shape in wanted.items() if name.startswith('cnn.')}
  for source, shapes, hint in ((text, texts, BERT_HINT), (image, images, CNN_HINT)):
    names.check({n: x.shape for n, x in source.tensors.items()}, shapes, source.place, hint)
  return missing


def at_random(model: Model, seed: int, like: Variables, missing: set[str]) -> dict[str, np.ndarray]:
  """Returns the initial values of missing tensors, as arrays of ours by path."""
  paths = {slot.ours for slot in names.slots(like) if slot.name in missing}
  arrays = functools.partial(initial, model, seed)
  # Compiled, it skips the computation of all other arrays.
  draw = jax.jit(lambda: {path: x for path, x in by_name(arrays()).items() if path in paths})
  return jax.device_get(draw())


def write(
  output: str | os.PathLike,
  config: dict[str, Any],
  variables: Variables,
  own: dict[str, bytes],
  sources: dict[str, Source],
  random: Iterable[str] = (),
) -> None:
  """Writes the checkpoint with `conversion.json`, which lists the use of every source tensor.

  `own` are its other files, by name.
  """
  slots = {slot.name: str(slot) for slot in names.slots(variables)}
  if names.POSITIONS in slots:
    slots[names.TOKEN_TYPES] = f'{slots[names.POSITIONS]}, to which row 0 is added'
  conversion: dict[str, Any] = {
    kind: {
      'source': source.place,
      'sha256': source.files,
      'taken': {old: slots[new] for new, old in source.origins.items()},
      'left_out': source.left_out,
    }
    for kind, source in sources.items()
  }
  conversion['at_random'] = sorted(random)
  conversion_file = (jsons.text(conversion, indent=2) + '\n').encode()
  checkpoint.write_model(output, config, variables, {**own, 'conversion.json': conversion_file})
