"""Rows: the texts of an image, as a dataset builder gives them to the sidecar."""

import dataclasses
from collections.abc import Sequence

# A letter for each word of a caption: the kind of visual property that the word names.
VISUAL_KINDS = {
  'c': 'colour',
  's': 'shape',
  'z': 'size',
  'n': 'count',
  'l': 'place',
  'p': 'pattern',
}


@dataclasses.dataclass(frozen=True, slots=True)
class Caption:
  """A caption of an image.

  Attributes:
    text: the text, not normalised.
    id: its number in the dataset.
    label: whether the text is true of its image, where the corpus has such labels.
    claim: the text's meaning as a key; texts with the same claim, of whatever dataset, are true of
      the same images.
    kinds: one letter for each word (split on blanks) from VISUAL_KINDS; '.' if it is not visual.
    rivals: bit masks over the words. Another sentence, which differs from this one in exactly
      the words of a mask, is also true of the image: if all of them are hidden, the image does not
      determine them.
    foils: texts that differ from this one in what matters, and are false of its image.
    subset: the part of the split that it is in, if it has parts; `split[subset]` selects it.
  """

  text: str
  id: int
  label: bool = True
  claim: str | None = None
  kinds: str | None = None
  rivals: tuple[int, ...] = ()
  foils: tuple[str, ...] = ()
  subset: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
  """A question about an image, in VQA's terms; `subset` is the part of the split that it is in.

  `answers` are those of the annotators, unchanged; empty where they are not public.
  """

  text: str
  id: int
  answers: Sequence[str] = ()
  multiple_choice_answer: str = ''
  question_type: str = ''
  answer_type: str = ''
  subset: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
  """A sentence about two images, in NLVR2's terms; `left` and `right` are image ids."""

  text: str
  identifier: str
  label: bool
  left: str
  right: str
  subset: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
  """The sidecar's entry of one image; `claims` are all that are true of it."""

  image_id: str
  height: int
  width: int
  captions: Sequence[Caption] = ()
  claims: Sequence[str] = ()
  questions: Sequence[Question] = ()
  statements: Sequence[Statement] = ()


def check(caption: Caption, row: Row, first: Caption) -> None:
  """Checks a caption of a row, beside the first of the split; ValueError names its fault."""
  words = caption.text.split()
  if (caption.claim is None) != (first.claim is None):
    raise ValueError(f'{caption.text!r}: all captions must have a claim, or none')
  if caption.claim is not None and caption.claim not in row.claims:
    raise ValueError(f'{caption.text!r}: {caption.claim!r} is not a claim of {row.image_id}')
  if (caption.kinds is None) != (first.kinds is None):
    raise ValueError(f'{caption.text!r}: all captions must have kinds, or none')
  if caption.kinds is not None:
    # Tokenisers also split at punctuation, so words with punctuation are not allowed here.
    plain = all(word.isalnum() for word in words)
    if not plain or len(words) != len(caption.kinds) or len(words) > 64:
      raise ValueError(
        f'{caption.text!r}: kinds must be one for each word, of at most 64 plain words'
      )
