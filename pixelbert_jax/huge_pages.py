"""Huge pages for the large arrays of a process, on Linux.

A step on CPU allocates its activations anew. In pages of 4 KiB, the kernel takes an eighth
of R50's step to hand them out (benchmarks/results/train.jsonl); in pages of 2 MiB almost nothing.
"""

import contextlib
import os
import pathlib
import sys

MODE = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
ASKS = 'glibc.malloc.hugetlb=1'  # glibc 2.35 and later; earlier ones ignore it


def ask() -> None:
  """Starts the program again such that `malloc` asks the kernel for huge pages.

  glibc reads this setting only when a process starts, so call it first of all. Does nothing where
  the setting is there already, or the kernel gives huge pages to all processes, or to none.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if 'glibc.malloc.hugetlb' in tunables or not given_to_those_that_ask():
    return
  variables = os.environ | {'GLIBC_TUNABLES': ':'.join(filter(None, [tunables, ASKS]))}
  with contextlib.suppress(OSError):  # Without, it only runs slower.
    os.execve(sys.executable, sys.orig_argv, variables)


def given_to_those_that_ask() -> bool:
  """Tells whether the kernel gives huge pages to the processes that ask for them, and no others."""
  try:
    return '[madvise]' in MODE.read_text()
  except OSError:
    return False
