"""Dataset of the user's own images with captions, questions and statements about pairs."""

import dataclasses
import hashlib

import tensorflow_datasets as tfds

from data import corpus
from data.entry import TEXTS, Entry, Tally
from data.folder import tables
from data.folder.tables import SPLITS, Picture
from data.sources import SourceError, key
from pixelbert_jax.score.vqa import SHARES


class Builder(corpus.CorpusBuilder):
  """The user's own images: a record is an image; in the order of the tables. See README.md."""

  VERSION = tfds.core.Version('1.3.0')
  TEXTS = tuple(TEXTS)
  # Any name after 'folder/' is a separate dataset.
  ANY_CONFIG = True
  SCORING = SHARES

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    entries = []
    for picture in self._pictures.values():
      if picture.split == split:
        entry = Entry(
          ((picture.name, picture.name),),
          picture.captions,
          picture.questions,
          picture.statements,
        )
        tally.count(entry)
        kept = []
        for s in picture.statements:
          if self._pictures[key(s.right)].split == split:
            kept.append(s)
          else:
            pair = f'{s.left}, {s.right}: {s.text}'
            tally.leave_out('its images are in different splits', pair, 'statements')
        entries.append(dataclasses.replace(entry, statements=kept))
    return entries

  def fingerprint(self) -> str:
    return tables.fingerprint(self.request.tables)

  def whole(self) -> list[str]:
    return tables.sources(self.request.tables, self.request.archive)

  def _splits_to_build(self) -> list[str]:
    archive = self.request.archive
    if archive.broken:
      raise SourceError(f'{"; ".join(archive.broken)}: copy it again, or move it away')
    self._pictures = tables.read(self.request.tables, archive, self.rest)
    share(
      self._pictures,
      {split: self.request.tables.get(f'{split}_share') or 0.0 for split in ('val', 'test')},
    )
    existing = [s for s in SPLITS if any(p.split == s for p in self._pictures.values())]
    missing = [split for split in self.request.splits if split not in existing]
    if missing:
      raise SourceError(
        f'folder: no image is in split {missing[0]!r}: add a column `split`, or hold out a share '
        'of the images with --val_share=0.1, --test_share=0.1'
      )
    wanted = [split for split in existing if split in (self.request.splits or existing)]
    for split in existing:
      if split not in wanted:
        number = sum(picture.split == split for picture in self._pictures.values())
        self.rest.notes.append(f'{number:,} images of {split} are not built (--splits)')
    return wanted

  def _refuse_bad(self) -> None:
    super()._refuse_bad()
    bad = {i: why for tally in self.tallies.values() for i, why in tally.bad.items()}
    bad |= {i: 'missing' for tally in self.tallies.values() for i in tally.missing}
    for picture in self._pictures.values():
      for s in picture.statements:
        for image in (s.left, s.right):
          if image in bad:
            raise SourceError(
              f'{image} ({bad[image]}) is in a pair ({s.text!r}): replace it, or remove the pair'
            )


def share(pictures: dict[str, Picture], shares: dict[str, float]) -> None:
  """Assigns a split to every picture without one, by a hash of its key.

  Raises:
    SourceError: shares are given although the tables have splits, or leave nothing to train on.
  """
  named = [image for image, picture in pictures.items() if picture.split]
  unnamed = [image for image, picture in pictures.items() if not picture.split]
  if named and any(shares.values()):
    raise SourceError('--val_share and --test_share are for tables without a column `split`')
  if any(s < 0 for s in shares.values()) or sum(shares.values()) >= 1:
    raise SourceError('--val_share and --test_share must be at least 0 and sum to less than 1')
  order = sorted(unnamed, key=lambda image: hashlib.sha256(image.encode()).digest())
  for split, part in shares.items():
    # A requested share holds at least one image.
    number = max(round(part * len(unnamed)), 1) if part else 0
    for image in order[:number]:
      pictures[image].split = split
    order = order[number:]
  for image in order:
    pictures[image].split = 'train'
