"""The report of a run: a page that shows what came out of it."""

import logging
import pathlib
import sys

logging.getLogger('matplotlib').setLevel(logging.ERROR)  # It tells of its cache of fonts.

SECONDS = 1800  # that other processes wait for the first


def after(folder: pathlib.Path) -> None:
  """Writes the report of a run that has just ended; a failure is a line on stderr and no more."""
  from pixelbert_jax import first_line, processes

  if processes.is_first():
    try:
      from pixelbert_jax.report import page  # What draws may be broken, too.

      print(f'the report is {page.write(folder)}', flush=True)
    except Exception as error:  # Whatever it is, the run has its results.
      print(f'warning: {folder} has no report ({first_line(error)})', file=sys.stderr, flush=True)
  processes.wait_for_first('report', seconds=SECONDS)
