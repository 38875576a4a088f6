"""The examples that the demo begins with."""

from PIL import Image

from pixelbert_jax.demo import examples


def test_scenes_each_with_something_to_ask(tmp_path):
  found = examples.render(('labels', 'scenes'), tmp_path)
  assert [example.path.name for example in found[:2]] == ['scene.jpg', 'test-00000.jpg']
  assert len(list(tmp_path.iterdir())) == 1 + examples.SCENES
  for example in found:
    with Image.open(example.path) as picture:
      assert min(picture.size) >= 48
    assert example.question
    assert len({*example.texts}) == 2
    assert example.hidden.split().count('[MASK]') == 1


def test_they_are_as_hard_as_those_of_training(tmp_path):
  (_, example, *_) = examples.render(('scenes/medium',), tmp_path)
  with Image.open(example.path) as picture:
    assert max(picture.size) == 96


def test_none_for_a_model_of_photographs(tmp_path):
  assert examples.render(('coco_karpathy',), tmp_path) == []
  assert list(tmp_path.iterdir()) == []


def test_none_outside_a_checkout(tmp_path, monkeypatch):
  monkeypatch.setattr(examples, 'PICTURE', tmp_path / 'scene.jpg')
  assert examples.render(('scenes',), tmp_path) == []
