"""Two optimisers with a schedule each: SGD for the CNN, AdamW for the rest (paper section 4.1).

From scratch, small models learn better with Muon (Jordan et al. 2024), which moves all directions
of a matrix alike. With SGD, the large gradient of colours claims every filter of the CNN before the
small gradient of shapes has moved any. With AdamW, a Transformer takes many more steps to know
which colour is whose and what is left of what (RESULTS.md).
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from optax import contrib

Tree = Any

# In each group exactly one pattern must match the path of every parameter.
OPTIMISERS = {'cnn': r'(backbone/)?cnn/.*', 'transformer': r'(?!(backbone/)?cnn/).*'}
# Of those, the kernels of the Transformer's layers, and its momentum, where these have Muon.
LAYERS, MOMENTUM = r'(backbone/)?encoder/.*kernel', 0.95
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
  transformer_rule: str,
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
    transformer_rule: 'adamw', or 'muon' for the kernels of the Transformer's layers and AdamW with
      Nesterov momentum for embeddings and heads.
    transformer_rate, transformer_betas, transformer_epsilon, transformer_decay: those of AdamW,
      for all other parameters; rate and decay are also Muon's.
    clip_norm: largest global gradient norm; 0 turns clipping off.
    frozen_stages: of the CNN, as in `ResNet`: they stay bitwise as they are, without moments.

  Raises:
    ValueError: the rule is unknown, or a parameter does not match exactly one pattern.
  """
  decay_mask = functools.partial(_flags, match_once(DECAYED, params))
  muon = functools.partial(_muon, betas=transformer_betas, mask=decay_mask)
  decays = optax.add_decayed_weights(cnn_decay, decay_mask)
  cnn = {
    'sgd': optax.chain(decays, optax.sgd(cnn_rate, cnn_momentum)),
    'muon': muon(cnn_rate, cnn_momentum, cnn_decay, _filters),
    'none': optax.set_to_zero(),
  }
  rate, decay, e = transformer_rate, transformer_decay, transformer_epsilon
  rest = {'weight_decay': decay, 'mask': decay_mask, 'nesterov': transformer_rule == 'muon'}
  adamw = optax.adamw(rate, *transformer_betas, e, **rest)
  layers = {'adamw': adamw, 'muon': muon(rate, MOMENTUM, decay, _layers)}
  rules = {
    'cnn': _chosen('cnn_rule', cnn_rule, cnn),
    'transformer': adamw,
    'layers': _chosen('transformer_rule', transformer_rule, layers),
    'frozen': optax.set_to_zero(),
  }
  apart = {'layers': LAYERS} if transformer_rule == 'muon' else {}
  if frozen_stages:
    apart |= {'frozen': FROZEN.format(frozen_stages)}
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  return optax.chain(clip, _by_part(rules, params, apart))


def _flags(decayed: Tree, tree: Tree) -> Tree:
  """Returns for each array of a part of the model whether it is decayed."""
  return _map_present(lambda _, flag: flag, tree, decayed)


def _muon(
  rate: optax.Schedule,
  momentum: float,
  decay: float,
  matrices: Callable,
  *,
  betas: tuple[float, float],
  mask: Callable,
) -> optax.GradientTransformation:
  """Makes Muon for `matrices`, and Adam with `betas` for other arrays."""
  return contrib.muon(
    rate,
    beta=momentum,
    weight_decay=decay,
    weight_decay_mask=mask,
    adam_b1=betas[0],
    adam_b2=betas[1],
    muon_weight_dimension_numbers=matrices,
    consistent_rms=0.2,
  )


def _chosen(
  field: str, rule: str, rules: dict[str, optax.GradientTransformation]
) -> optax.GradientTransformation:
  """Returns the rule of this name; ValueError if there is none."""
  if rule not in rules:
    raise ValueError(f'optimizer.{field} has to be one of {list(rules)}, not {rule!r}')
  return rules[rule]


def _by_part(
  rules: dict[str, optax.GradientTransformation], params: Tree, apart: dict[str, str]
) -> optax.GradientTransformation:
  """Applies to each part of the model its rule; `apart` are patterns of parts that others lack."""
  others = ''.join(f'(?!{pattern})' for pattern in apart.values())
  patterns = {part: others + pattern for part, pattern in OPTIMISERS.items()} | apart
  return optax.partition({part: rules[part] for part in patterns}, match_once(patterns, params))


def _filters(params: Tree) -> Tree:
  """Tells Muon to treat kernels [..., H, W, I, O] as matrices [HWI, O]; None for other arrays."""

  def matrix(leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
    n = leaf.ndim
    return contrib.MuonDimensionNumbers((n - 4, n - 3, n - 2), (n - 1,)) if n >= 4 else None

  return _map_present(matrix, params)


def _layers(params: Tree) -> Tree:
  """Tells Muon to treat the stacked kernels [L, I, O] as L matrices."""

  return _map_present(lambda _: contrib.MuonDimensionNumbers((1,), (2,)), params)


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
