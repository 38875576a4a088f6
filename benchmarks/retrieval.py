"""Measures retrieval's evaluation, in pairs per second, beside two simpler methods.

    python -m benchmarks.retrieval [--images=2] [--captions=24] [--pairs=8] [--repeats=2]

With ResNet-50 and BERT-base on photographs of 600x800, it runs interleaved: the whole model on
batches of pairs, each with its own image (no cache); a plain loop over cached features, one image
with its captions, padded to 40 tokens, at a time; and `tasks/ranker.py`. Captions have 40 tokens,
and in one case the lengths of COCO's. All methods compute the same number of pairs at a time and
include the reading of images. Results are medians; `a / b` is the ratio of their times. A line is
appended to benchmarks/results/retrieval.jsonl (--output).
"""

import functools
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from tqdm import tqdm

from benchmarks import record
from benchmarks.input import photograph
from configs import retrieval
from data.scenes import vocabulary
from pixelbert_jax import sharding
from pixelbert_jax.experiment import init_variables, make_model, resolve
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.image import model_input
from pixelbert_jax.input.pipeline import FEW
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.models.forward import forward
from pixelbert_jax.models.heads import MatchingModel
from pixelbert_jax.tasks.gallery import RankingBatches
from pixelbert_jax.tasks.ranker import Ranker

RESULTS = pathlib.Path(__file__).with_name('results') / 'retrieval.jsonl'
HEIGHT, WIDTH, TOKENS = 600, 800, 40
# Tokens of COCO's captions, including [CLS] and [SEP]: about normal, a few much longer.
COCO_TOKENS = {'mean': 12.6, 'deviation': 2.4, 'least': 8}


def batches_of(config: ConfigDict, images: int, captions: int, coco: bool) -> RankingBatches:
  """Makes the batches of an evaluation of `images` images with `captions` captions in all."""
  rng = np.random.default_rng(0)
  encoded = [photograph(HEIGHT, WIDTH, seed) for seed in range(images)]
  lengths = np.full(captions, TOKENS)
  if coco:
    drawn = rng.normal(COCO_TOKENS['mean'], COCO_TOKENS['deviation'], captions).round()
    lengths = drawn.clip(COCO_TOKENS['least'], TOKENS).astype(int)
  words = ['red', 'blue', 'large', 'small', 'circle', 'square', 'left', 'above']
  texts = [' '.join(rng.choice(words, n - 2)) for n in lengths]
  rows = [
    Row(f'{i}', HEIGHT, WIDTH, [Caption(text, n) for n, text in enumerate(texts)][i::images])
    for i in range(images)
  ]
  return RankingBatches(
    split=Split([{'image': data} for data in encoded], Sidecar.of(rows)),
    tokenizer=Tokenizer(config.text.vocabulary, TOKENS),
    canvases=Canvases(HEIGHT, WIDTH, ((640, 832),)),
    seed=0,
    images=images,
    texts_per_image=2,
    training=False,
  )


def cases(
  model: MatchingModel, variables: dict, coco: RankingBatches, full: RankingBatches, pairs: int
) -> dict[str, Callable[[], np.ndarray]]:
  """Returns the measured cases; each call returns scores, [P] of the first pairs or [I, T]."""
  ids, mask = full.tokens(full.gallery.caption)
  whole = jax.jit(
    lambda variables, batch: forward(model, variables, batch, train=False)['match_logits']
  )
  mean, deviation = model.backbone.mean, model.backbone.deviation
  embed = jax.jit(
    lambda variables, batch: model.apply(
      variables, model_input(batch, mean, deviation), batch['size'], method=model.embed
    )
  )
  score = jax.jit(functools.partial(model.apply, method=model.score))

  def pair_by_pair() -> np.ndarray:
    read, _ = full._images(np.zeros(pairs, int), 0, None)
    texts = {'token_ids': ids[:pairs, None], 'token_mask': mask[:pairs, None]}
    return np.asarray(whole(variables, read | texts))[:, 0]

  def cached_loop() -> np.ndarray:
    rows = []
    for image in range(len(full.gallery.image)):
      read, _ = full._images(np.array([image]), 0, None)
      pixels = embed(variables, read)
      chunks = zip(*(np.split(x, range(pairs, len(x), pairs)) for x in (ids, mask)), strict=True)
      rows.append(np.concatenate([score(variables, *pixels, *chunk)[0] for chunk in chunks]))
    return np.stack(rows)

  ranker = Ranker(model, sharding.make_mesh(), FEW, max(1, pairs // full.images))

  def fast(batches: RankingBatches) -> np.ndarray:
    return ranker(variables, batches).matrix.scores

  return {
    'pair by pair': pair_by_pair,
    'loop over cached features': cached_loop,
    'fast': functools.partial(fast, full),
    "fast, COCO's lengths": functools.partial(fast, coco),
  }


def measure(images: int, captions: int, pairs: int, repeats: int) -> dict[str, float]:
  """Measures pairs per second of every case, ratios, and the largest difference of scores."""
  config = retrieval.get_config('r50')
  config.text.vocabulary = str(vocabulary.FILE)
  if jax.default_backend() == 'cpu':
    config.dtype = 'float32'  # CPUs have no fast bfloat16.
  config = resolve(config)
  coco, full = (batches_of(config, images, captions, x) for x in (True, False))
  model = make_model(config, len(full.tokenizer.words))
  variables = jax.jit(lambda: init_variables(model, 0, full[0]))()
  timed = cases(model, variables, coco, full, pairs)
  seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
  scores = {}
  for turn in tqdm(range(repeats + 1), 'rounds', leave=False):
    for name, call in timed.items():
      began = time.perf_counter(), time.process_time()
      scores[name] = call()
      ended = time.perf_counter(), time.process_time()
      if turn:  # The first round compiles.
        seconds[name].append(
          [(e - b) / scores[name].size for e, b in zip(ended, began, strict=True)]
        )
  wall, processor = (
    {name: statistics.median(s[clock] for s in seconds[name]) for name in timed} for clock in (0, 1)
  )
  results = {f'pairs a second, {name}': round(1 / s, 3) for name, s in wall.items()}
  for ours in ('fast', "fast, COCO's lengths"):
    for other in ('pair by pair', 'loop over cached features'):
      results[f'{other} / {ours}'] = round(wall[other] / wall[ours], 2)
      if jax.default_backend() == 'cpu':  # Other programs may use it at the same time.
        results[f'{other} / {ours}, processor time'] = round(processor[other] / processor[ours], 2)
  difference = np.abs(scores['fast'][0, :pairs] - scores['pair by pair'])
  return results | {'largest difference of scores': float(difference.max())}


def main(_) -> None:
  values = flags.FLAGS
  results = measure(values.images, values.captions, values.pairs, values.repeats)
  for name, value in results.items():
    print(f'{name:<56}{value:>12.6g}')
  record.append(
    pathlib.Path(values.output),
    jax=jax.__version__,
    images=values.images,
    captions=values.captions,
    **{'pairs at a time': values.pairs},
    results=results,
  )


if __name__ == '__main__':
  flags.DEFINE_integer('images', 2, 'Images; the CNN takes all at a time.')
  flags.DEFINE_integer('captions', 24, 'Captions, each scored with every image.')
  flags.DEFINE_integer('pairs', 8, 'Pairs at a time; increase to use a device fully.')
  flags.DEFINE_integer('repeats', 2, 'Rounds over all cases.')
  flags.DEFINE_string('output', str(RESULTS), 'File of results.')
  app.run(main)
