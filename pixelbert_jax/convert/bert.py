"""A BERT in: a folder or hub id of Hugging Face's, of any size."""

import json
import pathlib
import re
from typing import Any

import numpy as np

from pixelbert_jax.convert.names import WeightsError
from pixelbert_jax.convert.tensors import Source, digest, one_line, read_file
from pixelbert_jax.input.text import SPECIAL

SMALL_FILES = ('config.json', 'vocab.txt', 'tokenizer.json', 'tokenizer_config.json')

UNWANTED = {
  r'bert\.embeddings\.(position_ids|token_type_ids)': 'a buffer, 0 and up',
  r'cls\.seq_relationship\.(weight|bias)': 'next-sentence head; image-text matching is another',
}

# Fields of config.json that have to have this value, which is also that of an absent one.
PLAIN = {
  'model_type': 'bert',
  'hidden_act': 'gelu',
  'layer_norm_eps': 1e-12,
  'position_embedding_type': 'absolute',
  'is_decoder': False,
  'add_cross_attention': False,
}

# Of the configuration's `transformer`, the field of config.json.
SIZES = {
  'layers': 'num_hidden_layers',
  'width': 'hidden_size',
  'heads': 'num_attention_heads',
  'mlp_width': 'intermediate_size',
  'max_positions': 'max_position_embeddings',
}


def find(place: str) -> pathlib.Path:
  """The folder that --bert names; a hub id is downloaded to Hugging Face's cache first.

  Raises:
    WeightsError: there is no such folder and no such model on the hub, or no network.
  """
  folder = pathlib.Path(place)
  if folder.is_dir():
    return folder
  if folder.exists() or not re.fullmatch(r'\w[\w.-]*(/[\w.-]+)?', place):
    raise WeightsError(
      f'--bert={place}: no such folder; give one with config.json, vocab.txt and '
      'model.safetensors, or a hub id such as bert-base-uncased'
    )
  # Not before it is needed: importing it takes a second.
  from huggingface_hub import snapshot_download

  weights = ['model*.safetensors', 'model.safetensors.index.json']
  try:
    found = pathlib.Path(snapshot_download(place, allow_patterns=[*SMALL_FILES, *weights]))
    if not list(found.glob('model*.safetensors')):
      found = pathlib.Path(
        snapshot_download(place, allow_patterns=[*SMALL_FILES, 'pytorch_model.bin'])
      )
  except Exception as error:  # The hub's own, those of the network library, OSError, ValueError.
    raise WeightsError(
      f'--bert={place}: no such folder, and the hub does not give it ({one_line(error)}): download '
      f'config.json, vocab.txt and model.safetensors from https://huggingface.co/{place}/tree/main '
      'to a folder and name that'
    ) from error
  return found


def read(folder: pathlib.Path, place: str) -> Source:
  """The BERT in a folder, under the names of `names.py`; `place` is what the user named.

  Raises:
    WeightsError: there are no weights, or they cannot be read.
  """
  files = _weight_files(folder, place)
  tensors: dict[str, Any] = {}
  for path in files:
    tensors |= read_file(path)
  source = Source(place, {path.name: digest(path) for path in files})
  source.sort(tensors, _rename, UNWANTED)
  _untie(source)
  for name in SMALL_FILES:
    if (folder / name).is_file():
      source.files[name] = digest(folder / name)
  return source


def _weight_files(folder: pathlib.Path, place: str) -> list[pathlib.Path]:
  for name in ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin'):
    path = folder / name
    if not path.is_file():
      continue
    if path.suffix != '.json':
      return [path]
    shards = sorted(set(read_json(path).get('weight_map', {}).values()))
    missing = [shard for shard in shards if not (folder / str(shard)).is_file()]
    if missing or not shards:
      raise WeightsError(f'{path} names {", ".join(missing) or "no files"}: download all of them')
    return [folder / shard for shard in shards]
  raise WeightsError(
    f'--bert={place}: {folder} has no model.safetensors (or its shards) and no pytorch_model.bin'
  )


def _rename(name: str) -> str:
  name = name if name.startswith(('bert.', 'cls.')) else f'bert.{name}'
  return re.sub(r'\.beta$', '.bias', re.sub(r'\.gamma$', '.weight', name))


