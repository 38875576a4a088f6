"""The official scores of anybody's prediction file, from the published annotation files.

    python -m pixelbert_jax.score vqa|nlvr2|nlvr|retrieval --predictions=F --annotations=F

`docs/scores.md` has an example of each, and the conventions. Imports no JAX.
"""

import argparse
import collections
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NoReturn

import numpy as np

from pixelbert_jax import UserError
from pixelbert_jax.scores import (
  annotations,
  bootstrap,
  matrix,
  nlvr,
  nlvr2,
  predictions,
  recall,
  vqa,
)

_COCO_IMAGES, _FOLD = 5000, 1000  # of the 5K protocol; the 1K one is the mean of five folds


@dataclasses.dataclass(frozen=True)
class Scored:
  """What is known of a prediction file."""

  summary: dict  # as printed with --json
  sizes: Mapping[str, int]  # how many items the means are over, by their names in the table
  per_item: dict  # id -> score; of retrieval, direction -> id -> rank
  # What --compare resamples: metric -> (score of each item, its cluster).
  items: Mapping[str, tuple[np.ndarray, np.ndarray]]
  cluster: str  # the noun


def read_questions(annotated: str, asked: str | None) -> list[vqa.Question]:
  """The annotated questions of VQA; with a file of questions, those in it."""
  questions = annotations.read_vqa(annotated)
  if not asked:
    return questions
  by_id = {q.question_id: q for q in questions}
  wanted = annotations.read_vqa_question_ids(asked)
  if missing := [i for i in wanted if i not in by_id]:
    raise UserError(f'{annotated} lacks question {missing[0]} of {asked}: are they a pair?')
  return [by_id[i] for i in wanted]


def score_vqa(path: str, questions: Sequence[vqa.Question]) -> Scored:
  """Scores a VQA file on all these questions."""
  answers = predictions.read_vqa(path, [q.question_id for q in questions])
  per_item = vqa.per_question(answers, questions)
  sizes = {'accuracy': len(questions)}
  sizes |= collections.Counter(f'per_answer_type/{q.answer_type}' for q in questions)
  sizes |= collections.Counter(f'per_question_type/{q.question_type}' for q in questions)
  images = np.array([q.image_id for q in questions])
  return Scored(
    vqa.summarise(per_item, questions),
    sizes,
    per_item,
    {'accuracy': (np.array(list(per_item.values())), images)},
    'images',
  )


def score_nlvr2(path: str, labels: Mapping[str, bool]) -> Scored:
  """Scores an NLVR2 file, with the balanced and unbalanced subsets."""
  correct = nlvr.correct(predictions.read_nlvr2(path, labels), labels)
  sizes = _sizes('', correct, nlvr2.sentence)
  for name, identifiers in nlvr2.subsets(labels).items():
    sizes |= _sizes(f'{name}_', identifiers, nlvr2.sentence)
  return _by_sentence(nlvr2.summarise(correct, labels), sizes, correct, nlvr2.sentence)


def score_nlvr(path: str, labels: Mapping[str, bool]) -> Scored:
  """Scores an NLVR file, by the labels of its images."""
  correct = nlvr.correct(predictions.read_nlvr(path, labels), labels)
  sizes = _sizes('', correct, nlvr.sentence)
  return _by_sentence(nlvr.summarise(correct), sizes, correct, nlvr.sentence)


def _sizes(prefix: str, names: Collection[str], sentence: Callable[[str], str]) -> dict[str, int]:
  return {
    f'{prefix}accuracy': len(names),
    f'{prefix}consistency': len(set(map(sentence, names))),
  }


def _by_sentence(
  summary: dict,
  sizes: Mapping[str, int],
  correct: Mapping[str, bool],
  sentence: Callable[[str], str],
) -> Scored:
  consistent = nlvr.consistent(correct, sentence)
  items = {
    'accuracy': (np.array(list(correct.values())), np.array([sentence(n) for n in correct])),
    'consistency': (np.array(list(consistent.values())), np.array(list(consistent))),
  }
  per_item = {name: int(right) for name, right in correct.items()}
  return Scored(summary, sizes, per_item, items, 'sentences')


