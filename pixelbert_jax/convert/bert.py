"""Reads a BERT of any size from a folder or hub id of Hugging Face."""

import pathlib
import re
from typing import Any

import numpy as np

from pixelbert_jax import jsons
from pixelbert_jax.checkpoints import saved
from pixelbert_jax.convert.names import WeightsError
from pixelbert_jax.convert.tensors import Source, one_line, read_file
from pixelbert_jax.input.text import SPECIAL

SMALL_FILES = ('config.json', 'vocab.txt', 'tokenizer.json', 'tokenizer_config.json')

UNWANTED = {
  r'bert\.embeddings\.(position_ids|token_type_ids)': 'a buffer of consecutive or zero ids',
  r'cls\.seq_relationship\.(weight|bias)': 'next-sentence head; not image-text matching',
}

# Fields of config.json that must have this value, which is also their default.
PLAIN = {
  'model_type': 'bert',
  'hidden_act': 'gelu',
  'layer_norm_eps': 1e-12,
  'position_embedding_type': 'absolute',
  'is_decoder': False,
  'add_cross_attention': False,
}

# Field of our `transformer` configuration -> field of config.json.
SIZES = {
  'max_positions': 'max_position_embeddings',
  'width': 'hidden_size',
  'layers': 'num_hidden_layers',
  'heads': 'num_attention_heads',
  'mlp_width': 'intermediate_size',
}


def find(place: str) -> pathlib.Path:
  """Returns the folder that --bert names; downloads a hub id to the cache of Hugging Face.

  Raises:
    WeightsError: neither folder nor hub model exists, or the network is unavailable.
  """
  folder = pathlib.Path(place)
  if folder.is_dir():
    return folder
  if folder.exists() or not re.fullmatch(r'\w[\w.-]*(/[\w.-]+)?', place):
    raise WeightsError(
      f'--bert={place}: no such folder; give one with config.json, vocab.txt and '
      'model.safetensors, or a hub id such as bert-base-uncased'
    )
  # Imported here because it takes a second.
  from huggingface_hub import snapshot_download

  try:
    for weights in (['model*.safetensors', 'model.safetensors.index.json'], ['pytorch_model.bin']):
      folder = pathlib.Path(snapshot_download(place, allow_patterns=[*SMALL_FILES, *weights]))
      if any(folder.glob('model*.safetensors')):
        break
  except Exception as error:  # Of the hub, of the network library, OSError, ValueError.
    raise WeightsError(
      f'--bert={place}: no such folder, and the hub does not give it ({one_line(error)}): download '
      f'config.json, vocab.txt and model.safetensors from https://huggingface.co/{place}/tree/main '
      'to a folder and give --bert=FOLDER'
    ) from error
  return folder


def read(folder: pathlib.Path, place: str) -> Source:
  """Reads the BERT in a folder, under the names of `names.py`; `place` is what the user gave.

  Raises:
    WeightsError: weights are missing or cannot be read.
  """
  weights = _weight_files(folder, place)
  tensors: dict[str, Any] = {}
  for name in weights:
    tensors |= read_file(folder / name)
  small = [name for name in SMALL_FILES if (folder / name).is_file()]
  source = Source(place, saved.digests(folder, [*weights, *small]))
  source.sort(tensors, _rename, UNWANTED)
  _untie(source)
  return source


def _weight_files(folder: pathlib.Path, place: str) -> list[str]:
  for name in ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin'):
    path = folder / name
    if not path.is_file():
      continue
    if path.suffix != '.json':
      return [name]
    shards = sorted(set(read_json(path).get('weight_map', {}).values()))
    missing = [shard for shard in shards if not (folder / str(shard)).is_file()]
    if missing or not shards:
      raise WeightsError(f'{path} names {", ".join(missing) or "no files"}: download all of them')
    return shards
  raise WeightsError(
    f'--bert={place}: {folder} has no model.safetensors (or its shards) and no pytorch_model.bin'
  )


def _rename(name: str) -> str:
  name = name if name.startswith(('bert.', 'cls.')) else f'bert.{name}'
  return re.sub(r'\.beta$', '.bias', re.sub(r'\.gamma$', '.weight', name))


def _untie(source: Source) -> None:
  """Omits the MLM decoder, which equals the word embeddings, and the duplicate of its bias."""
  word, bias = 'bert.embeddings.word_embeddings.weight', 'cls.predictions.bias'
  decoder = 'cls.predictions.decoder.'
  if f'{decoder}bias' in source.tensors and bias not in source.tensors:
    source.tensors[bias] = source.tensors.pop(f'{decoder}bias')
    source.origins[bias] = source.origins.pop(f'{decoder}bias')
  for duplicate, original in ((f'{decoder}weight', word), (f'{decoder}bias', bias)):
    if duplicate not in source.tensors:
      continue
    if original not in source.tensors or not np.array_equal(
      source.tensors.pop(duplicate), source.tensors[original]
    ):
      raise WeightsError(
        f'{source.place}: {duplicate} differs from {original}; this model ties the two'
      )
    source.left_out[source.origins.pop(duplicate)] = f'the same as {source.origins[original]}'


