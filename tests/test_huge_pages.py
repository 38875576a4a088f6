"""A command runs with huge pages where the kernel gives them to those that ask."""

import os
import subprocess
import sys

import pytest

from pixelbert_jax import huge_pages

GIVEN = pytest.mark.skipif(
  not huge_pages.given_to_those_that_ask(), reason='a kernel that gives huge pages to all, or none'
)
# Starts itself again, fills 64 MiB and prints how much of its memory lies in huge pages, in KiB.
CODE = """
import pathlib, re, sys
from pixelbert_jax import huge_pages
huge_pages.ask()
memory = bytearray(1 << 26)
memory[::4096] = b'x' * (1 << 14)
rollup = pathlib.Path('/proc/self/smaps_rollup').read_text()
print(re.search(r'AnonHugePages: *([0-9]+)', rollup)[1], *sys.argv[1:])
"""


def run(**variables):
  environment = {name: x for name, x in os.environ.items() if name != 'GLIBC_TUNABLES'} | variables
  command = [sys.executable, '-W', 'error', '-c', CODE, 'a b', '--c=d']
  return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


@GIVEN
def test_large_arrays_lie_in_huge_pages_and_arguments_stay():
  kibibytes, *arguments = run().stdout.split(maxsplit=1)
  assert int(kibibytes) > 1 << 15
  assert arguments == ['a b --c=d\n']


@GIVEN
def test_a_user_may_turn_them_off_and_sets_other_tunables():
  off = run(GLIBC_TUNABLES='glibc.malloc.hugetlb=0')
  assert int(off.stdout.split()[0]) < 1 << 14
  both = run(GLIBC_TUNABLES='glibc.malloc.arena_max=2')
  assert int(both.stdout.split()[0]) > 1 << 15
  assert both.stderr == ''


def test_a_kernel_without_them_starts_nothing_again(monkeypatch, tmp_path):
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  monkeypatch.setattr(os, 'execve', lambda *_: pytest.fail('started again'))
  for mode in ('always madvise [never]', '[always] madvise never'):
    (tmp_path / 'enabled').write_text(mode)
    monkeypatch.setattr(huge_pages, 'MODE', tmp_path / 'enabled')
    huge_pages.ask()
  monkeypatch.setattr(huge_pages, 'MODE', tmp_path / 'none')
  huge_pages.ask()
