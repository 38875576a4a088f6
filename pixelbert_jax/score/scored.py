"""Scores of a prediction file, overall and per item, and the difference of two files."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.score import (
  annotations,
  bootstrap,
  eccv,
  matrix,
  nlvr,
  nlvr2,
  predictions,
  recall,
  vqa,
)


@dataclasses.dataclass(frozen=True)
class Scored:
  """The scores of a prediction file."""

  # As printed with --json; `scored` says how much, where it is not all that was published.
  summary: dict
  sizes: Mapping[str, int]  # number of items of each mean, by its name in the table
  per_item: dict  # id -> score; in retrieval direction -> id -> rank
  # What --compare resamples: metric -> (scores [N], clusters [N]).
  items: Mapping[str, tuple[np.ndarray, np.ndarray]]
  cluster: str  # what a cluster is, in the plural


def read_questions(annotated: str, asked: str | None) -> tuple[list[vqa.Question], int]:
  """Reads the annotated questions of VQA; with a questions file, only those it lists.

  Returns:
    The questions, and the number of all that are annotated.
  """
  questions = annotations.read_vqa(annotated)
  if not asked:
    return questions, len(questions)
  by_id = {q.question_id: q for q in questions}
  wanted = annotations.read_vqa_question_ids(asked)
  if missing := [i for i in wanted if i not in by_id]:
    raise UserError(
      f'{annotated} lacks question {missing[0]} of {asked}: do the files belong together?'
    )
  return [by_id[i] for i in wanted], len(questions)


def score_vqa(path: str, questions: Sequence[vqa.Question], annotated: int) -> Scored:
  """Scores a VQA prediction file on all `questions`, of which there are `annotated`."""
  answers = predictions.read_vqa(path, [q.question_id for q in questions])
  per_item = vqa.per_question(answers, questions)
  sizes = {'accuracy': len(questions)}
  sizes |= collections.Counter(f'per_answer_type/{q.answer_type}' for q in questions)
  sizes |= collections.Counter(f'per_question_type/{q.question_type}' for q in questions)
  images = np.array([q.image_id for q in questions])
  summary = vqa.summarise(per_item, questions)
  if (scoring := questions[0].scoring) != vqa.OFFICIAL:
    # One's own questions may lack types.
    summary = {name: means for name, means in summary.items() if means != {'': summary['accuracy']}}
    summary['scoring'] = scoring.title
  if len(questions) < annotated:
    summary['scored'] = f'{len(questions):,} of {annotated:,} questions'
  return Scored(
    summary,
    sizes,
    per_item,
    {'accuracy': (np.array(list(per_item.values())), images)},
    'images',
  )


def score_nlvr2(path: str, labels: Mapping[str, bool]) -> Scored:
  """Scores an NLVR2 prediction file, overall and on the balanced and unbalanced subsets."""
  correct = nlvr.correct(predictions.read_nlvr2(path, labels), labels)
  result = _by_sentence(nlvr2.items(correct, labels), nlvr2.sentence)
  if partial := nlvr2.partial(labels):
    result.summary['scored'] = partial
  return result


def score_nlvr(path: str, labels: Mapping[str, bool]) -> Scored:
  """Scores an NLVR prediction file by the labels of its images."""
  correct = nlvr.correct(predictions.read_nlvr(path, labels), labels)
  return _by_sentence(nlvr.items(correct), nlvr.sentence)


def _by_sentence(items: nlvr.Items, sentence: Callable[[str], str]) -> Scored:
  correct, consistent = items['accuracy'], items['consistency']
  compared = {
    'accuracy': (np.array(list(correct.values())), np.array([sentence(n) for n in correct])),
    'consistency': (np.array(list(consistent.values())), np.array(list(consistent))),
  }
  sizes = {name: len(x) for name, x in items.items()}
  per_item = {name: int(item_correct) for name, item_correct in correct.items()}
  return Scored(nlvr.shares(items), sizes, per_item, compared, 'sentences')


def score_retrieval(
  path: str,
  annotated: str,
  splits: Sequence[annotations.Captions],
  judgements: eccv.Judgements | None = None,
) -> Scored:
  """Scores a score matrix; with 5,000 images also as the mean over five folds of 1,000.

  With `judgements`, also by CxC and ECCV Caption.
  """
  scores, image_ids, text_ids = matrix.read(path)
  captions = annotations.captions_of(annotated, splits, image_ids)
  text_image, place = matrix.match(path, image_ids, text_ids, captions)
  try:
    places = eccv.locate(text_ids, text_image, judgements) if judgements else None
    image_ranks, text_ranks = recall.ranks(scores, text_image)
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  summary: dict[str, Any] = recall.recalls(image_ranks, text_ranks, text_image)
  summary |= recall.five_folds(scores, text_image, place)
  sizes = {name: len(image_ids if name.startswith('text') else text_ids) for name in summary}
  summary |= {
    'images': len(image_ids),
    'texts': len(text_ids),
    'captions': recall.convention(len(text_ids), sum(map(len, captions.values()))),
  }
  result = Scored(
    summary,
    sizes,
    {
      'text_retrieval': dict(zip(image_ids, image_ranks.tolist(), strict=True)),
      'image_retrieval': dict(zip(text_ids, text_ranks.tolist(), strict=True)),
    },
    # A common order of items: two files may order their rows and columns differently.
    _hits('text', image_ranks, place, np.argsort(place))
    | _hits('image', text_ranks, place[text_image], np.argsort(text_ids)),
    'images',
  )
  return _judged(result, scores, places, judgements) if judgements and places else result


def _judged(
  result: Scored, scores: np.ndarray, places: eccv.Places, judgements: eccv.Judgements
) -> Scored:
  """Adds the scores by CxC and ECCV Caption, `cxc_text_recall_at_1` and so on."""
  items, ranks = dict(result.items), dict(result.per_item)
  image_of = judgements.image_of
  for dataset, positives, measure in (
    ('cxc', judgements.cxc, eccv.cxc),
    ('eccv', judgements.eccv, eccv.eccv),
  ):
    for kind, found in eccv.ranks(scores, places, positives).items():
      images = np.array([image_of[query] if kind == 'image' else query for query in found])
      for metric, values in measure(found).items():
        items[f'{dataset}_{kind}_{metric}'] = (values, images)
      ranks[f'{dataset}_{kind}_retrieval'] = {str(query): int(x[0]) for query, x in found.items()}
  judged = {name: values for name, (values, _) in items.items() if name not in result.items}
  summary = result.summary | {name: float(values.mean()) for name, values in judged.items()}
  summary['judged_captions'] = recall.convention(len(image_of), result.summary['texts'])
  sizes = {**result.sizes, **{name: len(values) for name, values in judged.items()}}
  return Scored(summary, sizes, ranks, items, result.cluster)


def _hits(name: str, ranks: np.ndarray, cluster: np.ndarray, order: np.ndarray) -> dict:
  return {f'{name}_recall_at_{k}': (ranks[order] <= k, cluster[order]) for k in recall.CUTOFFS}


def compare(first: Scored, second: Scored) -> dict[str, dict]:
  """Computes for each metric the difference of two files, with its 95% bootstrap interval.

  Raises:
    UserError: the files were scored on different items.
  """
  # Only in retrieval do the annotations leave open which items are scored.
  texts, others = (x.per_item.get('image_retrieval', {}).keys() for x in (first, second))
  if differing := sorted(texts ^ others):
    raise UserError(
      f'--compare: the files do not score the same captions ({first.summary["captions"]}; '
      f'{second.summary["captions"]}; {len(differing):,} are in one file only, such as '
      f'{differing[0]}): use one split and one convention'
    )
  differences = {}
  for name, (values, cluster) in first.items.items():
    result = bootstrap.paired_difference(values, second.items[name][0], cluster)
    differences[name] = {
      'first': first.summary[name],
      'second': second.summary[name],
      **dataclasses.asdict(result),
    }
  return differences
