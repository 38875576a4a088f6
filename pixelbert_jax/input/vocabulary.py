"""Vocabularies of BERT: their entries, and what makes a file none."""

import pathlib
from collections.abc import Sequence

from tokenizers import normalizers

from pixelbert_jax import UserError

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
LARGEST = 16 << 20  # bytes of a vocabulary; the 501,153 entries of LaBSE have 5 MB


def read_vocabulary(path: pathlib.Path, place: str) -> tuple[bytes, list[str]]:
  """Reads a vocabulary file; returns its bytes and its entries.

  Raises:
    UserError: it cannot be read, or is no vocabulary of an uncased BERT; the line starts with
      `place`.
  """
  try:
    with path.open('rb') as file:
      content = file.read(LARGEST + 1)
  except OSError as error:
    raise UserError(f'{place} cannot be read ({error.strerror}): give another file') from error
  return content, entries(content, place)


def entries(content: bytes, place: str) -> list[str]:
  """Splits a vocabulary, one entry a line, where the number of the line is the token's id.

  Lines end with LF or CR LF. Whatever makes ids ambiguous is refused: libraries number lone CRs,
  blank lines and doubled entries differently.

  Raises:
    UserError: it is no vocabulary of an uncased BERT; the line starts with `place`.
  """
  if len(content) > LARGEST:
    raise UserError(f'{place} is larger than {LARGEST:,} bytes: not a BERT vocabulary')
  cure = 'give the vocab.txt as it was published'
  try:
    text = content.decode().replace('\r\n', '\n')
  except UnicodeDecodeError as error:
    line = content.count(b'\n', 0, error.start) + 1
    raise UserError(f'{place} is not UTF-8 in line {line}: {cure}') from error
  for strange, name in {'\0': 'a NUL', '\r': 'a lone CR', '\ufeff': 'a byte order mark'}.items():
    if strange in text:
      line = text.count('\n', 0, text.index(strange)) + 1
      raise UserError(f'{place} holds {name} in line {line}: {cure}')
  # Not `splitlines`: an entry may be a line separator of Unicode.
  words = text.removesuffix('\n').split('\n')
  if missing := [word for word in SPECIAL if word not in words]:
    raise UserError(f'{place} has no {", ".join(missing)}: not a BERT vocabulary')
  first: dict[str, int] = {}
  for line, word in enumerate(words, 1):
    if not word:
      raise UserError(f'{place} has a blank line, {line}: {cure}')
    if ' ' in word or '\t' in word:
      raise UserError(f'{place} has more than a word in line {line}, {word!r}: {cure}')
    if first.setdefault(word, line) != line:
      raise UserError(f'{place} has {word!r} twice, in lines {first[word]} and {line}: {cure}')
  _check_uncased(words, place)
  return words


def _check_uncased(words: Sequence[str], place: str) -> None:
  """Raises UserError for a vocabulary of texts with capitals or accents."""
  normalizer = normalizers.BertNormalizer(False, False, strip_accents=True, lowercase=True)
  normal = normalizer.normalize_str('\n'.join(words)).split('\n')
  never = [
    word for word, x in zip(words, normal, strict=True) if word != x and not is_special(word)
  ]
  # Versions of Unicode differ in the accents of rare scripts; capitals of ASCII are certain.
  capitals = [word for word in never if word.isascii()]
  if capitals or 100 * len(never) > len(words):
    named = ', '.join(map(repr, (capitals or never)[:3]))
    raise UserError(
      f'{place} is cased: it has {len(never):,} entries with capitals or accents ({named}), but '
      'texts are lowercased and stripped of accents here: give an uncased BERT'
    )


def is_special(word: str) -> bool:
  """Tells whether an entry is a special token of BERT (or '[unused..]')."""
  return word.startswith('[') and word.endswith(']') and len(word) > 2
