"""What each backend does best, chosen by the platform that a program is compiled for."""

from typing import NamedTuple


class Backend(NamedTuple):
  """Ways to compute the same values, up to rounding.

  Attributes:
    unroll: layers one after the other instead of in a scan, which compiles one layer for all.
      Inside a loop, XLA runs convolutions on one core of a CPU, 20 to 200 times as slowly; on a TPU
      it copies what is kept for the backward pass, a tenth of a step.
    products: 1x1 convolutions as matrix products: a quarter off a step on CPU, 18% more on TPU.
    rows: grouped convolutions as products of unfolded rows. On CPU, XLA's take two to three times
      as long, and the gradient of their kernel 80 times (benchmarks/grouped_convolution.py).
    compares: maxima over windows by comparisons, whose gradient is a choice. XLA looks for each
      maximum anew, which takes seven times as long on CPU.
    keeps: what a block of the CNN puts out is computed once (`resnet.kept`), not anew from all
      blocks before by whatever reads it: 3% of a step of R50 on CPU, 6% of X152.
    lanes: channels that narrow groups of a convolution are merged to; 0 leaves them as they are. A
      TPU pads each group to its 128 lanes.
    folds: fixed BatchNorm's scale as a factor of the kernel before it. The gradient of the scale is
      then a sum over the kernel's, and what a convolution puts out need not be kept or recomputed.
    pairs: where BatchNorm is fixed, stages of half the lanes or less compute pairs of columns,
      which else are padded to twice their bytes; needs `folds` and `lanes`.
    strips: that an image is cut into for the stem; needs `folds`. A TPU lays out arrays of 3
      channels by the batch, and of 8 images pads it to 128: to 16 times their bytes.
  """

  unroll: bool = False
  products: bool = True
  rows: bool = False
  compares: bool = False
  keeps: bool = False
  lanes: int = 0
  folds: bool = False
  pairs: bool = False
  strips: int = 1

  def folded(self, frozen: bool, train: bool) -> bool:
    """Tells whether a BatchNorm is folded into kernels: where its statistics are fixed."""
    return self.folds and (frozen or not train)


def backend(platform: str) -> Backend:
  """Returns what is best for programs of a platform, as `jax.Device.platform` names it."""
  if platform == 'cpu':
    return Backend(unroll=True, rows=True, compares=True, keeps=True)
  if platform == 'tpu':
    return Backend(unroll=True, products=False, lanes=128, folds=True, pairs=True, strips=16)
  return Backend()
