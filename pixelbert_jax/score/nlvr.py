"""NLVR's official scores, as nlvr/metrics_images.py of https://github.com/lil-lab/nlvr."""

from collections.abc import Callable, Mapping

IMAGES = 6  # permutations of an example, each an image that shares its label


def sentence(image_id: str) -> str:
  """The sentence of an image: of '1572-0-3' it is '1572', which '1572-1-0' shares."""
  return image_id.split('-')[0]


def correct(predictions: Mapping[str, bool], labels: Mapping[str, bool]) -> dict[str, bool]:
  """Which predictions are right, by id; KeyError for a label without prediction."""
  return {name: predictions[name] == label for name, label in labels.items()}


def accuracy(correct: Mapping[str, bool]) -> float:
  """The share of images, or examples, that are right."""
  return sum(correct.values()) / len(correct)


def consistent(correct: Mapping[str, bool], sentence: Callable[[str], str]) -> dict[str, bool]:
  """Whether everything about a sentence is right, by sentence."""
  sentences: dict[str, bool] = {}
  for name, right in correct.items():
    key = sentence(name)
    sentences[key] = sentences.get(key, True) and right
  return sentences


def summarise(correct: Mapping[str, bool]) -> dict[str, float]:
  """`accuracy` over images and `consistency` over sentences, in 0..1."""
  return {
    'accuracy': accuracy(correct),
    'consistency': accuracy(consistent(correct, sentence)),
  }
