"""The index of a folder of photos, and what is found in it."""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from pixelbert_jax import UserError
from pixelbert_jax.input.text import TextError, Tokens, tokens_of
from pixelbert_jax.predict import Model
from pixelbert_jax.predict import photos as photos_lib
from pixelbert_jax.predict.model import check_number
from pixelbert_jax.predict.runner import QUIET, Seen, check_finite, probability
from pixelbert_jax.search import RERANK
from pixelbert_jax.search import part as part_lib
from pixelbert_jax.search.folder import Folder, Path, Stamp
from pixelbert_jax.search.part import CURE, Part, Source

Found = list[tuple[str, float]]


class Index:
  """An index as it lies on disk, with the model that made it.

  With a first stage, photos and texts are ranked by the cosines of its vectors, and the
  probabilities of the best are computed by the model, as `predict.Model.match` does; they rank the
  result. Without it, all probabilities are computed.

  Attributes:
    folder: the folder, as it was given.
    home: where the index lies.
    first_stage: whether the model has one.
  """

  def __init__(self, model: Model, folder: Path, home: pathlib.Path, parts: Sequence[Part]):
    self.folder, self.home = os.fspath(folder), home
    self._model = model
    self._places = [(part, i) for part in parts for i in range(len(part.photos))]
    self._photos = [part.photos[i] for part, i in self._places]
    # Of all chunks, so that one program scores any photos.
    self._length = max(photo.pixels for photo in self._photos)
    self._vectors = np.concatenate([part.vectors for part in parts])
    self._numbers = {photo.path: i for i, photo in enumerate(self._photos)}
    self.first_stage = self._vectors.shape[1] > 0

  @classmethod
  def open(cls, model: Model, folder: Path, index_dir: Path | None = None) -> 'Index':
    """Opens the index that `update` made, with the same arguments.

    Raises:
      HeadError: the model cannot match.
      UserError: there is no index, or it is of another model or folder, or damaged.
    """
    model.need('match')
    source = Source.of(model, folder)
    home = source.home(index_dir)
    parts = [Part.open(path, source) for path in part_lib.parts(home)]
    if not parts:
      raise UserError(f'{folder} has no index in {home}: add --index, which makes it')
    if any(part.source != source for part in parts):
      raise UserError(
        f'{home} is an index by another checkpoint: add --index to make it again, or {CURE}'
      )
    return cls(model, folder, home, parts)

  def __len__(self) -> int:
    return len(self._photos)

  def stale(self) -> int:
    """Counts photos that are not in the index as they are now, and those that are gone."""
    now, then = Folder.read(self.folder).photos, {p.path: p.stamp for p in self._photos}
    return sum(then.get(path) != stamp for path, stamp in now.items()) + len(then.keys() - now)

  def find(self, text: str, k: int = 10, rerank: int = RERANK) -> Found:
    """Finds the photos of a text.

    Args:
      text: one text.
      k: number of photos; all are returned if there are fewer.
      rerank: number of photos whose probabilities are computed, at least k; all without a first
        stage.

    Returns:
      Paths of photos, and the probabilities that the text is true of them; the best first.

    Raises:
      TextError: the text cannot be used.
      UserError: a number cannot be used.
    """
    check_number('k', k)
    check_number('rerank', rerank)
    tokens = tokens_of(self._model.tokenizer, [text])
    numbers = np.arange(len(self))
    if self.first_stage:
      cosines = self._vectors @ self._model.runner.text_vectors(tokens)[0]
      numbers = _best(cosines, max(k, rerank))
    logits = np.concatenate(list(self._scored(tokens, numbers)))
    names = [os.path.join(self.folder, self._photos[number].path) for number in numbers]
    return self._ranked(names, logits, k)

  def texts(
    self, image: photos_lib.Photo, texts: Sequence[str], k: int = 10, rerank: int = RERANK
  ) -> Found:
    """Finds the texts of a photo, which may be in the index or not.

    Args:
      image: one image, as for `predict`. The path of a photo of the folder spares the CNN.
      texts: one or more.
      k, rerank: as for `find`, of texts.

    Returns:
      Texts, and the probabilities that they are true of the image; the best first.

    Raises:
      ImageError, TextError: the image or a text cannot be used.
      UserError: a number cannot be used.
    """
    check_number('k', k)
    check_number('rerank', rerank)
    texts = list(dict.fromkeys([texts] if isinstance(texts, str) else texts))
    if not texts:
      raise TextError('no texts: give one at least')
    tokens = tokens_of(self._model.tokenizer, texts)
    number = self._number(image)
    runner = self._model.runner
    seen = next(runner.see([image]))[1] if number is None else self._kept([number])
    numbers = np.arange(len(texts), dtype=np.int32)
    if self.first_stage and max(k, rerank) < len(texts):
      vector = runner.image_vectors(seen)[0] if number is None else self._vectors[number]
      cosines = runner.text_vectors(tokens) @ vector
      numbers = _best(cosines, max(k, rerank))
    logits = np.empty(len(numbers), np.float32)
    rows = np.zeros(len(numbers), np.int32)
    for part, out in runner.join('match', seen, tokens, rows, numbers):
      logits[part] = out
    return self._ranked([texts[number] for number in numbers], logits, k)

  def _number(self, image: photos_lib.Photo) -> int | None:
    """Returns the number of an image that is in the index as it is on disk, else None."""
    if not isinstance(image, str | os.PathLike):
      return None
    path = os.path.relpath(image, self.folder)
    number = self._numbers.get(path)
    with contextlib.suppress(OSError):
      if number is not None and Stamp.of(image) == self._photos[number].stamp:
        return number
    return None

  def _kept(self, numbers: Sequence[int] | np.ndarray) -> Seen:
    """Reads photos as `Runner.see` yields them: pixels [B, P, D] and their mask [B, P]."""
    rows = 1 if len(numbers) == 1 else self._model.runner.size
    read = [part.pixels(i) for part, i in (self._places[number] for number in numbers)]
    pixels = np.zeros((rows, self._length, read[0].shape[1]), np.float32)
    mask = np.zeros(pixels.shape[:2], bool)
    for row, real in enumerate(read):
      pixels[row, : len(real)], mask[row, : len(real)] = real, True
    return pixels, mask

  def _scored(self, tokens: Tokens, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the logits of a text and photos, a chunk at a time; says first how long it takes."""
    runner = self._model.runner
    size, began = runner.size, 0.0
    with tqdm(total=len(numbers), unit='photo', delay=QUIET, leave=False) as progress:
      for first in range(0, len(numbers), size):
        # A single photo goes twice: it would need another program.
        chunk = np.resize(numbers[first : first + size], min(size, max(2, len(numbers) - first)))
        row = np.arange(len(chunk), dtype=np.int32)
        texts = np.zeros_like(row)
        ((_, logits),) = runner.join('match', self._kept(chunk.tolist()), tokens, row, texts)
        yield logits[: len(numbers) - first]
        progress.update(min(size, len(numbers) - first))
        if first == size:  # The first chunk compiles.
          seconds = (time.perf_counter() - began) * (len(numbers) / size - 2)
          if seconds > QUIET:
            why = '' if self.first_stage else ', since this model has no first stage'
            print(
              f'{len(numbers):,} of {len(self):,} photos are scored{why}: about {seconds:.0f} s',
              file=sys.stderr,
            )
        began = time.perf_counter()

  def _ranked(self, names: Sequence[str], logits: np.ndarray, k: int) -> Found:
    """Pairs the k names of the highest logits with their probabilities."""
    check_finite(logits, self._model.folder)
    best = _best(logits, k)
    return [(names[i], p) for i, p in zip(best, probability(logits[best]).tolist(), strict=True)]


def _best(scores: np.ndarray, k: int) -> np.ndarray:
  """Returns the indices of the k highest of scores [N], in descending order."""
  return np.argsort(-scores, kind='stable')[:k]
