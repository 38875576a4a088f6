"""What came of trials: how often each outcome, and the trials that ended in a wrong one."""

import collections
import contextlib
import dataclasses
import io
import traceback
from collections.abc import Callable

from pixelbert_jax import UserError

SILENT, TRACEBACK, LINES = 'silently wrong', 'traceback', 'not one line'
WRONG = (SILENT, TRACEBACK, LINES, 'slow', 'crash')


@dataclasses.dataclass
class Outcomes:
  """The outcomes of trials.

  Attributes:
    counts: trials by outcome.
    wrong: a line for each trial whose outcome is in `WRONG`.
  """

  counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  wrong: list[str] = dataclasses.field(default_factory=list)

  def add(self, outcome: str, trial: str, detail: str = '') -> None:
    """Counts a trial."""
    self.counts[outcome] += 1
    if outcome in WRONG:
      self.wrong.append(f'{outcome}: {trial}: {detail}')

  def observe(self, trial: str, attempt: Callable[[], str]) -> None:
    """Makes an attempt, which returns its outcome, and counts it.

    An error for the user counts as `refused` if it is one line (or one for each fault of a file);
    any other as a traceback.
    """
    try:
      with contextlib.redirect_stdout(io.StringIO()):
        self.add(attempt(), trial)
    except (UserError, OSError) as error:
      lines = getattr(error, 'faults', [str(error)])  # Scores list all faults of a file.
      whole = all(line and '\n' not in line for line in lines)
      self.add('refused' if whole else LINES, trial, str(error)[:400])
    except Exception as error:
      place = traceback.extract_tb(error.__traceback__)[-1]
      where = f'{place.filename}:{place.lineno}'
      self.add(TRACEBACK, trial, f'{type(error).__name__}: {str(error)[:200]} at {where}')
