"""The sidecar of a split: everything about it that needs no image, memory-mapped.

A record of a dataset holds one image with all its texts. Beside the records lies
one folder of `.npy` files a split with every text, its image, and the image sizes,
so that planning an epoch or drawing a negative text reads no image.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Iterable, Sequence

import numpy as np

# One letter a word of a caption: what kind of thing in the image the word speaks of.
VISUAL_KINDS = {
  'c': 'colour',
  's': 'shape',
  'z': 'size',
  'n': 'count',
  'l': 'place',
  'p': 'pattern',
}


@dataclasses.dataclass(frozen=True)
class Caption:
  """A text of an image, as a builder gives it.

  Attributes:
    text: the text, unnormalised.
    id: the dataset's own number of it.
    label: whether the text is true of its image, where the corpus says so.
    claim: the text's meaning as a key; texts with the same claim are true of the same images.
    kinds: one letter a word (split on blanks) from VISUAL_KINDS, or '.' for no visual word.
    rivals: bit masks over the words. The image makes another sentence true that differs
      from this one in exactly those words, so they are not determined if all are hidden.
  """

  text: str
  id: int
  label: bool = True
  claim: str | None = None
  kinds: str | None = None
  rivals: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
  """What the sidecar keeps of one record; `claims` are all that are true of the image."""

  image_id: str
  height: int
  width: int
  captions: Sequence[Caption]
  claims: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Ragged:
  """Rows of unequal length: row i is `values[start[i]:start[i + 1]]`."""

  values: np.ndarray
  start: np.ndarray

  def __len__(self) -> int:
    return len(self.start) - 1

  def __getitem__(self, i: int) -> np.ndarray:
    return self.values[self.start[i] : self.start[i + 1]]

  @classmethod
  def of(cls, rows: Sequence[Sequence], dtype: np.dtype) -> 'Ragged':
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    values = np.concatenate([np.asarray(r, dtype) for r in rows] or [np.zeros(0, dtype)])
    return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@dataclasses.dataclass(frozen=True)
class Sidecar:
  """A split without its images. I images in record order, N captions in image order.

  Attributes:
    image_id: [I] bytes.
    size: [I, 2] int32, height and width of the image file.
    captions: ragged over images: the caption numbers of image i are
      `captions.start[i] .. captions.start[i + 1]`; the values are the datasets' own ids, int64.
    text: ragged uint8, the UTF-8 bytes of each caption.
    label: [N] bool.
    claim: [N] int32, or empty where the dataset knows no claims.
    claims: ragged int32 over images, sorted in each, or of no values.
    kinds: ragged uint8 over captions, a letter a word, or of no values.
    rivals: ragged uint64 over captions.
  """

  image_id: np.ndarray
  size: np.ndarray
  captions: Ragged
  text: Ragged
  label: np.ndarray
  claim: np.ndarray
  claims: Ragged
  kinds: Ragged
  rivals: Ragged

  @property
  def caption_image(self) -> np.ndarray:
    """[N] int64: the image of each caption."""
    return np.repeat(np.arange(len(self.captions)), np.diff(self.captions.start))

  def caption(self, i: int) -> str:
    """The text of caption i."""
    return self.text[i].tobytes().decode('utf-8')

  @classmethod
  def of(cls, rows: Iterable[Row]) -> 'Sidecar':
    """The sidecar of rows given in record order.

    Raises:
      ValueError: only some captions have a claim or kinds; a claim is not among those of its
        image; kinds are not one a word, or for more words than a mask has bits.
    """
    rows = list(rows)
    captions = [c for row in rows for c in row.captions]
    for row in rows:
      for c in row.captions:
        _check(c, row, captions[0])
    names = sorted({c for row in rows for c in row.claims} | {c.claim for c in captions if c.claim})
    number = {name: i for i, name in enumerate(names)}
    return cls(
      image_id=np.array([row.image_id.encode() for row in rows]),
      size=np.array([(row.height, row.width) for row in rows], np.int32).reshape(-1, 2),
      captions=Ragged.of([[c.id for c in row.captions] for row in rows], np.int64),
      text=Ragged.of([np.frombuffer(c.text.encode(), np.uint8) for c in captions], np.uint8),
      label=np.array([c.label for c in captions], bool),
      claim=np.array([number[c.claim] for c in captions if c.claim], np.int32),
      claims=Ragged.of([sorted({number[c] for c in row.claims}) for row in rows], np.int32),
      kinds=Ragged.of(
        [np.frombuffer((c.kinds or '').encode(), np.uint8) for c in captions], np.uint8
      ),
      rivals=Ragged.of([c.rivals for c in captions], np.uint64),
    )

  def write(self, folder: pathlib.Path) -> None:
    """Writes one `.npy` an array; the folder appears whole or not at all."""
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, Ragged):
        np.save(partial / f'{field.name}.start.npy', value.start)
        value = value.values
      np.save(partial / f'{field.name}.npy', value)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)

  @classmethod
  def open(cls, folder: pathlib.Path) -> 'Sidecar':
    """Memory-maps a written sidecar; FileNotFoundError if it is not there or not whole."""

    def array(name: str) -> np.ndarray:
      return np.load(folder / f'{name}.npy', mmap_mode='r')

    return cls(
      **{
        f.name: Ragged(array(f.name), array(f'{f.name}.start'))
        if f.type is Ragged
        else array(f.name)
        for f in dataclasses.fields(cls)
      }
    )


def _check(caption: Caption, row: Row, first: Caption) -> None:
  words = caption.text.split()
  if (caption.claim is None) != (first.claim is None):
    raise ValueError(f'{caption.text!r}: all captions have a claim, or none')
  if caption.claim is not None and caption.claim not in row.claims:
    raise ValueError(f'{caption.text!r}: {caption.claim!r} is not a claim of {row.image_id}')
  if (caption.kinds is None) != (first.kinds is None):
    raise ValueError(f'{caption.text!r}: all captions have kinds, or none')
  if caption.kinds is not None:
    # Tokenisers split at punctuation too; here a word must be one to both.
    plain = all(word.isalnum() for word in words)
    if not plain or len(words) != len(caption.kinds) or len(words) > 64:
      raise ValueError(f'{caption.text!r}: kinds are one a word, of at most 64 plain words')
