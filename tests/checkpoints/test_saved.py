"""A manifest describes one step and detects any change of itself."""

import json

import numpy as np
import pytest

from pixelbert_jax.checkpoints import DamagedError
from pixelbert_jax.checkpoints.saved import Manifest


def test_a_manifest_is_protected_by_its_own_digest():
  model = {'params': {'a': np.ones(3, np.float32), 'b': np.zeros(3, np.float32)}}
  manifest = Manifest.of(7, {'seed': 0, 'rate': 1e-05}, {'vocab.txt': 'ab'}, {'model': model})
  text = json.dumps(manifest.sealed())
  assert Manifest.unseal(text) == manifest
  exchanged = {'model': {'params': {'a': model['params']['b'], 'b': model['params']['a']}}}
  assert manifest.damaged({'model': model}) == []
  assert manifest.damaged(exchanged) == ['model/params/a', 'model/params/b']
  same = 0
  for i in range(len(text)):
    changed = text[:i] + chr(ord(text[i]) ^ 1) + text[i + 1 :]
    try:
      assert Manifest.unseal(changed) == manifest  # another way to write the same
      same += 1
    except ValueError:
      pass
  assert same < 3


def test_a_manifest_is_of_its_step(tmp_path):
  manifest = Manifest.of(7, {}, {}, {'model': {'a': np.ones(3)}})
  for name in ('7', '8'):
    (tmp_path / name / 'manifest').mkdir(parents=True)
    (tmp_path / name / 'manifest/metadata').write_text(json.dumps(manifest.sealed()))
  assert Manifest.read(tmp_path / '7') == manifest
  with pytest.raises(DamagedError, match='it was saved as step 7'):
    Manifest.read(tmp_path / '8')
