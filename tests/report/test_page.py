"""The report of a run: what it shows, and that it shows what the run's own files say."""

import base64
import dataclasses
import io
import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from pixelbert_jax import configuration
from pixelbert_jax.main import main
from pixelbert_jax.report import __main__ as report
from pixelbert_jax.report import after, comparison, setting
from pixelbert_jax.report.run import Run
from tests.support import pages
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures('quick_compiles')
SCRIPT = '<script>document.title = "taken"</script> & "more"'


@pytest.fixture(scope='module')
def flags(few_scenes):
  fields = {'data.data_dir': few_scenes, 'steps': 8, 'eval_every': 4, 'save_every': 4}
  return [f'--config.{name}={value}' for name, value in fields.items()]


@pytest.fixture(scope='module')
def finished(flags, tmp_path_factory):
  """A run of the command."""
  folder = tmp_path_factory.mktemp('runs') / 'vqa'
  assert main([f'--config={ROOT}/configs/vqa.py:test', f'--workdir={folder}', *flags]) == 0
  return folder


@pytest.fixture
def copied(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / 'copied')


def page(folder, name='index.html') -> pages.Element:
  return pages.parse((folder / 'report' / name).read_text())


def again(*words) -> int:
  return report.main([str(word) for word in words])


def shown(root: pages.Element) -> dict[str, tuple[str, str]]:
  """Returns answer and score of each example by its id."""
  return {
    x.attributes['data-id']: (x.one('given').text, x.one('score').text)
    for x in root.all(cls='example')
  }


def replace_json(path, change) -> None:
  path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_a_run_ends_with_a_report_of_its_own_files(finished, dataset):
  root = page(finished)
  answers = json.loads((finished / 'predictions/test.json').read_text())
  answers = {str(entry['question_id']): entry['answer'] for entry in answers}
  scores = json.loads((finished / 'predictions/test_scores.json').read_text())
  examples = list(root.all(cls='example'))
  assert {'right', 'wrong'} <= set().union(*(x.classes for x in examples))
  sidecar = dataset['test'].sidecar
  for x in examples:
    name = x.attributes['data-id']
    assert x.one('given').text == answers[name]
    assert x.one('score').text == f'{scores[name]:.3g}'
    assert ('right' in x.classes) == (scores[name] >= 0.5)
    row = sidecar.questions.id.tolist().index(int(name))
    assert x.one('text').text == sidecar.questions.text.text(row)
    (picture,) = x.all('img')
    data = picture.attributes['src'].removeprefix('data:image/jpeg;base64,')
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), float)
    own = dataset['test'].encoded(int(sidecar.questions.image[row]))
    assert np.abs(pixels - np.asarray(Image.open(io.BytesIO(own)), float)).mean() < 8
  lines = [json.loads(line) for line in (finished / 'metrics.jsonl').read_text().splitlines()]
  result = root.one('result').text
  assert f'all questions {lines[-1]["vqa_accuracy"]:.3f}' in result
  assert f'{lines[-1]["vqa_accuracy/guess"]:.3f}' in result
  assert 'to choose from; score: official VQA accuracy' in root.one('summary').text
  assert {next(row.all('td')).text for row in root.one('versions').all('tr')} >= {'jax', 'devices'}
  assert len(list(root.all(cls='heat'))) == 4
  assert len(list(root.all('svg'))) == 4


def test_the_page_asks_nothing_of_the_network(finished):
  root = page(finished)
  assert not list(root.all('script')) + list(root.all('link')) + list(root.all('iframe'))
  targets = [
    value for x in root.all() for name, value in x.attributes.items() if re.search('src|href', name)
  ]
  assert {re.match('data:image/jpeg;|#', target)[0] for target in targets} == {
    'data:image/jpeg;',
    '#',
  }
  assert 'url(http' not in (finished / 'report/index.html').read_text()


def test_confusion_counts_every_prediction(finished, dataset):
  tables = list(page(finished).all(cls='confusion'))
  counts = [int(x.text.replace(',', '')) for table in tables for x in table.all('td')]
  assert sum(counts) == len(dataset['test'].sidecar.questions)


def test_the_command_repeats_the_run_and_what_differs_from_the_variant_is_marked(finished, flags):
  root, config = page(finished), Run.read(finished).config
  words = shlex.split(root.one('command').text)
  assert words[:4] == ['python', '-m', 'pixelbert_jax.main', '--config=configs/vqa.py:test']
  overrides = [word.removeprefix('--config.') for word in words[4:-1]]
  assert sorted(overrides) == sorted(flag.removeprefix('--config.') for flag in flags)
  marked = {next(row.all('td')).text for row in root.all('tr', 'changed')}
  assert marked == {word.partition('=')[0] for word in overrides}
  made = setting.fields(configuration.load(words[3].removeprefix('--config='), overrides))
  same = {name: value for name, value in setting.fields(config).items() if made[name] != value}
  assert same.keys() == {'cnn.batch_norm', 'text.vocabulary'}  # left open, and resolved


def test_what_users_write_is_shown_as_text(copied):
  def of_script(entries):
    return [entry | {'answer': SCRIPT} for entry in entries]

  replace_json(copied / 'predictions/test.json', of_script)
  replace_json(copied / 'config.json', lambda config: config | {'init_from': SCRIPT})
  log = copied / 'metrics.jsonl'
  log.write_text(log.read_text().replace('"loss"', '"<script>_accuracy"'))
  assert again(copied) == 0
  root = page(copied)
  assert not list(root.all('script'))
  assert any(x.text.startswith('<script>_accuracy, ') for x in root.all('text'))
  assert {answer for answer, _ in shown(root).values()} == {SCRIPT}
  assert SCRIPT in [cell.text for cell in root.all('td')]


