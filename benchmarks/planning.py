"""Measures planning an epoch of a mixture of the size of COCO and Visual Genome; see `input.py`."""

import concurrent.futures
import json
import multiprocessing
import pathlib
import resource
import statistics
import tempfile
import time

import numpy as np

from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.joined import join
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.order import Batching, plan_epoch
from pixelbert_jax.input.sidecar import Questions, Ragged, Sidecar, Statements
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.truth import Truth

PAIRS = 4096  # in a batch
# Of each corpus, images and texts (`pixelbert_jax/plan/corpus.py`); words of a text; how many
# different texts they are drawn from.
CORPORA = {
  'coco_karpathy': (113_287, 566_747, 11, 550_000),
  'visual_genome': (103_000, 5_003_875, 5, 3_000_000),
}
WORDS = 8_000
EPOCHS = 3
ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks/results/input.jsonl'
VOCABULARY, LENGTH = ROOT / 'data/scenes/vocab.txt', 40


def sidecar_of(images: int, texts: int, words: int, distinct: int) -> Sidecar:
  """Makes a sidecar of random texts: words of 1 to 8 letters, the n-th with a share of 1/n."""
  rng = np.random.default_rng(texts)
  lengths = rng.integers(1, 9, WORDS)
  start = np.append(0, np.cumsum(lengths + 1))
  letters = rng.integers(97, 123, start[-1], np.uint8)
  letters[start[1:] - 1] = ord(' ')
  share = 1 / np.arange(1, WORDS + 1)
  said = rng.choice(WORDS, distinct * words, p=share / share.sum())
  spelt = Ragged(letters, start).take(said)
  pool = Ragged(spelt.values, spelt.start[::words])
  which = np.concatenate([np.arange(distinct), rng.integers(distinct, size=texts - distinct)])
  count = np.full(images, texts // images)
  count[: texts - count.sum()] += 1
  nothing, empty = np.zeros(0, np.int32), Ragged(np.zeros(0, np.int32), np.zeros(texts + 1, int))
  return Sidecar(
    image_id=np.arange(images).astype('S'),
    size=rng.integers(300, 700, (images, 2)).astype(np.int32),
    captions=Ragged(np.arange(texts), np.append(0, np.cumsum(count))),
    text=pool.take(rng.permutation(which)),
    label=np.ones(texts, bool),
    claim=nothing,
    claims=Ragged(nothing, np.zeros(images + 1, int)),
    kinds=empty,
    rivals=empty,
    foils=empty,
    subset=np.zeros(texts, np.int32),
    strings=Ragged.of([b''], np.uint8),
    questions=Questions.of([]),
    statements=Statements.of([], {}),
  )


def write(folder: pathlib.Path) -> None:
  """Writes the sidecars of both corpora."""
  for name, sizes in CORPORA.items():
    sidecar_of(*sizes).write(folder / name)


def plan(folder: pathlib.Path, canvases: Canvases, texts_per_image: int) -> dict[str, float]:
  """Measures the planning of some epochs, and the most memory of the whole process.

  One thread plans, so that CPU seconds are those of a machine with nothing else to do.
  """
  clocks, resident = [(time.perf_counter(), time.process_time())], []

  def measured() -> None:
    clocks.append((time.perf_counter(), time.process_time()))
    resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

  sidecar = join({name: Sidecar.open(folder / name) for name in CORPORA})
  measured()
  truth = Truth(sidecar, Tokenizer(VOCABULARY, LENGTH))
  measured()
  batching = Batching(
    canvases=canvases,
    seed=0,
    images=PAIRS // texts_per_image,
    texts_per_image=texts_per_image,
    training=True,
  )
  negatives = Negatives(sidecar, truth, (0, CORPORA['coco_karpathy'][0]))
  plans = []
  for epoch in range(EPOCHS):
    # As in training, where the plan of the epoch before is still in use.
    plans = [*plans[-1:], plan_epoch(sidecar, batching, epoch, negatives=negatives)]
    measured()
  assert all(plan.weight.all() for plan in plans)
  texts, results = f'{len(sidecar.text):,} texts', dict[str, float]()
  for clock, took in zip(('', 'CPU '), np.diff(clocks, axis=0).T.round(2).tolist(), strict=True):
    opened, known, *planned = took
    results |= {
      f'{clock}seconds to open {texts}': opened,
      f'{clock}seconds to find equal ones of {texts}': known,
      f'{clock}seconds to plan {texts}, {texts_per_image} an image': statistics.median(planned),
    }
  return results | {
    f'MiB at most to open {texts}': round(resident[0]),
    f'MiB at most to plan {texts}, {texts_per_image} an image': round(resident[-1]),
  }


def measure(canvases: Canvases) -> dict[str, float]:
  """Measures groups of 1 and of 4 texts, each in a fresh process."""
  context, results = multiprocessing.get_context('spawn'), dict[str, float]()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    calls = [(write, folder), *((plan, folder, canvases, texts) for texts in (1, 4))]
    for call in calls:
      with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        results |= pool.submit(*call).result() or {}
  return results


def page() -> str:
  """Formats the newest results as the table of BENCHMARKS.md."""
  lines = (json.loads(line)['results'] for line in RESULTS.read_text().splitlines())
  texts = f'{sum(texts for _, texts, *_ in CORPORA.values()):,} texts'
  rows = {
    'both opened and joined, once a run': f'open {texts}',
    'texts that are read alike found, once a run': f'find equal ones of {texts}',
    'an epoch planned, 1 text an image': f'plan {texts}, 1 an image',
    'an epoch planned, 4 texts an image': f'plan {texts}, 4 an image',
  }
  found = [line for line in lines if f'CPU seconds to open {texts}' in line][-1]
  table = ['| | CPU s | MiB of the process, at most |', '|---|---|---|']
  for what, name in rows.items():
    most = found.get(f'MiB at most to {name}')
    seconds = found[f'CPU seconds to {name}']
    table.append(f'| {what} | {seconds:.1f} | {f"{most:,}" if most else ""} |')
  return '\n'.join(table)
