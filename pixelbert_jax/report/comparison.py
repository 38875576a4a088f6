"""The comparison of several runs: their tables, curves, fields, and differences of their scores."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from pixelbert_jax import UserError, files
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.report import curves, examples, page, setting
from pixelbert_jax.report.run import Result, Run
from pixelbert_jax.score import bootstrap, matrix, scored
from pixelbert_jax.score import vqa as official
from pixelbert_jax.tasks.statements import caption_name
from pixelbert_jax.tasks.vqa import annotated

FILE = 'report/comparison.html'


@dataclasses.dataclass(frozen=True)
class Differences:
  """The scores of a run less those of the first, with intervals; or why there are none.

  Attributes:
    name: of the run.
    rows: by metric what `scored.compare` computes.
    clusters: what was resampled, in words.
    reason: why there are no rows.
  """

  name: str
  rows: dict[str, dict[str, Any]]
  clusters: str = ''
  reason: str = ''


def write(folders: Sequence[pathlib.Path], output: pathlib.Path | None = None) -> pathlib.Path:
  """Writes the comparison of runs, by default into the folder of the first; returns its path.

  Raises:
    UserError: a folder is none of a run, or damaged; or one is named twice.
  """
  read = [Run.read(folder) for folder in folders]
  if len({run.folder for run in read}) < len(read):
    raise UserError('a run is named twice: name each once')
  names = [run.name for run in read]
  runs = {r.name if names.count(r.name) == 1 else str(r.folder): r for r in read}
  path = output or folders[0] / FILE
  files.write_text(path, of_runs(runs))
  return path


def of_runs(runs: dict[str, Run]) -> str:
  """Makes the page, given runs by the names that it shows."""
  first, *others = runs.items()
  base = functools.cache(lambda: _scored(first[1]))  # for the first of the others
  fields = {name: setting.fields(run.config) for name, run in runs.items()}
  names = dict.fromkeys(field for own in fields.values() for field in own)
  values = {name: [own.get(name, '') for own in fields.values()] for name in names}
  return page.render(
    'comparison.html',
    runs=runs,
    curves=curves.of_runs({n: (r.lines, r.config.data.validation) for n, r in runs.items()}),
    differences=[difference(first[1], base, name, run) for name, run in others],
    resamples=bootstrap.RESAMPLES,
    differing={name: own for name, own in values.items() if any(x != own[0] for x in own)},
  )


def difference(first: Run, base: Callable[[], scored.Scored], name: str, run: Run) -> Differences:
  """Compares the first result of a run with that of the first run, where both score the same.

  `base` scores the first run.
  """
  try:
    one, two = _scored(run), base()
    if _of(run.results[0]) != _of(first.results[0]):
      raise UserError('they are of other tasks, datasets or splits')
    if examples.pairs(run.results[0].path) != examples.pairs(first.results[0].path):
      raise UserError('they judge texts by other images')
    rows = scored.compare(one, two)
  except UserError as error:
    return Differences(name, {}, reason=str(error).splitlines()[0])
  count = max(row['clusters'] for row in rows.values())
  return Differences(name, rows, f'{count:,} {one.cluster}')


def _of(result: Result) -> tuple[str, str, str]:
  """Returns what is scored: the task, the dataset and the split."""
  return result.config.name, result.config.data.name.split('+')[0], result.split


def _scored(run: Run) -> scored.Scored:
  """Scores the predictions of a run's first result by what its split says.

  Raises:
    UserError: there are no predictions, or the split is not there.
  """
  if not run.results:
    raise UserError(f'{run.name} has not ended')
  result = run.results[0]
  if result.data is None:
    raise UserError(f'the data of {run.name} cannot be opened: {result.missing}')
  if result.path.with_suffix('.npz').exists():
    return _retrieval(result, result.data)
  if result.path.with_suffix('.csv').exists():
    return _statements(result, result.data)
  if not result.path.exists():
    raise UserError(f'{run.name} has no predictions on {result.split}')
  scoring = official.scoring_of(result.data.scoring, run.name)
  table = result.data.sidecar.questions
  questions = annotated(table, range(len(table)), scoring)
  if not questions:
    raise UserError(f'{result.split} has no public answers')
  return scored.score_vqa(str(result.path), questions, len(questions))


def _statements(result: Result, data: Split) -> scored.Scored:
  sidecar, path = data.sidecar, str(result.path.with_suffix('.csv'))
  table = sidecar.statements
  if result.config.name == 'nlvr2':
    names = [name.decode() for name in table.identifier]
    return scored.score_nlvr2(path, dict(zip(names, table.label.tolist(), strict=True)))
  if shown := examples.pairs(result.path):
    return scored.score_nlvr(path, {name: label for name, (_, label) in shown.items()})
  images = enumerate(sidecar.caption_image.tolist())
  labels = {caption_name(sidecar, i, image): bool(sidecar.label[i]) for i, image in images}
  return scored.score_nlvr(path, labels)


def _retrieval(result: Result, data: Split) -> scored.Scored:
  sidecar = data.sidecar
  path = result.path.with_suffix('.npz')
  ranked = set(matrix.read(path)[1])  # which may be a part of the split
  captions = {
    name: list(map(str, sidecar.captions[i].tolist()))
    for i, name in enumerate(x.decode() for x in sidecar.image_id)
    if name in ranked
  }
  return scored.score_retrieval(str(path), result.split, [captions])
