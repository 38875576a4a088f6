"""What several test files share."""

import pytest

VOCABULARY = (
  '[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] '
  'a the red blue green cat dog bus on in street , . ! ##s ##es un ##play ##ed '
)


@pytest.fixture(scope='session')
def vocabulary(tmp_path_factory):
  """The path of a small BERT vocabulary."""
  path = tmp_path_factory.mktemp('vocabulary') / 'vocab.txt'
  path.write_text(VOCABULARY.replace(' ', '\n'), encoding='utf-8')
  return path
