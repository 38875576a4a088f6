"""NLVR2 (Suhr et al. 2019): sentences about pairs of photographs, true or false of them."""

import collections
import dataclasses
import re
from collections.abc import Sequence

import tensorflow_datasets as tfds

from data import corpus
from data.archive import Archive, first
from data.entry import Entry, Need, Tally
from pixelbert_jax.input.rows import Statement

HOMEPAGE = 'https://github.com/lil-lab/nlvr'
FORM = 'https://lil.nlp.cornell.edu/nlvr (a form)'
FOLDERS = {'train': 'images/train', 'dev': 'dev', 'test1': 'test1', 'test2': 'test2'}


def annotations(split: str) -> tuple[str, ...]:
  """Where the file of a split may lie."""
  return tuple(f'{folder}{split}.json' for folder in ('nlvr2/data/', 'data/', ''))


class Builder(corpus.CorpusBuilder):
  """One record a pair of images with its one or two sentences, in the order of their file.

  A pair whose sentences have different labels is `balanced`: who guesses from the images alone
  is right half of the time. With two of the same it is `unbalanced`, with one neither.
  """

  VERSION = tfds.core.Version('1.1.0')
  HOMEPAGE = HOMEPAGE
  SLOTS = ('left', 'right')
  TEXTS = ('statements',)
  # A few percent of the photographs have gone from the web.
  MOST_MISSING = 0.1
  NEEDS = {  # noqa: RUF012 - as TFDS's own attributes
    split: (Need(annotations(split), HOMEPAGE), Need((folder,), FORM))
    for split, folder in FOLDERS.items()
  }
  PUBLISHED = {  # noqa: RUF012
    'train': {'statements': 86_373},
    'dev': {'statements': 6_982, 'balanced': 2_300, 'unbalanced': 3_562},
    'test1': {'statements': 6_967, 'balanced': 2_316, 'unbalanced': 3_536},
    'test2': {'statements': 6_970},
  }

  def entries(self, split: str, tally: Tally) -> list[Entry]:
    found = []
    for (pair, directory), statements in pairs(self.request.archive, split).items():
      ids = [f'{pair}-img{side}' for side in (0, 1)]
      folder = '/'.join(filter(None, (FOLDERS[split], directory)))
      subset = subset_of(statements)
      statements = [dataclasses.replace(s, subset=subset) for s in statements]
      images = tuple((image_id, f'{folder}/{image_id}.png') for image_id in ids)
      entry = Entry(images, statements=statements)
      tally.count(entry)
      found.append(entry)
    return found


def pairs(archive: Archive, split: str) -> dict[tuple[str, str], list[Statement]]:
  """The statements of each pair, by its id and its directory, '' but for train."""
  path = first(archive, annotations(split))
  found, seen = collections.defaultdict(list), set()
  for number, line in archive.json_lines(path):
    try:
      identifier, label = line['identifier'], line['label']
      if not re.fullmatch(rf'{split}-[0-9]+-[0-9]+-[0-9]+', identifier):
        raise ValueError(f'identifier {identifier!r} is not of {split}')
      if label not in ('True', 'False'):
        raise ValueError(f'label {label!r}')
      if identifier in seen:
        raise ValueError(f'{identifier} comes twice')
      pair = identifier.rpartition('-')[0]
      directory = str(int(line['directory'])) if split == 'train' else ''
      images = (f'{pair}-img0', f'{pair}-img1')
      statement = Statement(line['sentence'].strip(), identifier, label == 'True', *images)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise archive.unreadable(path, error, f'line {number}') from error
    seen.add(identifier)
    found[pair, directory].append(statement)
  return found


def subset_of(statements: Sequence[Statement]) -> str:
  """The subset of the statements of a pair."""
  if len(statements) == 1:
    return ''
  return 'balanced' if len({s.label for s in statements}) == 2 else 'unbalanced'
