"""What a builder says of each image: the texts that a sidecar keeps."""

import dataclasses
from collections.abc import Sequence

# One letter a word of a caption: what kind of thing in the image the word speaks of.
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
  """A text of an image, as a builder gives it.

  Attributes:
    text: the text, unnormalised.
    id: the dataset's own number of it.
    label: whether the text is true of its image, where the corpus says so.
    claim: the text's meaning as a key; texts with the same claim are true of the same images.
    kinds: one letter a word (split on blanks) from VISUAL_KINDS, or '.' for no visual word.
    rivals: bit masks over the words. The image makes another sentence true that differs
      from this one in exactly those words, so they are not determined if all are hidden.
    subset: the part of the split that it is in, if it has parts; `split[subset]` selects it.
  """

  text: str
  id: int
  label: bool = True
  claim: str | None = None
  kinds: str | None = None
  rivals: tuple[int, ...] = ()
  subset: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
  """A question about an image, in VQA's terms; `subset` names the part of the split it is in.

  `answers` are the annotators', as given; none where the dataset keeps them to itself.
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
  """What the sidecar keeps of one image; `claims` are all that are true of it."""

  image_id: str
  height: int
  width: int
  captions: Sequence[Caption] = ()
  claims: Sequence[str] = ()
  questions: Sequence[Question] = ()
  statements: Sequence[Statement] = ()
