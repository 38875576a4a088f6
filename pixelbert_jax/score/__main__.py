"""Scores a prediction file of any system with the official metrics and annotation files.

    python -m pixelbert_jax.score vqa --predictions=runs/vqa-s0/predictions/test.json \\
      --annotations=v2_mscoco_val2014_annotations.json

docs/scores.md has an example of each task, and the conventions.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pixelbert_jax import commandline, jsons
from pixelbert_jax.score import annotations, bootstrap, eccv, predictions, scored


def _table(result: scored.Scored) -> str:
  """Formats scores in % with the number of items of each mean; counts and notes follow."""
  rows, notes = [], []
  for name, value in result.summary.items():
    if isinstance(value, Mapping):
      items = ((f'  {kind}', v, result.sizes[f'{name}/{kind}']) for kind, v in value.items())
      rows.extend([(name, None, None), *items])
    elif name in result.sizes:
      rows.append((name, value, result.sizes[name]))
    else:
      notes.append(f'{name}: {value:,}' if isinstance(value, int) else f'{name}: {value}')
  width = max(len(name) for name, _, _ in rows) + 2
  lines = [f'{"":<{width}}{"%":>8}{"of":>10}']
  for name, value, size in rows:
    lines.append(name if value is None else f'{name:<{width}}{100 * value:>8.2f}{size:>10,}')
  return '\n'.join(lines + notes)


def _compare_table(differences: Mapping[str, Mapping], cluster: str) -> str:
  """Formats differences in % with their confidence intervals."""
  width = max(map(len, differences)) + 2
  lines = [f'{"":<{width}}{"first":>8}{"second":>8}{"difference":>12}  95% interval']
  for name, d in differences.items():
    low, high = d['interval']
    lines.append(
      f'{name:<{width}}{100 * d["first"]:>8.2f}{100 * d["second"]:>8.2f}'
      f'{100 * d["difference"]:>+12.2f}  {100 * low:+.2f} to {100 * high:+.2f}'
    )
  counts = sorted({d['clusters'] for d in differences.values()})  # fewer of what is judged
  clusters = ' to '.join(f'{n:,}' for n in dict.fromkeys((counts[0], counts[-1])))
  lines.append(f'paired bootstrap, {bootstrap.RESAMPLES:,} resamples of {clusters} {cluster}')
  return '\n'.join(lines)


def _item_lines(per_item: Mapping) -> Iterable[str]:
  """Yields lines of 'id score'; in retrieval 'direction id rank'."""
  for name, value in per_item.items():
    if isinstance(value, Mapping):
      yield from (f'{name} {line}' for line in _item_lines(value))
    else:
      yield f'{name} {value:g}'


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  parser = commandline.Parser('pixelbert_jax.score', __doc__)
  file: dict[str, Any] = {'metavar': 'F', 'type': commandline.path}
  parser.add_argument('task', choices=('vqa', 'nlvr2', 'nlvr', 'retrieval'))
  parser.add_argument('--predictions', **file, required=True, help='the file to score')
  parser.add_argument('--annotations', **file, help='published annotations; may be gzipped')
  parser.add_argument('--questions', **file, help='vqa only: the questions to answer')
  parser.add_argument('--compare', **file, help='a second prediction file; adds differences')
  parser.add_argument(
    '--eccv',
    action='store_true',
    help="retrieval of COCO's test split only: add the scores by ECCV Caption and CxC",
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  parser.add_argument('--per_item', action='store_true', help='add the score of each id')
  options = parser.parse_args(argv)
  if options.questions and options.task != 'vqa':
    parser.error('--questions is for vqa only')
  if options.eccv and options.task != 'retrieval':
    parser.error('--eccv is for retrieval only')
  if not options.annotations and not options.questions:
    parser.error('name the annotations with --annotations=F')
  if options.compare and not options.annotations:
    parser.error('--compare needs --annotations=F: scores need the ground truth')
  return options


def _scorer(options: argparse.Namespace) -> Callable[[str], scored.Scored]:
  """Reads the annotations once; returns a function that scores a prediction file."""
  file = options.annotations
  match options.task:
    case 'vqa':
      questions, annotated = scored.read_questions(file, options.questions)
      return functools.partial(scored.score_vqa, questions=questions, annotated=annotated)
    case 'nlvr2':
      return functools.partial(scored.score_nlvr2, labels=annotations.read_nlvr2(file))
    case 'nlvr':
      return functools.partial(scored.score_nlvr, labels=annotations.read_nlvr(file))
    case _:
      judgements = eccv.read() if options.eccv else None
      splits = annotations.read_captions(file)
      return functools.partial(
        scored.score_retrieval, annotated=file, splits=splits, judgements=judgements
      )


def _check(options: argparse.Namespace) -> str:
  """Checks answers to questions without annotations, such as those of a test split."""
  answers = predictions.read_vqa(
    options.predictions, annotations.read_vqa_question_ids(options.questions)
  )
  if options.json:
    return jsons.text({'valid_predictions': len(answers)})
  return f'valid_predictions: {len(answers):,}'


def _report(options: argparse.Namespace) -> str:
  """Returns the text that the command prints."""
  if not options.annotations:
    return _check(options)
  score = _scorer(options)
  result = score(options.predictions)
  differences = scored.compare(result, score(options.compare)) if options.compare else {}
  if options.json:
    printed = result.summary | ({'compare': differences} if differences else {})
    return jsons.text(printed | ({'per_item': result.per_item} if options.per_item else {}))
  parts = [_table(result)]
  if differences:
    parts.append(_compare_table(differences, result.cluster))
  if options.per_item:
    parts.append('\n'.join(_item_lines(result.per_item)))
  return '\n\n'.join(parts)


def main(argv: Sequence[str]) -> int:
  """Prints the scores; returns the exit code, 1 after printing errors in one line each."""
  return commandline.answer(lambda argv: print(_report(_parse(argv))), argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
