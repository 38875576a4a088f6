"""Writes what lies beside the records of a built dataset: the sidecars, and the seal of all."""

import hashlib
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from pixelbert_jax.input.dataset import (
  damaged,
  is_built,
  open_seal,
  open_sidecar,
  open_source,
  slots_of,
)
from pixelbert_jax.input.seal import FILE, Seal
from pixelbert_jax.input.sidecar import Sidecar


def is_whole(builder: tfds.core.DatasetBuilder) -> bool:
  """Tells whether a dataset is built and sealed, and all its sidecars are what was sealed.

  Raises:
    DatasetError: another file is damaged.
  """
  seal = open_seal(builder)
  return bool(builder.info.splits) and seal is not None and not _to_write(builder, seal)


def complete(builder: tfds.core.DatasetBuilder) -> None:
  """Writes the sidecars that are missing or damaged, from the records, and then the seal.

  Without a seal all sidecars are written again: nothing tells whether they are what was built. The
  records do: they check their content whenever they are read.

  Raises:
    DatasetError: the records are damaged, or not those that were sealed.
  """
  folder, seal = pathlib.Path(builder.data_dir), open_seal(builder)
  splits = list(builder.info.splits)
  if seal is not None:
    splits = _to_write(builder, seal)
    if not splits:
      return
  if is_built(builder):
    why = f'has no whole {FILE}' if seal is None else 'has damaged sidecars'
    print(
      f'{folder} {why}: the sidecars of {", ".join(splits)} are written again from the records',
      file=sys.stderr,
      flush=True,
    )
  images = dict(seal.images) if seal else {}
  for split in splits:
    digest = hashlib.sha256()
    sidecar = Sidecar.of(
      row for record in _records(builder, split, digest) for row in builder.sidecar_rows(record)
    )
    if images.setdefault(split, digest.hexdigest()) != digest.hexdigest():
      raise damaged(builder, f'the images of {split} are not what was built')
    sidecar.write(folder / 'sidecar' / split)
  Seal.of(folder, images).write(folder)


def _to_write(builder: tfds.core.DatasetBuilder, seal: Seal) -> list[str]:
  """Lists the splits whose sidecar is missing, incomplete or not what was sealed."""
  folder = pathlib.Path(builder.data_dir)
  return [
    split
    for split in builder.info.splits
    if open_sidecar(builder, split) is None or seal.damaged(folder, seal.sidecar(split))
  ]


def _records(
  builder: tfds.core.DatasetBuilder, split: str, digest: Any
) -> Iterator[Mapping[str, Any]]:
  """Yields the records of a split in order, and updates `digest` with the bytes of their images."""
  slots = slots_of(builder)
  records = tqdm(open_source(builder, split), f'{split} sidecar', unit=' images', leave=False)
  try:
    for record in records:
      for slot in slots:
        digest.update(len(record[slot]).to_bytes(8, 'big') + record[slot])
      yield record
  except Exception as error:  # array_record raises whatever its C++ side met
    raise damaged(builder, f'a record of {split} cannot be read') from error
