"""Entries of a split, made from the raw files of a corpus, and their counts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data.origin import Origin
from pixelbert_jax.input.rows import Caption, Question, Statement

# The default of --allow_bad: so few bad files do not change scores noticeably.
MOST_BAD = 0.005
TEXTS = {'captions': Caption, 'questions': Question, 'statements': Statement}
# The key of the tally of what belongs to no split, such as a file that no table names.
ALL = 'all'


@dataclasses.dataclass(frozen=True)
class Need:
  """A file or folder that a split needs.

  Attributes:
    paths: possible paths; the first that exists is used.
    source: where to get it.
    size: of the published file.
  """

  paths: tuple[str, ...]
  source: str
  size: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
  """The source of a record: (id, path) of the image of each slot, and all texts."""

  images: tuple[tuple[str, str], ...]
  captions: Sequence[Caption] = ()
  questions: Sequence[Question] = ()
  statements: Sequence[Statement] = ()
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Request:
  """The user's request for building a corpus.

  Attributes:
    archive: the raw files.
    splits: the splits that must be built; if empty, those whose files exist.
    allow_bad: the share of images that may be unreadable.
    tables: for the dataset 'folder', its CSV files and shares by the names of their flags.
  """

  archive: Origin
  splits: Sequence[str] = ()
  allow_bad: float = MOST_BAD
  tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Tally:
  """The counts of a split's raw files, or of what belongs to no split.

  Attributes:
    read: number of images, captions, ... and members of each subset that the files list.
    left_out: ids of images that are omitted on purpose, by reason.
    others: names of texts, files, JSON keys, ... that are not used, by kind and reason.
    bad: the reason why an image cannot be used, by its id.
    missing: ids of images that do not exist.
    kept: names of what is used although it is odd, by remark, such as 'images ... again'.
    mislabelled: number of images whose file name has the extension of another format.
    notes: further lines of the report.
  """

  read: dict[str, int] = dataclasses.field(default_factory=dict)
  left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  others: dict[str, dict[str, list[str]]] = dataclasses.field(default_factory=dict)
  bad: dict[str, str] = dataclasses.field(default_factory=dict)
  missing: list[str] = dataclasses.field(default_factory=list)
  kept: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  mislabelled: int = 0
  notes: list[str] = dataclasses.field(default_factory=list)

  def leave_out(self, reason: str, name: str, kind: str = 'images') -> None:
    """Counts what is omitted on purpose; it may be counted in `read` as well.

    Args:
      reason: for the report, such as 'without text'.
      name: the id of an image or text, or the file and key, by which the user finds it.
      kind: 'images', a key of TEXTS, 'files', 'keys', 'columns'.
    """
    reasons = self.left_out if kind == 'images' else self.others.setdefault(kind, {})
    reasons.setdefault(reason, []).append(name)

  def keep(self, remark: str, name: str) -> None:
    """Counts what is used although it is odd; `remark` follows the number in the report."""
    self.kept.setdefault(remark, []).append(name)

  def all_left_out(self) -> dict[str, dict[str, list[str]]]:
    """Returns the names of all that was omitted on purpose, by kind and reason."""
    return ({'images': self.left_out} if self.left_out else {}) | self.others

  def count(self, entry: Entry) -> None:
    """Counts the images and texts of an entry, before any are omitted."""
    self._add('images', len(entry.images))
    for kind in TEXTS:
      for text in getattr(entry, kind):
        self._add(kind)
        if text.subset and kind != 'captions':  # The subsets of NLVR are a hundred directories.
          self._add(text.subset)

  def _add(self, name: str, number: int = 1) -> None:
    self.read[name] = self.read.get(name, 0) + number
