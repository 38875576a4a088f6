"""A run as its folder holds it: configuration, log, and the evaluations it ended with."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from pixelbert_jax import UserError, files, jsons
from pixelbert_jax.checkpoints import provenance
from pixelbert_jax.checkpoints.workdir import read_config, read_files
from pixelbert_jax.experiment import TASKS, check_task, make_task
from pixelbert_jax.input import mixture
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.selection import select
from pixelbert_jax.loop import result
from pixelbert_jax.metrics import entries
from pixelbert_jax.report import record

METRICS = '_metrics.json'  # the end of the name of an evaluation's file


@dataclasses.dataclass(frozen=True)
class Result:
  """An evaluation on a split: the one that a training run ends with, or one of a checkpoint.

  Attributes:
    config: of the run, or of the evaluation; resolved.
    split: the split, or selection.
    path: of its predictions, as `Task.report` takes it.
    table: the final table, as it was printed.
    checkpoint: what `predict.load` takes.
    data: the split, if it is still there as it was.
    missing: why it is not; '' if it is.
  """

  config: ConfigDict
  split: str
  path: pathlib.Path
  table: str
  checkpoint: str
  data: Split | None
  missing: str


@dataclasses.dataclass(frozen=True)
class Run:
  """A training run, an evaluation, or both in one folder.

  Attributes:
    folder: the workdir.
    config: as resolved.
    results: none if the run has not ended.
    record: the record of training, or of the first evaluation.
    trained_on: names of datasets.
    lines: of `metrics.jsonl`.
    files: the run's own, by name; an evaluation has none.
  """

  folder: pathlib.Path
  config: ConfigDict
  results: list[Result]
  record: Mapping[str, Any]
  trained_on: Sequence[str]
  lines: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

  @property
  def trained(self) -> bool:
    """Whether it is a training run."""
    return bool(self.files)

  @property
  def name(self) -> str:
    """The name of the folder."""
    return self.folder.name

  @classmethod
  def read(cls, folder: str | os.PathLike) -> 'Run':
    """Reads what a run has written so far.

    Raises:
      UserError: the folder is none of a run, or damaged.
    """
    folder = pathlib.Path(folder).absolute()
    evaluated = sorted(folder.glob(f'predictions/*{METRICS}'))
    trained = (folder / 'config.json').exists() and (folder / 'metrics.jsonl').exists()
    results = [x for x in map(_evaluation, evaluated) if x]
    if not trained and not results:
      raise UserError(f'{folder} is no workdir of a run or evaluation: name one')
    if not trained:
      about = record.read(folder, results[0].split)
      return cls(folder, results[0].config, results, about, about['trained_on'])
    config, lines = ConfigDict(read_config(folder / 'config.json')), entries(folder)
    check_task(config)
    own, about = read_files(folder), record.read(folder, record.RUN)
    if config.data.test not in [x.split for x in results]:  # else its predictions were replaced
      done = lines and lines[-1]['step'] >= about.get('stop', 0)
      results = [*(_ended(folder, config, lines, own) if done else []), *results]
    trained_on = provenance.datasets(own, config)
    return cls(folder, config, results, about, trained_on, lines=lines, files=own)


def _evaluation(path: pathlib.Path) -> Result | None:
  """Reads the result of an evaluation; None of one that an earlier version made."""
  split, folder = path.name.removesuffix(METRICS), path.parents[1]
  about, metrics = record.read(folder, split), files.read_json(path, dict)
  if not about:
    return None
  config = ConfigDict(about['config'])
  data, missing = _opened(config, split, jsons.text(about['data']).encode())
  return Result(
    config=config,
    split=split,
    path=path.with_name(f'{split}.json'),
    table=about['table'],
    checkpoint=re.sub(r'(@\d+)?$', f'@{metrics["step"]}', metrics['checkpoint'], count=1),
    data=data,
    missing=missing,
  )


def _ended(
  folder: pathlib.Path, config: ConfigDict, lines: list[dict[str, Any]], own: Mapping[str, bytes]
) -> list[Result]:
  """Returns the result that a run has ended with, if it has."""
  split = config.data.test
  if not lines or lines[-1]['split'] != split:
    return []
  validates = split == config.data.validation and TASKS[config.name].CHOSEN_BY
  if validates and 'chosen_step' not in lines[-1]:
    return []  # of a run that goes on
  data, missing = _opened(config, split, own.get(provenance.DATA, b'{}'))
  # The rule of a dataset's scores is in the table's title.
  task = make_task(config, {'test': data} if data else {}, own)
  metrics = {k: x for k, x in lines[-1].items() if k not in ('step', 'split')}
  made = Result(
    config=config,
    split=split,
    path=folder / 'predictions' / f'{split}.json',
    table=result(task, split, metrics),
    checkpoint=str(folder),
    data=data,
    missing=missing,
  )
  return [made]


def _opened(config: ConfigDict, split: str, known: bytes) -> tuple[Split | None, str]:
  """Opens a split, if it is still there; nothing is built. Else says why it is not.

  `known` are the digests of the data of the run, as in `provenance.DATA`.
  """
  try:
    from data.builders import open_dataset  # TFDS, which takes seconds to import

    data = config.data
    datasets = [open_dataset(name, data.data_dir or None) for name in data.name.split('+')]
    dataset = datasets[0]
    if len(datasets) > 1:
      dataset = mixture.mix(datasets, data.train, [split])
    for name, change in provenance.data_changes(known, dataset.identity).items():
      return None, f'{name} was built again since ({change})'
    return select(dataset, split), ''
  except ModuleNotFoundError:
    return None, 'datasets are opened in the checkout only'
  except UserError as error:
    return None, str(error)
