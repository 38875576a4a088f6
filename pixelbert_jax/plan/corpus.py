"""Published counts of the datasets: how long an epoch is, where the data are not at hand."""

import re
from collections.abc import Sequence
from typing import NamedTuple

WORDS = 30_522  # of the vocabulary of bert-base-uncased


class Corpus(NamedTuple):
  """A split.

  Attributes:
    images: number of images, or of pairs of images.
    texts: number of texts, of the kind that the task reads.
    side: longest side of its files, pixels; larger ones are reduced on the host.
    even: True if all images have about as many texts.
  """

  images: int
  texts: int
  side: int
  even: bool = True


# By task or '', dataset and split; DATA.md says where they are published. Of Visual Genome's
# 5,408,689 descriptions and 1,445,322 questions of 108,077 images, those of COCO's val and test
# images are left out, as the builders do. What else they leave out is not counted: images in
# Flickr30K (of COCO's train, too), and captions of an image that read alike.
CORPORA = {
  ('', 'coco_karpathy', 'train'): Corpus(113_287, 566_747, 640),
  ('', 'coco_karpathy/all', 'train'): Corpus(113_287, 566_747, 640),
  ('', 'visual_genome', 'train'): Corpus(103_813, 5_195_000, 1280, even=False),
  ('', 'visual_genome/all', 'train'): Corpus(108_077, 5_408_689, 1280, even=False),
  ('', 'visual_genome_questions', 'train'): Corpus(103_813, 1_388_000, 1280, even=False),
  ('', 'visual_genome_questions/all', 'train'): Corpus(108_077, 1_445_322, 1280, even=False),
  ('', 'flickr30k', 'train'): Corpus(29_000, 145_000, 500),
  ('', 'vqa_v2', 'train'): Corpus(82_783, 443_757, 640, even=False),
  ('', 'vqa_v2', 'val'): Corpus(40_504, 214_354, 640, even=False),
  ('', 'nlvr2', 'train'): Corpus(86_373, 86_373, 4000),
  ('', 'nlvr', 'train'): Corpus(74_460, 74_460, 400),
  ('', 'nlvr', 'dev'): Corpus(5_934, 5_934, 400),
  ('', 'nlvr', 'test'): Corpus(5_940, 5_940, 400),
  ('', 'boxes', 'train'): Corpus(8_000, 64_000, 400),
  ('', 'easy_vqa', 'train'): Corpus(3_600, 34_713, 64, even=False),
  ('', 'scenes', 'train'): Corpus(8_000, 64_000, 64),
  ('vqa', 'scenes', 'train'): Corpus(8_000, 50_561, 64, even=False),
  ('nlvr2', 'scenes', 'train'): Corpus(12_000, 12_000, 64),
  ('labels', 'scenes', 'train'): Corpus(8_000, 8_000, 64),
}
ANSWERS = {'vqa_v2': 3_129, 'easy_vqa': 13, 'scenes': 21}
LABELS = {'scenes': 200}
DEFAULT_SIDE = 1280  # of files of another dataset


def find(task: str, name: str, selection: str) -> list[Corpus] | None:
  """Returns the counts of each source of a mixture; None if those of one are not known.

  A selection, 'train+val[!karpathy_val]', has whole splits counted; of a mixture the first dataset
  has all of them, the others those that exist, as in `mixture.mix`.
  """
  sources: list[Corpus] = []
  for dataset in name.split('+'):
    splits = re.sub(r'\[[^\]]*\]', '', selection).split('+')
    found = [
      CORPORA.get((task, dataset, split)) or CORPORA.get(('', dataset, split)) for split in splits
    ]
    known = [corpus for corpus in found if corpus]
    if not known or (len(known) < len(splits) and not sources):
      return None
    images, texts = sum(c.images for c in known), sum(c.texts for c in known)
    sources.append(Corpus(images, texts, max(c.side for c in known), known[0].even))
  return sources


def groups(sources: Sequence[Corpus], texts_per_image: int, shares: Sequence[float] = ()) -> int:
  """Counts the groups of an epoch: images, each with `texts_per_image` of its texts.

  Texts that fill no group are left out, as `input/order.py` does; where images differ in their
  number of texts, (K - 1) / 2 of an image are, on average.

  Args:
    sources: of the mixture.
    texts_per_image: K.
    shares: of the sources in an epoch; all of them if there are none.
  """
  k, counts = texts_per_image, []
  for corpus in sources:
    mean = corpus.texts / corpus.images
    if k == 1:
      counts.append(float(corpus.texts))
    elif corpus.even:
      counts.append(corpus.images * max(mean // k, 1))
    else:
      counts.append(max((corpus.texts - corpus.images * (k - 1) / 2) / k, corpus.images))
  if shares:
    kept = min(n / share for n, share in zip(counts, shares, strict=True))
    counts = [kept * share for share in shares]
  return round(sum(counts))
