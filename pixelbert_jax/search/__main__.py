"""Searches a folder of photos by a text, or texts by a photo.

    python -m pixelbert_jax.search --checkpoint=C --folder=photos --index
    python -m pixelbert_jax.search --checkpoint=C --folder=photos --text="a red bus"
    python -m pixelbert_jax.search --checkpoint=C --folder=photos --image=F --texts=FILE

docs/search.md shows it and the Python API.
"""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import logging

from pixelbert_jax import commandline, disk, files, jsons
from pixelbert_jax.predict import remarks
from pixelbert_jax.search import RERANK

NAMED = 5  # of the photos that are left out


def flags_of(argv: Sequence[str]) -> Any:
  """Parses and checks the flags: a folder, and what to do with it."""
  parser = commandline.Parser('pixelbert_jax.search', __doc__)
  any_path, path = commandline.any_path, commandline.path
  parser.add_argument(
    '--checkpoint', type=any_path, required=True, help='a workdir, WORKDIR@STEP, or a folder'
  )
  parser.add_argument('--folder', type=path, required=True, help='the folder of photos')
  parser.add_argument(
    '--index', action='store_true', help='first look at photos that are new or changed; once'
  )
  parser.add_argument(
    '--index_dir', type=path, help="the folder of the index; by default in the user's cache"
  )
  parser.add_argument('--text', help='the text to find photos of')
  parser.add_argument('--image', type=path, help='the photo to find texts of')
  parser.add_argument('--texts', type=path, help='the file of these texts, one a line')
  parser.add_argument('--k', type=int, default=10, help='how many to show (default 10)')
  parser.add_argument(
    '--rerank',
    type=int,
    default=RERANK,
    help=f'of how many, the best by the first stage, probabilities are computed ({RERANK})',
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object instead of lines')
  flags = parser.parse_args(argv)
  if bool(flags.image) != bool(flags.texts):
    parser.error('--image and --texts belong together: give both')
  if flags.text == '':
    parser.error('--text is empty')
  if flags.text and flags.image:
    parser.error('give --text, or --image and --texts')
  if not (flags.index or flags.text or flags.image):
    parser.error('give --index, --text, or --image and --texts')
  for name in ('k', 'rerank'):
    if getattr(flags, name) < 1:
      parser.error(f'--{name}={getattr(flags, name)}: give a whole number of at least 1')
  return flags


def command(argv: Sequence[str]) -> None:
  """Brings the index up to date or searches, as the flags ask, and prints the result."""
  flags = flags_of(argv)
  texts = files.read_text(flags.texts).splitlines() if flags.texts else []
  texts = [text for text in texts if text.strip()]
  with commandline.interruptible():  # JAX is imported only once the flags are right.
    from pixelbert_jax import predict, search

  logging.set_verbosity(logging.WARNING)
  results, done = [], None
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    model = predict.load(flags.checkpoint)
    if flags.index:
      done = search.update(model, flags.folder, flags.index_dir)
    if flags.text or flags.image:
      index = search.Index.open(model, flags.folder, flags.index_dir)
      if not flags.index and (stale := index.stale()):
        warnings.warn(
          f'new, changed, gone or unreadable since it was indexed: {stale:,}; add --index',
          stacklevel=1,
        )
    if flags.text:
      results = index.find(flags.text, flags.k, flags.rerank)
    elif flags.image:
      results = index.texts(flags.image, texts, flags.k, flags.rerank)
  for line in remarks.notes(caught, model.note):
    print(f'note: {line}', file=sys.stderr)
  if done:
    for line in indexed(done):
      print(line, file=sys.stderr if flags.json else sys.stdout)
  if results:
    show(flags, model, results)


def indexed(done: Any) -> list[str]:
  """Says in lines what an update did and left out."""
  lines = [
    f'{done.photos:,} photos in {done.home} ({disk.size(done.bytes)}): {done.added:,} added, '
    f'{done.dropped:,} dropped'
  ]
  if done.left_out:
    lines.append(f'left out {len(done.left_out):,}, which cannot be read:')
    lines += [f'  {reason}' for reason in done.left_out[:NAMED]]
    if len(done.left_out) > NAMED:
      lines.append(f'  and {len(done.left_out) - NAMED:,} more')
  if done.others:
    counts = ', '.join(f'{n:,} {end}' for end, n in sorted(done.others.items()))
    lines.append(f'no photos, by the ends of their names: {counts}')
  return lines


def show(flags: Any, model: Any, results: Sequence[tuple[str, float]]) -> None:
  """Prints what was found."""
  key, head = ('photo', 'find') if flags.text else ('text', 'match')
  unknown = [model.unknown_words(flags.text or name) for name, _ in results]
  if flags.json:
    rows = remarks.objects(key, results, unknown)
    asked = {'text': flags.text} if flags.text else {'image': flags.image}
    lines = remarks.remarks(head, [p for _, p in results])
    about = {'remarks': lines, 'trained_on': model.trained_on, 'note': model.note}
    print(jsons.text({'folder': flags.folder, **asked, **rows, **about}))
    return
  of = 'the text is true of it' if flags.text else 'it is true of the photo'
  title = f'{key}s, each with the probability that {of}'
  print('\n'.join(remarks.page(title, head, results, unknown)))
  if model.note:
    print(f'This model was {model.note}.')


def main(argv: Sequence[str]) -> int:
  """Runs the command, prints an error as one line, and returns the exit code."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
