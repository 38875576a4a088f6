"""What a BERT is: its configuration and its tokenizer, as transformers reads them."""

import json
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file
from tokenizers import BertWordPieceTokenizer

from pixelbert_jax import UserError
from pixelbert_jax.convert import bert as bert_lib
from pixelbert_jax.input.text import word_pieces
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.published import BERT, WORDS, bert_tensors, small_config, write_bert


@pytest.fixture
def folder(tmp_path):
  return write_bert(tmp_path / 'bert', bert_tensors())


def read(folder) -> bytes:
  """Reads all of the BERT in a folder; returns its vocabulary."""
  source = bert_lib.read(folder, 'BERT')
  bert_lib.configure(small_config(), folder, source)
  return bert_lib.vocabulary(folder, source)


def refusal(folder) -> str:
  """What the command says about the BERT in a folder, in one line."""
  with pytest.raises(UserError) as error:
    read(folder)
  (line,) = str(error.value).splitlines()
  assert line.isprintable()
  return line


# --- Configuration -----------------------------------------------------------------------


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'model_type': 'roberta'}, "model_type is 'roberta', expected 'bert'"),
    ({'model_type': 'no such'}, 'config.json cannot be read (The checkpoint you are trying'),
    ({'model_type': ['bert']}, 'config.json cannot be read'),
    ({'hidden_act': 'relu'}, "hidden_act is 'relu', expected 'gelu'"),
    ({'layer_norm_eps': 1e-5}, 'layer_norm_eps is 1e-05, expected 1e-12'),
    ({'position_embedding_type': 'relative_key'}, "position_embedding_type is 'relative_key'"),
    ({'is_decoder': True}, 'is_decoder is True, expected False'),
    ({'quantization_config': {'quant_method': 'gptq'}}, "quantization_config is {'quant_method'"),
    ({'pruned_heads': {'0': [1]}}, 'it has pruned_heads'),
    ({'hidden_size': '12'}, "Field 'hidden_size' expected int, got str"),
    ({'hidden_size': 0}, 'hidden_size is 0, expected 1 or more'),
    ({'num_attention_heads': 5}, 'num_attention_heads does not divide hidden_size'),
    ({'vocab_size': 10}, 'vocab_size is 10, but bert.embeddings.word_embeddings.weight has 9 rows'),
    ({'type_vocab_size': 1}, 'token_type_embeddings.weight has 2 rows: give the config.json of'),
  ],
)
def test_another_architecture_is_named(fields, said, tmp_path):
  folder = write_bert(tmp_path / 'bert', bert_tensors(), BERT | fields)
  assert said in refusal(folder)


@pytest.mark.parametrize('content', ['', 'null', '[1]', '{}', '\udcff', '[' * 100_000])
def test_a_configuration_that_says_nothing(content, folder):
  (folder / 'config.json').write_text(content, errors='surrogateescape')
  assert f'{folder}/config.json cannot be read (' in refusal(folder)


def test_code_in_a_folder_is_not_run(folder):
  (folder / 'own.py').write_text(f'open({str(folder / "ran")!r}, "w")\n')
  classes = {'AutoConfig': 'own.Config', 'AutoTokenizer': ['own.Tokenizer', None]}
  (folder / 'config.json').write_text(json.dumps(BERT | {'auto_map': classes}))
  (folder / 'tokenizer_config.json').write_text(json.dumps({'auto_map': classes}))
  assert read(folder) == WORDS
  (folder / 'config.json').write_text(json.dumps(BERT | {'auto_map': classes, 'model_type': 'own'}))
  assert 'config.json cannot be read' in refusal(folder)
  assert not (folder / 'ran').exists()


def test_a_file_too_large_for_what_it_says(folder):
  with (folder / 'tokenizer.json').open('wb') as file:
    file.truncate(bert_lib.SMALL + 1)
  assert 'tokenizer.json is larger than 67,108,864 bytes' in refusal(folder)


# --- Tokenizer ---------------------------------------------------------------------------


def cased_files(folder):
  BertWordPieceTokenizer(str(folder / 'vocab.txt'), lowercase=False).save(
    str(folder / 'tokenizer.json')
  )


def settings(**fields):
  return lambda d: (d / 'tokenizer_config.json').write_text(json.dumps(fields))


def other_entries(folder):
  word_pieces([*WORDS.decode().split()[:-1], 'other']).save(str(folder / 'tokenizer.json'))


