"""Counts what a training step asks of the machine, and the time of the thread that trains.

    python -m benchmarks.counts

On CPU, of the default model of configs/pretrain.py, 16 images of 64x64 with 8 texts each:

- FLOPs, and bytes that the instructions of the compiled step read and write (`plan/cost.py`),
- bytes of its temporaries, and bytes that Python and NumPy hold at most during a step,
- compilations in 2,000 steps on three canvases in turn, of 2 images with 2 texts each, after all
  were compiled ahead.

And milliseconds of CPU time a step of the thread that trains, which R50's programs do not run in.

Writes benchmarks/results/counts.json. tests/test_benchmarks_counts.py counts again and compares, so
that no change makes a step dearer unseen.
"""

import collections
import json
import pathlib
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import jax
from absl import app
from tqdm import tqdm

from benchmarks import steps
from benchmarks.train import SMALL, Sizes, work
from pixelbert_jax import sharding
from pixelbert_jax.plan.cost import cost

RESULTS = pathlib.Path(__file__).with_name('results') / 'counts.json'
FEW = SMALL._replace(images=2, texts=2)
R50 = Sizes('r50', 2, 1, (384, 512), remat=False)
CANVASES = ((64, 64), (64, 96), (96, 64))
EVENT = '/jax/core/compile/backend_compile_duration'


def count(ours: steps.Ours) -> dict[str, int]:
  """Counts what a compiled step costs the machine and the host; takes two steps."""
  program = ours.step.program(ours.state, ours.batch)
  total = cost(program.as_text()).total
  ours()
  tracemalloc.start()
  ours()
  _, most = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return {
    'flops': total.flops,
    'bytes': total.bytes,
    'temporaries': program.memory_analysis().temp_size_in_bytes,
    'host_bytes': most,
  }


def compilations(number: int) -> int:
  """Counts the compilations in so many steps on CANVASES in turn, after they were compiled."""
  ours = steps.Ours(work(FEW))
  of_sizes = [work(FEW._replace(canvas=canvas)).batch for canvas in CANVASES]
  batches = [sharding.global_batch(ours.mesh, batch) for batch in of_sizes]
  ours.step.compile(ours.state, batches)
  events = collections.Counter[str]()

  def listen(event: str, *_: Any, **more: Any) -> None:
    events[event] += 1

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for step in tqdm(range(number), 'steps', leave=False):
      ours.batch = batches[step % len(batches)]
      ours()
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  return events[EVENT]


def host_milliseconds(ours: steps.Ours, number: int) -> float:
  """Measures the CPU time a step of the thread that trains; it waits without using any."""
  ours()
  began = time.thread_time()
  for _ in range(number):
    ours()
  return 1e3 * (time.thread_time() - began) / number


def main(_: Sequence[str]) -> None:
  ours = steps.Ours(work(SMALL))
  found: dict[str, Any] = {'jax': jax.__version__, **count(ours)}
  found['host_ms'] = round(host_milliseconds(ours, 100), 2)
  found['compilations_in_2000_steps'] = compilations(2000)
  found['host_ms_r50'] = round(host_milliseconds(steps.Ours(work(R50)), 10), 2)
  RESULTS.write_text(json.dumps(found, indent=1) + '\n')
  print(json.dumps(found))


if __name__ == '__main__':
  app.run(main)
