"""Measures a pre-training step beside PyTorch's, part by part.

    pip install -e '.[test]'
    python -m benchmarks.train [--models=r50,x152,small] [--images=2] [--canvas=384x512]
    python -m benchmarks.train --models=r50 --images=1 --texts=4 --against=PyTorch

This project's step, started as `pixelbert_jax.main` starts it, takes turns with others, each in a
process of its own:

- PyTorch as one would write it (`plain_pytorch.py`), eager and by `torch.compile`,
- the PyTorch model that an export holds, which masks padding as ours does,
- this project's step without huge pages (`pixelbert_jax/huge_pages.py`).

All have the same sizes, optimisers and batch: images that fill their canvas. On a GPU all compute
in bfloat16, PyTorch by AMP. Blocks are not recomputed (--remat: ours are). The small model is that
of configs/pretrain.py, with SGD, which PyTorch has for convolutions.

A ratio is the median over rounds of the other's seconds by ours. FLOPs are three times what PyTorch
counts of its forward pass; the peak is that of square products of matrices by the faster of the two
libraries. The Transformer's time is what the other parts leave. Memory is the most that a process
had.

Appends to benchmarks/results/train.jsonl. Prints the table of BENCHMARKS.md and, as last line, one
JSON object, each value by model.
"""

import atexit
import functools
import importlib.util
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from absl import app, flags
from tqdm import tqdm

RESULTS = pathlib.Path(__file__).with_name('results') / 'train.jsonl'
OURS, PLAIN, COMPILED, TWIN = 'ours', 'PyTorch', 'torch.compile', 'masked PyTorch'
SMALL_PAGES = 'ours, no huge pages'
SIDE = 4096  # of the matrices whose product is the machine's peak
REPEATS = 3  # of a part


class Sizes(NamedTuple):
  """What is measured: a model of configs/pretrain.py ('' is the small one) and its batch."""

  variant: str
  images: int
  texts: int
  canvas: tuple[int, int]
  remat: bool


SMALL = Sizes('', 16, 8, (64, 64), remat=False)


def work(sizes: Sizes) -> Any:
  """Makes the work of a step."""
  import jax

  from benchmarks.steps import Work
  from configs import pretrain
  from data.scenes import vocabulary
  from pixelbert_jax.experiment import resolve
  from pixelbert_jax.input.vocabulary import read_vocabulary
  from pixelbert_jax.plan import corpus

  config = pretrain.get_config(sizes.variant)
  config.dtype = 'float32' if jax.default_backend() == 'cpu' else 'bfloat16'
  config.cnn.remat = sizes.remat
  # As the paper, and as the twins in PyTorch.
  config.optimizer.cnn_rule, config.optimizer.transformer_rule = 'sgd', 'adamw'
  config.pixel_position, config.itm_weight = 'none', 1.0
  config.texts_per_image, config.micro_batches = sizes.texts, 1
  config.batch_size = sizes.images * sizes.texts
  config.text.vocabulary = str(vocabulary.FILE)
  if sizes.variant:
    config.init_from = 'C'  # converted weights: their BatchNorm is fixed
  words = len(read_vocabulary(vocabulary.FILE, '')[1])
  return Work(resolve(config), corpus.WORDS if sizes.variant else words, sizes.canvas)


def serve(asked: Connection, name: str, sizes: Sizes) -> None:
  """Makes a step in a process of its own, and does what is asked for, until that is None."""
  from benchmarks import steps

  ours = name in (OURS, SMALL_PAGES)
  made = steps.Ours(work(sizes)) if ours else steps.PyTorch(work(sizes), name == TWIN)
  answers: dict[str, Callable[[], Any]] = {
    'step': functools.partial(second, made),
    'parts': lambda: {part: median(call) for part, call in made.parts().items()},
    'memory': lambda: (
      made.peak_memory() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    ),
    'peak': lambda: 2 * SIDE**3 / median(made.product(SIDE)),
  }
  if name == PLAIN:
    answers['flops'] = made.flops
  if name == COMPILED:
    made.compile()
  made()  # compiles, or fills caches
  asked.send('ready')
  for question in iter(asked.recv, None):
    asked.send(answers[question]())


def seconds(call: Callable[[], Any]) -> float:
  """Times a call."""
  began = time.perf_counter()
  call()
  return time.perf_counter() - began


def second(call: Callable[[], Any]) -> float:
  """Times the second of two calls: in training, no step comes after a pause."""
  call()
  return seconds(call)


def median(call: Callable[[], Any]) -> float:
  """Times calls after the first; returns the median of their seconds."""
  call()
  return statistics.median(seconds(call) for _ in range(REPEATS))


class Program:
  """A step in a process of its own."""

  def __init__(self, name: str, sizes: Sizes):
    """Starts the process and waits until its step is compiled."""
    from pixelbert_jax import huge_pages

    if name == OURS and huge_pages.given_to_those_that_ask():
      os.environ['GLIBC_TUNABLES'] = huge_pages.ASKS
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'  # All programs share a GPU's memory.
    context = multiprocessing.get_context('spawn')
    self.connection, theirs = context.Pipe()
    self.process = context.Process(target=serve, args=(theirs, name, sizes), daemon=True)
    self.process.start()
    os.environ.pop('GLIBC_TUNABLES', None)
    theirs.close()
    self.connection.recv()

  def ask(self, question: str) -> Any:
    """Returns the answer of the process."""
    self.connection.send(question)
    return self.connection.recv()

  def end(self) -> None:
    """Ends the process."""
    self.connection.send(None)
    self.process.join()


