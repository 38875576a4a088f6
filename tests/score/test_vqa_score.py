"""VQA's accuracy: each official rule by hand, and a literal implementation on random answers."""

import collections
import json
import math
import pathlib
import random

import pytest

from pixelbert_jax.score import vqa
from tests.support.paths import shared

TABLES = json.loads(
  pathlib.Path(vqa.__file__).with_name('vqa_normalisation.json').read_text(encoding='utf-8')
)

NORMALISED = [
  # A mark that touches no space becomes one; each mark of the table.
  ('yes!', 'yes'),
  ('black/white', 'black white'),
  ('t-shirt', 't shirt'),
  ('cat,dog', 'cat dog'),
  ('x;y', 'x y'),
  ('[x]y', 'x y'),
  ('{x}y', 'x y'),
  ('x(left)', 'x left'),
  ('"stop"sign', 'stop sign'),
  ('2+2=4', '2 2 4'),
  ('c\\d', 'c d'),
  ('c_d', 'c d'),
  ('b>c<d', 'b c d'),
  ('me@home', 'me home'),
  ('`hi`you', 'hi you'),
  ('what?no', 'what no'),
  # Next to a space, on either side, it vanishes: seen where it also stands between letters.
  ('x-y -z', 'xy z'),
  ('x-y- z', 'xy z'),
  ('black/white, red / blue', 'blackwhite red blue'),
  # That is settled for each mark by itself: the dash touches a space here, the slash none.
  ('x-y -z/w', 'xy z w'),
  # The space is looked for once, before anything is replaced: the comma makes none for the dash.
  ('x-y,-z', 'x y z'),
  # It is looked for after the ends are stripped.
  (' -x-y- ', 'x y'),
  ('- x-y', 'xy'),
  # A comma between two digits: it vanishes, and so does every other mark.
  ('1,000', '1000'),
  ('10,000,000', '10000000'),
  ('1,2,3', '123'),
  ('1,000 people/day', '1000 peopleday'),
  ('x-y 1,2', 'xy 12'),
  # No such comma: a letter or a space beside it.
  ('1, 000', '1 000'),
  ('1, 2-3', '1 2 3'),
  ('1,b-c', '1 b c'),
  ('2 dogs, 1-eyed cat', '2 dogs 1 eyed cat'),
  # What the table lacks stays: colon, apostrophe, and others.
  ('10:30', '10:30'),
  ("dog's", "dog's"),
  ('#1', '#1'),
  ('$5 & 50%', '$5 & 50%'),
  # A full stop goes without leaving a space, unless a digit follows.
  ('u.s.a.', 'usa'),
  ('x.y', 'xy'),
  ('2.5', '2.5'),
  ('.5', '.5'),
  ('no.1', 'no.1'),
  # After a digit it goes too: the look-behind that should keep it is misspelt.
  ('5.', '5'),
  ('5. 6', '5 6'),
  ('v1.b', 'v1b'),
  # Marks go first: they can part a full stop from its digit, or bring it to one.
  ('1.-5', '1 5'),
  ('1,2.)3', '12.3'),
  # Only the first 32 go.
  ('.' * 32, ''),
  ('.' * 33, '.'),
  ('x' + '.' * 40 + 'y', 'x' + '.' * 8 + 'y'),
  # Those before digits are not counted.
  ('.5' * 10 + '.' * 32 + 'x', '.5' * 10 + 'x'),
  # Lower case.
  ('YES', 'yes'),
  ('Ünder', 'ünder'),
  # Number words up to ten, whole words only, wherever they stand, capitals or not.
  ('Two', '2'),
  ('zero', '0'),
  ('ten', '10'),
  ('none', '0'),
  ('eleven', 'eleven'),
  ('one on left', '1 on left'),
  ('someone', 'someone'),
  ('twenty-one', 'twenty 1'),
  ('one,two', '1 2'),
  # Articles go, whole words only, and may leave nothing.
  ('the cat', 'cat'),
  ('on the left of a car', 'on left of car'),
  ('theatre', 'theatre'),
  ('An', ''),
  ('a', ''),
  ('x_a', 'x'),
  # Contractions get their apostrophe, after lower case.
  ('dont', "don't"),
  ('DONT!', "don't"),
  ("don't", "don't"),
  ('hes here', "he's here"),
  ('couldntve', 'couldntve'),
  ("couldnt've", "couldn't've"),
  # Full stops are gone by then.
  ('don.t', "don't"),
  # Those of the table that start with a capital never apply.
  ('Im', 'im'),
  ('Ive', 'ive'),
  ("I'dve", "i'dve"),
  # The table's own slips: an apostrophe taken away, one that is put in front, one that stays.
  ("somebody'd", 'somebodyd'),
  ("ow's'at", "'ow's'at"),
  ("let's", "let's"),
  # What a contraction becomes is not looked up again.
  ("somebodyd've", "somebody'd've"),
  # Spaces: runs become one, newlines and tabs count as spaces before marks are looked at.
  ('  big   dog ', 'big dog'),
  ('big\ndog', 'big dog'),
  ('big\tdog\n', 'big dog'),
  ('x-y\n-z', 'xy z'),
  ('x-y\t-z', 'xy z'),
  # Other white space parts words, but is no space to a mark.
  ('x-y\r-z', 'x y z'),
  ('', ''),
  (' ', ''),
  ('!', ''),
]


