"""Makes the vocabulary of boxes, NLVR and scenes; `python -m data.boxes.vocabulary` writes it.

With the words of scenes, a model of those can go on with boxes.
"""

import pathlib

from data.boxes import sentences
from data.scenes import vocabulary

FILE = pathlib.Path(__file__).with_name('vocab.txt')
# Other words that come in four sentences or more of NLVR's public test.
NLVR = """
and as atleast attach attached bellow below between blacks close consecutive contains either grey
height in it middle more most nearly number or other second shape single small stacked than that
third to together under
"""


def tokens() -> list[str]:
  """Returns special tokens, the words, and pieces that spell others."""
  every = [*sentences.statements(True), *sentences.statements(False)]
  words = {word for s in every for text in s.wordings for word in text.split()}
  words.update(NLVR.split(), *(others.values() for others in sentences.EXCHANGED))
  words.update(word for word in vocabulary.tokens() if word.isalpha() and word[1:])
  return vocabulary.with_pieces(words)


if __name__ == '__main__':
  FILE.write_text('\n'.join(tokens()) + '\n')
