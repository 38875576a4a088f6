"""Measures retrieval in two stages beside exact scores of all pairs.

    python -m benchmarks.two_stage --checkpoint=runs/retrieval-two-stage [--images=500] [--k=0]
    python -m benchmarks.two_stage --coco [--texts=200] [--pairs=200]

With a checkpoint that has a first stage, it evaluates the test split in turns as `tasks/ranker.py`
does (all pairs) and as `tasks/two_stage.py` does; reading images and the CNN are part of both. k is
by default the smallest that keeps 0.99 of the mean recall on as many images of validation.

`--coco` is what COCO's 5,000 images and 25,010 captions would take with BERT-base and the pixels of
ResNet-50 at 640x832, in float32 on a CPU and without the CNN, which both ways need. The ranking is
of the whole, from random vectors; texts and pairs are timed on a few: `extrapolated` figures are
these times the number of all.

A line is appended to --output, by default two_stage.jsonl beside the other results.
"""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from benchmarks import record
from configs import retrieval
from data.scenes import vocabulary
from pixelbert_jax import sharding
from pixelbert_jax.checkpoints import checkpoint, starting
from pixelbert_jax.experiment import Experiment, init_variables, make_model, prepare_data, resolve
from pixelbert_jax.score.shortlist import shortlist
from pixelbert_jax.tasks.first_stage import scores_of, validated
from pixelbert_jax.tasks.ranker import Ranker
from pixelbert_jax.tasks.retrieval import recalls
from pixelbert_jax.tasks.two_stage import TwoStageRanker

RESULTS = pathlib.Path(__file__).with_name('results') / 'two_stage.jsonl'
IMAGES, CAPTIONS = 5000, 25_010
PIXELS, TOKENS, WIDTH = 130, 16, 256  # 640x832 by a stride of 64; nearly all captions; of vectors
SHORTLISTS = (10, 20, 50)


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
  """Calls a function; returns its result, and the seconds of the wall clock and the processor."""
  began = time.perf_counter(), time.process_time()
  result = call()
  ended = time.perf_counter(), time.process_time()
  return result, {
    name: e - b for name, b, e in zip(('wall', 'processor'), began, ended, strict=True)
  }


def of_checkpoint(spec: str, k: int, images: int, repeats: int) -> dict[str, float]:
  """Measures both ways on the test split of a checkpoint's data."""
  loaded = checkpoint.load(spec, sharding.make_mesh())
  config = ConfigDict(loaded.config)
  config.text.vocabulary = str(loaded.vocabulary)
  config.eval_images = images or config.eval_images
  roles = ('validation', 'test')
  experiment = Experiment.of(config, prepare_data(config), loaded.files, roles)
  chosen_on, batches = (experiment.batches[role] for role in roles)
  model = experiment.model
  shapes = jax.eval_shape(lambda: init_variables(model, 0, batches[0]))
  variables = starting.fitted(loaded, config.to_dict(), shapes)
  make = model, sharding.make_mesh(), experiment.threads, experiment.task.captions
  results: dict[str, float] = {'images': len(batches.gallery.image)}
  if not k:
    found = validated(TwoStageRanker(*make)(variables, chosen_on))
    k = int(found['chosen_k'])
    results['images, to choose k'] = len(chosen_on.gallery.image)
  results['k'] = k
  ways = {'exact': Ranker(*make), 'two stages': TwoStageRanker(*make, rerank=k)}
  seconds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
  for ranker in ways.values():
    ranker.compile(variables, batches, whole=True)
  for _ in range(repeats):
    for name, ranker in ways.items():
      with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'test.npz'
        ranking, spent = timed(lambda ranker=ranker, path=path: ranker(variables, batches, path))
        found = recalls(scores_of(ranking), ranking.gallery)
      results[f'recall_mean, {name}'] = found['recall_mean']
      seconds[name].append(spent)
  results['pairs'] = ranking.matrix.scores.size
  listed = ranking.listed  # None if it was worth no shortlist
  results['pairs, two stages'] = results['pairs'] if listed is None else int(listed.sum())
  results['recall ratio'] = results['recall_mean, two stages'] / results['recall_mean, exact']
  for clock in ('wall', 'processor'):
    middle = {name: statistics.median(s[clock] for s in seconds[name]) for name in ways}
    results |= {f'seconds, {clock}, {name}': s for name, s in middle.items()}
    results[f'exact / two stages, {clock}'] = middle['exact'] / middle['two stages']
  return results


