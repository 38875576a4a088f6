"""The NLVR corpus as its users hold it: folders or zips, read without unpacking.

Layout (https://github.com/lil-lab/nlvr), below the folder or zip or one folder in it:

    nlvr/<split>/<split>.json                                   JSON lines, one an example
    nlvr/<split>/images/<directory>/<split>-<identifier>-<k>.png    k = 0..5
"""

import dataclasses
import io
import json
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence

from PIL import Image, UnidentifiedImageError

SPLITS = ('train', 'dev', 'test')
PERMUTATIONS = 6
SOURCE = 'https://github.com/lil-lab/nlvr'

# zipfile.Path answers to `/`, iterdir, is_file and read_bytes as pathlib.Path does.
Folder = pathlib.Path | zipfile.Path


class CorpusError(Exception):
  """The user's files are not as they should be; one line: what, where, how to mend it."""


@dataclasses.dataclass(frozen=True)
class Example:
  """A sentence with its label. Six permutations of one image share them."""

  identifier: str
  directory: str
  sentence: str
  label: str

  @classmethod
  def parse(cls, line: bytes) -> 'Example':
    """The example of a JSON line; ValueError, KeyError or TypeError if it is none."""
    fields = json.loads(line)
    example = cls(*(str(fields[field.name]) for field in dataclasses.fields(cls)))
    if example.label not in ('true', 'false'):
      raise ValueError(f'label {example.label!r}')
    if not re.fullmatch(r'[0-9]{1,5}-[0-9]{1,2}', example.identifier):
      raise ValueError(f'identifier {example.identifier!r}')
    return example


def find_splits(manual_dir: pathlib.Path, wanted: Sequence[str] = ()) -> dict[str, Folder]:
  """Where each split lies: its folder `nlvr/<split>`, on disk or inside a zip.

  Args:
    manual_dir: the folder that holds `nlvr/`, or zips of it. Folders win over zips.
    wanted: splits that must be there; with none, those that are.

  Raises:
    CorpusError: a wanted split, or every split, is missing.
  """
  unknown = sorted(set(wanted) - set(SPLITS))
  if unknown:
    raise CorpusError(f'nlvr has no split {unknown[0]!r}: it has {", ".join(SPLITS)}')
  found: dict[str, Folder] = {}
  broken = []
  for root in _roots(manual_dir, broken):
    for split in wanted or SPLITS:
      folder = _split_folder(root, split)
      if folder is not None:
        found.setdefault(split, folder)
  missing = [split for split in wanted or SPLITS if split not in found]
  # A zip that cannot be opened may be the missing split: say so, rather than leave it out.
  if missing and broken:
    raise CorpusError(f'{"; ".join(broken)}: copy it again from {SOURCE}, or move it away')
  if missing and (wanted or not found):
    files = ', '.join(f'nlvr/{split}/{split}.json' for split in missing)
    raise CorpusError(
      f'{files} not found in {manual_dir} or in a zip there: get it from {SOURCE} '
      'and name its folder with --manual_dir'
    )
  return found


def _roots(manual_dir: pathlib.Path, broken: list[str]) -> Iterator[Folder]:
  """The folder, then the zips in it by name; those that cannot be opened go to `broken`."""
  yield manual_dir
  for path in sorted(manual_dir.glob('*.zip')):
    try:
      yield zipfile.Path(path)
    except (zipfile.BadZipFile, OSError) as error:
      broken.append(f'{path} cannot be opened ({error})')


def _split_folder(root: Folder, split: str) -> Folder | None:
  """`nlvr/<split>` in the root or in one of its folders, if its JSON file is there."""
  inside = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: p.name)
  for folder in (root, *inside):
    candidate = folder / 'nlvr' / split
    if (candidate / f'{split}.json').is_file():
      return candidate
  return None


def read_examples(folder: Folder, split: str) -> list[Example]:
  """The examples of a split in file order; CorpusError naming the line that is none."""
  path = folder / f'{split}.json'
  try:
    lines = path.read_bytes().splitlines()
  except (OSError, zipfile.BadZipFile) as error:
    raise CorpusError(f'{path} cannot be read ({error}): copy it again from {SOURCE}') from error
  examples: dict[str, Example] = {}
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      example = Example.parse(line)
    except (ValueError, KeyError, TypeError) as error:
      raise CorpusError(f'{path} line {number} is no NLVR example: {error!r}') from error
    if example.identifier in examples:
      raise CorpusError(f'{path} line {number} repeats the identifier {example.identifier}')
    examples[example.identifier] = example
  return list(examples.values())


def read_image(path: Folder) -> bytes:
  """The bytes of an image file, as they are, once Pillow has decoded them.

  Raises:
    CorpusError: the file is missing or does not decode; the message is the reason alone.
  """
  try:
    encoded = path.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
      image.load()  # decodes every pixel, and checks PNG's checksums on the way
  except UnidentifiedImageError as error:
    raise CorpusError('not an image') from error
  except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
    raise CorpusError(f'{type(error).__name__}: {error}') from error
  return encoded
