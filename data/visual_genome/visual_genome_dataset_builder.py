"""Visual Genome (Krishna et al. 2017): photographs with descriptions of their regions."""

import tensorflow_datasets as tfds

from data import genome
from data.entry import Need
from data.listing import TWICE, Once
from pixelbert_jax.fields import Fields
from pixelbert_jax.input.rows import Caption

REGIONS = 'region_descriptions.json'


class Builder(genome.GenomeBuilder):
  """Visual Genome: a record is an image with about fifty descriptions; in the order of the file.

  Images of test splits of other datasets are omitted, except in the configuration `all`.
  """

  VERSION = tfds.core.Version('1.2.0')
  LISTS = REGIONS
  NEEDS = genome.needs(Need((REGIONS,), f'{genome.HOMEPAGE} (version 1.2)', '121 MB zipped'))
  PUBLISHED = {'train': {'images': sum(genome.FOLDERS.values())}}  # noqa: RUF012 - as TFDS's own

  def listed(self, image: Fields) -> genome.Listed:
    """Reads the descriptions of an image; texts are stripped."""
    once, captions, repeated = Once('region'), [], []
    for region in image.objects('regions'):
      number = genome.number(region, 'region_id', 'id')
      caption = Caption(region.text('phrase').strip(), number)
      if once.repeats(region, number, caption):
        repeated.append((TWICE, caption))
      else:
        captions.append(caption)
    return captions, repeated