def test_without_its_data_a_run_has_a_report_without_images(copied, tmp_path):
  def elsewhere(config):
    return config | {'data': config['data'] | {'data_dir': str(tmp_path / 'none')}}

  before = page(copied)
  replace_json(copied / 'config.json', elsewhere)
  assert again(copied) == 0
  root = page(copied)
  assert 'is not built' in root.one('missing').text
  assert not list(root.all('img'))
  assert not (tmp_path / 'none').exists()
  assert root.one('result').text == before.one('result').text
  answers = json.loads((copied / 'predictions/test.json').read_text())
  answers = {str(entry['question_id']): entry['answer'] for entry in answers}
  assert shown(root)
  assert all(answers[name] == x for name, (x, _) in shown(root).items())


def test_data_that_was_built_again_is_not_taken_for_that_of_the_run(copied):
  def other(data):
    return {'scenes': data['scenes'] | {'test': data['scenes']['test'] | {'images': '0' * 64}}}

  replace_json(copied / 'data.json', other)
  assert again(copied) == 0
  assert 'built again since (test has other images)' in page(copied).one('missing').text


def test_a_report_that_fails_leaves_the_run_and_says_so(copied, capsys):
  (copied / 'predictions/test_scores.json').write_text('{')
  (copied / 'report/index.html').unlink()
  after(copied)
  assert re.fullmatch(r'warning: \S+copied has no report \(.*\)\n', capsys.readouterr().err)
  assert not (copied / 'report/index.html').exists()


def test_a_run_that_goes_on_has_curves_and_no_result(copied):
  lines = (copied / 'metrics.jsonl').read_text().splitlines(keepends=True)
  (copied / 'metrics.jsonl').write_text(''.join(lines[:-1]))
  assert again(copied) == 0
  root = page(copied)
  assert not list(root.all(cls='result'))
  assert 'has not ended' in root.text
  assert len(list(root.all('svg'))) == 4


def test_an_evaluation_ends_with_a_report_too(finished, flags, tmp_path, capsys):
  folder = tmp_path / 'evaluated'
  evaluate = [f'--config={ROOT}/configs/vqa.py:test', '--mode=evaluate', *flags[:1]]
  evaluate += [f'--checkpoint={finished}@4', '--config.data.test=val', f'--workdir={folder}']
  assert main(evaluate) == 0
  printed, said = capsys.readouterr()
  assert not said
  root = page(folder)
  assert root.one('result').text in ' '.join(printed.split())
  assert f'--checkpoint={finished}@4' in shlex.split(root.one('command').text)
  answers = json.loads((folder / 'predictions/val.json').read_text())
  answers = {str(entry['question_id']): entry['answer'] for entry in answers}
  assert shown(root)
  assert all(answers[name] == x for name, (x, _) in shown(root).items())
  assert len(list(root.all(cls='heat'))) == 4


def test_a_folder_that_is_none_of_a_run_is_one_line(tmp_path, capsys):
  assert again(tmp_path) == 1
  assert capsys.readouterr().err == (
    f'error: {tmp_path} is no workdir of a run or evaluation: name one\n'
  )


# --- Several runs ------------------------------------------------------------------------------


def test_runs_are_compared_on_the_same_questions(finished, copied, tmp_path):
  # The second gives the right answer to every question.
  split = Run.read(finished).results[0].data
  table = split.sidecar.questions
  right = {
    int(name): table.strings.text(answer)
    for name, answer in zip(table.id, table.multiple_choice_answer, strict=True)
  }
  replace_json(
    copied / 'predictions/test.json',
    lambda entries: [entry | {'answer': right[entry['question_id']]} for entry in entries],
  )
  replace_json(copied / 'config.json', lambda config: config | {'seed': 7})
  output = tmp_path / 'two.html'
  assert again(finished, copied, f'--output={output}') == 0
  root = pages.parse(output.read_text())
  scores = json.loads((finished / 'predictions/test_scores.json').read_text()).values()
  name, *cells = (cell.text for cell in list(root.one('differences').all('td')))
  best, first, difference, interval = cells
  assert name == 'accuracy'
  assert float(first) == pytest.approx(100 * np.mean(list(scores)), abs=0.006)
  assert float(difference) == pytest.approx(float(best) - float(first), abs=0.011)
  low, high = (float(x) for x in interval.split(' to '))
  assert 0 < low < float(difference) < high
  assert [cell.text for cell in root.one('fields').all('td')] == ['seed', '0', '7']
  assert len(list(root.all('svg'))) >= 4
  assert [x.text for x in root.all('li')] == ['vqa', 'copied']


def test_runs_on_other_splits_are_not_paired(finished):
  run = Run.read(finished)
  (result,) = run.results
  other = dataclasses.replace(run, results=[dataclasses.replace(result, split='val')])
  found = comparison.difference(run, lambda: comparison._scored(run), 'other', other)
  assert (found.rows, found.reason) == ({}, 'they are of other tasks, datasets or splits')


def test_runs_without_common_examples_are_compared_without_intervals(finished, copied, tmp_path):
  def elsewhere(config):
    return config | {'data': config['data'] | {'data_dir': str(tmp_path / 'none')}}

  replace_json(copied / 'config.json', elsewhere)
  assert again(finished, copied) == 0
  root = page(finished, 'comparison.html')
  assert not list(root.all(cls='differences'))
  assert 'cannot be opened' in root.one('missing').text
  assert len(list(root.all(cls='result'))) == 2