def _untie(source: Source) -> None:
  """Leaves out the decoder of hidden words, which is the word embeddings, and its bias's double."""
  word, bias = 'bert.embeddings.word_embeddings.weight', 'cls.predictions.bias'
  decoder = 'cls.predictions.decoder.'
  if f'{decoder}bias' in source.tensors and bias not in source.tensors:
    source.tensors[bias] = source.tensors.pop(f'{decoder}bias')
    source.origins[bias] = source.origins.pop(f'{decoder}bias')
  for double, same in ((f'{decoder}weight', word), (f'{decoder}bias', bias)):
    if double not in source.tensors:
      continue
    if same not in source.tensors or not np.array_equal(
      source.tensors.pop(double), source.tensors[same]
    ):
      raise WeightsError(
        f'{source.place}: {double} is not {same}; this model has one matrix for both'
      )
    source.left_out[source.origins.pop(double)] = f'the same as {source.origins[same]}'


def configure(config: Any, folder: pathlib.Path, place: str) -> None:
  """Sets the sizes in `config.transformer` to those of a BERT.

  Raises:
    WeightsError: it is not a BERT, or not one that this model can be.
  """
  path = folder / 'config.json'
  if not path.is_file():
    raise WeightsError(f'--bert={place}: {folder} has no config.json')
  theirs = read_json(path)
  other = [
    f'{name} is {theirs[name]!r} and not {value!r}'
    for name, value in PLAIN.items()
    if theirs.get(name, value) != value
  ]
  if theirs.get('pruned_heads'):
    other.append('it has pruned_heads')
  if other:
    raise WeightsError(f'{path} is not of a plain BERT: {", ".join(other)}')
  absent = [name for name in SIZES.values() if not isinstance(theirs.get(name), int)]
  if absent:
    raise WeightsError(f'{path} does not say {", ".join(absent)}')
  for ours, name in SIZES.items():
    config.transformer[ours] = theirs[name]
  if config.transformer.width % config.transformer.heads:
    raise WeightsError(f'{path}: num_attention_heads does not divide hidden_size')
  config.text.vocabulary = ''  # It lies in the checkpoint.


def vocabulary(folder: pathlib.Path, source: Source) -> bytes:
  """The `vocab.txt` of a BERT, made out of tokenizer.json if there is none.

  Raises:
    WeightsError: there is no vocabulary, it has capitals or accents, or it is not as long as the
      word embeddings.
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
    raise WeightsError(f'{path} is no vocabulary of BERT: it lacks one of {", ".join(SPECIAL)}')
  embeddings = source.tensors.get('bert.embeddings.word_embeddings.weight', words)
  if len(words) != len(embeddings):
    raise WeightsError(
      f'{path} has {len(words):,} entries and the word embeddings {len(embeddings):,} rows: '
      'take the vocabulary that these weights were trained with'
    )
  return content


def entries(content: bytes) -> list[str]:
  """The entries of a `vocab.txt`, one a line."""
  # Not `splitlines`: an entry may be one of Unicode's line separators.
  return content.decode('utf-8', 'replace').removesuffix('\n').split('\n')


def _vocabulary_of_tokenizer(path: pathlib.Path) -> bytes:
  model = read_json(path).get('model', {})
  number = model.get('vocab', {})
  if model.get('type') != 'WordPiece' or sorted(number.values()) != list(range(len(number))):
    raise WeightsError(f'{path} holds no WordPiece vocabulary with the numbers from 0 up')
  return '\n'.join(sorted(number, key=number.get)).encode() + b'\n'


def _check_uncased(folder: pathlib.Path) -> None:
  """Capitals and accents are taken off here: texts would be nonsense to a BERT that has them."""
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
        f'{folder / file}: {keys[-1]} is false; capitals and accents are taken off texts here: '
        'take an uncased BERT, without accents'
      )


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object in a JSON file; WeightsError if there is none."""
  try:
    read = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise WeightsError(f'{path} is not JSON ({one_line(error)}): download it again') from error
  if not isinstance(read, dict):
    raise WeightsError(f'{path} is not a JSON object')
  return read