def others(asked: Sequence[str]) -> list[str]:
  """Lists what ours is compared with: PyTorch, and of those asked for what this machine can run."""
  from pixelbert_jax import huge_pages

  compiler = importlib.util.find_spec('triton') or shutil.which('g++') or shutil.which('clang++')
  small = huge_pages.given_to_those_that_ask()
  runs = {COMPILED: bool(compiler), TWIN: True, SMALL_PAGES: small}
  return [PLAIN, *(name for name in asked if runs.get(name))]


def measure(sizes: Sizes, rounds: int, against: Sequence[str]) -> dict[str, Any]:
  """Measures ours in turn with each program; returns times, ratios, shares and memory.

  Two at a time, as memory may not hold all.
  """
  times: dict[str, list[float]] = {OURS: []}
  ratios, parts, memory, peaks, flops = {}, {}, {}, [], 0
  for other in tqdm(others(against), 'programs', leave=False):
    pair = {name: Program(name, sizes) for name in (OURS, other)}
    turns = [[pair[name].ask('step') for name in pair] for _ in range(rounds)]
    ratios[other] = round(statistics.median(theirs / ours for ours, theirs in turns), 3)
    mine, times[other] = map(list, zip(*turns, strict=True))
    times[OURS] += mine
    for name, program in pair.items():
      memory[name] = program.ask('memory')
      if name not in (*parts, COMPILED, SMALL_PAGES):
        parts[name] = program.ask('parts')
        peaks.append(program.ask('peak'))
    flops = flops or pair[PLAIN].ask('flops')
    for program in pair.values():
      program.end()
  peak = max(peaks)
  middle = {name: statistics.median(x) for name, x in times.items()}
  for name, of in parts.items():
    of['Transformer'] = middle[name] - sum(of.values())
  return {
    'ratio_to_eager': ratios[PLAIN],
    'ratio_to_compile': ratios.get(COMPILED),
    'ratio_to_masked': ratios.get(TWIN),
    'ratios': ratios,
    'mfu': round(flops / middle[OURS] / peak, 3),
    'seconds': {name: round(x, 4) for name, x in middle.items()},
    'parts': {name: {part: round(x, 4) for part, x in of.items()} for name, of in parts.items()},
    'flops': flops,
    'peak_flops': round(peak),
    'memory': memory,
  }


def page(results: pathlib.Path = RESULTS) -> str:
  """Formats the newest line of each work on each device, as in BENCHMARKS.md."""
  lines = [json.loads(line) for line in results.read_text().splitlines()]
  parts = ('input', 'CNN', 'Transformer', 'optimiser')
  named = ('program', 's a step', 'ours faster by', 'GFLOP/s', 'of peak')
  header = ('device', 'model, images, texts of each', *named, *parts, 'GB')
  rows = [header, ('---',) * len(header)]
  of_work = {json.dumps([x[name] for name in ('device', *Sizes._fields)]): x for x in lines}
  for x in of_work.values():
    remat = ', recomputed' * x['remat']
    size = 'x'.join(map(str, x['canvas']))
    first = x['device'], f'{x["model"]}, {x["images"]} of {size}, {x["texts"]}{remat}'
    for name, whole in x['seconds'].items():
      rate, of = x['flops'] / whole, x['parts'].get(name, {})
      ratio = f'{x["ratios"][name]:.2f}' if name in x['ratios'] else ''
      cells = [f'{of[part]:.3f}' if part in of else '' for part in parts]
      speed = f'{rate / 1e9:.0f}', f'{rate / x["peak_flops"]:.2f}'
      memory = f'{x["memory"][name] / 1e9:.1f}'
      rows.append((*first, name, f'{whole:.3f}', ratio, *speed, *cells, memory))
      first = '', ''
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def canvas(text: str) -> tuple[int, int]:
  """Reads a canvas as in '384x512'."""
  height, width = map(int, text.split('x'))
  return height, width


def main(_: Sequence[str]) -> None:
  from benchmarks import record

  values, results = flags.FLAGS, {}
  output = pathlib.Path(values.output)
  cache = tempfile.mkdtemp()  # as ours is started once for each other program
  os.environ['JAX_COMPILATION_CACHE_DIR'] = cache
  atexit.register(shutil.rmtree, cache)
  for model in values.models:
    sizes = Sizes(model, values.images, values.texts, canvas(values.canvas), values.remat)
    rounds = values.rounds
    if model == 'small':
      sizes, rounds = SMALL, 4 * rounds
    found = measure(sizes, rounds, values.against)
    record.append(output, model=model, **sizes._asdict(), **found)
    results[model] = found
  print(page(output))
  print(json.dumps({key: {model: x[key] for model, x in results.items()} for key in found}))


if __name__ == '__main__':
  flags.DEFINE_list('models', ['r50', 'x152', 'small'], 'Variants of configs/pretrain.py.')
  flags.DEFINE_integer('images', 2, 'Images a step, but of the small model.')
  flags.DEFINE_integer('texts', 1, 'Texts an image, but of the small model.')
  flags.DEFINE_string('canvas', '384x512', 'Size of the images, but of the small model.')
  flags.DEFINE_boolean('remat', False, "Recompute the CNN's blocks in the backward pass.")
  flags.DEFINE_integer('rounds', 7, 'Turns of each program; four times as many of the small model.')
  programs = [PLAIN, COMPILED, TWIN, SMALL_PAGES]
  flags.DEFINE_multi_enum('against', programs, programs, 'What ours is compared with.')
  flags.DEFINE_string('output', str(RESULTS), 'File of results.')
  app.run(main)
