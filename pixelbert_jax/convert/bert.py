"""Reads a BERT of any size from a folder or hub id of Hugging Face.

What its configuration and its tokenizer say is what `transformers` reads from them.
"""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tokenizers

from pixelbert_jax import jsons
from pixelbert_jax.checkpoints import saved
from pixelbert_jax.convert import shards
from pixelbert_jax.convert.names import TOKEN_TYPES, WeightsError
from pixelbert_jax.convert.tensors import Source, one_line
from pixelbert_jax.input import vocabulary as vocabulary_lib
from pixelbert_jax.input.text import word_pieces

SMALL_FILES = ('config.json', 'vocab.txt', 'tokenizer.json', 'tokenizer_config.json')
SMALL = 64 << 20  # bytes; the tokenizer.json of LaBSE, with 501,153 entries, has 10 MB

HUB = re.compile(r'(?:hf://)?(\w[\w.-]*(?:/[\w.-]+)?)(?:@(\w[\w./-]*))?')

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
  'quantization_config': None,
}

# Field of our `transformer` configuration -> field of config.json.
SIZES = {
  'max_positions': 'max_position_embeddings',
  'width': 'hidden_size',
  'layers': 'num_hidden_layers',
  'heads': 'num_attention_heads',
  'mlp_width': 'intermediate_size',
}

WORDS = 'bert.embeddings.word_embeddings.weight'
# Tensor -> field of config.json with the number of its rows.
ROWS = {WORDS: 'vocab_size', TOKEN_TYPES: 'type_vocab_size'}


def find(place: str) -> pathlib.Path:
  """Returns the folder that a flag names; downloads a hub id to the cache of Hugging Face.

  Args:
    place: a folder; or USER/NAME or hf://USER/NAME, optionally with @REVISION.

  Raises:
    WeightsError: neither folder nor hub model exists, or the network is unavailable.
  """
  folder = pathlib.Path(place)
  if folder.is_dir():
    return folder
  hub = HUB.fullmatch(place)
  if folder.exists() or not hub:
    raise WeightsError(
      f'{place}: no such folder; give one with config.json, vocab.txt and model.safetensors, or a '
      'hub id such as bert-base-uncased'
    )
  # Imported here because it takes a second.
  from huggingface_hub import snapshot_download

  name, revision = hub.groups()
  try:
    for weights in (
      ['model*.safetensors', 'model.safetensors.index.json'],
      ['pytorch_model*.bin', 'pytorch_model.bin.index.json'],
    ):
      patterns = [*SMALL_FILES, *weights]
      folder = pathlib.Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
      if any(folder.glob('model*.safetensors')):
        break
  except Exception as error:  # Of the hub, of the network library, OSError, ValueError.
    raise WeightsError(
      f'{place}: no such folder, and the hub does not give it ({one_line(error)}): download '
      'config.json, vocab.txt and model.safetensors from '
      f'https://huggingface.co/{name}/tree/{revision or "main"} to a folder and give that FOLDER'
    ) from error
  return folder


def read(folder: pathlib.Path, place: str) -> Source:
  """Reads the BERT in a folder, under the names of `names.py`; `place` is what the user gave.

  Raises:
    WeightsError: weights are missing or cannot be read.
  """
  source = _sorted(folder, place, _rename, UNWANTED)
  _untie(source)
  return source


def read_export(folder: pathlib.Path, place: str) -> Source:
  """Reads the folder of an export in the same way; its names are those of `names.py`."""
  return _sorted(folder, place, str, {})


def _sorted(
  folder: pathlib.Path, place: str, rename: Callable[[str], str], unwanted: dict[str, str]
) -> Source:
  tensors, weights = shards.read(folder, place)
  source = Source(place, saved.digests(folder, [*weights, *_small_files(folder)]))
  source.sort(tensors, rename, unwanted)
  return source


def _small_files(folder: pathlib.Path) -> list[str]:
  """Returns the files about the model; WeightsError if one is too large for what it says."""
  present = [name for name in SMALL_FILES if (folder / name).is_file()]
  for name in present:
    if (folder / name).stat().st_size > SMALL:
      raise WeightsError(f'{folder / name} is larger than {SMALL:,} bytes: download it again')
  return present


def _rename(name: str) -> str:
  name = name if name.startswith(('bert.', 'cls.')) else f'bert.{name}'
  return re.sub(r'\.beta$', '.bias', re.sub(r'\.gamma$', '.weight', name))


def _untie(source: Source) -> None:
  """Omits the MLM decoder, which equals the word embeddings, and the duplicate of its bias."""
  bias, decoder = 'cls.predictions.bias', 'cls.predictions.decoder.'
  if f'{decoder}bias' in source.tensors and bias not in source.tensors:
    source.tensors[bias] = source.tensors.pop(f'{decoder}bias')
    source.origins[bias] = source.origins.pop(f'{decoder}bias')
  for duplicate, original in ((f'{decoder}weight', WORDS), (f'{decoder}bias', bias)):
    if duplicate not in source.tensors:
      continue
    if original not in source.tensors or not np.array_equal(
      source.tensors.pop(duplicate), source.tensors[original]
    ):
      raise WeightsError(
        f'{source.place}: {duplicate} differs from {original}; this model ties the two'
      )
    source.left_out[source.origins.pop(duplicate)] = f'the same as {source.origins[original]}'


