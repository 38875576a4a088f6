"""ECCV Caption and CxC: retrieval on COCO's test split, with more true pairs than COCO lists.

In COCO a caption is true of one image. CxC (Parekh et al. 2021) and ECCV Caption (Chun et al. 2022)
add pairs that people judged to be true, too. All true pairs, the positives, come from the package
`eccv-caption`. Its scorer takes ranked lists of ids, which show no ties and of all queries fill
gigabytes; here ties count as in `recall`, and scores are read block by block.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.score import recall

Positives = Mapping[int, Sequence[int]]  # ids of what is true of a query, by the query's id
Ranks = Mapping[int, np.ndarray]  # int [R], ascending, of a query's R positives, by its id
NEVER = np.iinfo(np.int64).max  # rank of a positive that is no candidate
_BLOCK = 1 << 23  # scores copied at a time: 32 MB of float32


@dataclasses.dataclass(frozen=True)
class Judgements:
  """What is true of which images and captions, by their ids in COCO."""

  image_of: Mapping[int, int]  # the image of each caption: the images and captions to rank
  # 'text': captions by image, 'image': images by caption; only of what is judged.
  cxc: Mapping[str, Positives]
  eccv: Mapping[str, Positives]


@dataclasses.dataclass(frozen=True)
class Places:
  """Where a score matrix has COCO's images and captions."""

  row: Mapping[int, int]  # by image
  column: Mapping[int, int]  # by caption


def read() -> Judgements:
  """Reads the judgements from the package `eccv-caption`.

  Raises:
    UserError: it is not installed.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # `ujson`, which it would rather have, may be missing.
      import eccv_caption
  except ImportError as error:
    raise UserError(
      '--eccv needs the package eccv-caption, which has the judgements: '
      "pip install eccv-caption, or pip install -e '.[eccv]'"
    ) from error
  package = eccv_caption.Metrics()
  own = package.coco_gts['t2i']
  return Judgements(
    {caption: own[caption][0] for caption in package.coco_ids.tolist()},
    *({'text': x['i2t'], 'image': x['t2i']} for x in (package.cxc_gts, package.eccv_gts)),
  )


def locate(text_ids: Sequence[str], text_image: np.ndarray, judgements: Judgements) -> Places:
  """Finds COCO's images and captions in a score matrix; images by their captions, however named.

  Args:
    text_ids: of the columns, COCO's as strings; those that nobody judged are no candidates.
    text_image: int [T], the row of each text's image.
    judgements: from `read`.

  Raises:
    UserError: a caption is missing, or the images are not COCO's.
  """
  index = {name: column for column, name in enumerate(text_ids)}
  image_of = judgements.image_of
  if missing := [caption for caption in image_of if str(caption) not in index]:
    raise UserError(
      f"--eccv is for COCO's test split, of whose {len(image_of):,} judged captions "
      f'{len(missing):,} are missing, such as {missing[0]}: leave the flag out'
    )
  column = {caption: index[str(caption)] for caption in image_of}
  row = {image: int(text_image[column[caption]]) for caption, image in image_of.items()}
  for caption, image in image_of.items():
    if text_image[column[caption]] != row[image]:
      raise UserError(
        f'caption {caption} is annotated with another image than the captions of image {image}, to '
        "which it belongs in COCO: name the annotations of COCO's test split, or leave out --eccv"
      )
  return Places(row, column)


def ranks(
  scores: np.ndarray, places: Places, positives: Mapping[str, Positives]
) -> dict[str, Ranks]:
  """Ranks the positives of each query, from 1, among COCO's images or captions.

  Where scores tie, the wrong ones come first. A positive that is no candidate (of ECCV Caption, two
  captions are not among the 25,000) counts in R and is never found, as in the package.

  Args:
    scores: [I, T], higher is better; read in blocks, so it may be memory-mapped.
    places: from `locate`.
    positives: captions by image in 'text', images by caption in 'image'.

  Returns:
    `Ranks` of 'text', by image, and of 'image', by caption; in the order of `positives`.
  """
  scores = np.asarray(scores)
  text = dict(_ranks(scores, places.row, places.column, positives['text']))
  image = dict(_ranks(scores.T, places.column, places.row, positives['image']))
  return {
    'text': {name: text[name] for name in positives['text']},
    'image': {name: image[name] for name in positives['image']},
  }


def _ranks(
  scores: np.ndarray, query: Mapping[int, int], candidate: Mapping[int, int], positives: Positives
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields the id and the ranks of each query, of which `scores` has a row."""
  # Both in the order of the matrix, which then is read from front to end.
  names = sorted(positives, key=query.__getitem__)
  columns = np.sort(list(candidate.values()))
  index = dict(zip(candidate, np.searchsorted(columns, list(candidate.values())), strict=True))
  step = max(1, _BLOCK // len(columns))
  for start in range(0, len(names), step):
    part = names[start : start + step]
    block = scores[np.ix_(np.array([query[name] for name in part]), columns)]
    for name, row in zip(part, block, strict=True):
      right = [index[x] for x in positives[name] if x in index]
      wrong = np.delete(row, right)
      found = np.full(len(positives[name]), NEVER)
      for i, score in enumerate(np.sort(row[right])[::-1]):
        found[i] = np.count_nonzero(wrong >= score) + i + 1
      yield name, found


def cxc(found: Ranks) -> dict[str, np.ndarray]:
  """Computes of each query whether the best positive is among the first K.

  Returns:
    bool [Q] by `recall_at_1`, `recall_at_5` and `recall_at_10`.
  """
  best = np.array([x[0] for x in found.values()])
  return {f'recall_at_{k}': best <= k for k in recall.CUTOFFS}


def eccv(found: Ranks) -> dict[str, np.ndarray]:
  """Computes the scores of each query in 0..1, with R its number of positives.

  Returns:
    [Q] by `map_at_r` (the precision at each positive among the first R, summed, divided by R),
    `r_precision` (the share of positives among the first R) and `recall_at_1`.
  """
  average, precision = [], []
  for x in found.values():
    first = x <= len(x)
    average.append(np.sum(first * np.arange(1, len(x) + 1) / x) / len(x))
    precision.append(first.mean())
  return {
    'map_at_r': np.array(average),
    'r_precision': np.array(precision),
    'recall_at_1': np.array([x[0] == 1 for x in found.values()]),
  }
