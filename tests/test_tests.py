"""Rules of the tests themselves."""

import re

from tests.support.paths import ROOT


def test_nothing_imports_a_test_module():
  # What test modules share lies in tests/support; the trials are programs of their own.
  forbidden = re.compile(
    r'(?:from|import) tests'
    r'(?!\.support\b|\.reliability\b(?!\.test_)| import (?:support|many_hosts)\b)\b.*'
  )
  found = {path: forbidden.findall(path.read_text()) for path in ROOT.glob('tests/**/*.py')}
  del found[ROOT / 'tests/test_tests.py']
  assert {path: lines for path, lines in found.items() if lines} == {}
