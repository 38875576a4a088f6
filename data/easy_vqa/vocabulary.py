"""Makes the vocabulary of easy-VQA's questions; `python -m data.easy_vqa.vocabulary` writes it.

It reads the dataset as built, in $TFDS_DATA_DIR.
"""

import pathlib

from data.builders import open_dataset
from data.scenes.vocabulary import with_pieces

FILE = pathlib.Path(__file__).with_name('vocab.txt')


def main() -> None:
  """Writes special tokens, the words of the training questions, and pieces that spell others."""
  texts = open_dataset('easy_vqa')['train'].sidecar.questions.text
  words = {word for i in range(len(texts)) for word in texts.text(i).rstrip('?').split()}
  FILE.write_text('\n'.join(with_pieces(words)) + '\n')


if __name__ == '__main__':
  main()
