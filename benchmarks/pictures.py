"""Draws pictures for the pages: `python -m benchmarks.pictures`.

Of sample scenes, with what is said and asked of them; and of where words look, by the model of
pre-training that comes with the repository.
"""

import dataclasses
import hashlib
import io
import json

from matplotlib import pyplot as plt
from PIL import Image

from benchmarks import drawing
from data.scenes import record
from pixelbert_jax import predict

ROOT = drawing.DOCS.parent
PICTURE = drawing.DOCS / 'scenes.svg'
WORDS = drawing.DOCS / 'words.png'
TEXT, SHOWN_WORDS = predict.EXAMPLES['match'], ('yellow', 'left', 'green')
SHOWN = (('easy', 0), ('easy', 3), ('medium', 2), ('medium', 9), ('hard', 1), ('hard', 2))


def shown() -> list[tuple[str, bytes, str]]:
  """Returns what is drawn of each scene: its difficulty, its JPEG, and the lines below it."""
  found = []
  for difficulty, index in SHOWN:
    example = record.example(record.Place(difficulty, 'test', index))
    caption, question = example['captions'][0], example['questions'][0]
    lines = f'true: {caption["text"]}', f'false: {json.loads(caption["foils"])[0]}'
    asked = f'{question["question"]}?  {json.loads(question["answers"])[0]}'
    found.append((difficulty, example['image'], '\n'.join([*lines, asked])))
  return found


def digest() -> str:
  """Returns the SHA-256 of what is drawn, in hexadecimal."""
  parts = [part.encode() for title, _, lines in shown() for part in (title, lines)]
  return hashlib.sha256(b'\n'.join([*parts, *(jpeg for _, jpeg, _ in shown())])).hexdigest()


def draw_words() -> None:
  """Writes WORDS, the heat maps of a few words of TEXT."""
  model = predict.load(ROOT / 'checkpoints/scenes-pretrain')
  heat = model.heatmap(ROOT / 'docs/scene.jpg', TEXT)
  chosen = [heat.tokens.index(word) for word in SHOWN_WORDS]
  title = f'{TEXT}:  {model.match(heat.image, TEXT)[0, 0]:.3f}'
  few = {'tokens': SHOWN_WORDS, 'cells': heat.cells[chosen], 'score_cells': None, 'note': ''}
  dataclasses.replace(heat, title=title, **few).save(WORDS)


def draw_scenes() -> None:
  """Writes PICTURE."""
  figure, axes = plt.subplots(2, 3, figsize=(9, 6.6))
  for axis, (title, jpeg, lines) in zip(axes.flat, shown(), strict=True):
    axis.imshow(
      Image.open(io.BytesIO(jpeg)), interpolation='none'
    )  # small: as many pixels as it has
    axis.set_anchor('S')
    axis.set_axis_off()
    axis.set_title(title, fontsize=10)
    axis.text(0.5, -0.04, lines, transform=axis.transAxes, ha='center', va='top', fontsize=9)
  drawing.save(figure, PICTURE, digest())


if __name__ == '__main__':
  draw_scenes()
  draw_words()
