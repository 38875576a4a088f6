"""Examples for a model of rendered scenes: pictures, each with something to ask of it."""

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

import pixelbert_jax
from pixelbert_jax.predict import EXAMPLES

PICTURE = pathlib.Path(pixelbert_jax.__file__).parents[1] / 'docs/scene.jpg'  # of the checkout
SCENES = 48  # that are rendered
ASKED = 5  # of these, the first that something is asked of


@dataclasses.dataclass(frozen=True)
class Example:
  """A picture and what to ask of it.

  Attributes:
    path: the image file.
    question: a question.
    texts: two texts.
    hidden: a text with one [MASK].
  """

  path: pathlib.Path
  question: str
  texts: tuple[str, str]
  hidden: str


def render(trained_on: Sequence[str], folder: pathlib.Path) -> list[Example]:
  """Fills a folder with docs/scene.jpg and SCENES held-out ones; returns examples on some of them.

  There are none for a model that was not trained on scenes, and none outside a checkout.

  Args:
    trained_on: names of datasets.
    folder: an empty one.
  """
  names = [name for name in trained_on if name.split('/')[0] == 'scenes']
  if not names or not PICTURE.exists():
    return []
  from data.scenes import record, render, world  # of the checkout

  difficulty = names[-1].partition('/')[2] or next(iter(world.DIFFICULTIES))
  places = [record.Place(difficulty, 'test', number) for number in range(SCENES)]
  paths = [folder / f'{place.image_id}.jpg' for place in places]
  for place, path in zip(places, paths, strict=True):
    path.write_bytes(render.jpeg(record.scene(place)))
  own = shutil.copy(PICTURE, folder / PICTURE.name)
  said = [record.example(place) for place in places[:ASKED]]
  captions = [each['captions'][0]['text'] for each in said]
  return [
    Example(
      pathlib.Path(own),
      EXAMPLES['answer'],
      (EXAMPLES['match'], EXAMPLES['match'].replace('left', 'right')),
      'a yellow circle left of a [MASK] cross',
    ),
    *(
      Example(
        paths[i],
        said[i]['questions'][i % 3]['question'],
        (captions[i], captions[i - 1]),
        f'a [MASK] {said[i]["objects"][0]["shape"]}',
      )
      for i in range(ASKED)
    ),
  ]
