"""What is compared in speed computes the same."""

import numpy as np
import torch

from benchmarks import train
from benchmarks.steps import Ours, PyTorch
from pixelbert_jax.convert import names


def small():
  """Makes the small work, as `benchmarks.train` does, of two images."""
  work = train.work(train.Sizes('', 2, 2, (64, 64), remat=False))
  work.config.cnn.batch_norm = 'frozen'
  return work


def test_plain_and_masked_pytorch_and_ours_have_the_same_loss():
  work = small()
  ours, plain, masked = Ours(work), PyTorch(work, masks=False), PyTorch(work, masks=True)
  tensors = {
    name: torch.from_numpy(np.array(x)) for name, x in names.to_torch(ours.state.variables).items()
  }
  masked.model.load_state_dict(tensors)
  for to, of in zip(of_cnn(plain.model), of_cnn(masked.model), strict=True):
    to.copy_(of)
  missing, unexpected = plain.model.bert.load_state_dict(
    {name: x for name, x in tensors.items() if name.startswith(('bert.', 'cls.'))}, strict=False
  )
  assert unexpected == []
  assert all('seq_relationship' in name or 'decoder' in name for name in missing)
  for name in ('projection', 'itm'):
    getattr(plain.model, name).load_state_dict(getattr(masked.model, name).state_dict())
  plain.model.semantic.data.copy_(masked.model.semantic)
  losses = [x.loss(x.image()).item() for x in (plain, masked)]
  ours()
  sums = {name: np.array(x) for name, x in ours.state.sums.items()}
  of_ours = sum(sums[f'{name}_loss'][0] / sums[f'{name}_loss'][1] for name in ('mlm', 'itm'))
  np.testing.assert_allclose([of_ours, losses[0]], losses[1], rtol=2e-5)


def of_cnn(model):
  """Returns the tensors of a CNN in the order of its layers, without BatchNorm's counters."""
  tensors = model.cnn.state_dict()
  return [x for name, x in tensors.items() if not name.endswith('num_batches_tracked')]