def score_retrieval(path: str, annotated: str, splits: Sequence[annotations.Captions]) -> Scored:
  """Scores a score matrix; over 5,000 images also as the mean of five folds of 1,000."""
  scores, image_ids, text_ids = matrix.read(path)
  captions = annotations.captions_of(annotated, splits, image_ids)
  text_image, place = matrix.match(path, image_ids, text_ids, captions)
  try:
    image_ranks, text_ranks = recall.ranks(scores, text_image)
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  summary = recall.recalls(image_ranks, text_ranks, text_image)
  if len(image_ids) == _COCO_IMAGES:
    fold = recall.consecutive_folds(len(image_ids), _FOLD)[place]
    folded = recall.recalls(*recall.ranks(scores, text_image, fold), text_image, fold)
    summary |= {f'{name}_1k': value for name, value in folded.items()}
  sizes = {name: len(image_ids if name.startswith('text') else text_ids) for name in summary}
  summary |= {
    'images': len(image_ids),
    'texts': len(text_ids),
    'captions': recall.convention(len(text_ids), sum(map(len, captions.values()))),
  }
  return Scored(
    summary,
    sizes,
    {
      'text_retrieval': dict(zip(image_ids, image_ranks.tolist(), strict=True)),
      'image_retrieval': dict(zip(text_ids, text_ranks.tolist(), strict=True)),
    },
    # Files may differ in the order of their rows and columns.
    _hits('text', image_ranks, place, np.argsort(place))
    | _hits('image', text_ranks, place[text_image], np.argsort(text_ids)),
    'images',
  )


def _hits(name: str, ranks: np.ndarray, cluster: np.ndarray, order: np.ndarray) -> dict:
  return {f'{name}_recall_at_{k}': (ranks[order] <= k, cluster[order]) for k in recall.CUTOFFS}


def compare(first: Scored, second: Scored) -> dict[str, dict]:
  """For each metric the difference of two files, with its bootstrap interval of 95%.

  Raises:
    UserError: they were scored on different items.
  """
  differences = {}
  for name, (values, cluster) in first.items.items():
    other = second.items[name][0]
    if len(other) != len(values):
      raise UserError(
        f'--compare: the files do not score the same captions '
        f'({first.summary["captions"]}; {second.summary["captions"]}): use one convention'
      )
    found = bootstrap.paired_difference(values, other, cluster)
    differences[name] = {
      'first': first.summary[name],
      'second': second.summary[name],
      'difference': found.difference,
      'interval': [found.low, found.high],
      'clusters': found.clusters,
    }
  return differences


def _table(scored: Scored) -> str:
  """Scores in % with the number of items each is over; then what is no score."""
  rows, notes = [], []
  for name, value in scored.summary.items():
    if isinstance(value, Mapping):
      rows.append((name, None, None))
      rows += [(f'  {kind}', v, scored.sizes[f'{name}/{kind}']) for kind, v in value.items()]
    elif name in scored.sizes:
      rows.append((name, value, scored.sizes[name]))
    else:
      notes.append(f'{name}: {value:,}' if isinstance(value, int) else f'{name}: {value}')
  wide = max(len(name) for name, _, _ in rows) + 2
  lines = [f'{"":<{wide}}{"%":>8}{"of":>10}']
  for name, value, size in rows:
    lines.append(name if value is None else f'{name:<{wide}}{100 * value:>8.2f}{size:>10,}')
  return '\n'.join(lines + notes)


