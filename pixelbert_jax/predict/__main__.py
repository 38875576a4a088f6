"""Asks a trained model about an image.

    python -m pixelbert_jax.predict --checkpoint=C --image=F --question="what colour is it"
    python -m pixelbert_jax.predict --checkpoint=C --image=F --text="a cat" --text="a dog"
    python -m pixelbert_jax.predict --checkpoint=C --image=F --fill="a [MASK] cat" --heatmap=H.png

docs/predict.md shows it and the Python API.
"""

import dataclasses
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import logging

from pixelbert_jax import commandline, jsons
from pixelbert_jax.predict import FLAGS, heatmap, remarks


def flags_of(argv: Sequence[str]) -> Any:
  """Parses and checks the flags: an image, and one thing to do with it."""
  parser = commandline.Parser('pixelbert_jax.predict', __doc__)
  parser.epilog = remarks.RULES
  any_path, path = commandline.any_path, commandline.path
  parser.add_argument(
    '--checkpoint', type=any_path, required=True, help='a workdir, WORKDIR@STEP, or a folder'
  )
  parser.add_argument('--image', type=path, required=True, help='the image file')
  parser.add_argument('--question', help='the question to answer')
  parser.add_argument(
    '--text', action='append', help='a text to compare with the image; may be repeated'
  )
  parser.add_argument('--fill', help='a text with one [MASK], the word to predict')
  parser.add_argument('--k', type=int, default=5, help='number of answers or words; 5 by default')
  parser.add_argument(
    '--heatmap', type=path, help='the picture to write: where the score comes from and words look'
  )
  parser.add_argument(
    '--heatmap_method',
    '--heatmap-method',
    choices=heatmap.METHODS,
    help=f'how its maps of words are made; {heatmap.METHODS[0]} by default',
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object instead of lines')
  parser.add_argument('more', nargs='*', metavar='TEXT', help='more texts after --text')
  flags = parser.parse_args(argv)
  if flags.more and not flags.text:
    parser.error(f'{flags.more[0]!r} belongs to no flag; put a text with spaces in quotes')
  flags.text = [*flags.text, *flags.more] if flags.text else []
  if sum(map(bool, (flags.question, flags.text, flags.fill))) != 1:
    empty = [name for name in FLAGS.values() if f'{name}=' in argv]
    parser.error(f'{empty[0]} is empty' if empty else f'give one of {", ".join(FLAGS.values())}')
  if flags.heatmap and len(flags.text) > 1:
    parser.error('--heatmap draws one text: give one --text')
  if flags.heatmap_method and not flags.heatmap:
    parser.error('--heatmap_method is of the picture that --heatmap writes: give both')
  if flags.heatmap:
    heatmap.check_path(flags.heatmap)
  return flags


def command(argv: Sequence[str]) -> None:
  """Runs the model as the flags ask, and prints the result."""
  flags = flags_of(argv)
  with commandline.interruptible():  # JAX is imported only once the flags are right.
    from pixelbert_jax.predict.model import load
    from pixelbert_jax.predict.photos import pixels_of

  logging.set_verbosity(logging.WARNING)
  pixels_of(flags.image)  # If it cannot be read, this is said before the model is loaded.
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    model = load(flags.checkpoint)
    if flags.question:
      head, key, results = 'answer', 'answer', model.answer(flags.image, flags.question, flags.k)[0]
    elif flags.fill:
      head, key, results = 'fill', 'word', model.fill(flags.image, flags.fill, flags.k)[0]
    else:
      probabilities = model.match(flags.image, flags.text)[0].tolist()
      head, key, results = 'match', 'text', list(zip(flags.text, probabilities, strict=True))
    if flags.heatmap:
      text, method = flags.question or flags.fill or flags.text[0], flags.heatmap_method
      heat = model.heatmap(flags.image, text, method or heatmap.METHODS[0])
      title = remarks.title(head, heat.title, results[0])
      dataclasses.replace(heat, title=title).save(flags.heatmap)
  for line in remarks.notes(caught, model.note):
    print(f'note: {line}', file=sys.stderr)
  read = flags.text or [flags.question or flags.fill] * len(results)  # by row
  unknown = [model.unknown_words(text) for text in read]
  if flags.json:
    rows = remarks.objects(key, results, unknown)
    asked = {name: x for name in ('question', 'fill') if (x := getattr(flags, name))}
    drawn = {'heatmap': flags.heatmap} if flags.heatmap else {}
    lines = remarks.remarks(head, [p for _, p in results])
    about = {'remarks': lines, 'trained_on': model.trained_on, 'note': model.note}
    answer = {'image': flags.image, **asked, **rows, **drawn, **about}
    print(jsons.text(answer, ensure_ascii=False))
    return
  print('\n'.join(remarks.page(remarks.TITLES[head], head, results, unknown)))
  if flags.heatmap:
    print(f'{flags.heatmap} shows where the score comes from, and where each word looks')
  if model.note:
    print(f'This model was {model.note}.')


def main(argv: Sequence[str]) -> int:
  """Runs the command, prints an error as one line, and returns the exit code."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