def words(content):
  return lambda d: (d / 'vocab.txt').write_bytes(content)


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    # Three files are all that the error above asks for; these entries tell that it is cased.
    (words(WORDS.replace(b'red', b'Red')), 'vocab.txt is cased: it has 1 entries with capitals or'),
    (words(WORDS.replace(b'red', 'röd'.encode())), "('röd'), but texts are lowercased"),
    (words(WORDS.replace(b'red', b'a\rb')), 'vocab.txt holds a lone CR in line 7'),
    (cased_files, 'tokenizer.json: strip_accents is false, lowercase is false, but texts are'),
    (settings(do_lower_case=False), 'tokenizer_config.json: strip_accents is false, lowercase is'),
    (settings(strip_accents=False), 'tokenizer_config.json: strip_accents is false, but texts'),
    (settings(tokenize_chinese_chars=False), 'tokenizer_config.json: handle_chinese_chars is fal'),
    (settings(tokenizer_class='RobertaTokenizer'), 'model is "BPE", normalizer is null'),
    (settings(unk_token='[PAD]'), 'unk_token is "[PAD]"'),
    (other_entries, 'vocab.txt and {folder}/tokenizer.json have other entries'),
    (lambda d: (d / 'tokenizer.json').write_text('{"a": 1}'), 'tokenizer.json cannot be read ('),
    (lambda d: (d / 'tokenizer_config.json').write_text('{'), 'cannot be read ('),
  ],
)
def test_another_tokenizer_is_named(change, said, folder):
  change(folder)
  assert said.format(folder=folder) in refusal(folder)


def test_a_vocabulary_is_that_of_tokenizer_json(folder):
  (folder / 'vocab.txt').unlink()
  tokenizer = word_pieces(WORDS.decode().split())
  tokenizer.save(str(folder / 'tokenizer.json'))
  assert read(folder) == WORDS
  word_pieces(WORDS.decode().replace('red', 'Red').split()).save(str(folder / 'tokenizer.json'))
  assert "tokenizer.json is cased: it has 1 entries with capitals or accents ('Red')" in refusal(
    folder
  )
  state = json.loads(tokenizer.to_str())
  state['model']['vocab']['red'] = 20
  (folder / 'tokenizer.json').write_text(json.dumps(state))
  assert 'the ids of its entries are not consecutive from 0' in refusal(folder)


# --- Hub ids -----------------------------------------------------------------------------


def test_a_hub_id_comes_from_the_cache(folder, tmp_path, monkeypatch):
  """The cache has a file for each content, and links to it under the names of a revision."""
  cache = tmp_path / 'hub'
  model = cache / 'models--some--bert'
  snapshot = model / 'snapshots' / ('0' * 40)
  for made in (snapshot, model / 'refs', model / 'blobs'):
    made.mkdir(parents=True)
  (model / 'refs/main').write_text('0' * 40)
  split = {'model-1.safetensors': 'bert', 'model-2.safetensors': 'cls'}
  write_shards(folder, split)
  for i, path in enumerate(sorted(folder.iterdir())):
    shutil.move(path, model / 'blobs' / str(i))
    (snapshot / path.name).symlink_to(f'../../blobs/{i}')
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
  found = bert_lib.find('some/bert')
  assert found == snapshot
  source = bert_lib.read(found, 'some/bert')
  assert set(split) < set(source.files)
  bert_lib.configure(small_config(), found, source)
  assert bert_lib.vocabulary(found, source) == WORDS
  with pytest.raises(UserError, match=r'^some/other: .*, and the hub does not give it \('):
    bert_lib.find('some/other')


def write_shards(folder, split):
  """Replaces the weights in a folder by shards: of each file name, its prefix of names."""
  tensors = load_file(folder / 'model.safetensors')
  (folder / 'model.safetensors').unlink()
  where = {}
  for shard, prefix in split.items():
    part = {name: x for name, x in tensors.items() if name.startswith(prefix)}
    save_file(part, folder / shard)
    where |= dict.fromkeys(part, shard)
  (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': where}))


# --- Where it is needed ------------------------------------------------------------------

OTHER_COMMANDS = """
import sys
import numpy as np
from pixelbert_jax import main, predict, train
from pixelbert_jax.score import __main__ as score
from configs.pretrain import get_config
from pixelbert_jax.experiment import Experiment, prepare_data, resolve

folder = sys.argv[1]
config = resolve(get_config('test'))
Experiment.of(config, prepare_data(config)).batches['train'][0]
model = predict.load(f'{folder}/model')
assert model.match(np.zeros((64, 64, 3), np.uint8), 'a red circle').shape == (1, 1)
files = [f'--{x}={folder}/{x}.json' for x in ('predictions', 'annotations')]
assert score.main(['vqa', *files]) == 0
print({'transformers', 'torch'} & {*sys.modules})
"""


def test_training_predict_and_score_load_neither_transformers_nor_torch(environment, tmp_path):
  tiny.write(tmp_path / 'model', 'pretrain')
  answers = [{'answer': 'red', 'answer_id': i} for i in range(10)]
  kinds = {'question_type': 'what', 'answer_type': 'other'}
  question = {'question_id': 1, 'image_id': 1, 'answers': answers, **kinds}
  (tmp_path / 'annotations.json').write_text(json.dumps({'annotations': [question]}))
  (tmp_path / 'predictions.json').write_text(json.dumps([{'question_id': 1, 'answer': 'red'}]))
  done = subprocess.run(
    [sys.executable, '-c', OTHER_COMMANDS, tmp_path],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'set()'
