"""Two optimisers with a schedule each: SGD for the CNN, AdamW for the rest (paper section 4.1).

From scratch, a small CNN learns better with Muon (Jordan et al. 2024). With SGD, the large gradient
of colours claims every filter before the small gradient of shapes has moved any; Muon moves all
directions alike.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from optax import contrib

Tree = Any

# In each group exactly one pattern must match the path of every parameter.
OPTIMISERS = {'cnn': r'(backbone/)?cnn/.*', 'transformer': r'(?!(backbone/)?cnn/).*'}
# Of those, what is fixed where stages of the CNN are frozen up to this one.
FROZEN = r'(backbone/)?cnn/(stem|layer[1-{}])/.*'
DECAYED = {True: r'.*/(kernel|embedding)', False: r'(.*/)?(bias|scale|log_scale|semantic|mlm_bias)'}


def match_once(patterns: dict[Any, str], params: Tree) -> Tree:
  """Labels every parameter with the key of the one pattern that matches its whole path.

  Args:
    patterns: by label, a regular expression over paths such as 'cnn/layer1/first/conv1/kernel'.
    params: a tree of dicts.

  Raises:
    ValueError: no pattern, or several, match a parameter; the message names it.
  """

  def label(path: tuple, _) -> Any:
    name = '/'.join(key.key for key in path)
    labels = [key for key, pattern in patterns.items() if re.fullmatch(pattern, name)]
    if len(labels) != 1:
      raise ValueError(f'parameter {name} is matched by {len(labels)} of {list(patterns.values())}')
    return labels[0]

  return jax.tree_util.tree_map_with_path(label, params)


def stepped_schedule(
  peak: float, warmup_steps: int, boundaries: Sequence[int], factor: float
) -> optax.Schedule:
  """Makes a linear warm-up from 0 to `peak`, then multiplied by `factor` at each boundary step."""

  def schedule(step):
    warmup = optax.linear_schedule(0.0, peak, warmup_steps) if warmup_steps else lambda _: peak
    decay = optax.piecewise_constant_schedule(1.0, {int(b): factor for b in boundaries})
    return warmup(step) * decay(step)

  return schedule


def optimizer(
  params: Tree,
  cnn_rule: str,
  cnn_rate: optax.Schedule,
  cnn_momentum: float,
  cnn_decay: float,
  transformer_rate: optax.Schedule,
  transformer_betas: tuple[float, float],
  transformer_epsilon: float,
  transformer_decay: float,
  clip_norm: float,
  frozen_stages: int = 0,
) -> optax.GradientTransformation:
  """Makes the optimiser, which clips by the global norm and updates each part by its own rule.

  SGD adds its weight decay to the gradient before the momentum, as PyTorch does; the other decays
  are decoupled. Muon's updates are scaled to the length of AdamW's; scales and biases it leaves to
  Adam with Nesterov momentum. Biases, norms, the temperature of retrieval's first stage and the
  shared semantic vector are not decayed.

  Args:
    params: the parameters, or their shapes.
    cnn_rule: 'sgd' or 'muon', both with `cnn_momentum`, or 'none', which leaves the CNN unchanged.
    cnn_rate, cnn_momentum, cnn_decay: learning rate, momentum and weight decay of the CNN.
    transformer_rate, transformer_betas, transformer_epsilon, transformer_decay: those of AdamW,
      for all other parameters.
    clip_norm: largest global gradient norm; 0 turns clipping off.
    frozen_stages: of the CNN, as in `ResNet`: they stay bitwise as they are, without moments.

  Raises:
    ValueError: the rule is unknown, or a parameter does not match exactly one pattern.
  """
  decayed = match_once(DECAYED, params)

  def decay_mask(tree: Tree) -> Tree:
    return _map_present(lambda _, flag: flag, tree, decayed)

  b1, b2 = transformer_betas
  decays = optax.add_decayed_weights(cnn_decay, decay_mask)
  cnn = {
    'sgd': optax.chain(decays, optax.sgd(cnn_rate, cnn_momentum)),
    'muon': contrib.muon(
      cnn_rate,
      beta=cnn_momentum,
      weight_decay=cnn_decay,
      weight_decay_mask=decay_mask,
      adam_b1=b1,
      adam_b2=b2,
      muon_weight_dimension_numbers=_matrices,
      consistent_rms=0.2,
    ),
    'none': optax.set_to_zero(),
  }
  if cnn_rule not in cnn:
    raise ValueError(f'optimizer.cnn_rule has to be one of {list(cnn)}, not {cnn_rule!r}')
  adamw = optax.adamw(
    transformer_rate, b1, b2, transformer_epsilon, weight_decay=transformer_decay, mask=decay_mask
  )
  rules = {'cnn': cnn[cnn_rule], 'transformer': adamw, 'frozen': optax.set_to_zero()}
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  return optax.chain(clip, _by_part(rules, params, frozen_stages))


def _by_part(
  rules: dict[str, optax.GradientTransformation], params: Tree, frozen_stages: int
) -> optax.GradientTransformation:
  """Applies to each part of the model its rule; 'frozen' only where stages are."""
  patterns = OPTIMISERS
  if frozen_stages:
    fixed = FROZEN.format(frozen_stages)
    patterns = {part: f'(?!{fixed}){x}' for part, x in OPTIMISERS.items()} | {'frozen': fixed}
  return optax.partition({part: rules[part] for part in patterns}, match_once(patterns, params))


def _matrices(params: Tree) -> Tree:
  """Tells Muon to treat kernels [..., H, W, I, O] as matrices [HWI, O]; None for other arrays."""

  def matrix(leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
    n = leaf.ndim
    return contrib.MuonDimensionNumbers((n - 4, n - 3, n - 2), (n - 1,)) if n >= 4 else None

  return _map_present(matrix, params)


def _map_present(function: Callable, tree: Tree, *others: Tree) -> Tree:
  """Maps the leaves of a tree but the placeholders that `optax.partition` has for other parts'."""

  def absent(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)

  return jax.tree.map(
    lambda leaf, *rest: leaf if absent(leaf) else function(leaf, *rest),
    tree,
    *others,
    is_leaf=absent,
  )