@pytest.mark.parametrize(('answer', 'expected'), NORMALISED)
def test_normalised_by_hand(answer, expected):
  assert vqa.normalise(answer) == expected
  assert literal_normalise(literal_clean(answer)) == expected


def of_ten(**counts: int) -> list[str]:
  return [answer for answer, count in counts.items() for _ in range(count)]


SCORED = [
  # Nobody else; one: 9 of the annotators see a third, 1 sees none of the others.
  ('red', of_ten(blue=9, green=1), 0.0),
  ('red', of_ten(red=1, blue=9), 0.3),
  # Two: 8 see two thirds, 2 see one.
  ('red', of_ten(red=2, blue=8), 0.6),
  # Three: 7 see all, 3 see two thirds.
  ('red', of_ten(red=3, blue=7), 0.9),
  # Four and more: all see three others at least.
  ('red', of_ten(red=4, blue=6), 1.0),
  ('red', of_ten(red=5, blue=5), 1.0),
  ('red', of_ten(red=9, blue=1), 1.0),
  # All ten agree: nothing is normalised, neither the answers ...
  ('red', ['red'] * 10, 1.0),
  ('blue', ['red'] * 10, 0.0),
  ('none', ['none'] * 10, 1.0),
  ('The Who', ['The Who'] * 10, 1.0),
  ('a', ['a'] * 10, 1.0),
  # ... nor the prediction: right in all but its looks is wrong.
  ('0', ['none'] * 10, 0.0),
  ('Red', ['red'] * 10, 0.0),
  ('red!', ['red'] * 10, 0.0),
  ('who', ['The Who'] * 10, 0.0),
  # But spaces around and newlines are cleaned away, before it is asked whether they agree.
  (' red\n', ['red'] * 10, 1.0),
  ('big dog', ['big\tdog'] * 10, 1.0),
  ('Red', ['red', ' red', 'red\n', 'red\t', 'red ', *['red'] * 5], 0.0),
  # Spaces within are not.
  ('big dog', ['big  dog'] * 10, 0.0),
  ('', [''] * 10, 1.0),
  ('the', [''] * 10, 0.0),
  # One differs, if only in a capital: all are normalised, and the prediction with them.
  ('RED!', [*['red'] * 9, 'Red'], 1.0),
  ('0', [*['none'] * 9, 'no'], 1.0),
  ('None.', [*['none'] * 9, 'no'], 1.0),
  # Answers that become equal count together.
  ('2', ['two', '2', 'Two', '2.', *['3'] * 6], 1.0),
  ('two', ['two', '2', '3', '4', '5', '6', '7', '8', '9', 'ten'], 0.6),
  ('an', ['a', 'the', 'the', *['x'] * 7], 0.9),
  # Agreeing only once normalised is not agreeing.
  ('Yes', [*['yes'] * 5, *['YES'] * 5], 1.0),
  # Other numbers of annotators: an annotator is never measured against himself.
  ('red', ['red'], 0.0),
  ('red', ['red', 'red'], 1 / 3),
  ('red', ['red', 'red', 'blue'], 4 / 9),
]


