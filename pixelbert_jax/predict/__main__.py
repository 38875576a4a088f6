"""A trained model on one's own images: the Python API, which is that of trained.py, and a command:

    python -m pixelbert_jax.predict --checkpoint=C --image=F --question="what colour is it"
    python -m pixelbert_jax.predict --checkpoint=C --image=F --text="a cat" --text="a dog"
    python -m pixelbert_jax.predict --checkpoint=C --image=F --fill="a [MASK] cat" --heatmap=H.png

docs/predict.md shows both.
"""

import dataclasses
import functools
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import logging

from pixelbert_jax import commandline
from pixelbert_jax.predict import heatmap
from pixelbert_jax.predict.model import FLAGS, load

# What the numbers of each are, above them in the shell.
TITLES = {
  'answer': 'answers, and how right each of them is held to be by itself',
  'match': 'texts, and how probable it is that each is true of the image',
  'fill': 'hidden words, and how probable each of the whole vocabulary is',
}


def flags_of(argv: Sequence[str]) -> Any:
  """The flags, checked: an image, and one thing to do with it."""
  parser = commandline.Parser('pixelbert_jax.predict', 'Asks a trained model about an image.')
  parser.add_argument('--checkpoint', required=True, help='a workdir, WORKDIR@STEP, or a folder')
  parser.add_argument('--image', required=True, help='a file')
  parser.add_argument('--question', help='to answer')
  parser.add_argument('--text', action='append', help='is it true of the image? May come again')
  parser.add_argument('--fill', help='a text with one [MASK], for the hidden word')
  parser.add_argument('--heatmap', help='the picture to write: where the words of the text look')
  parser.add_argument('--json', action='store_true', help='one object instead of lines')
  parser.add_argument('more', nargs='*', metavar='TEXT', help='more of --text')
  flags = parser.parse_args(argv)
  if flags.more and not flags.text:
    parser.error(f'{flags.more[0]!r} belongs to no flag; a text with blanks stands in quotes')
  flags.text = [*flags.text, *flags.more] if flags.text else []
  if sum(map(bool, (flags.question, flags.text, flags.fill))) != 1:
    empty = [name for name in FLAGS.values() if f'{name}=' in argv]
    parser.error(f'{empty[0]} is empty' if empty else f'give one of {", ".join(FLAGS.values())}')
  if flags.heatmap and len(flags.text) > 1:
    parser.error('--heatmap is of one text: give one --text')
  if flags.heatmap:
    heatmap.check_path(flags.heatmap)
  return flags


def command(argv: Sequence[str]) -> None:
  """Does what the flags ask for, and prints it."""
  flags = flags_of(argv)
  logging.set_verbosity(logging.WARNING)
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    model = load(flags.checkpoint)
    if flags.question:
      head, key, found = 'answer', 'answer', model.answer(flags.image, flags.question)[0]
    elif flags.fill:
      head, key, found = 'fill', 'word', model.fill(flags.image, flags.fill)[0]
    else:
      probabilities = model.match(flags.image, flags.text)[0].tolist()
      head, key, found = 'match', 'text', list(zip(flags.text, probabilities, strict=True))
    if flags.heatmap:
      heat = model.heatmap(flags.image, flags.question or flags.fill or flags.text[0])
      said = f'{found[0][1]:.3f}' if head == 'match' else '{}  {:.3f}'.format(*found[0])
      dataclasses.replace(heat, title=f'{heat.title}:  {said}').save(flags.heatmap)
  for line in dict.fromkeys(str(w.message) for w in caught):
    if line != model.note:  # which comes with the answer
      print(f'note: {line}', file=sys.stderr)
  if flags.json:
    rows = [{key: name, 'probability': p} for name, p in found]
    asked = {name: x for name in ('question', 'fill') if (x := getattr(flags, name))}
    drawn = {'heatmap': flags.heatmap} if flags.heatmap else {}
    about = {'trained_on': model.trained_on, 'note': model.note}
    answer = {'image': flags.image, **asked, f'{key}s': rows, **drawn, **about}
    print(json.dumps(answer, ensure_ascii=False))
    return
  print(f'{TITLES[head]}:')
  for name, p in found:
    print(f'{p:.3f}  {name}')
  if flags.heatmap:
    print(f'{flags.heatmap} shows where the words look')
  if model.note:
    print(f'This model was {model.note}.')


def main(argv: Sequence[str]) -> int:
  """The command, its errors one line."""
  return commandline.answer(functools.partial(command, argv), '--debug' in argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