def _compare_table(differences: Mapping[str, Mapping], cluster: str) -> str:
  """Differences in % and their intervals."""
  wide = max(map(len, differences)) + 2
  lines = [f'{"":<{wide}}{"first":>8}{"second":>8}{"difference":>12}  95% interval']
  for name, d in differences.items():
    low, high = d['interval']
    lines.append(
      f'{name:<{wide}}{100 * d["first"]:>8.2f}{100 * d["second"]:>8.2f}'
      f'{100 * d["difference"]:>+12.2f}  {100 * low:+.2f} to {100 * high:+.2f}'
    )
  clusters = next(iter(differences.values()))['clusters']
  lines.append(f'paired bootstrap, {bootstrap.RESAMPLES:,} resamples of {clusters:,} {cluster}')
  return '\n'.join(lines)


def _item_lines(per_item: Mapping) -> Iterable[str]:
  """'id score' lines, with the direction before them in retrieval."""
  for name, value in per_item.items():
    if isinstance(value, Mapping):
      yield from (f'{name} {line}' for line in _item_lines(value))
    else:
      yield f'{name} {value:g}'


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}; --help lists the flags')


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = _Parser(
    'python -m pixelbert_jax.score',
    description='Official scores of a prediction file. docs/scores.md has examples.',
    allow_abbrev=False,
  )
  parser.add_argument('task', choices=('vqa', 'nlvr2', 'nlvr', 'retrieval'))
  parser.add_argument('--predictions', metavar='F', required=True, help='the file to score')
  parser.add_argument('--annotations', metavar='F', help='as published; may be gzipped')
  parser.add_argument('--questions', metavar='F', help='of vqa: the questions to be answered')
  parser.add_argument('--compare', metavar='F', help='a second prediction file')
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  parser.add_argument('--per_item', action='store_true', help='with the score of each id')
  parser.add_argument('--debug', action='store_true', help='show a traceback with an error')
  options = parser.parse_args(argv)
  if options.questions and options.task != 'vqa':
    parser.error('--questions is for vqa only')
  if not options.annotations and not options.questions:
    parser.error('name the annotations with --annotations=F')
  if options.compare and not options.annotations:
    parser.error('--compare needs --annotations=F: without answers there is no score')
  return options


def _scorer(options: argparse.Namespace) -> Callable[[str], Scored]:
  """Reads the annotations, once; what it returns scores a prediction file by them."""
  file = options.annotations
  match options.task:
    case 'vqa':
      return functools.partial(score_vqa, questions=read_questions(file, options.questions))
    case 'nlvr2':
      return functools.partial(score_nlvr2, labels=annotations.read_nlvr2(file))
    case 'nlvr':
      return functools.partial(score_nlvr, labels=annotations.read_nlvr(file))
    case _:
      splits = annotations.read_captions(file)
      return functools.partial(score_retrieval, annotated=file, splits=splits)


def _check(options: argparse.Namespace) -> str:
  """Checks answers to questions that have no annotations, such as those of test."""
  answers = predictions.read_vqa(
    options.predictions, annotations.read_vqa_question_ids(options.questions)
  )
  found = {'valid_predictions': len(answers)}
  return json.dumps(found) if options.json else f'valid_predictions: {len(answers):,}'


def _report(options: argparse.Namespace) -> str:
  """What the command prints."""
  if not options.annotations:
    return _check(options)
  score = _scorer(options)
  scored = score(options.predictions)
  differences = compare(scored, score(options.compare)) if options.compare else {}
  if options.json:
    printed = scored.summary | ({'compare': differences} if differences else {})
    return json.dumps(printed | ({'per_item': scored.per_item} if options.per_item else {}))
  parts = [_table(scored)]
  if differences:
    parts.append(_compare_table(differences, scored.cluster))
  if options.per_item:
    parts.append('\n'.join(_item_lines(scored.per_item)))
  return '\n\n'.join(parts)


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the scores; errors that the user can mend are a line each, and exit code 1."""
  debug = '--debug' in (sys.argv if argv is None else argv)
  try:
    print(_report(_parse(argv)))
  except UserError as error:
    if debug:
      raise
    for line in str(error).splitlines():
      print(f'error: {line}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
