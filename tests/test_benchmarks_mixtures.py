"""The study of mixtures runs what has no result yet, and compares arms seed by seed."""

import json
import shlex

from benchmarks import mixtures, study
from pixelbert_jax import configuration


def runs(steps=20, seeds=2):
  return mixtures.runs('configs/pretrain.py:test', 'scratch', steps, seeds)


def write(path, of, value):
  """Writes a line for each run whose scores are `value` of arm and seed, less on one corpus."""
  with path.open('a') as file:
    for run in of:
      score = value(run.arm, run.seed)
      results = {
        corpus: dict.fromkeys(mixtures.METRICS, score - less)
        for corpus, less in {mixtures.COMMON: 0, mixtures.SCARCE: 0.125}.items()
      }
      file.write(json.dumps(run._asdict() | {'results': results}) + '\n')


def test_all_arms_wait_in_the_order_of_seeds_where_there_is_no_file(tmp_path):
  waiting = study.waiting(runs(), tmp_path / 'none.jsonl')
  assert [run.seed for run in waiting] == [0, 0, 0, 0, 1, 1, 1, 1]
  assert len({run.folder(tmp_path) for run in waiting}) == 8


def test_what_has_a_line_of_the_same_command_waits_no_more(tmp_path):
  path = tmp_path / 'lines.jsonl'
  write(path, list(runs())[:5], lambda *_: 0.5)
  waiting = study.waiting(runs(), path)
  assert [(run.arm, run.seed) for run in waiting] == [
    ('across', 1),
    ('all pairs', 1),
    ('batch statistics', 1),
  ]
  assert len(study.waiting(runs(steps=30), path)) == 8


def test_differences_are_those_of_the_same_seed_and_recipe(tmp_path):
  path = tmp_path / 'lines.jsonl'
  write(path, runs(steps=30), lambda *_: 0.125)  # an earlier recipe
  values = {('default', 0): 0.5, ('default', 1): 0.75, ('across', 0): 0.25, ('across', 1): 0.625}
  now = [run for run in runs() if (run.arm, run.seed) in values]
  now += [run for run in runs(seeds=3) if (run.arm, run.seed) == ('all pairs', 2)]  # unpaired
  write(path, reversed(now), lambda *key: values.get(key, 0.875))
  scores, differences = mixtures.page(path).split('\n\n')
  easy, hard = ('0.625 (0.500 to 0.750)',) * 3, ('0.500 (0.375 to 0.625)',) * 3
  assert scores.splitlines()[2:] == [
    f'| default | scenes/easy | {" | ".join(easy)} |',
    f'| default | scenes/hard | {" | ".join(hard)} |',
    '| across | scenes/easy | 0.438 (0.250 to 0.625) | 0.438 (0.250 to 0.625) '
    '| 0.438 (0.250 to 0.625) |',
    '| across | scenes/hard | 0.312 (0.125 to 0.500) | 0.312 (0.125 to 0.500) '
    '| 0.312 (0.125 to 0.500) |',
    '| all pairs | scenes/easy | 0.875 | 0.875 | 0.875 |',
    '| all pairs | scenes/hard | 0.750 | 0.750 | 0.750 |',
  ]
  less = ('-0.188 (-0.250 to -0.125)',) * 3
  assert differences.splitlines()[2:] == [
    f'| across | {corpus} | {" | ".join(less)} |' for corpus in (mixtures.COMMON, mixtures.SCARCE)
  ]


def test_an_arm_differs_from_the_default_one_in_its_choice_alone():
  default, *others = (fields(run) for run in runs(seeds=1))
  assert [dict(other.items() - default.items()) for other in others] == [
    {'itm.negatives': 'across'},
    {'mlm.pairs': 'all'},
    {'cnn.batch_norm': 'batch'},
  ]


def fields(run):
  """The configuration of a run, checked as before training."""
  config, *words = shlex.split(f'{run.shared} {run.own}')
  overrides = [word.removeprefix('--config.') for word in words]
  config = configuration.load(config.removeprefix('--config='), overrides)
  configuration.check(config)
  return dict(configuration.flat(config.copy_and_resolve_references()))
