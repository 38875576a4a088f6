"""NLVR2 (Suhr et al. 2019): pairs of photographs with sentences that are true or false of them."""

import collections
import dataclasses
import re
from collections.abc import Sequence

import tensorflow_datasets as tfds

from data import corpus
from data.archive import Archive, first
from data.entry import Entry, Need, Tally
from data.listing import Once, add, leave_out_repeated, lines
from pixelbert_jax.input.rows import Statement
from pixelbert_jax.score.nlvr2 import STATEMENTS

HOMEPAGE = 'https://github.com/lil-lab/nlvr'
FORM = 'https://lil.nlp.cornell.edu/nlvr (a form)'
LABELS = {'True': True, 'False': False}
SUBSETS = {
  'dev': {'balanced': 2_300, 'unbalanced': 3_562},
  'test1': {'balanced': 2_316, 'unbalanced': 3_536},
}
FOLDERS = {'train': 'images/train', 'dev': 'dev', 'test1': 'test1', 'test2': 'test2'}


def annotations(split: str) -> tuple[str, ...]:
  """Returns possible paths of the file of a split."""
  return tuple(f'{folder}{split}.json' for folder in ('nlvr2/data/', 'data/', ''))


class Builder(corpus.CorpusBuilder):
  """NLVR2: a record is a pair of images with one or two sentences; in the order of the file.

  A pair whose two sentences have different labels is `balanced`: images alone predict the label
  half of the time. A pair with equal labels is `unbalanced`; one with a single sentence neither.
  """

  VERSION = tfds.core.Version('1.1.0')
  HOMEPAGE = HOMEPAGE
  SLOTS = ('left', 'right')
  TEXTS = ('statements',)
  # A few percent of the photographs are no longer on the web.
  MOST_MISSING = 0.1
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    split: (Need(annotations(split), HOMEPAGE), Need((folder,), FORM))
    for split, folder in FOLDERS.items()
  }
  PUBLISHED = {  # noqa: RUF012
    split: {'statements': number, **SUBSETS.get(split, {})} for split, number in STATEMENTS.items()
  }

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    entries: list[Entry] = []
    for (pair, directory), statements in pairs(self.request.archive, split, tally).items():
      ids = [f'{pair}-img{side}' for side in (0, 1)]
      folder = '/'.join(filter(None, (FOLDERS[split], directory)))
      subset = subset_of(statements)
      statements = [dataclasses.replace(s, subset=subset) for s in statements]
      images = tuple((image_id, f'{folder}/{image_id}.png') for image_id in ids)
      add(entries, Entry(images, statements=statements), tally)
    return entries


def pairs(archive: Archive, split: str, tally: Tally) -> dict[tuple[str, str], list[Statement]]:
  """Reads the statements of each pair, by its id and directory ('' except for train)."""
  path = first(archive, annotations(split))
  by_pair = collections.defaultdict(list)
  once, once_pair = Once('identifier'), Once('pair')
  for line in lines(archive, path):
    identifier, label = line.text('identifier'), line.choice('label', LABELS)
    if not re.fullmatch(rf'{split}-[0-9]+-[0-9]+-[0-9]+', identifier):
      raise line.fault('identifier', f'one of {split}, such as "{split}-10-0-1"')
    pair = identifier.rpartition('-')[0]
    # The first release of train has no directories.
    directory = line.name('directory') if split == 'train' and 'directory' in line else ''
    once_pair.repeats(line, pair, directory)
    images = (f'{pair}-img0', f'{pair}-img1')
    statement = Statement(line.text('sentence').strip(), identifier, label, *images)
    if once.repeats(line, identifier, statement):
      leave_out_repeated('statements', statement, tally)
    else:
      by_pair[pair, directory].append(statement)
  return by_pair


def subset_of(statements: Sequence[Statement]) -> str:
  """Returns the subset of the statements of a pair, '' for none."""
  if len(statements) == 1:
    return ''
  return 'balanced' if len({s.label for s in statements}) == 2 else 'unbalanced'
