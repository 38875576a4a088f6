"""Visual Genome's questions (Krishna et al. 2017), each with the answer of one annotator."""

import sys

import tensorflow_datasets as tfds

from data import genome
from data.entry import Need
from data.listing import TWICE, Once
from pixelbert_jax.fields import Fields
from pixelbert_jax.input.rows import Question
from pixelbert_jax.score.vqa import normalise

QUESTIONS = 'question_answers.json'
SAME = 'the same question and answer as another of the image'


class Builder(genome.GenomeBuilder):
  """Visual Genome: a record is an image with about thirteen questions; in the order of the file.

  Images of test splits of other datasets are omitted, except in the configuration `all`.
  """

  VERSION = tfds.core.Version('1.0.0')
  TEXTS = ('questions',)
  LISTS = QUESTIONS
  NEEDS = genome.needs(Need((QUESTIONS,), f'{genome.HOMEPAGE} (version 1.2)'))
  # Of version 1.2; 1.0 has 1,773,258 questions.
  PUBLISHED = {  # noqa: RUF012 - as TFDS's own
    'train': {'images': sum(genome.FOLDERS.values()), 'questions': 1_445_322}
  }

  def listed(self, image: Fields) -> genome.Listed:
    """Reads the questions of an image; they are stripped, answers stay as they are."""
    once, seen = Once('qa_id'), set[tuple[str, str]]()
    questions, others = [], []
    for asked in image.objects('qas'):
      question = _question(asked)
      pair = question.text, question.multiple_choice_answer.strip()
      if once.repeats(asked, question.id, question):
        others.append((TWICE, question))
      elif not pair[1]:
        others.append(('without answer', question))
      elif pair in seen:
        others.append((SAME, question))
      else:
        questions.append(question)
      seen.add(pair)
    return questions, others


def _question(asked: Fields) -> Question:
  """Reads a question; the file does not say of which type it and its answer are."""
  text = asked.text('question').strip()
  # A million answers have fewer distinct values, each stored once.
  answer = sys.intern(asked.text('answer'))
  return Question(
    text,
    genome.number(asked, 'qa_id', 'id'),
    answers=(answer,),
    multiple_choice_answer=answer,
    question_type=sys.intern(' '.join(text.lower().split()[:2])),
    answer_type=_answer_type(answer),
  )


def _answer_type(answer: str) -> str:
  """Returns the type that VQA gives to such an answer."""
  plain = normalise(answer)
  if plain in ('yes', 'no'):
    return 'yes/no'
  return 'number' if plain.isdecimal() else 'other'