def configure(config: Any, folder: pathlib.Path, source: Source) -> None:
  """Sets the sizes in `config.transformer` to those of a BERT.

  Raises:
    WeightsError: the folder holds no BERT, or one with an unsupported architecture, or the
      configuration of another one.
  """
  path = folder / 'config.json'
  if not path.is_file():
    raise WeightsError(f'{source.place}: {folder} has no config.json')
  bert = _as_transformers('AutoConfig', folder, path)
  unsupported = [
    f'{name} is {getattr(bert, name)!r}, expected {value!r}'
    for name, value in PLAIN.items()
    if getattr(bert, name, value) != value
  ]
  if getattr(bert, 'pruned_heads', None):
    unsupported.append('it has pruned_heads')
  if unsupported:
    raise WeightsError(f'{path} is not of a plain BERT: {", ".join(unsupported)}')
  for field, name in SIZES.items():
    if getattr(bert, name) < 1:
      raise WeightsError(f'{path}: {name} is {getattr(bert, name)}, expected 1 or more')
    config.transformer[field] = getattr(bert, name)
  if config.transformer.width % config.transformer.heads:
    raise WeightsError(f'{path}: num_attention_heads does not divide hidden_size')
  for name, field in ROWS.items():
    rows = len(source.tensors[name]) if name in source.tensors else getattr(bert, field)
    if rows != getattr(bert, field):
      raise WeightsError(
        f'{path}: {field} is {getattr(bert, field):,}, but {source.origins[name]} has {rows:,} '
        'rows: give the config.json of these weights'
      )
  config.text.vocabulary = ''  # The checkpoint contains it.


def _as_transformers(kind: str, folder: pathlib.Path, path: pathlib.Path) -> Any:
  """Returns what an Auto class of transformers reads from a folder, whose code is never run.

  Raises:
    WeightsError: it reads nothing; the line names `path`.
  """
  # Read at the import, which says otherwise that there is no PyTorch.
  os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
  # Imported here because it takes seconds, and PyTorch with it where that is installed.
  import transformers

  _small_files(folder)
  auto = getattr(transformers, kind)
  return _read(path, auto.from_pretrained, folder, trust_remote_code=False, local_files_only=True)


def _read(path: pathlib.Path, reader: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
  try:
    return reader(*args, **kwargs)
  except Exception as error:  # What is wrong in a file raises almost anything.
    raise WeightsError(f'{path} cannot be read ({one_line(error)}): download it again') from error


def vocabulary(folder: pathlib.Path, source: Source) -> bytes:
  """Returns the `vocab.txt` of a BERT; without one, its content is made from tokenizer.json.

  Raises:
    UserError: the vocabulary is missing, ambiguous or cased, the tokenizer is not that of an
      uncased BERT, or there are more or fewer entries than word embeddings.
  """
  path, tokenizer = folder / 'vocab.txt', folder / 'tokenizer.json'
  if not (path.is_file() or tokenizer.is_file()):
    raise WeightsError(f'{source.place}: {folder} has no vocab.txt and no tokenizer.json')
  content, words = vocabulary_lib.read_vocabulary(path, str(path)) if path.is_file() else (b'', [])
  read = _as_transformers('AutoTokenizer', folder, tokenizer if tokenizer.is_file() else path)
  settings = folder / 'tokenizer_config.json'
  _check_uncased(
    settings if settings.is_file() else folder, getattr(read, 'backend_tokenizer', None)
  )
  if tokenizer.is_file():
    # transformers takes the vocabulary of this file, but replaces what it says about casing.
    own = _read(tokenizer, tokenizers.Tokenizer.from_file, str(tokenizer))
    _check_uncased(tokenizer, own)
    number = own.get_vocab(with_added_tokens=False)
    if sorted(number.values()) != list(range(len(number))):
      raise WeightsError(f'{tokenizer}: the ids of its entries are not consecutive from 0')
    ordered = sorted(number, key=number.__getitem__)
    if not words:
      path, content = tokenizer, '\n'.join(ordered).encode() + b'\n'
      words = vocabulary_lib.entries(content, str(path))
    if words != ordered:
      raise WeightsError(f'{path} and {tokenizer} have other entries: give those of these weights')
  embeddings = source.tensors.get(WORDS, words)
  if len(words) != len(embeddings):
    raise WeightsError(
      f'{path} has {len(words):,} entries and the word embeddings {len(embeddings):,} rows: '
      'give the vocabulary that these weights were trained with'
    )
  return content


def _check_uncased(path: pathlib.Path, tokenizer: tokenizers.Tokenizer | None) -> None:
  """Raises for a tokenizer that does anything else to texts than the one here."""
  if tokenizer is None:
    raise WeightsError(f'{path} is of no WordPiece tokenizer: give an uncased BERT')
  found, ours = _treatment(tokenizer), _treatment(word_pieces(vocabulary_lib.SPECIAL))
  differing = [
    f'{name} is {jsons.text(found.get(name))}' for name in ours if found.get(name) != ours[name]
  ]
  if differing:
    raise WeightsError(
      f'{path}: {", ".join(differing)}, but texts are lowercased and stripped of accents here, as '
      'uncased BERTs have it: give an uncased BERT'
    )


def _treatment(tokenizer: Any) -> dict[str, Any]:
  """Returns what a tokenizer does to texts, by the names of tokenizer.json."""
  state = jsons.parse(tokenizer.to_str())
  normalizer = state['normalizer'] or {}
  if normalizer.get('strip_accents') is None:
    normalizer['strip_accents'] = normalizer.get('lowercase')
  names = ('clean_text', 'handle_chinese_chars', 'strip_accents', 'lowercase')
  pieces = ('unk_token', 'continuing_subword_prefix', 'max_input_chars_per_word')
  return {
    'model': state['model']['type'],
    'normalizer': normalizer.get('type'),
    'pre_tokenizer': (state['pre_tokenizer'] or {}).get('type'),
    **{name: normalizer.get(name) for name in names},
    **{name: state['model'].get(name) for name in pieces},
  }
