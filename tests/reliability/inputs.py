"""Bad inputs for every command: each is answered in one line, and leaves nothing behind.

Beside the mistakes of `tests/support/mistakes.py`, files of the kinds that strangers send.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from data import build
from pixelbert_jax.convert import __main__ as convert_command
from pixelbert_jax.main import main as train_command
from pixelbert_jax.predict import __main__ as predict_command
from pixelbert_jax.score import __main__ as score_command
from tests.reliability.outcome import LINES, SILENT, TRACEBACK, Outcomes
from tests.support import tiny
from tests.support.mistakes import MISTAKES
from tests.support.scenes import build_scenes

Command = Callable[[Sequence[str]], int]


@dataclasses.dataclass(frozen=True)
class BadInput:
  """A command with its arguments, of which one is wrong; `made` may hold no file after it."""

  name: str
  command: Command
  arguments: Sequence[str]
  made: pathlib.Path


def run(count: int, seed: int, folder: pathlib.Path) -> Outcomes:
  """Gives at most `count` bad inputs, drawn at random from all."""
  folder.mkdir(parents=True, exist_ok=True)
  outcomes, inputs = Outcomes(), list(_all(folder))
  random.Random(seed).shuffle(inputs)
  for bad in inputs[:count]:
    outcomes.observe(bad.name, functools.partial(_give, bad))
  return outcomes


def _give(bad: BadInput) -> str:
  said = io.StringIO()
  with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
    code = bad.command(bad.arguments)
  errors = [x for x in said.getvalue().replace('\r', '\n').splitlines() if x.startswith('error: ')]
  if 'Traceback' in said.getvalue():
    return TRACEBACK
  if code != 1 or any(path.is_file() for path in [bad.made, *bad.made.rglob('*')]):
    return SILENT
  return 'refused' if errors else LINES


def _all(folder: pathlib.Path) -> Iterator[BadInput]:
  yield from _of_training(folder)
  yield from _of_builds(folder / 'builds')
  yield from _of_scores(folder / 'scores')
  yield from _of_predictions(folder / 'predictions')
  yield from _of_conversion(folder / 'conversion')


def _of_training(folder: pathlib.Path) -> Iterator[BadInput]:
  os.environ['TFDS_DATA_DIR'] = str(build_scenes(folder / 'scenes', train=40, val=4, test=4))
  for number, (name, (arguments, _)) in enumerate(MISTAKES.items()):
    made = folder / f'runs/{number}'
    yield BadInput(f'train: {name}', train_command, [*arguments, f'--workdir={made}'], made)


CAPTIONS = {
  'empty': '',
  'no header': 'a.jpg,a dot\n',
  'header alone': 'image,caption\n',
  'other header': 'file,text\na.jpg,a dot\n',
  'too few cells': 'image,caption\na.jpg\n',
  'too many cells': 'image,caption\na.jpg,a, dot\n',
  'open quote': 'image,caption\na.jpg,"a dot\n',
  'no caption': 'image,caption\na.jpg,\n',
  'no image': 'image,caption\n,a dot\n',
  'blank caption': 'image,caption\na.jpg,  \n',
  'NUL': 'image,caption\na.jpg,a\0dot\n',
  'unknown split': 'image,caption,split\na.jpg,a dot,training\n',
  'two splits': 'image,caption,split\na.jpg,a dot,train\na.jpg,a cat,val\n',
  'no such image': 'image,caption\nb.jpg,a dot\n',
  'outside': 'image,caption\n../a.jpg,a dot\n',
  'absolute': 'image,caption\n/etc/hostname,a dot\n',
  'a folder': 'image,caption\n.,a dot\n',
  'id twice': 'image,caption,id\na.jpg,a dot,1\na.jpg,a cat,1\n',
  'id of letters': 'image,caption,id\na.jpg,a dot,one\n',
  'id too long': f'image,caption,id\na.jpg,a dot,{"9" * 30}\n',
  'negative id': 'image,caption,id\na.jpg,a dot,-1\n',
  'column twice': 'image,caption,caption\na.jpg,a dot,a cat\n',
  'semicolons': 'image;caption\na.jpg;a dot\n',
  'image of no image': 'image,caption\nc.jpg,a dot\n',
}
QUESTIONS = {
  'no answers': 'image,question,answers\na.jpg,what is it,\n',
  'an empty answer': 'image,question,answers\na.jpg,what is it,dot|\n',
  'nothing but a bar': 'image,question,answers\na.jpg,what is it,|\n',
  'no question': 'image,question,answers\na.jpg,,dot\n',
  'no column': 'image,question\na.jpg,what is it\n',
}
PAIRS = {
  'no label': 'left,right,sentence,label\na.jpg,d.jpg,one is red,\n',
  'a word as label': 'left,right,sentence,label\na.jpg,d.jpg,one is red,maybe\n',
  'no sentence': 'left,right,sentence,label\na.jpg,d.jpg,,true\n',
  'no such right': 'left,right,sentence,label\na.jpg,x.jpg,one is red,true\n',
}


def _of_builds(folder: pathlib.Path) -> Iterator[BadInput]:
  photos = folder / 'photos'
  photos.mkdir(parents=True)
  for name in ('a.jpg', 'd.jpg'):
    Image.new('RGB', (40, 30), 'red').save(photos / name)
  (photos / 'c.jpg').write_text('no image')
  for flag, tables in {'captions': CAPTIONS, 'questions': QUESTIONS, 'pairs': PAIRS}.items():
    for number, (name, text) in enumerate(tables.items()):
      table, made = folder / f'{flag}{number}.csv', folder / f'{flag}{number}'
      table.write_text(text)
      arguments = ['folder/x', f'--manual_dir={photos}', f'--{flag}={table}']
      yield _build(f'{flag}: {name}', [*arguments, f'--data_dir={made}'], made)
  table = folder / 'whole.csv'
  table.write_text('image,caption\na.jpg,a dot\nd.jpg,a cat\n')
  latin = folder / 'latin.csv'
  latin.write_bytes('image,caption\na.jpg,größe\n'.encode('latin-1'))
  whole = ['folder/x', f'--manual_dir={photos}', f'--captions={table}']
  others = {
    'no tables': [*whole[:2]],
    'table that is not there': [*whole[:2], '--captions=nowhere.csv'],
    'table that is a folder': [*whole[:2], f'--captions={folder}'],
    'table in Latin-1': [*whole[:2], f'--captions={latin}'],
    'photos that are not there': [whole[0], '--manual_dir=nowhere', whole[2]],
    'share above 1': [*whole, '--val_share=1.5'],
    'negative share': [*whole, '--val_share=-0.5'],
    'shares of all': [*whole, '--val_share=0.5', '--test_share=0.5'],
    'share of letters': [*whole, '--val_share=half'],
    'unknown split': [*whole, '--splits=dev'],
    'unknown flag': [*whole, '--val-share=0.5'],
    'unknown dataset': ['fodler', *whole[1:]],
    'no dataset': [],
    'allow_bad of letters': [*whole, '--allow_bad=some'],
  }
  for number, (name, arguments) in enumerate(others.items()):
    made = folder / f'other{number}'
    yield _build(name, [*arguments, f'--data_dir={made}'], made)
  for number, (name, members) in enumerate(_broken_shards().items()):
    made, shards = folder / f'shards{number}', folder / f'manual{number}'
    shards.mkdir()
    for file, content in members.items():
      (shards / file).write_bytes(content)
    arguments = ['folder/x', f'--manual_dir={shards}', f'--data_dir={made}']
    yield _build(f'shards: {name}', arguments, made)


def _broken_shards() -> dict[str, dict[str, bytes]]:
  """Makes folders that hold something else than whole tar files with texts."""
  zipped = io.BytesIO()
  with zipfile.ZipFile(zipped, 'w') as archive:
    archive.writestr('a.jpg', b'')
  return {
    'nothing': {},
    'a text called tar': {'s.tar': b'no tar file'},
    'an empty tar': {'s.tar': b''},
    'zeros': {'s.tar': bytes(10240)},
    'half a zip': {'s.zip': zipped.getvalue()[:40]},
    'a zip without texts': {'s.zip': zipped.getvalue()},
  }


def _build(name: str, arguments: Sequence[str], data_dir: pathlib.Path) -> BadInput:
  return BadInput(f'build: {name}', build.main, arguments, data_dir / 'folder')


ANSWERS = {
  'nothing': '',
  'half': '[{"question_id": 1, "answer": "re',
  'an object': '{}',
  'a number': '1',
  'null': 'null',
  'a list of lists': '[[1, "red"]]',
  'no answer': '[{"question_id": 1}]',
  'answer null': '[{"question_id": 1, "answer": null}]',
  'answer of a number': '[{"question_id": 1, "answer": 1}]',
  'id of letters': '[{"question_id": "one", "answer": "red"}]',
  'id of a fraction': '[{"question_id": 1.5, "answer": "red"}]',
  'id true': '[{"question_id": true, "answer": "red"}]',
  'unknown id': '[{"question_id": 2, "answer": "red"}]',
  'none': '[]',
  'twice': '[{"question_id": 1, "answer": "red"}, {"question_id": 1, "answer": "red"}]',
  'NaN': '[{"question_id": NaN, "answer": "red"}]',
  'a long number': f'[{{"question_id": {"9" * 9000}, "answer": "red"}}]',
  'nested': '[' * 100_000,
  'nested objects': '{"a":' * 100_000,
}
ANNOTATION = {
  **{'question_id': 1, 'image_id': 2, 'question_type': 'what', 'answer_type': 'other'},
  **{'multiple_choice_answer': 'red', 'answers': [{'answer': 'red'}] * 10},
}
ANNOTATIONS = {
  'nothing': '',
  'no annotations': '{}',
  'a list': '[]',
  'null': '{"annotations": null}',
  'of numbers': '{"annotations": [1]}',
  **{
    f'{key} {value!r}': json.dumps({'annotations': [ANNOTATION | {key: value}]})
    for key in ('question_id', 'answers', 'question_type')
    for value in (None, [], {}, 1.5)
  },
}
LABELS = {
  'nothing': '',
  'no comma': 'dev-1-0-0 True\n',
  'a word': 'dev-1-0-0,perhaps\n',
  'unknown': 'dev-9-0-0,True\n',
  'twice': 'dev-1-0-0,True\ndev-1-0-0,True\n',
  'JSON': '{"identifier": "dev-1-0-0"}\n',
}


def _of_scores(folder: pathlib.Path) -> Iterator[BadInput]:
  folder.mkdir(parents=True)
  good, truth = folder / 'answers.json', folder / 'truth.json'
  good.write_text('[{"question_id": 1, "answer": "red"}]')
  truth.write_text(json.dumps({'annotations': [ANNOTATION]}))
  statements = folder / 'dev.json'
  statements.write_text(json.dumps({'identifier': 'dev-1-0-0', 'label': 'True', 'sentence': 'x'}))

  def bad(name: str, task: str, predicted: object, annotated: object) -> BadInput:
    arguments = [task, f'--predictions={predicted}', f'--annotations={annotated}']
    return BadInput(f'score: {name}', score_command.main, arguments, folder / 'nothing')

  for number, (name, text) in enumerate(ANSWERS.items()):
    (path := folder / f'answers{number}.json').write_text(text)
    yield bad(f'answers {name}', 'vqa', path, truth)
  for number, (name, text) in enumerate(ANNOTATIONS.items()):
    (path := folder / f'annotations{number}.json').write_text(text)
    yield bad(f'annotations {name}', 'vqa', good, path)
  for number, (name, text) in enumerate(LABELS.items()):
    (path := folder / f'labels{number}.csv').write_text(text)
    yield bad(f'labels {name}', 'nlvr2', path, statements)
  yield bad('a file that is not there', 'vqa', folder / 'no.json', truth)
  yield bad('a folder', 'vqa', folder, truth)
  yield bad('no such task', 'vqa2', good, truth)
  yield bad('matrix of text', 'retrieval', good, truth)


def _of_predictions(folder: pathlib.Path) -> Iterator[BadInput]:
  folder.mkdir(parents=True)
  checkpoint = tiny.write(folder / 'checkpoint', 'vqa')
  matcher = tiny.write(folder / 'matcher', 'pretrain')
  photo = folder / 'photo.png'
  Image.new('RGB', (64, 64), 'red').save(photo)
  photos = {
    'text': b'no image',
    'nothing': b'',
    'half': photo.read_bytes()[:60],
    'zeros': bytes(1000),
    'SVG': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    'PDF': b'%PDF-1.4\n',
    'HEIC': b'\0\0\0\x18ftypheic',
  }
  huge = io.BytesIO()
  Image.fromarray(np.zeros((1, 1), np.uint8)).save(huge, 'PNG')
  photos['a claim of 4 gigapixels'] = (
    huge.getvalue()[:16] + b'\0\1\0\0\0\1\0\0' + huge.getvalue()[24:]
  )
  for number, (name, content) in enumerate(photos.items()):
    (path := folder / f'photo{number}.jpg').write_bytes(content)
    yield _ask(f'photo of {name}', checkpoint, path, '--question=what is it', folder=folder)
  map_ = folder / 'map.png'
  arguments = {
    'no such photo': (checkpoint, folder / 'no.jpg', '--question=what'),
    'a folder as photo': (checkpoint, folder, '--question=what'),
    'no such checkpoint': (folder / 'none', photo, '--question=what'),
    'no such step': (f'{checkpoint}@7', photo, '--question=what'),
    'a photo as checkpoint': (photo, photo, '--question=what'),
    'no question': (checkpoint, photo),
    'empty question': (checkpoint, photo, '--question='),
    'blank question': (checkpoint, photo, '--question= '),
    'two things': (checkpoint, photo, '--question=what', '--text=a dot'),
    'a match of a VQA model': (checkpoint, photo, '--text=a dot'),
    'a question to a matcher': (matcher, photo, '--question=what'),
    'nothing to fill': (matcher, photo, '--fill=a dot'),
    'two to fill': (matcher, photo, '--fill=[MASK] [MASK]'),
    'empty text': (matcher, photo, '--text='),
    'a map of no picture': (matcher, photo, '--text=a dot', f'--heatmap={folder}/map.txt'),
    'a map nowhere': (matcher, photo, '--text=a dot', f'--heatmap={photo}/map.png'),
    'a map of two': (matcher, photo, '--text=a', '--text=b', f'--heatmap={map_}'),
    'a stray word': (matcher, photo, 'dot', '--fill=[MASK]'),
    'unknown flag': (matcher, photo, '--txt=a dot'),
    'lone surrogate': (matcher, photo, '--text=a \udcff dot'),
  }
  for name, (model, image, *more) in arguments.items():
    yield _ask(name, model, image, *more, folder=folder)


def _ask(name: str, model: object, image: object, *more: str, folder: pathlib.Path) -> BadInput:
  arguments = [f'--checkpoint={model}', f'--image={image}', *more]
  return BadInput(f'predict: {name}', predict_command.main, arguments, folder / 'map.png')


def _of_conversion(folder: pathlib.Path) -> Iterator[BadInput]:
  folder.mkdir(parents=True)
  empty, bert = folder / 'empty', folder / 'bert'
  for path in (empty, bert):
    path.mkdir()
  (bert / 'config.json').write_text('{"model_type": "bert"}')
  files = {
    'cnn.safetensors': b'nothing',
    'cnn.pth': b'nothing',
    'cnn.pkl': b'cos\nsystem\n(S"true"\ntR.',
    'cnn.txt': b'nothing',
    'long.safetensors': b'\xff' * 7 + b'\0' + b'{}',
  }
  for name, content in files.items():
    (folder / name).write_bytes(content)
  config = '--config=configs/pretrain.py:test'
  cases = {
    'nothing': [],
    'BERT alone': [f'--bert={bert}'],
    'no such BERT': [f'--bert={folder}/none', f'--cnn={folder}/cnn.pth', config],
    'empty BERT': [f'--bert={empty}', f'--cnn={folder}/cnn.pth', config],
    'BERT of a configuration alone': [f'--bert={bert}', f'--cnn={folder}/cnn.pth', config],
    'no such checkpoint': [f'--checkpoint={folder}/none', f'--export={folder}/out'],
    'no checkpoint': [f'--checkpoint={empty}', f'--export={folder}/out'],
    'another task': [f'--bert={bert}', f'--cnn={folder}/cnn.pth', '--config=configs/vqa.py:test'],
    **{f'CNN {name}': [f'--bert={bert}', f'--cnn={folder}/{name}', config] for name in files},
  }
  for name, arguments in cases.items():
    output = [] if any('--export' in x for x in arguments) else [f'--output={folder}/out']
    yield BadInput(f'convert: {name}', convert_command.main, [*arguments, *output], folder / 'out')
