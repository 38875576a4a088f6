"""Makes the report of a run again, or a comparison of several.

    python -m pixelbert_jax.report RUN [RUN ...] [--output=FILE]

docs/report.md says what it shows.
"""

import pathlib
import sys
from collections.abc import Sequence

from pixelbert_jax import commandline


def command(argv: Sequence[str]) -> None:
  """Writes the report of one run, or the comparison of several, and prints its path."""
  parser = commandline.Parser('pixelbert_jax.report', __doc__)
  parser.add_argument('runs', nargs='+', metavar='RUN', type=commandline.path, help='a workdir')
  words = 'default: report/index.html in the run, report/comparison.html in the first of several'
  parser.add_argument('--output', metavar='FILE', type=commandline.path, help=words)
  flags = parser.parse_args(argv)
  with commandline.interruptible():
    from pixelbert_jax.report import comparison, page
  first, *others = map(pathlib.Path, flags.runs)
  output = pathlib.Path(flags.output) if flags.output else None
  print(comparison.write([first, *others], output) if others else page.write(first, output))


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns the exit code. Errors are printed in one line."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
