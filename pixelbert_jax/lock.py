"""A lock file: one process at a time writes into a folder.

The file names its owner, who renews it every RENEWED seconds and deletes it at the end. What a
killed process left behind is taken over by the next one:

- In the same container or on the same machine without any, at once: no process has that number, or
  one that was started at another time. In another container of the machine, at once too: the owner
  holds the file by `flock`, which the kernel frees when that process is gone.
- From another machine, or where there is no `flock`, once it was not renewed for STALE seconds by
  the clock of the file system, which is that of a file just written beside it. Until then the next
  process waits; if the lock is renewed meanwhile, its owner lives, and the process is refused.

Of several processes that find no lock, one makes it: by a hard link or, where a file system has
none (a mounted bucket), by exclusive creation. An owner that did not renew its lock, such as a
suspended one, may find that another has taken it; `check` tells before anything is written.
"""

import contextlib
import errno
import functools
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from pixelbert_jax import UserError, disk, jsons

RENEWED = 20.0  # seconds between two renewals
STALE = 120.0  # seconds without one after which an owner on another machine counts as gone
POLLED = 0.5  # seconds between two looks at a lock that is waited for
SETTLED = 2.0  # seconds in which others, who found the same lock stale, would replace it too

TOKEN = uuid.uuid4().hex  # of this process
STARTED = time.strftime('%Y-%m-%d %H:%M:%S')
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL}

Owner = dict[str, Any]  # the content of a lock file


class LockError(UserError):
  """A folder that another process is writing."""


@contextlib.contextmanager
def held(
  path: disk.Path,
  what: str,
  cure: str,
  waits: bool = False,
  tidy: Callable[[], Any] = lambda: None,
) -> Iterator[None]:
  """Holds a lock file, and makes its folder if that is missing.

  Args:
    path: of the lock file.
    what: is locked, as an error names it.
    cure: what to do instead, as an error says it: 'give another --output'.
    waits: for the owner to end, instead of raising LockError.
    tidy: is called with the lock held, to delete what killed processes left on a full disk.

  Raises:
    LockError: another process holds it.
    UserError: the folder cannot be written.
  """
  path = pathlib.Path(path).absolute()
  made = [folder for folder in path.parents if not folder.exists()]
  try:
    with disk.writing(path.parent, cure=cure):
      path.parent.mkdir(parents=True, exist_ok=True)
      file = _take(path, what, cure, waits)
    ended = threading.Event()
    threading.Thread(target=_renew, args=(path, ended), name='lock', daemon=True).start()
    try:
      tidy()
      with disk.writing(path.parent, cure=cure):
        _describe(file)
      yield
    finally:
      ended.set()
      with contextlib.suppress(OSError):
        if _is_own(path) or not path.stat().st_size:
          path.unlink()
      os.close(file)
  finally:
    for folder in made:  # if nothing was written there
      with contextlib.suppress(OSError):
        folder.rmdir()


def check(path: disk.Path) -> None:
  """Raises LockError if another process holds the lock."""
  owner = _owner(pathlib.Path(path))
  if owner.get('token', TOKEN) != TOKEN:
    raise LockError(
      f'{path} was taken by {_words(owner)} while this process was suspended or could not renew '
      'it: this one stops and writes nothing more'
    )


def _take(path: pathlib.Path, what: str, cure: str, waits: bool) -> int:
  """Takes a lock; returns its open file."""
  seen, since = None, 0.0
  while True:
    with _draft(path) as (file, draft):
      if _create(draft, path):
        return os.dup(file)
      found = _look(path)
      if found is None:
        continue  # Its owner has ended.
      owner, renewed = found
      lives = _lives(path, owner)
      if lives is None and seen and found != seen:
        lives = True  # It was renewed.
      if found != seen:
        since = time.monotonic()
      age = max((os.fstat(file).st_mtime_ns - renewed) / 1e9, time.monotonic() - since)
      if lives is None and age >= STALE:
        lives = False
      if lives is False:
        if _replace(draft, path, owner):
          return os.dup(file)
        continue  # Another process was faster.
    if lives and not waits:
      raise LockError(
        f'{what} is in use by {_words(owner)}: wait until that has ended, or {cure}; '
        f'if it no longer exists, delete {path}'
      )
    if seen is None:
      patience = '' if waits else f', for {STALE - age:.0f} s at most'
      print(f'{what} is in use by {_words(owner)}: waiting{patience}', file=sys.stderr, flush=True)
    seen = found
    time.sleep(POLLED)


