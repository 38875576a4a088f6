"""The official scores of anybody's prediction file, from the published annotation files.

    python -m pixelbert_jax.score vqa|nlvr2|nlvr|retrieval --predictions=F --annotations=F

`docs/scores.md` has an example of each, and the conventions. Imports no JAX.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from pixelbert_jax import commandline
from pixelbert_jax.score import annotations, bootstrap, predictions, scored


def _table(found: scored.Scored) -> str:
  """Scores in % with the number of items each is over; then what is no score."""
  rows: list[tuple[str, float | None, int | None]] = []
  notes: list[str] = []
  for name, value in found.summary.items():
    if isinstance(value, Mapping):
      rows.append((name, None, None))
      rows += [(f'  {kind}', v, found.sizes[f'{name}/{kind}']) for kind, v in value.items()]
    elif name in found.sizes:
      rows.append((name, value, found.sizes[name]))
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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = commandline.Parser(
    'pixelbert_jax.score', 'Official scores of a prediction file. docs/scores.md has examples.'
  )
  parser.add_argument('task', choices=('vqa', 'nlvr2', 'nlvr', 'retrieval'))
  parser.add_argument('--predictions', metavar='F', required=True, help='the file to score')
  parser.add_argument('--annotations', metavar='F', help='as published; may be gzipped')
  parser.add_argument('--questions', metavar='F', help='of vqa: the questions to be answered')
  parser.add_argument('--compare', metavar='F', help='a second prediction file')
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  parser.add_argument('--per_item', action='store_true', help='with the score of each id')
  options = parser.parse_args(argv)
  if options.questions and options.task != 'vqa':
    parser.error('--questions is for vqa only')
  if not options.annotations and not options.questions:
    parser.error('name the annotations with --annotations=F')
  if options.compare and not options.annotations:
    parser.error('--compare needs --annotations=F: without answers there is no score')
  return options


def _scorer(options: argparse.Namespace) -> Callable[[str], scored.Scored]:
  """Reads the annotations, once; what it returns scores a prediction file by them."""
  file = options.annotations
  match options.task:
    case 'vqa':
      return functools.partial(
        scored.score_vqa, questions=scored.read_questions(file, options.questions)
      )
    case 'nlvr2':
      return functools.partial(scored.score_nlvr2, labels=annotations.read_nlvr2(file))
    case 'nlvr':
      return functools.partial(scored.score_nlvr, labels=annotations.read_nlvr(file))
    case _:
      splits = annotations.read_captions(file)
      return functools.partial(scored.score_retrieval, annotated=file, splits=splits)


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
  found = score(options.predictions)
  differences = scored.compare(found, score(options.compare)) if options.compare else {}
  if options.json:
    printed = found.summary | ({'compare': differences} if differences else {})
    return json.dumps(printed | ({'per_item': found.per_item} if options.per_item else {}))
  parts = [_table(found)]
  if differences:
    parts.append(_compare_table(differences, found.cluster))
  if options.per_item:
    parts.append('\n'.join(_item_lines(found.per_item)))
  return '\n\n'.join(parts)


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the scores; errors that the user can mend are a line each, and exit code 1."""
  argv = sys.argv[1:] if argv is None else argv
  return commandline.answer(lambda: print(_report(_parse(argv))), '--debug' in argv)


if __name__ == '__main__':
  sys.exit(main())
