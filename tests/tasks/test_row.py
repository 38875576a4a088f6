"""The row of a batch that a task makes from zeros is like one of its real batches."""

import pytest

from configs import labels, nlvr, nlvr2, pretrain, retrieval, vqa
from pixelbert_jax.experiment import Experiment, prepare_data, resolve

# Those of images, which are the same for all tasks.
IMAGES = {'image', 'source_size', 'size', 'canvas', 'flip'}


@pytest.mark.parametrize('module', [labels, pretrain, vqa, nlvr, nlvr2, retrieval])
@pytest.mark.parametrize('role', ['train', 'test'])
def test_a_row_is_like_a_batch(module, role, few_scenes):
  config = module.get_config('test')
  config.data.data_dir = str(few_scenes)
  config = resolve(config)
  experiment = Experiment.of(config, prepare_data(config), roles=['train', 'validation', 'test'])
  batches = experiment.batches[role]
  batch = batches[0]
  # An evaluation has another number of texts an image, but in retrieval.
  texts = config.texts_per_image if role == 'train' else batches.texts_per_image
  row = experiment.task.row(texts, config.text.length, role == 'train')
  assert row.keys() == batch.keys() - IMAGES
  for name, x in row.items():
    assert x.shape == (1, *batch[name].shape[1:]), name
    assert x.dtype == batch[name].dtype, name
