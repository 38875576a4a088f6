"""The ablation runs what is missing in its order, and judges findings by rules set before."""

import json
import math

import pytest

from benchmarks import ablation, effects, findings, study
from benchmarks.ablation import CELLS, Recipe
from benchmarks.findings import FINDINGS, FULL, NONE, SEEDS
from pixelbert_jax import UserError, configuration
from tests.support.paths import ROOT

RECIPE = Recipe('runs/labels', 'scenes/medium', 2200, 'paper_small')
VQA = next(f for f in FINDINGS if (f.more, f.less) == (FULL, 'MLM') and f.task == 'vqa')
NLVR2 = next(f for f in FINDINGS if f.stuck is not None)


def write(path, name, seed, recipe=RECIPE, **metrics):
  """Writes the line of a piece; metrics are 0.5 unless they are given, and matching is 0.9."""
  values = {m: 0.5 for part in findings.METRICS.values() for m in part}
  values |= {'itm_accuracy': 0.9} | metrics
  parts = [*(['pretrain'] if name != NONE else []), *CELLS[name].tasks]
  results = {p: {m: values[m] for m in findings.METRICS[p]} | {'log_sha256': '0'} for p in parts}
  for part in results.values():
    part['seconds'] = 600
  with path.open('a') as file:
    file.write(json.dumps(recipe.run(name, seed)._asdict() | {'results': results}) + '\n')


def bound(path, least=0.05, recipe=RECIPE):
  """Writes the same smallest effect of all metrics."""
  smallest = {finding.metric: least for finding in FINDINGS}
  line = json.dumps({'shared': recipe.shared, 'smallest': smallest})
  with findings.beside(path, 'resolution').open('a') as file:
    file.write(line + '\n')


def words(path):
  return {effect.finding: effect.word for effect in findings.effects(path)}


def asked(path, *flags):
  """What is missing, by cell and seed, and the exit code of a command that runs nothing."""
  done = []
  recipe = ['--init_from=runs/labels', '--data=scenes/medium', f'--output={path}']
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(study, 'go', lambda runs, *_: done.extend((x.arm, x.seed) for x in runs) or 1)
    ablation.command([*recipe, *flags])
  return done


def test_other_cells_wait_for_the_smallest_effect(tmp_path):
  path = tmp_path / 'lines.jsonl'
  assert asked(path, '--resolve') == [(FULL, seed) for seed in SEEDS]
  assert asked(path, f'--cell={FULL}', '--seed=1') == [(FULL, 1)]
  with pytest.raises(UserError, match=r'lines_resolution\.jsonl has no smallest effect'):
    asked(path)
  assert asked(path, '--cell=none', '--seed=100') == [('none', 100)]  # calibration
  bound(path, recipe=RECIPE._replace(steps=99))
  with pytest.raises(UserError, match='add --resolve'):
    asked(path, '--cell=none')
  bound(path)
  assert asked(path) == [(name, seed) for name in CELLS for seed in SEEDS]


def test_what_has_a_line_of_the_same_recipe_is_not_run_again(tmp_path):
  path = tmp_path / 'lines.jsonl'
  bound(path)
  for name in CELLS:
    write(path, name, 1)
  assert asked(path) == [(name, seed) for name in CELLS for seed in (0, 2)]
  assert asked(path, '--cell=none', '--seed=1') == []
  bound(path, recipe=RECIPE._replace(steps=1000))
  assert len(asked(path, '--steps=1000')) == 18


def test_the_smallest_effect_is_students_bound_for_two_means():
  # 4.303 is Student's for 2 degrees of freedom; the deviation is 0.1.
  assert findings.smallest([0.4, 0.5, 0.6]) == pytest.approx(4.3027 * 0.1 * math.sqrt(2 / 3), 1e-4)
  assert findings.smallest([0.5, 0.5, 0.5]) == 0.01


def test_the_smallest_effects_are_of_every_metric_and_written_once(tmp_path):
  path = tmp_path / 'lines.jsonl'
  for seed, score in enumerate((0.4, 0.5, 0.6)):
    write(path, FULL, seed, vqa_accuracy=score)
  ablation.resolve(RECIPE, path)
  found = findings.resolved(path, RECIPE.shared)
  assert found.keys() == {finding.metric for finding in FINDINGS}
  assert found['vqa_accuracy'] == findings.smallest([0.4, 0.5, 0.6])
  assert found['nlvr_accuracy'] == findings.LEAST
  ablation.resolve(RECIPE, path)
  assert len(study.read(findings.beside(path, 'resolution'))) == 1