@pytest.mark.parametrize(('prediction', 'answers', 'expected'), SCORED)
def test_scored_by_hand(prediction, answers, expected):
  assert vqa.accuracy(prediction, answers) == pytest.approx(expected, abs=1e-15)
  assert literal_accuracy(prediction, answers) == pytest.approx(expected, abs=1e-12)


def test_ten_annotators_give_exactly_tenths():
  accuracies = [vqa.accuracy('x', ['x'] * n + ['y'] * (10 - n)) for n in range(5)]
  assert accuracies == [0, 0.3, 0.6, 0.9, 1]


# The official behaviour again, as it is described: character by character, annotator by annotator.


def literal_clean(text):
  out = ''
  for c in text:
    out += ' ' if c in '\n\t' else c
  while out and out[0].isspace():
    out = out[1:]
  while out and out[-1].isspace():
    out = out[:-1]
  return out


def literal_normalise(text):
  comma_in_number = False
  for i in range(1, len(text) - 1):
    if text[i] == ',' and text[i - 1].isdecimal() and text[i + 1].isdecimal():
      comma_in_number = True
  unmarked = ''
  for c in text:
    if c not in TABLES['punctuation']:
      unmarked += c
      continue
    beside_space = False
    for i in range(len(text)):
      if text[i] == c:
        if i > 0 and text[i - 1] == ' ':
          beside_space = True
        if i + 1 < len(text) and text[i + 1] == ' ':
          beside_space = True
    if not comma_in_number and not beside_space:
      unmarked += ' '
  unstopped, removed = '', 0
  for i, c in enumerate(unmarked):
    digit_follows = i + 1 < len(unmarked) and unmarked[i + 1].isdecimal()
    if c == '.' and not digit_follows and removed < 32:
      removed += 1
    else:
      unstopped += c
  kept = []
  for word in unstopped.lower().split():
    if word in TABLES['numbers']:
      word = TABLES['numbers'][word]
    if word in TABLES['articles']:
      continue
    if word in TABLES['contractions']:
      word = TABLES['contractions'][word]
    kept.append(word)
  return ' '.join(kept)


def literal_accuracy(prediction, answers):
  prediction = literal_clean(prediction)
  answers = [literal_clean(answer) for answer in answers]
  same = True
  for answer in answers:
    if answer != answers[0]:
      same = False
  if not same:
    prediction = literal_normalise(prediction)
    answers = [literal_normalise(answer) for answer in answers]
  total = 0.0
  for annotator in range(len(answers)):
    matching = 0
    for other in range(len(answers)):
      if other != annotator and answers[other] == prediction:
        matching += 1
    total += min(1.0, matching / 3)
  return total / len(answers)


def random_answer(rng):
  """Words, numbers and marks, joined by nothing, spaces, newlines or marks."""
  pieces = []
  for _ in range(rng.choice([0, 1, 1, 2, 3, 5])):
    pieces.append(
      rng.choice(
        [
          rng.choice(['yes', 'No', 'red', 'Dog', 'the', 'A', 'an', 'theatre', "dog's", 'É']),
          rng.choice([*TABLES['numbers'], 'One', 'eleven', '5', '10', '2.5', '1,000', '3,4,5']),
          rng.choice([*TABLES['contractions'], 'Dont', 'im']),
          rng.choice([*TABLES['punctuation'], ':', "'", '#', '٣,٤']),
          rng.choice(['.', '..', '.5', '5.', '.' * 31, '.' * 40, 'u.s.', '1,.2']),
        ]
      )
    )
    pieces.append(
      rng.choice(['', '', ' ', ' ', ' ', '  ', '\n', '\t', '\r', rng.choice(TABLES['punctuation'])])
    )
  return ''.join(pieces)


