"""What a run reports: the log after a crash, the progress line, tables."""

import json
import math

import pytest

from pixelbert_jax import metrics
from pixelbert_jax.metrics import MetricsLog, Progress, duration, table


def lines(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def write(workdir, steps, restored=0):
  log = MetricsLog(workdir, restored)
  for step in steps:
    log.write(step, 'train', {'loss': step / 8})
  log.close()


def test_lines_are_on_disk_at_once(tmp_path):
  log = MetricsLog(tmp_path, 0)
  log.write(3, 'train', {'loss': 0.5, 'itm_accuracy': 1})
  assert lines(tmp_path) == [{'step': 3, 'split': 'train', 'loss': 0.5, 'itm_accuracy': 1.0}]
  log.close()
  assert list((tmp_path / 'tensorboard').glob('events*'))


def test_on_resuming_the_log_is_cut_back_to_the_restored_step(tmp_path):
  write(tmp_path, [1, 2, 3, 4, 5])
  write(tmp_path, [4, 5, 6], restored=3)
  assert [line['step'] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
  write(tmp_path, [], restored=0)
  assert lines(tmp_path) == []


@pytest.mark.parametrize('cut', [1, 2, 20])
def test_half_a_line_of_a_killed_run_is_dropped(tmp_path, cut):
  write(tmp_path, [1, 2, 3])
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-cut])
  write(tmp_path, [3], restored=3)
  assert [line['step'] for line in lines(tmp_path)] == [1, 2, 3]


def cut(lines):
  return lines[:1], 'it has 1 of 3 lines'


def empty(lines):
  return [], 'it has 0 of 3 lines'


def alter(lines):
  return [lines[0].replace('0.125', '0.1'), *lines[1:]], 'its first 3 lines have changed'


def exchange(lines):
  return [lines[1], lines[0], *lines[2:]], 'its first 3 lines have changed'


@pytest.mark.parametrize('damage', [cut, empty, alter, exchange])
def test_a_log_that_is_not_the_one_that_was_saved_with_is_said_and_kept(tmp_path, capsys, damage):
  log = MetricsLog(tmp_path, 0)
  for step in (1, 2, 3):
    log.write(step, 'train', {'loss': step / 8})
  mark = log.mark()
  log.write(4, 'train', {'loss': 4 / 8})
  log.close()
  path = tmp_path / 'metrics.jsonl'
  found, fault = damage(path.read_text().splitlines(keepends=True))
  path.write_text(''.join(found))
  log = MetricsLog(tmp_path, 3, mark=mark)
  log.write(4, 'train', {'loss': 0.5})
  mark = log.mark()
  log.close()
  aside = tmp_path / 'metrics.jsonl.altered'
  said = f'{path} is not what step 3 was saved with: {fault}; going on with what is there'
  kept = f' (as found it is kept in {aside})' if found else ''
  assert capsys.readouterr().err == f'{said}{kept}\n'
  assert aside.exists() == bool(found)
  assert path.read_text() == ''.join([*found[:3], '{"step": 4, "split": "train", "loss": 0.5}\n'])
  # The new log is the one from now on.
  MetricsLog(tmp_path, 4, mark=mark).close()
  assert capsys.readouterr().err == ''


def test_what_is_no_line_of_a_log_is_said_and_kept_aside_under_a_free_name(tmp_path, capsys):
  for expected in ('metrics.jsonl.altered', 'metrics.jsonl.altered-2'):
    write(tmp_path, [1])
    path = tmp_path / 'metrics.jsonl'
    path.write_text(path.read_text() + 'by hand\n')
    MetricsLog(tmp_path, 1).close()
    assert ': line 2 is none of a log; going on with' in capsys.readouterr().err
    assert (tmp_path / expected).read_text().endswith('by hand\n')
    assert [line['step'] for line in lines(tmp_path)] == [1]


def test_no_line_is_doubled(tmp_path):
  for _ in range(2):
    log = MetricsLog(tmp_path, 3)
    for split in ('train', 'val', 'val'):
      log.write(3, split, {'loss': 0.5})
    log.close()
  assert [(line['step'], line['split']) for line in lines(tmp_path)] == [(3, 'train'), (3, 'val')]


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_the_log_is_strict_json(tmp_path, value):
  log = MetricsLog(tmp_path, 0)
  log.write(1, 'val', {'loss': 1.0})
  with pytest.raises(ValueError, match='not JSON compliant'):
    log.write(2, 'val', {'loss': value})
  log.close()
  assert lines(tmp_path) == [{'step': 1, 'split': 'val', 'loss': 1.0}]


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0, '0:00'),
    (5.4, '0:05'),
    (59.6, '1:00'),
    (125, '2:05'),
    (3599.7, '1:00:00'),
    (3725, '1:02:05'),
    (86_399, '23:59:59'),
    (90_000, '1 day 1 h'),
    (500_000, '5 days 18 h'),
  ],
)
def test_durations(seconds, text):
  assert duration(seconds) == text


def test_a_table_is_aligned_and_shows_what_is_missing(tmp_path):
  text = table(
    'accuracy',
    ['own', 'swapped'],
    [('matching', [0.5, 1.0]), ('  hidden words', [math.nan, 0.12345])],
  )
  head, *rows = text.splitlines()
  assert {len(line) for line in (head, *rows)} == {len(head)}
  assert head.split() == ['accuracy', 'own', 'swapped']
  assert rows[0].split() == ['matching', '0.500', '1.000']
  assert rows[1].split() == ['hidden', 'words', '-', '0.123']
  assert head.index('own') + 3 == rows[0].index('0.500') + 5  # Columns end where numbers end.


def test_progress_tells_speed_and_time_left(monkeypatch, capsys):
  now = [100.0]
  monkeypatch.setattr(metrics.time, 'perf_counter', lambda: now[0])
  progress = Progress(10, 50)
  now[0] += 20
  assert progress.examples_per_second(20, 32) == pytest.approx(16)
  progress.show(20, {'loss': 1.23456, 'examples/s': 1234.5})
  now[0] += 5
  assert progress.examples_per_second(30, 32) == pytest.approx(64)
  progress.show(30, {'loss': 1.0})
  # The first report includes compiling; since then 10 steps in 5 seconds, and 20 steps to go.
  assert capsys.readouterr().out.splitlines() == [
    'step 20/50  loss 1.23  examples/s 1,234',
    'step 30/50  loss 1  left 0:10',
  ]


def test_what_is_done_apart_slows_neither_pace_nor_rate_but_takes_time(monkeypatch, capsys):
  now = [0.0]
  monkeypatch.setattr(metrics.time, 'perf_counter', lambda: now[0])
  progress = Progress(0, 30)
  rates = []
  for step in (10, 20):
    now[0] += 5
    progress.show_pace(step)
    rates.append(progress.examples_per_second(step, 32))
    progress.show(step, {})
    with progress.apart():
      now[0] += 100
  assert rates == [64, 64]
  assert capsys.readouterr().out.splitlines() == [
    'step 10/30',
    'pace        5 s per step: 17,280 steps per day, about 0:50 left',
    'step 20/30  left 1:45',
  ]


def test_the_pace_is_that_of_the_second_step(monkeypatch, capsys):
  now = [0.0]
  monkeypatch.setattr(metrics.time, 'perf_counter', lambda: now[0])
  progress = Progress(0, 10_002)
  for step, seconds in [(1, 500), (2, 36)]:
    now[0] += seconds
    progress.show_pace(step)
  assert capsys.readouterr().out == (
    'pace        36 s per step: 2,400 steps per day, about 4 days 4 h left\n'
  )