@pytest.mark.parametrize(
  ('less', 'word'),
  [
    ((0.40, 0.43, 0.46), 'reproduced'),
    ((0.58, 0.56, 0.57), 'not reproduced'),
    ((0.46, 0.47, 0.48), 'inconclusive'),  # smaller than what is resolved
    ((0.30, 0.30, 0.51), 'inconclusive'),  # a seed has another sign
    ((0.40, 0.43), '2 of 3 seeds'),
  ],
)
def test_the_word_for_a_finding(tmp_path, less, word):
  path = tmp_path / 'lines.jsonl'
  bound(path)
  for seed, score in enumerate(less):
    write(path, 'MLM', seed, vqa_accuracy=score)
  for seed in (2, 0, 1):
    write(path, FULL, seed)
  assert words(path)[VQA] == word
  (effect,) = (x for x in findings.effects(path) if x.finding == VQA)
  assert effect.differences == pytest.approx([0.5 - x for x in less])
  # Without the smallest effect nothing is resolved.
  findings.beside(path, 'resolution').unlink()
  assert words(path)[VQA] == ('inconclusive' if len(less) == 3 else word)


@pytest.mark.parametrize(('without', 'word'), [(0.54, 'reproduced'), (0.56, 'not reproduced')])
def test_what_is_not_learnt_stays_at_chance_with_every_seed(tmp_path, without, word):
  path = tmp_path / 'lines.jsonl'
  bound(path)
  for seed in SEEDS:
    write(path, FULL, seed, nlvr_accuracy=0.7)
    write(path, 'ITM', seed, nlvr_accuracy=without if seed == 1 else 0.5)
  assert words(path)[NLVR2] == word


def test_nothing_counts_where_matching_is_not_learnt_or_the_baseline_was_tried_less(tmp_path):
  path = tmp_path / 'lines.jsonl'
  bound(path)
  for seed in SEEDS:
    write(path, FULL, seed, vqa_accuracy=0.9)
    write(path, 'MLM', seed)
  assert words(path)[VQA] == 'reproduced'
  easy = RECIPE._replace(data='scenes/easy')
  write(path, FULL, 100, easy)
  assert words(path)[VQA] == 'does not count: 0 trials of none, 1 of MLM+ITM'
  write(path, NONE, 100, easy)
  assert words(path)[VQA] == 'reproduced'
  lines = path.read_text()
  path.write_text(lines.replace('"itm_accuracy": 0.9', '"itm_accuracy": 0.79', 1))
  assert words(path)[VQA] == 'does not count: MLM+ITM has 0.790 in matching'


def test_the_tables_have_the_cells_the_findings_and_the_calibration(tmp_path):
  path = tmp_path / 'lines.jsonl'
  assert len(findings.tables(path)) == 2  # no pieces yet
  bound(path)
  write(path, FULL, 0, RECIPE._replace(steps=99), vqa_accuracy=0.1)  # an earlier recipe
  for seed in SEEDS:
    write(path, FULL, seed, vqa_accuracy=0.6 + seed / 10)
    write(path, NONE, seed, vqa_accuracy=0.4)
  write(path, NONE, 100, RECIPE._replace(data='scenes/hard'))
  scores, tested, tried = (x.splitlines()[2:] for x in findings.tables(path))
  half = '0.500 (0.500 to 0.500)'
  minutes = '10.0 (10.0 to 10.0)'
  assert scores == [
    f'| {FULL} | 3 | 0.900 (0.900 to 0.900) | {half} | 0.700 (0.600 to 0.800) '
    f'| {half} | {half} | {half} | {half} | {half} | {minutes} |',
    f'| none | 3 |  |  | 0.400 (0.400 to 0.400) | {half} | {half} | {half} | {half} |  |  |',
  ]
  assert tested == []  # no finding is of these two
  assert tried == [f'| none | scenes/hard | 2200 | 100 |  |  |{5 * " 0.500 |"}  |']
  for seed in SEEDS:
    write(path, 'MLM', seed, vqa_accuracy=0.5)
  row = findings.tables(path)[1].splitlines()[3]
  assert row == (
    '| ITM helps VQA | MLM+ITM - MLM | VQA | +0.016 | +0.200 (+0.100 to +0.300) | 0.050 '
    '| reproduced |'
  )


def test_the_drawing_is_of_the_findings_and_knows_its_files(tmp_path):
  path, drawing = tmp_path / 'lines.jsonl', tmp_path / 'drawing.svg'
  bound(path)
  for seed in SEEDS:
    write(path, FULL, seed, vqa_accuracy=0.9)
    write(path, 'MLM', seed)
  effects.draw(path, drawing)
  before = effects.digest(path)
  assert before in drawing.read_text()
  write(path, NONE, 0)
  assert effects.digest(path) != before


