"""Compiling: programs are announced before they compile, and kept in a folder for the next start.

The folder is JAX's persistent compilation cache. A program that is found there is read, and gives
to the bit what the one that was compiled gave. Of several processes the first writes and all read,
so it lies where all see it. Whatever is wrong with it costs time only, and is said once.
"""

import functools
import os
import pathlib
import re
import sys
import time
import warnings
from typing import Any

import jax

from pixelbert_jax import processes, stopping

# JAX's warnings of an entry that cannot be read or written.
FAULT = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for '([^']*)': (.*)", re.DOTALL
)


def keep(setting: str, runs: pathlib.Path) -> None:
  """Keeps compiled programs in a folder; call it before the first one is compiled.

  A folder that JAX was given, by $JAX_COMPILATION_CACHE_DIR, stays. One that cannot be written is
  not used, which is said on stderr.

  Args:
    setting: `config.compilation_cache`: the folder; '' is `compilation_cache` in `runs`, and 'none'
      keeps no programs.
    runs: the folder of the workdir.
  """
  if not jax.config.values['jax_compilation_cache_dir'] and setting != 'none':
    folder = pathlib.Path(setting or runs / 'compilation_cache').absolute()
    # JAX makes the folder when it has a program; a run that is refused before leaves none.
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK):
      jax.config.update('jax_compilation_cache_dir', str(folder))
    elif processes.is_first():
      print(
        f'compilation cache: {folder} cannot be written: each start compiles anew; give another '
        'folder by --config.compilation_cache, or none',
        file=sys.stderr,
      )
  warnings.filterwarnings('always', FAULT.pattern)
  if not isinstance(warnings.showwarning, functools.partial):  # else of an earlier run
    warnings.showwarning = functools.partial(_show, warnings.showwarning, set())


def _show(others: Any, said: set[str], message: Warning | str, *where: Any, **more: Any) -> None:
  """Shows a warning; JAX's of its cache as one line, and only the first."""
  found = FAULT.match(str(message))
  if not found:
    others(message, *where, **more)
    return
  verb, program, reason = found.groups()
  folder = str(jax.config.values['jax_compilation_cache_dir'])
  if verb == 'reading' and processes.is_first():
    # Else it would stay: JAX writes what it compiles instead only where there is none.
    for entry in pathlib.Path(folder).glob(f'{program}-*'):
      entry.unlink(missing_ok=True)
  if processes.is_first() and not said:
    lines = reason.strip().splitlines() or ['']
    what = {'reading': 'read', 'writing': 'written'}[verb]
    print(
      f'compilation cache: {program} in {folder} cannot be {what} ({lines[0][:200]}): it is '
      'compiled',
      file=sys.stderr,
    )
    said.add(folder)


def compiled(jitted: Any, *arguments: Any, title: str, place: str = '') -> Any:
  """Compiles a program for arguments of these shapes, and prints its time and memory.

  Prints before it starts, too. A signal that asks to stop is heard (`stopping.heard`).

  Args:
    jitted: what `jax.jit` returned.
    arguments: arrays, or their shapes, types and shardings.
    title: of the program.
    place: of the program among several, '(2 of 5)'.

  Raises:
    Stopped: a signal asked for it.
  """
  print(' '.join(filter(None, ['compiling  ', title, place, '...'])), flush=True)
  began = time.perf_counter()
  # Traced in this thread, which alone knows its JAX settings.
  program = stopping.heard(jitted.lower(*arguments).compile)
  memory: Any = program.memory_analysis()
  total = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  print(
    f'compiled    {title} in {time.perf_counter() - began:.0f} s; '
    f'{total / 2**20:,.0f} MiB per device',
    flush=True,
  )
  return program
