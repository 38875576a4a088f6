"""The example of docs/add_a_task.md, run as it stands there."""

import json
import re
import subprocess
import sys

from data.builders import open_dataset
from tests.support.paths import ROOT


def test_the_example_trains_evaluates_and_takes_the_matching_head(
  few_scenes, environment, tmp_path
):
  page = (ROOT / 'docs/add_a_task.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  assert len(code.splitlines()) <= 55
  script = tmp_path / 'yesno.py'
  script.write_text(code)
  (command,) = re.findall(r'^    python yesno.py (.*)$', page, re.MULTILINE)
  assert command == '--config=configs/vqa.py:test --config.name=yesno'

  config = f'--config={ROOT}/configs/vqa.py:test', '--config.name=yesno'

  def run(*flags):
    done = subprocess.run(
      [sys.executable, script, *config, *flags],
      env=environment | {'PYTHONPATH': str(ROOT)},
      cwd=tmp_path,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout

  short = '--config.steps=4', '--config.eval_every=2', '--config.micro_batches=2'
  out = run(*short)
  lines = list(
    map(json.loads, (tmp_path / 'runs/yesno-test-s0/metrics.jsonl').read_text().splitlines())
  )
  assert [x['split'] for x in lines] == ['train', 'train', 'val', 'train', 'train', 'val', 'test']
  assert re.search(rf'^yesno_accuracy +{lines[-1]["yesno_accuracy"]:.3f}$', out, re.MULTILINE)

  questions = open_dataset('scenes', few_scenes)['test'].sidecar.questions
  kinds = [questions.strings.text(i) for i in questions.answer_type]
  asked = {questions.text.text(i) for i, kind in enumerate(kinds) if kind == 'yes/no'}
  said = json.loads((tmp_path / 'runs/yesno-test-s0/predictions/test.json').read_text())
  assert said.keys() == asked

  again = run('--mode=evaluate', f'--checkpoint={tmp_path}/runs/yesno-test-s0', '--workdir=other')
  (again,) = re.findall(r'^yesno_accuracy .*', again, re.MULTILINE)
  assert again in out