def test_a_digest_of_a_log_is_of_all_but_the_clock():
  line = {'step': 1, 'loss': 0.5, 'examples_per_second': 9.0, 'waiting_seconds_per_second': 0.1}
  same = ablation.digest([line]), ablation.digest([line | {'examples_per_second': 7.0}])
  assert same[0] == same[1]
  assert ablation.digest([line | {'loss': math.nextafter(0.5, 1)}]) != same[0]


def test_the_seconds_of_a_run_are_those_of_its_steps_however_often_it_was_broken_off(tmp_path):
  lines = [
    {'step': 100, 'split': 'train', 'examples_per_second': 64.0},
    {'step': 100, 'split': 'validation', 'vqa_accuracy': 0.5},
    {'step': 150, 'split': 'train', 'examples_per_second': 16.0},
    {'step': 150, 'split': 'test', 'vqa_accuracy': 0.5},
  ]
  (tmp_path / 'config.json').write_text('{"batch_size": 32}')
  assert study.seconds(tmp_path, lines) == 100 * 32 / 64 + 50 * 32 / 16


def test_again_compares_with_the_line_and_says_what_differs(tmp_path, monkeypatch, capsys):
  path = tmp_path / 'lines.jsonl'
  write(path, NONE, 0)
  logs = {'vqa': '0', 'retrieval': '1'}
  folders = []

  def execute(recipe, run, folder):
    folders.append(run.folder(folder))
    return {part: {'log_sha256': digest} for part, digest in logs.items()}

  monkeypatch.setattr(Recipe, 'execute', execute)
  flags = ['--init_from=runs/labels', '--data=scenes/medium', f'--output={path}', '--again']
  assert ablation.command([*flags, f'--runs={tmp_path}']) == 1
  assert 'none, seed 0, again: vqa the same, retrieval differs' in capsys.readouterr().out
  (line,) = study.read(findings.beside(path, 'again'))
  assert line['results'] == {'vqa': True, 'retrieval': False}
  assert [folder.parent for folder in folders] == [tmp_path / 'again']
  with pytest.raises(UserError, match='has no such piece'):
    ablation.command([*flags, '--cell=ITM'])


@pytest.mark.parametrize('name', CELLS)
@pytest.mark.parametrize('variant', ['paper_small', 'test'])
def test_every_part_of_a_piece_is_a_configuration_that_fits(tmp_path, name, variant):
  recipe = RECIPE._replace(variant=variant)
  run = recipe.run(name, 2)
  parts = list(recipe.parts(run, tmp_path))
  loaded = {part: fields(flags) for part, _, flags in parts}
  assert all(x['seed'] == 2 and x['data.name'] == 'scenes/medium' for x in loaded.values())
  pretrained = [str(workdir) for part, workdir, _ in parts if part == 'pretrain']
  tuned = [x['init_from'] for part, x in loaded.items() if part != 'pretrain']
  assert tuned == [*(pretrained or ['runs/labels'])] * len(CELLS[name].tasks)
  assert len({workdir for _, workdir, _ in parts}) == len(parts)
  assert loaded['retrieval']['optimizer.cnn_rule'] == 'none'
  assert (loaded['vqa']['optimizer.cnn_rule'] == 'none') == (name == 'fixed CNN')
  assert (name == NONE) == ('pretrain' not in loaded)


def test_cells_differ_from_the_full_one_in_one_thing():
  full, *others = (
    fields(next(RECIPE.parts(RECIPE.run(n, 0), ROOT))[2]) for n in CELLS if n != NONE
  )
  assert [dict(other.items() - full.items()) for other in others] == [
    {'itm_weight': 0.0},
    {'mlm_weight': 0.0},
    {'sampled_pixels': 0},
    {'optimizer.cnn_rule': 'none'},
  ]
  assert full['optimizer.decay_epochs'] == (2.75, 3.85)  # of 4.4: 25 and 35 of 40
  assert full['sampled_pixels'] == 7


def fields(words):
  """The configuration of a part, checked as before training."""
  config, *overrides = [word for word in words if not word.startswith('--workdir=')]
  overrides = [word.removeprefix('--config.') for word in overrides]
  loaded = configuration.load(str(ROOT / config.removeprefix('--config=')), overrides)
  configuration.check(loaded)
  return dict(configuration.flat(loaded.copy_and_resolve_references()))
