"""Official scores of NLVR, after nlvr/metrics_images.py of https://github.com/lil-lab/nlvr."""

from collections.abc import Callable, Mapping

Items = dict[str, dict[str, bool]]  # metric -> id of an item -> whether it is correct

IMAGES = 6  # per example: permutations of its boxes, which share its label


def sentence(image_id: str) -> str:
  """Returns the sentence id of an image: '1572' for '1572-0-3', and for '1572-1-0' too."""
  return image_id.split('-')[0]


def correct(predictions: Mapping[str, bool], labels: Mapping[str, bool]) -> dict[str, bool]:
  """Returns by id whether the prediction is correct; KeyError for a label without prediction."""
  return {name: predictions[name] == label for name, label in labels.items()}


def consistent(correct: Mapping[str, bool], sentence: Callable[[str], str]) -> dict[str, bool]:
  """Returns by sentence id whether all items of the sentence are correct."""
  sentences: dict[str, bool] = {}
  for name, item_correct in correct.items():
    key = sentence(name)
    sentences[key] = sentences.get(key, True) and item_correct
  return sentences


def items(correct: dict[str, bool], sentence: Callable[[str], str] = sentence) -> Items:
  """Returns what each metric averages: `accuracy` all items, `consistency` their sentences."""
  return {'accuracy': correct, 'consistency': consistent(correct, sentence)}


def shares(items: Items) -> dict[str, float]:
  """Computes each metric, in 0..1, as the share of its items that are correct."""
  return {name: sum(correct.values()) / len(correct) for name, correct in items.items()}


def summarise(correct: dict[str, bool]) -> dict[str, float]:
  """Computes `accuracy` over images and `consistency` over sentences, in 0..1."""
  return shares(items(correct))
