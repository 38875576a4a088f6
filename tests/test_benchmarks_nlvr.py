"""The study of NLVR runs what has no result yet, and shows its arms beside the commoner label."""

import json
import pathlib

from benchmarks import nlvr, study
from pixelbert_jax import configuration, main

FOLDER = pathlib.Path('runs/nlvr')


def fields(run):
  """The configuration of a run, checked as before training."""
  flags, overrides = main.make_parser().parse_overrides(run.words)
  found = configuration.load(flags.config, overrides)
  configuration.check(found)
  return dict(configuration.flat(found.copy_and_resolve_references()))


def test_arms_differ_in_what_they_are_named_for():
  found = {run.arm: fields(run) for run in nlvr.runs(list(nlvr.ARMS), [0], FOLDER)}
  recipe, scenes, boxes = (found.pop(arm) for arm in ('recipe', 'scenes', 'boxes'))
  assert (recipe['name'], recipe['data.train'], recipe['epochs']) == ('nlvr', 'test[!6]', 4.0)
  assert (scenes['name'], scenes['data.name'], scenes['epochs']) == ('pretrain', 'scenes', 7.0)
  assert (boxes['name'], boxes['data.name'], boxes['epochs']) == ('pretrain', 'boxes', 12.0)
  assert boxes['text.vocabulary'] == recipe['text.vocabulary']
  assert recipe['text.vocabulary'].endswith(scenes['text.vocabulary'])
  differ = {arm: {k: x for k, x in f.items() if x != recipe[k]} for arm, f in found.items()}
  (init_from,) = differ['started'].values()
  assert differ == {
    'augmented': {'augment': 1.0},
    'started': {'init_from': init_from},
    'started, augmented': {'init_from': init_from, 'augment': 1.0},
    'text alone': {'blank': 'image'},
    'image alone': {'blank': 'text'},
  }


def test_each_seed_starts_from_runs_of_its_own():
  runs = list(nlvr.runs(list(nlvr.ARMS), [0, 1], FOLDER))
  folders = {(run.arm, run.seed): str(run.folder(FOLDER)) for run in runs}
  assert len(set(folders.values())) == len(runs)
  order = [run.arm for run in runs]
  for run in runs:
    source = nlvr.SOURCES.get(run.arm)
    expected = folders[source, run.seed] if source else 'scratch'
    assert fields(run)['init_from'].endswith(expected)
    assert not source or order.index(source) < order.index(run.arm)


def write(path, run, accuracy):
  report = {'nlvr_accuracy': accuracy, 'nlvr_accuracy/low': accuracy - 0.02}
  report |= {'nlvr_accuracy/high': accuracy + 0.02, 'nlvr_accuracy/majority': 0.5529}
  report |= {'nlvr_consistency': 0.1, 'validation_nlvr_accuracy': accuracy + 0.03}
  report |= {'chosen_step': 320, 'itm_accuracy': accuracy, 'mlm_accuracy': 0.5}
  results = nlvr.scores(run.arm, report)
  with path.open('a') as file:
    file.write(json.dumps(run._asdict() | {'results': results | {'seconds': 120}}) + '\n')


def test_the_table_has_the_seeds_of_each_arm_and_the_commoner_label(tmp_path):
  path = tmp_path / 'nlvr.jsonl'
  for run in nlvr.runs(['recipe', 'started', 'boxes'], [0, 1], FOLDER):
    write(path, run, {'recipe': 0.54, 'started': 0.62, 'boxes': 0.8}[run.arm] + run.seed / 100)
  assert nlvr.table(path).splitlines()[2:] == [
    '| recipe | 2 | 0.575 (0.570 to 0.580) | 0.545 (0.540 to 0.550) | 0.520 to 0.570 '
    '| 0.100 (0.100 to 0.100) | 2 (2 to 2) |',
    '| boxes | 2 |  | matching 0.805 (0.800 to 0.810) |  |  | 2 (2 to 2) |',
    '| started | 2 | 0.655 (0.650 to 0.660) | 0.625 (0.620 to 0.630) | 0.600 to 0.650 '
    '| 0.100 (0.100 to 0.100) | 2 (2 to 2) |',
    '| commoner label |  |  | 0.553 |  |  |  |',
  ]
  left = study.waiting(nlvr.runs(list(nlvr.ARMS), nlvr.SEEDS, FOLDER), path)
  assert len(left) == 3 * 8 - 6
