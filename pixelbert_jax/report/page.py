"""The page of a run: one HTML file that needs nothing else."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jinja2

from pixelbert_jax import files, jsons
from pixelbert_jax.checkpoints import provenance
from pixelbert_jax.experiment import TASKS
from pixelbert_jax.report import confusion, curves, examples, pictures, setting
from pixelbert_jax.report.examples import Example, Query
from pixelbert_jax.report.run import Result, Run

FILE = 'report/index.html'
HEAT_MAPS = 4
Heat = tuple[str, str, str]  # the name of an example, its text, the data URI of a heat map
GALLERY = 4  # captions with their images, and as many images with their captions


@dataclasses.dataclass(frozen=True)
class Shown:
  """What the page shows of a result.

  Attributes:
    result: the result.
    groups: examples, by title.
    captions, images: the gallery, captions with images and the reverse.
    heat: heat maps of some of the texts, of examples if there are any.
    short: why there are not more heat maps; '' if there are.
    confusions: of all predictions.
  """

  result: Result
  groups: dict[str, list[Example]]
  captions: list[Query]
  images: list[Query]
  heat: list[Heat]
  short: str
  confusions: list[confusion.Confusion]


def write(folder: pathlib.Path, output: pathlib.Path | None = None) -> pathlib.Path:
  """Writes the report of a run, by default into its folder, and returns its path.

  Raises:
    UserError: the folder is none of a run, or damaged.
  """
  run = Run.read(folder)
  path = output or run.folder / FILE
  files.write_text(path, of_run(run))
  return path


def of_run(run: Run) -> str:
  """Makes the page of a run."""
  config, identity = run.config, run.record.get('data', {})
  if provenance.DATA in run.files:
    identity = jsons.parse(run.files[provenance.DATA], dict)
  return render(
    'run.html',
    run=run,
    lead=lead(run),
    caveat=provenance.caveat(run.trained_on),
    curves=curves.of_run(run.lines, config.data.validation),
    shown=[show(result) for result in run.results],
    identity=identity,
    fields=setting.fields(config),
    changes=setting.changes(config),
    command=setting.command(config, '' if run.trained else run.results[0].checkpoint),
  )


def lead(run: Run) -> str:
  """Says in a line what a run was."""
  config = run.config
  if not run.trained:
    return f'{run.results[0].checkpoint} evaluated on {config.data.name}/{run.results[0].split}'
  what = (TASKS[config.name].__doc__ or config.name).split('\n')[0].split(';')[0].rstrip('.')
  steps = run.lines[-1]['step'] if run.lines else 0
  start = 'from scratch' if config.init_from == 'scratch' else f'from {config.init_from}'
  return f'{what}: {steps:,} steps of {config.batch_size} pairs of {config.data.name}, {start}'


def show(result: Result) -> Shown:
  """Collects what the page shows of a result, heat maps of a few examples among it."""
  found = examples.read(result.path, result.data)
  captions, images = (_both_kinds(x) for x in examples.gallery(result.path, result.data))
  groups = {
    title: examples.spread([x for x in found if x.right is right], examples.SHOWN)
    for title, right in {'Wrong': False, 'Right': True, 'Not judged': None}.items()
  }
  groups = {title: chosen for title, chosen in groups.items() if chosen}
  heat, short = _heat(result, [x for chosen in zip(*groups.values(), strict=False) for x in chosen])
  counted = confusion.confusions(found)
  return Shown(result, groups, captions, images, heat=heat, short=short, confusions=counted)


def _both_kinds(queries: Sequence[Query]) -> list[Query]:
  """Chooses queries, half of them where the best hit is not a right one."""
  parts = [[x for x in queries if bool(x.right) is right] for right in (True, False)]
  return [x for part in parts for x in examples.spread(part, GALLERY // 2)]


def _heat(result: Result, few: Sequence[Example]) -> tuple[list[Heat], str]:
  """Draws heat maps of examples or, without any, of captions; returns why there are not more."""
  if result.data is None:
    return [], ''
  sidecar = result.data.sidecar
  if not few and len(sidecar.text):
    numbers = examples.spread(range(len(sidecar.text)), HEAT_MAPS)
    few = [
      Example('', '', text=sidecar.caption(i), images=(int(sidecar.caption_image[i]),))
      for i in numbers
    ]
  wanted = [(x.name, image, x.text) for x in few for image in x.images][:HEAT_MAPS]
  if wanted and jax.process_count() > 1:
    return [], 'of several processes none draws them: make the report again'
  pairs = [(image, text) for _, image, text in wanted]
  drawn, short = pictures.heat_maps(result.checkpoint, result.data, pairs) if pairs else ([], '')
  return [(name, text, uri) for (name, _, text), uri in zip(wanted, drawn, strict=False)], short


def render(template: str, **values: Any) -> str:
  """Fills in a template; all values are escaped, but SVG that is drawn here."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(template).render(picture=pictures.of_image, **values)
