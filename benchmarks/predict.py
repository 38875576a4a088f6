"""Measures predictions on single images: localisation, agreement with the evaluation, latency.

    python -m benchmarks.predict --checkpoint=C [--scenes=500]

C is a workdir of VQA or of pre-training on scenes. Appends one line to
benchmarks/results/predict.jsonl:

- the pointing game on held-out scenes: given `is there a red circle` (VQA) or `a red circle`, how
  often the peak of the maps of `red` and `circle`, by method, is in the box of the only red circle,
  and how often that of the score's map is. A peak is the middle of the pixels that are nearest to
  the hottest cell. Chance is the mean share of the image that such a box covers;
- for pre-training, binding: in scenes with two things of different colours and shapes, how often
  the text `red circle` scores higher than `blue circle`, where blue is the colour of the other
  thing (chance is 0.5); and the same with a colour that is not in the scene, with the colours of
  both things exchanged in one sentence, and with `right of` for `left of`;
- for VQA, the official accuracy of `predict.answer` on all questions of these scenes, and that of
  the run's own `predictions/test.json` on the same questions;
- the seconds of one `answer` (or `match`) after the first, and of the bare compiled model on the
  same text and resized image on the device.
"""

import argparse
import collections
import functools
import io
import json
import pathlib
import statistics
import time
import warnings
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from benchmarks import record
from data.builders import open_dataset
from data.scenes import record as scenes
from data.scenes import world
from pixelbert_jax import predict
from pixelbert_jax.input.text import tokens_of
from pixelbert_jax.models.forward import forward
from pixelbert_jax.predict import heatmap
from pixelbert_jax.predict.photos import batch_of
from pixelbert_jax.score import predictions
from pixelbert_jax.score import vqa as official
from pixelbert_jax.tasks.vqa import annotated

REPETITIONS = 50
RESULTS = pathlib.Path(__file__).with_name('results') / 'predict.jsonl'


def distinct_things(scene: world.Scene) -> list[world.Thing]:
  """Returns the things whose colour and shape no other thing of the scene has."""
  looks = [(thing.colour, thing.shape) for thing in scene.things]
  return [t for t, look in zip(scene.things, looks, strict=True) if looks.count(look) == 1]


def middle(cell: int, places: np.ndarray, cells: int) -> float:
  """Computes the middle of the pixels, whose `places` are in cells, that are nearest to a cell."""
  return float(np.flatnonzero(np.rint(places).clip(0, cells - 1) == cell).mean()) + 0.5


def pointing(model: predict.Model, split: str, count: int) -> dict[str, float]:
  """Computes the share of peaks inside the box, by method of heat map, and `chance`."""
  before = 'is there ' if 'answer' in model.heads else ''
  hits, shares = collections.defaultdict(list), []
  for index in range(count):
    place = scenes.Place('easy', split, index)
    image = Image.open(io.BytesIO(scenes.example(place)['image']))
    for thing in distinct_things(scenes.scene(place)):
      left, top, right, bottom = thing.box
      shares.append((right - left) * (bottom - top) / (image.width * image.height))
      maps = {}
      for method in heatmap.METHODS:
        heat = model.heatmap(image, f'{before}a {thing.colour} {thing.shape}', method)
        maps[method] = heat.cells[-2:].sum(0)
      for name, cells in (maps | {'score': heat.score_cells}).items():
        peak = np.unravel_index(cells.argmax(), cells.shape)
        y, x = map(middle, peak, (heat.rows, heat.columns), cells.shape)
        hits[name].append(left <= x < right and top <= y < bottom)
  means = {name: round(float(np.mean(inside)), 4) for name, inside in hits.items()}
  return means | {'chance': round(float(np.mean(shares)), 4), 'phrases': len(shares)}


def table() -> str:
  """Formats the newest pointing games on test as a table for docs/predict.md."""
  lines = map(json.loads, RESULTS.read_text().splitlines())
  newest = {line['task']: line['pointing on test'] for line in lines}
  maps = {f'words, by {method}': method for method in heatmap.METHODS}
  rows = ['| map | VQA | pre-training |', '|---|---|---|']
  for name, key in (maps | {'score': 'score', 'chance': 'chance'}).items():
    rows.append(f'| {name} | {newest["vqa"][key]:.3f} | {newest["pretrain"][key]:.3f} |')
  return '\n'.join(rows)


