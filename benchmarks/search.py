"""Measures the search of a folder: its seconds, and what the first stage's shortlist misses.

    python -m benchmarks.search --checkpoint=runs/retrieval-two-stage [--photos=10000] [--texts=50]

It renders held-out scenes into a folder, indexes it, and searches it by captions of some of them
for ten photos. For several `rerank`, the last of which is all photos, it measures

- the seconds of a search;
- `recall`: how many of the ten that come first where all are scored are found;
- `true`: of how many that are found the text is true (`photos it is true of`: of all photos);
- `own`: how often the photo whose caption the text is comes among the ten.

Appends one line to benchmarks/results/search.jsonl. Seconds are of the wall clock, after the first
call; those of the processor, of all its threads, depend less on what else runs.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import record
from data.scenes import record as scenes
from data.scenes.scenes_dataset_builder import workers
from pixelbert_jax import predict, search

RESULTS = pathlib.Path(__file__).with_name('results') / 'search.jsonl'
RERANK = (10, 20, 50, 100, 200, 500, 1000)
K = 10


def timed(call: Callable[[], Any]) -> tuple[Any, np.ndarray]:
  """Calls a function; returns its result, and the seconds of the wall clock and the processor."""
  began = np.array([time.perf_counter(), time.process_time()])
  result = call()
  return result, np.array([time.perf_counter(), time.process_time()]) - began


def render(folder: pathlib.Path, count: int) -> dict[str, dict[str, Any]]:
  """Writes scenes that no split but test has as JPEGs; returns them by their paths."""
  folder.mkdir()
  places = [scenes.Place('easy', 'test', i) for i in range(count)]
  with workers(count) as ordered_map:
    made = dict(zip(places, ordered_map(scenes.example, places), strict=True))
  paths = {place: folder / f'{place.image_id}.jpg' for place in places}
  for place, example in made.items():
    paths[place].write_bytes(example['image'])
  return {str(paths[place]): example for place, example in made.items()}


def measured(model: predict.Model, folder: pathlib.Path, photos: int, texts: int) -> dict[str, Any]:
  """Renders, indexes and searches a folder."""
  render(folder / 'few', 2 * model.runner.size)
  search.update(model, folder / 'few', folder / 'few_index')  # It compiles.
  made = render(folder / 'photos', photos)
  arguments = model, folder / 'photos', folder / 'index'
  done, indexing = timed(lambda: search.update(*arguments))
  _, again = timed(lambda: search.update(*arguments))
  index, opening = timed(lambda: search.Index.open(*arguments))
  chosen = np.random.default_rng(0).choice(list(made), texts, replace=False).tolist()
  asked = {path: made[path]['captions'][0] for path in chosen}
  results = {
    'photos': done.photos,
    'texts': texts,
    'bytes': done.bytes,
    'seconds to index': indexing[0],
    'seconds of the processor to index': indexing[1],
    'seconds to index again': again[0],
    'seconds to open': opening[0],
    'photos it is true of': share(made, {path: list(made) for path in chosen}, asked),
  }
  found = {rerank: searched(index, asked, rerank) for rerank in (*RERANK, photos)}
  results['by rerank'] = {
    rerank: {
      'recall': statistics.mean(len({*rows[p]} & {*found[photos][0][p]}) / K for p in chosen),
      'true': share(made, rows, asked),
      'own': statistics.mean(path in rows[path] for path in chosen),
      'seconds': statistics.median(spent[:, 0]),
      'most seconds': spent[:, 0].max(),
      'seconds of the processor': statistics.median(spent[:, 1]),
    }
    for rerank, (rows, spent) in found.items()
  }
  return results


def searched(
  index: search.Index, asked: dict[str, dict[str, Any]], rerank: int
) -> tuple[dict[str, list[str]], np.ndarray]:
  """Searches by each caption; returns what it finds, by its photo, and the seconds [texts, 2]."""
  index.find('a red circle', K, rerank)
  found, seconds = zip(
    *(timed(lambda x=x: index.find(x['text'], K, rerank)) for x in asked.values()), strict=True
  )
  rows = ([path for path, _ in pairs] for pairs in found)
  return dict(zip(asked, rows, strict=True)), np.array(seconds)


def share(
  made: dict[str, dict[str, Any]],
  rows: dict[str, list[str]],
  asked: dict[str, dict[str, Any]],
) -> float:
  """Computes of which share of photos a caption is true, in the mean over captions."""
  return statistics.mean(
    statistics.mean(asked[own]['claim'] in made[path]['claims'] for path in paths)
    for own, paths in rows.items()
  )


def page() -> str:
  """Formats the newest line, as in docs/search.md."""
  results = json.loads(RESULTS.read_text().splitlines()[-1])['results']
  rows = [
    f'| {int(rerank):,} | {row["seconds"]:.2f} s | {row["seconds of the processor"]:.2f} s | '
    f'{row["recall"]:.2f} | {row["true"]:.2f} | {row["own"]:.2f} |'
    for rerank, row in results['by rerank'].items()
  ]
  title = '| `rerank` | a search | of the processor | of the best ten | true | own photo |'
  return '\n'.join([title, '|---|---|---|---|---|---|', *rows])


def main() -> None:
  """Measures and appends a line."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--checkpoint', required=True)
  parser.add_argument('--photos', type=int, default=10_000)
  parser.add_argument('--texts', type=int, default=50)
  flags = parser.parse_args()
  with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
    warnings.simplefilter('ignore')  # It warns that the model was trained on scenes only.
    model = predict.load(flags.checkpoint)
    results = measured(model, pathlib.Path(folder), flags.photos, flags.texts)
  record.append(RESULTS, checkpoint=flags.checkpoint, results=results)
  print(json.dumps(results, indent=1))


if __name__ == '__main__':
  main()
