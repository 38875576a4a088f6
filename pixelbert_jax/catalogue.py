"""The tasks there are: of each its module, its model, its batches and how it is evaluated.

To add one, put a `Task` into `TASKS` under the `name` of its configuration; docs/add_a_task.md
shows one from beginning to end.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
from ml_collections import ConfigDict

from pixelbert_jax.input import mixture
from pixelbert_jax.input.pipeline import Batches
from pixelbert_jax.input.visual import TextGuess
from pixelbert_jax.models.heads import (
  MatchingModel,
  Model,
  Nlvr2Model,
  PretrainingModel,
  VqaModel,
)
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.tasks import answers as answers_lib
from pixelbert_jax.tasks import nlvr, pretraining, retrieval, vqa
from pixelbert_jax.tasks.gallery import RankingBatches
from pixelbert_jax.tasks.nlvr import Nlvr2Batches, NlvrBatches
from pixelbert_jax.tasks.pretraining import PairBatches
from pixelbert_jax.tasks.ranker import BLOCK
from pixelbert_jax.tasks.vqa import QuestionBatches

ROLES = ('train', 'validation', 'test')  # of a dataset's splits
Fields = Mapping[str, dict[str, Any]]  # of `Batches`, by role
Answers = list[str] | None  # to choose from


@dataclasses.dataclass(frozen=True)
class Task:
  """What an experiment has to know of a task.

  Attributes:
    module: losses, metrics and the rest of what `tasks/__init__.py` lists.
    model: makes it of a backbone and of the number of answers to choose from.
    batches: makes them by role, given the configuration and the fields that all batches have.
    ranks: every image is evaluated with every text (ranking.py), not batch by batch.
  """

  module: ModuleType
  model: Callable[[PixelBert, int], Model]
  batches: Callable[[ConfigDict, Fields, Answers], dict[str, Batches]]
  ranks: bool = False


def pair_batches(config: ConfigDict, fields: Fields, answers: Answers) -> dict[str, Batches]:
  """Of pre-training."""
  train = fields['train']['split'] if 'train' in fields else None
  guess = TextGuess(train.sidecar) if train else None
  return {
    role: PairBatches(
      mask_share=config.mask_share,
      whole_share=config.whole_share,
      shares=mixture.shares_of(train, config.data.shares) if role == 'train' else None,
      guess=None if role == 'train' else guess,
      **fields[role],
    )
    for role in fields
  }


def question_batches(config: ConfigDict, fields: Fields, answers: Answers) -> dict[str, Batches]:
  """Of VQA."""
  guess = None
  if 'train' in fields:
    guess = answers_lib.guess_by_type(fields['train']['split'].sidecar.questions, answers)
  return {role: QuestionBatches(answers=answers, guess=guess, **fields[role]) for role in fields}


def ranking_batches(config: ConfigDict, fields: Fields, answers: Answers) -> dict[str, Batches]:
  """Of retrieval."""
  most = BLOCK * jax.device_count()
  return {
    role: RankingBatches(
      hardest=config.hardest,
      most_images=config.eval_images,
      most_captions=config.eval_captions,
      **fields[role] | ({} if role == 'train' else {'images': min(fields[role]['images'], most)}),
    )
    for role in fields
  }


def plain_batches(kind: type[Batches]) -> Callable[..., dict[str, Batches]]:
  """Of a kind that needs nothing but what all have."""
  return lambda config, fields, answers: {role: kind(**fields[role]) for role in fields}


def without_answers(model: type) -> Callable[[PixelBert, int], Model]:
  """Makes a model that does not choose from answers."""
  return lambda backbone, answers: model(backbone)


# By the name of a configuration.
TASKS = {
  'pretrain': Task(pretraining, without_answers(PretrainingModel), pair_batches),
  'vqa': Task(vqa, VqaModel, question_batches),
  'nlvr2': Task(nlvr, without_answers(Nlvr2Model), plain_batches(Nlvr2Batches)),
  'nlvr': Task(nlvr, without_answers(MatchingModel), plain_batches(NlvrBatches)),
  'retrieval': Task(retrieval, without_answers(MatchingModel), ranking_batches, ranks=True),
}