def binding(model: predict.Model, split: str, count: int) -> dict[str, float]:
  """Computes how often a true text scores higher than one with something exchanged.

  Of scenes with two things of different colours and shapes: a thing with the other's colour, or
  with a third; both things with their colours exchanged; and, where one is left of the other, with
  `right of`.
  """
  wins: dict[str, list[bool]] = {name: [] for name in ('the other', 'a third', 'both', 'side')}
  for index in range(count):
    place = scenes.Place('easy', split, index)
    scene = scenes.scene(place)
    things = scene.things
    colours, shapes = ({getattr(t, name) for t in things} for name in ('colour', 'shape'))
    if (len(things), len(colours), len(shapes)) != (2, 2, 2):
      continue
    third = next(c for c in world.DIFFICULTIES['easy'].colours if c not in colours)
    pairs = []
    for thing, neighbour in (things, things[::-1]):
      true, beside = (f'a {t.colour} {t.shape}' for t in (thing, neighbour))
      pairs.append(('the other', true, f'a {neighbour.colour} {thing.shape}'))
      pairs.append(('a third', true, f'a {third} {thing.shape}'))
      if scene.left_of(thing, neighbour):
        sides = (f'{true} is {side} of {beside}' for side in ('left', 'right'))
        pairs.append(('side', *sides))
    a, b = things
    both = ((a.colour, b.colour), (b.colour, a.colour))
    pairs.append(('both', *(f'a {x} {a.shape} and a {y} {b.shape} are here' for x, y in both)))
    image = Image.open(io.BytesIO(scenes.example(place)['image']))
    logits = model.match(image, [text for _, *two in pairs for text in two], logits=True)[0]
    for (name, *_), (true, false) in zip(pairs, logits.reshape(-1, 2), strict=True):
      wins[name].append(true > false)
  shares = {name: round(float(np.mean(x)), 4) for name, x in wins.items()}
  return shares | {'texts': {name: len(x) for name, x in wins.items()}}


def accuracies(model: predict.Model, workdir: pathlib.Path, count: int) -> dict[str, float]:
  """Computes official accuracies on the first scenes of test: of `answer`, and of the run."""
  split = open_dataset('scenes')['test']
  asked = split.sidecar.questions
  chosen = np.flatnonzero(asked.image < count)
  images = [Image.open(io.BytesIO(split.encoded(i))) for i in range(count)]
  predicted = model.answer(
    [images[i] for i in asked.image[chosen]], list(map(asked.text.text, chosen)), k=1
  )
  questions = annotated(asked, chosen)
  by_predict = {int(i): a[0][0] for i, a in zip(asked.id[chosen], predicted, strict=True)}
  by_run = predictions.read_vqa(workdir / 'predictions/test.json', asked.id.tolist())
  scores = {
    name: official.summarise(official.per_question(answers, questions), questions)['accuracy']
    for name, answers in {'predict.answer': by_predict, 'evaluation': by_run}.items()
  }
  return scores | {
    'questions': len(by_predict),
    'same answers': sum(by_run[q] == a for q, a in by_predict.items()),
  }


def seconds(call: Callable[[], object]) -> float:
  """Measures the median time of a call, after the first."""
  call()
  times = []
  for _ in range(REPETITIONS):
    began = time.perf_counter()
    call()
    times.append(time.perf_counter() - began)
  return statistics.median(times)


def latency(model: predict.Model) -> dict[str, float]:
  """Measures the seconds of one image and text through `predict`, and through the bare model."""
  image = np.asarray(
    Image.open(io.BytesIO(scenes.example(scenes.Place('easy', 'test', 0))['image']))
  )
  text, head = 'what colour is the circle', model.heads[0]
  method = {'answer': model.answer, 'match': model.match}[head]
  placed = model.runner.reader(image)
  tokens = tokens_of(model.tokenizer, [text])
  batch = batch_of([placed], 1) | {'token_ids': tokens.ids[None], 'token_mask': tokens.mask[None]}
  batch |= {'mlm_position': np.zeros((1, 1, 1), np.int32)}
  bare = jax.jit(functools.partial(forward, model.module, train=False))
  on_device = jax.device_put(batch)
  ours = seconds(lambda: method(image, text))
  theirs = seconds(lambda: jax.block_until_ready(bare(model.variables, on_device)))
  return {f'{head}': ours, 'bare model': theirs, 'ratio': round(ours / theirs, 2)}


def main() -> None:
  """Measures and appends a line."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--checkpoint', type=pathlib.Path, required=True)
  parser.add_argument('--scenes', type=int, default=500)
  flags = parser.parse_args()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # It warns that the model was trained on scenes only.
    model = predict.load(flags.checkpoint)
  results = {
    'task': model.config.name,
    'pointing on val': pointing(model, 'val', flags.scenes),
    'pointing on test': pointing(model, 'test', flags.scenes),
    'seconds': latency(model),
  }
  if 'match' in model.heads:
    results['binding on test'] = binding(model, 'test', flags.scenes)
  if model.config.name == 'vqa':
    results['accuracy'] = accuracies(model, flags.checkpoint, flags.scenes)
  record.append(RESULTS, **results)
  print(json.dumps(results, indent=1))


if __name__ == '__main__':
  main()