def configure(config: Any, folder: pathlib.Path, place: str) -> None:
  """Sets the sizes in `config.transformer` to those of a BERT.

  Raises:
    WeightsError: the folder holds no BERT, or one with an unsupported architecture.
  """
  path = folder / 'config.json'
  if not path.is_file():
    raise WeightsError(f'--bert={place}: {folder} has no config.json')
  bert = read_json(path)
  unsupported = [
    f'{name} is {bert[name]!r}, expected {value!r}'
    for name, value in PLAIN.items()
    if bert.get(name, value) != value
  ]
  if bert.get('pruned_heads'):
    unsupported.append('it has pruned_heads')
  if unsupported:
    raise WeightsError(f'{path} is not of a plain BERT: {", ".join(unsupported)}')
  missing = [name for name in SIZES.values() if not isinstance(bert.get(name), int)]
  if missing:
    raise WeightsError(f'{path} lacks {", ".join(missing)}')
  for field, name in SIZES.items():
    config.transformer[field] = bert[name]
  if config.transformer.width % config.transformer.heads:
    raise WeightsError(f'{path}: num_attention_heads does not divide hidden_size')
  config.text.vocabulary = ''  # The checkpoint contains it.


def vocabulary(folder: pathlib.Path, source: Source) -> bytes:
  """Returns the `vocab.txt` of a BERT; without one, its content is made from tokenizer.json.

  Raises:
    WeightsError: the vocabulary is missing, has capitals or accents, or differs in length from
      the word embeddings.
  """
  _check_uncased(folder)
  path = folder / 'vocab.txt'
  if path.is_file():
    content = path.read_bytes()
  else:
    path = folder / 'tokenizer.json'
    if not path.is_file():
      raise WeightsError(f'--bert={source.place}: {folder} has no vocab.txt and no tokenizer.json')
    content = _vocabulary_of_tokenizer(path)
  words = entries(content)
  if not set(SPECIAL) <= set(words):
    raise WeightsError(f'{path} is not a BERT vocabulary: it lacks one of {", ".join(SPECIAL)}')
  embeddings = source.tensors.get('bert.embeddings.word_embeddings.weight', words)
  if len(words) != len(embeddings):
    raise WeightsError(
      f'{path} has {len(words):,} entries and the word embeddings {len(embeddings):,} rows: '
      'give the vocabulary that these weights were trained with'
    )
  return content


def entries(content: bytes) -> list[str]:
  """Splits a `vocab.txt` into its entries, one per line."""
  # `splitlines` would split at entries that are Unicode line separators.
  return content.decode('utf-8', 'replace').removesuffix('\n').split('\n')


def _vocabulary_of_tokenizer(path: pathlib.Path) -> bytes:
  model = read_json(path).get('model', {})
  number = model.get('vocab', {})
  if model.get('type') != 'WordPiece' or sorted(number.values()) != list(range(len(number))):
    raise WeightsError(f'{path} holds no WordPiece vocabulary with consecutive ids from 0')
  return '\n'.join(sorted(number, key=number.get)).encode() + b'\n'


def _check_uncased(folder: pathlib.Path) -> None:
  """Raises for a BERT that keeps capitals or accents: the tokenizer here removes both."""
  fields = (
    ('tokenizer_config.json', 'do_lower_case'),
    ('tokenizer_config.json', 'strip_accents'),
    ('tokenizer.json', 'normalizer', 'lowercase'),
    ('tokenizer.json', 'normalizer', 'strip_accents'),
  )
  for file, *keys in fields:
    value: Any = read_json(folder / file) if (folder / file).is_file() else {}
    for key in keys:
      value = value.get(key) if isinstance(value, dict) else None
    if value is False:
      raise WeightsError(
        f'{folder / file}: {keys[-1]} is false, but texts are lowercased and stripped of accents '
        'here: give an uncased BERT'
      )


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads the object in a JSON file; WeightsError if it holds none."""
  try:
    value = jsons.parse(path.read_bytes(), bits=1024)
  except ValueError as error:
    raise WeightsError(f'{path} is not JSON ({one_line(error)}): download it again') from error
  if not isinstance(value, dict):
    raise WeightsError(f'{path} is not a JSON object')
  return value