def coco(texts: int, pairs: int) -> dict[str, float]:
  """Measures the parts of an evaluation on COCO's test, and extrapolates those it does not run."""
  config = retrieval.get_config('r50')
  config.text.vocabulary, config.first_stage = str(vocabulary.FILE), WIDTH
  config.dtype = 'float32'
  config = resolve(config)
  model, rng = make_model(config, 30_522), np.random.default_rng(0)
  ids, mask = np.ones((1, TOKENS), np.int32), np.ones((1, TOKENS), bool)
  batch = {'token_ids': ids[None], 'token_mask': mask[None], 'size': np.full((1, 2), 64, np.int32)}
  batch |= {
    'image': np.zeros((1, 64, 64, 3), np.uint8),
    'canvas': np.zeros((1, 64, 64, 0), np.uint8),
  }
  variables = jax.jit(lambda: init_variables(model, 0, batch))()
  results: dict[str, float] = {}

  read = jax.jit(
    lambda ids, mask: model.apply(variables, ids, mask, False, method=model.text_vector)
  )
  chunk = [np.repeat(x, 20, axis=0) for x in (ids, mask)]
  read(*chunk).block_until_ready()
  calls = -(-texts // 20)
  _, spent = timed(lambda: [np.asarray(read(*chunk)) for _ in range(calls)])
  each = spent['processor'] / (calls * 20)
  results['seconds of the processor a text'] = each
  results['extrapolated seconds of all texts'] = each * CAPTIONS

  score = jax.jit(lambda *x: model.apply(variables, *x, method=model.score))
  pixels = rng.normal(size=(1, PIXELS, config.transformer.width)).astype(np.float32)
  arguments = pixels, np.ones((1, PIXELS), bool), *chunk
  score(*arguments).block_until_ready()
  calls = -(-pairs // 20)
  _, spent = timed(lambda: [np.asarray(score(*arguments)) for _ in range(calls)])
  pair = spent['processor'] / (calls * 20)
  results['seconds of the processor a pair'] = pair
  results['extrapolated hours of all pairs'] = pair * IMAGES * CAPTIONS / 3600

  vectors = [rng.normal(size=(n, WIDTH)).astype(np.float32) for n in (IMAGES, CAPTIONS)]
  image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in vectors)
  first, spent = timed(lambda: image @ text.T)
  results['seconds of all cosines'] = spent['wall']
  for k in SHORTLISTS:
    listed, spent = timed(lambda k=k: shortlist(first, k))
    results[f'seconds of the shortlist, k = {k}'] = spent['wall']
    results[f'pairs, k = {k}'] = int(listed.sum())
    results[f'extrapolated hours of the pairs, k = {k}'] = pair * int(listed.sum()) / 3600
  return results


def main(_) -> None:
  values = flags.FLAGS
  if values.coco == bool(values.checkpoint):
    raise app.UsageError('give --checkpoint=C or --coco')
  if values.coco:
    results = coco(values.texts, values.pairs)
  else:
    results = of_checkpoint(values.checkpoint, values.k, values.images, values.repeats)
  for name, value in results.items():
    print(f'{name:<50}{value:>14.6g}')
  path, about = pathlib.Path(values.output), {'checkpoint': values.checkpoint or 'coco'}
  record.append(path, jax=jax.__version__, **about, results=results)


if __name__ == '__main__':
  flags.DEFINE_string('checkpoint', '', 'With a first stage: a run, or W@STEP.')
  flags.DEFINE_integer('k', 0, 'Captions an image and images a caption; 0: validation chose it.')
  flags.DEFINE_integer('images', 0, 'Images to rank; 0: as the run did.')
  flags.DEFINE_integer('repeats', 2, 'Rounds over both ways.')
  flags.DEFINE_boolean('coco', False, "What COCO's test would take.")
  flags.DEFINE_integer('texts', 200, 'Texts that are timed.')
  flags.DEFINE_integer('pairs', 200, 'Pairs that are timed.')
  flags.DEFINE_string('output', str(RESULTS), 'File of results.')
  app.run(main)
