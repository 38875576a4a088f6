"""What pages and modules point to in the checkout: it exists."""

import re
import subprocess

import pytest

from tests.support.paths import ROOT

TRACKED = subprocess.run(
  ['git', 'ls-files', '*.md', '*.py'], cwd=ROOT, check=True, capture_output=True, text=True
).stdout.split()


@pytest.mark.parametrize('page', [name for name in TRACKED if name.endswith('.md')])
def test_every_link_of_a_page_leads_to_a_file(page):
  for target in re.findall(r'\]\(([^)#\s]+)', (ROOT / page).read_text()):
    if '://' not in target:
      assert ((ROOT / page).parent / target).exists(), f'{page}: {target}'


def test_every_measurement_that_is_named_is_there():
  named = {
    (name, file)
    for name in TRACKED
    for file in re.findall(r'\bresults/[\w/]+\.jsonl?', (ROOT / name).read_text())
  }
  assert len(named) > 10
  for name, file in named:
    assert (ROOT / 'benchmarks' / file).exists(), f'{name}: {file}'
