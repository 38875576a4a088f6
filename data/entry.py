"""What the raw files of a corpus come to: the entries of a split, and the count of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data.archive import Archive
from pixelbert_jax.input.rows import Caption, Question, Statement

# A few bad files are a bad copy's noise; more would move the scores.
MOST_BAD = 0.005
TEXTS = {'captions': Caption, 'questions': Question, 'statements': Statement}


@dataclasses.dataclass(frozen=True)
class Need:
  """A file or folder that a split is made of.

  Attributes:
    paths: where it may lie; the first that is there counts.
    source: where to get it.
    size: how large that is, as published.
  """

  paths: tuple[str, ...]
  source: str
  size: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
  """A record to be: (id, path) of its images, one a slot, and all that is said of them."""

  images: tuple[tuple[str, str], ...]
  captions: Sequence[Caption] = ()
  questions: Sequence[Question] = ()
  statements: Sequence[Statement] = ()
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Request:
  """What the user asks for.

  Attributes:
    archive: the raw files.
    splits: that must be built; with none, those whose files are there.
    allow_bad: the share of the images that may be unreadable.
    tables: for the user's own folder, its CSV files and shares by the names of their flags.
  """

  archive: Archive
  splits: Sequence[str] = ()
  allow_bad: float = MOST_BAD
  tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Tally:
  """What became of the raw files of a split.

  Attributes:
    read: how many images, captions, ... and members of each subset the files speak of.
    left_out: image ids on purpose, by reason.
    bad: why an image cannot be used, by its id.
    missing: ids of images that are not there.
    mislabelled: images whose file name says another format.
    notes: what else to tell.
  """

  read: dict[str, int] = dataclasses.field(default_factory=dict)
  left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  bad: dict[str, str] = dataclasses.field(default_factory=dict)
  missing: list[str] = dataclasses.field(default_factory=list)
  mislabelled: int = 0
  notes: list[str] = dataclasses.field(default_factory=list)

  def leave_out(self, reason: str, image_id: str) -> None:
    """Counts an image that is left out on purpose."""
    self.left_out.setdefault(reason, []).append(image_id)

  def count(self, entry: Entry) -> None:
    """Counts what the raw files say, before anything is left out."""
    self._add('images', len(entry.images))
    for kind in TEXTS:
      for text in getattr(entry, kind):
        self._add(kind)
        if text.subset and kind != 'captions':  # NLVR has a hundred directories.
          self._add(text.subset)

  def _add(self, name: str, number: int = 1) -> None:
    self.read[name] = self.read.get(name, 0) + number