def altered(rng, answer):
  """The answer with something that normalising may take away."""
  return rng.choice(
    [answer, answer, answer.upper(), f' {answer}\n', f'the {answer}', f'{answer}.', f'{answer}!']
  )


def test_10_000_random_questions_against_a_literal_implementation():
  rng = random.Random(0)
  seen = collections.Counter()
  for _ in range(10_000):
    choices = [random_answer(rng) for _ in range(rng.choice([1, 1, 2, 3, 4, 8]))]
    keep = rng.random() < 0.2
    answers = [rng.choice(choices) for _ in range(10)]
    answers = answers if keep else [altered(rng, answer) for answer in answers]
    prediction = altered(rng, rng.choice([*answers, random_answer(rng)]))
    expected = literal_accuracy(prediction, answers)
    assert vqa.accuracy(prediction, answers) == pytest.approx(expected, abs=1e-12), (
      prediction,
      answers,
    )
    for text in (prediction, *answers):
      assert vqa.normalise(text) == literal_normalise(literal_clean(text)), text
    texts = ' '.join([prediction, *answers])
    seen['all the same'] += len(set(map(vqa.clean, answers))) == 1
    seen['not cleaned'] += any(c in texts for c in '\n\t')
    seen['over 32 stops'] += max(text.count('.') for text in answers) > 32
    seen['comma in a number'] += '1,0' in texts
    seen['empty'] += '' in answers
    seen[round(expected, 1)] += 1
  # Nothing of it is so rare that agreement would be luck.
  assert all(seen[key] > 300 for key in seen), seen
  assert {0.0, 0.3, 0.6, 0.9, 1.0} < seen.keys(), seen


def test_the_published_answer_list_is_left_as_it_is():
  path = shared('vqa_v2_answers_3129.json')
  answers = json.loads(path.read_text(encoding='utf-8'))
  assert len(answers) == 3129
  assert '' in answers
  assert [answer for answer in answers if vqa.normalise(answer) != answer] == []


def test_the_tables_are_the_official_ones():
  path = shared('vqa_v2_normalisation.json')
  assert json.loads(path.read_text(encoding='utf-8')) == TABLES


def question(number, kind, answer_type, answers):
  return vqa.Question(number, 7, kind, answer_type, tuple(answers))


def test_means_count_every_question_the_same():
  questions = [
    question(1, 'what color', 'other', of_ten(red=1, blue=9)),
    question(2, 'what color', 'other', of_ten(red=10)),
    question(3, 'is the', 'yes/no', of_ten(yes=2, no=8)),
    question(4, 'how many', 'other', of_ten(red=3, blue=7)),
  ]
  predictions = {1: 'red', 2: 'red', 3: 'yes', 4: 'blue', 5: 'not asked'}
  accuracies = vqa.per_question(predictions, questions)
  assert accuracies == {1: 0.3, 2: 1.0, 3: 0.6, 4: 1.0}
  summary = vqa.summarise(accuracies, questions)
  assert summary['accuracy'] == pytest.approx(2.9 / 4, abs=1e-15)
  assert summary['per_answer_type'] == pytest.approx({'other': 2.3 / 3, 'yes/no': 0.6}, abs=1e-15)
  assert summary['per_question_type'] == pytest.approx(
    {'how many': 1.0, 'is the': 0.6, 'what color': 0.65}, abs=1e-15
  )


def test_a_mean_of_many_is_not_rounded_on_the_way():
  questions = [question(i, 'k', 't', of_ten(red=1, blue=9)) for i in range(100_000)]
  summary = vqa.summarise(dict.fromkeys(range(100_000), 0.3), questions)
  assert math.isclose(summary['accuracy'], 0.3, rel_tol=2e-16)


def test_a_question_without_prediction_is_an_error():
  with pytest.raises(KeyError):
    vqa.per_question({1: 'red'}, [question(2, 'k', 't', ['red'])])