@contextlib.contextmanager
def _draft(path: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
  """Writes a lock file under a name of its own, with the file system's time; yields it, open."""
  draft = path.with_name(f'{path.name}.{TOKEN}-{threading.get_ident()}')
  file = os.open(draft, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
  try:
    with contextlib.suppress(OSError):  # On a full disk it stays empty, for the moment.
      _describe(file)
    os.utime(file)
    yield file, draft
  finally:
    os.close(file)
    draft.unlink(missing_ok=True)


def _create(draft: pathlib.Path, path: pathlib.Path) -> bool:
  """Makes the lock of a draft; returns whether there was none."""
  try:
    os.link(draft, path)
    return True
  except FileExistsError:
    return False
  except OSError as error:
    if error.errno not in NO_LINKS:
      raise
  try:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
  except OSError as error:
    if error.errno not in (errno.EEXIST, errno.ESTALE):  # of a bucket where another was faster
      raise
    return False
  draft.replace(path)
  time.sleep(SETTLED)
  return _is_own(path)


def _replace(draft: pathlib.Path, path: pathlib.Path, owner: Owner) -> bool:
  """Puts a draft in the place of a lock that was left behind; False if another was faster."""
  try:
    with path.open('rb+') as old:
      # On one machine, one after another gets here.
      alone = _flock(old.fileno()) if owner.get('kernel') == _kernel() else None
      if alone is False or _owner(path) != owner:
        return False
      draft.replace(path)
  except FileNotFoundError:
    return False
  if not alone:
    time.sleep(SETTLED)
  return _is_own(path)


def _look(path: pathlib.Path) -> tuple[Owner, int] | None:
  """Reads the owner of a lock and when it was renewed, in ns; None if there is no lock."""
  try:
    # Opening it makes a network file system ask its server.
    with path.open('rb') as file:
      content, renewed = file.read(10_000), os.fstat(file.fileno()).st_mtime_ns
  except FileNotFoundError:
    return None
  with contextlib.suppress(ValueError):
    if isinstance(owner := jsons.parse(content), dict):
      return owner, renewed
  return {}, renewed


def _owner(path: pathlib.Path) -> Owner:
  """Reads the owner of a lock, {} if there is none."""
  found = _look(path)
  return found[0] if found else {}


def _is_own(path: pathlib.Path) -> bool:
  return _owner(path).get('token') == TOKEN


def _lives(path: pathlib.Path, owner: Owner) -> bool | None:
  """Tells whether the owner of a lock exists; None if this process cannot know."""
  if owner.get('kernel') != _kernel():
    return None
  if owner.get('space') == _space() != '':
    return _ticks(owner.get('process')) == owner.get('ticks')
  try:
    with path.open('rb+') as file:
      if owner.get('file') != _identity(file.fileno()):
        return None
      return {True: False, False: True, None: None}[_flock(file.fileno())]
  except FileNotFoundError:
    return None


def _flock(file: int) -> bool | None:
  """Locks an open file; False if another has locked it, None if that disk has no such locks."""
  import fcntl  # Windows, which has none, can use models.

  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except OSError as error:
    return False if isinstance(error, BlockingIOError) else None


def _identity(file: int) -> list[int]:
  # In a mounted bucket it changes when the file is renamed, and the new one is not locked.
  return [os.fstat(file).st_dev, os.fstat(file).st_ino]


def _describe(file: int) -> None:
  """Locks an open file and writes this process into it."""
  owner = {
    'host': socket.gethostname(),
    'process': os.getpid(),
    'started': STARTED,
    'kernel': _kernel(),
    'space': _space(),
    'ticks': _ticks(os.getpid()),
    'file': _identity(file) if _flock(file) else None,
    'token': TOKEN,
  }
  os.pwrite(file, f'{jsons.text(owner)}\n'.encode(), 0)


def _words(owner: Owner) -> str:
  if 'process' not in owner:
    return 'another process'
  return f'process {owner["process"]} on {owner.get("host")}, started {owner.get("started")}'


def _renew(path: pathlib.Path, ended: threading.Event) -> None:
  while not ended.wait(RENEWED):
    with contextlib.suppress(OSError):  # The disk may be away for a while.
      if _is_own(path):
        os.utime(path)


@functools.cache
def _kernel() -> str:
  """Names the kernel that runs on this machine; after a restart it is another."""
  try:
    return pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
  except OSError:
    return f'{uuid.getnode():x}'


@functools.cache
def _space() -> str:
  """Names the space of process numbers, of which each container has its own; '' if unknown."""
  with contextlib.suppress(OSError):
    return os.readlink('/proc/self/ns/pid')
  return ''


def _ticks(process: int | None) -> int | None:
  """Returns when a process was started, by the clock of the kernel; None if it is gone."""
  try:
    content = pathlib.Path(f'/proc/{process}/stat').read_text()
  except OSError:
    return None
  state, *fields = content.rpartition(')')[2].split()  # The name before it may hold anything.
  return None if state in 'ZX' else int(fields[18])
