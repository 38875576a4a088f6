"""The embedded scenes say what they show, and their texts alone tell nothing.

Sentences are judged here by a literal reading of their English against the things of the
scene, which shares no code with the claims that the builder works with.
"""

import functools
import io
import itertools
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from data.scenes import (
  captions,
  claims,
  foils,
  oracle,
  questions,
  record,
  rivals,
  scenes_dataset_builder,
  sentences,
  statements,
  vocabulary,
  world,
)
from pixelbert_jax.input import rows as rows_lib
from pixelbert_jax.input import sidecar
from pixelbert_jax.score import recall

EASY = world.DIFFICULTIES['easy']
NUMBERS = {'zero': 0, 'one': 1, 'two': 2, 'three': 3, 'four': 4, 'five': 5}
NUMBERS |= {'six': 6, 'seven': 7, 'eight': 8, 'nine': 9, 'ten': 10}
WORDS = {
  'c': 'red green blue yellow purple white pink cyan black',
  's': 'circle square triangle cross star ring circles squares triangles crosses stars rings',
  'z': 'small large',
  'n': ' '.join(NUMBERS),
  'l': 'left right top bottom above below',
  'p': 'stripes dots',
}


@functools.cache
def texts(difficulty, number, seed=0):
  """(scene, true claims, captions, questions) of so many scenes; nothing is drawn."""
  made = []
  for i in range(number):
    rng = np.random.default_rng([seed, i])
    scene = world.sample(rng, difficulty)
    true = claims.true_claims(scene, difficulty)
    said = captions.captions(rng, scene, difficulty, true)
    made.append((scene, true, said, questions.questions(rng, scene, difficulty, true)))
  return made


def example(index, split='train', difficulty='easy'):
  return record.example(record.Place(difficulty, split, index))


# --- A literal reading -----------------------------------------------------------------


def fitting(phrase, scene):
  """The things that 'a small red circle with dots', 'a circle', 'red objects' may mean."""
  words = [word for word in phrase.split() if word not in ('a', 'with', 'object', 'objects')]
  words = [re.sub(r'(?<=ring|star|ross|rcle|uare|ngle)(es|s)$', '', word) for word in words]
  looks = [(t, (t.size, t.colour, t.shape, t.pattern)) for t in scene.things]
  return [thing for thing, look in looks if set(words) <= set(look)]


def is_at(thing, place, scene):
  return {
    'left': thing.x / scene.width < 0.38,
    'right': thing.x / scene.width > 0.62,
    'top': thing.y / scene.height < 0.38,
    'bottom': thing.y / scene.height > 0.62,
  }[place]


def is_from(a, relation, b, scene):
  across, down = (b.x - a.x) / scene.width, (b.y - a.y) / scene.height
  value = {'left of': across, 'right of': -across, 'above': down, 'below': -down}[relation]
  return value > 0.16


def holds(text, scene):
  """Whether a caption is true of a scene."""
  if found := re.fullmatch(r'(?:the total is|objects in total|total of objects) (\w+)', text):
    return len(scene.things) == NUMBERS[found[1]]
  numbers = '|'.join(NUMBERS)
  if found := re.fullmatch(rf'(?:number of |count of )?(.+?)(?: counted)? ({numbers})', text):
    return len(fitting(found[1], scene)) == NUMBERS[found[2]]
  if found := re.search(r'(a \w+ \w+) (?:is )?(left of|right of|above|below) (a \w+ \w+)$', text):
    sides = itertools.product(fitting(found[1], scene), fitting(found[3], scene))
    return any(a is not b and is_from(a, found[2], b, scene) for a, b in sides)
  if found := re.search(r'(a \w+ \w+) and (a \w+ \w+)', text):
    sides = itertools.product(fitting(found[1], scene), fitting(found[2], scene))
    return any(a is not b for a, b in sides)
  thing = re.search(r'\ba (?:small |large )?\w+ \w+(?: with \w+)?', text)[0]
  if found := re.search(r'(?:on|at) the (\w+)', text):
    return any(is_at(t, found[1], scene) for t in fitting(thing, scene))
  return bool(fitting(thing, scene))


def states(sentence, left, right):
  """Whether a statement is true of two scenes."""
  if found := re.fullmatch(r'there are (\w+) objects in total', sentence):
    return len(left.things) + len(right.things) == NUMBERS[found[1]]
  if 'objects' in sentence:
    difference = len(left.things) - len(right.things)
    wanted = next(w for w in ('more', 'fewer', 'equally') if w in sentence)
    return {'more': difference > 0, 'fewer': difference < 0, 'equally': difference == 0}[wanted]
  who, phrase = re.fullmatch(r'(.+) (?:contain|contains) (.+)', sentence).groups()
  here, there = bool(fitting(phrase, left)), bool(fitting(phrase, right))
  return {
    'both images': here and there,
    'only one image': here != there,
    'the left image': here,
    'the right image': there,
  }[who]


# --- Scenes and pictures ---------------------------------------------------------------


def test_record_is_a_function_of_its_place():
  first, again = example(3), example(3)
  np.testing.assert_equal(first, again)
  assert first['image'] != example(4)['image']


def test_number_of_workers_changes_nothing():
  places = [record.Place('easy', 'train', i) for i in range(60)]
  with scenes_dataset_builder.workers(scenes_dataset_builder.WORTH_WORKERS) as ordered_map:
    np.testing.assert_equal(
      list(ordered_map(record.example, places)), [example(i) for i in range(60)]
    )


def test_no_scene_twice():
  """In one split or in two, even with the background left out of account."""
  places = (record.Place('easy', s, i) for s, n in record.SPLITS.items() for i in range(n))
  shown = [(s.width, s.height, frozenset(s.things)) for s in map(record.scene, places)]
  assert len(set(shown)) == sum(record.SPLITS.values())


@pytest.mark.parametrize('difficulty', world.DIFFICULTIES.values(), ids=lambda d: d.name)
def test_things_lie_inside_apart_and_look_different(difficulty):
  for scene, *_ in texts(difficulty, 100):
    for t in scene.things:
      assert 0 <= t.box[0] < t.box[2] <= scene.width
      assert 0 <= t.box[1] < t.box[3] <= scene.height
    for a, b in itertools.combinations(scene.things, 2):
      assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius + 2
      assert (a.shape, a.colour, a.size, a.pattern) != (b.shape, b.colour, b.size, b.pattern)


def test_attributes_are_uniform_and_independent():
  things = [t for scene, *_ in texts(EASY, 1500) for t in scene.things]
  looks = np.array([(t.colour, t.shape, t.size) for t in things])
  for values in looks.T:
    share = np.array(list(Counter(values.tolist()).values())) / len(values)
    np.testing.assert_allclose(share, 1 / len(share), atol=0.03)
  for a, b in itertools.combinations(looks.T, 2):
    pairs = np.array(list(Counter(zip(a.tolist(), b.tolist(), strict=True)).values()))
    np.testing.assert_allclose(pairs / len(things), 1 / len(pairs), atol=0.03)


def nearest_colour(pixels):
  """[...] index into the colours, or -1 where one of the muted greys and browns is nearer."""
  shades = [np.array([list(world.COLOURS.values())]) * share for share in (1, 0.42)]
  grey = np.array(
    [[v * (1 + b), v, v * (1 - b)] for v in range(60, 140, 5) for b in (0, 0.12, 0.24)]
  )
  palette = np.concatenate([shades[0][0][:6], shades[1][0][:5], grey])
  distance = np.linalg.norm(pixels[..., None, :].astype(float) - palette, axis=-1)
  nearest = distance.argmin(-1)
  return np.select([nearest < 6, nearest < 11], [nearest, nearest - 6], -1)


def test_pictures_show_the_things_in_their_boxes():
  for index in range(60):
    made = example(index)
    scene = record.scene(record.Place('easy', 'train', index))
    image = Image.open(io.BytesIO(made['image']))
    assert image.format == 'JPEG'
    assert image.size == (made['width'], made['height']) == (scene.width, scene.height)
    assert JpegImagePlugin.get_sampling(image) == 0
    colour = nearest_colour(np.asarray(image))
    background = np.ones(colour.shape, bool)
    for thing in made['objects']:
      x0, y0, x1, y1 = thing['bbox']
      inside = colour[y0:y1, x0:x1]
      seen = Counter(inside[inside >= 0].tolist()).most_common(1)[0][0]
      assert list(world.COLOURS)[seen] == thing['colour']
      # A small white cross with stripes shows little of its own colour.
      assert (inside == seen).mean() > 0.15
      background[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
    assert (colour[background] >= 0).mean() < 0.03


# --- Captions --------------------------------------------------------------------------


@pytest.mark.parametrize('difficulty', world.DIFFICULTIES.values(), ids=lambda d: d.name)
def test_captions_are_true_of_their_scene_and_claims_tell_of_which_others(difficulty):
  made = texts(difficulty, 150)
  rng = np.random.default_rng(0)
  for scene, true, said, _ in made:
    assert len({caption.text for caption in said}) == captions.CAPTIONS_PER_SCENE
    for caption in said:
      assert re.fullmatch('[a-z]+( [a-z]+){2,8}', caption.text)
      assert caption.claim in true
      assert holds(caption.text, scene), (caption.text, scene)
      other, true_of_other, *_ = made[rng.integers(len(made))]
      assert holds(caption.text, other) == (caption.claim in true_of_other)


def grammar(difficulty):
  """Every claim one could make at a difficulty."""
  names = [f'{c} {s}' for c in difficulty.colours for s in difficulty.shapes]
  pairs = list(itertools.product(names, names))
  yield from (f'exists {name}' for name in names)
  yield from (f'exists {size} {name}' for name in names for size in ('small', 'large'))
  yield from (f'exists {name} {pattern}' for name in names for pattern in ('stripes', 'dots'))
  yield from (f'place {n} {p}' for n in names for p in ('left', 'right', 'top', 'bottom'))
  yield from (f'relation {r}|{a}|{b}' for a, b in pairs for r in ('left-of', 'above'))
  yield from (f'and {a}|{b}' for a, b in pairs if a <= b)
  subjects = ('all', *difficulty.colours, *difficulty.shapes)
  yield from (f'count {s} {n}' for s in subjects for n in range(difficulty.most + 1))


def test_true_claims_are_all_that_is_true():
  for scene, true, *_ in texts(EASY, 12):
    for claim in grammar(EASY):
      assert {holds(text, scene) for text in sentences.wordings(claim)} == {claim in true}, claim


def test_no_sentence_says_two_claims():
  said = [text for claim in grammar(EASY) for text in sentences.wordings(claim)]
  assert len(said) == len(set(said))


def test_captions_do_not_state_what_might_be_contradicted():
  for _, true, said, _ in texts(EASY, 300):
    assert not [c for c in said if claims.opposite(c.claim) in true]


def test_captions_are_of_mixed_kinds():
  kinds = Counter(c.claim.split()[0] for _, _, said, _ in texts(EASY, 1500) for c in said)
  share = {kind: number / 1500 for kind, number in kinds.items()}
  assert share['exists'] > 3
  assert 2 < share['place'] < 3
  assert 1 < share['count'] < 2
  assert share['relation'] + share['and'] > 0.4


def foils_of(difficulty, number):
  """Scene, true claims and, with its foils, every caption of some scenes."""
  for i, (scene, true, said, _) in enumerate(texts(difficulty, number)):
    rng = np.random.default_rng(i)
    for caption in said:
      yield scene, caption, foils.foils(rng, caption.claim, scene, difficulty, true)


@pytest.mark.parametrize('difficulty', world.DIFFICULTIES.values(), ids=lambda d: d.name)
def test_foils_are_false_and_differ_from_their_caption_in_what_matters(difficulty):
  found = Counter()
  for scene, caption, false in foils_of(difficulty, 150):
    assert len(false) == len(set(false)) <= foils.MOST
    for text in false:
      assert not holds(text, scene), (text, scene)
      # Of the same kind: as many words that name something visible.
      assert sorted(sentences.kinds(text).replace('.', '')) == sorted(
        caption.kinds.replace('.', '')
      )
    found[caption.claim.split()[0], bool(false)] += 1
  for kind in ('exists', 'place', 'relation', 'count'):
    assert found[kind, True] > 0.9 * (found[kind, True] + found[kind, False])
  assert found['and', True] > 0


def test_foils_are_not_told_by_their_text():
  """A foil of each caption against captions: by words and pairs of words, no better than chance."""
  drawn = [(c.text, f[0]) for _, c, f in foils_of(EASY, 2500) if f]
  items = [
    [((' '.join(sorted(t.split())), tuple(t.split()[-2:])), told) for t, told in ((a, 0), (b, 1))]
    for a, b in drawn
  ]
  half = len(items) // 2
  flat = [[item for pair in part for item in pair] for part in (items[:half], items[half:])]
  assert guesses(*flat).mean() < 0.55


def test_kinds_name_the_visual_words():
  kind_of = {word: kind for kind, words in WORDS.items() for word in words.split()}
  assert set(kind_of.values()) == set(rows_lib.VISUAL_KINDS)
  for difficulty in world.DIFFICULTIES.values():
    for _, _, said, _ in texts(difficulty, 100):
      for caption in said:
        assert caption.kinds == ''.join(kind_of.get(w, '.') for w in caption.text.split())


def test_rivals_decide_like_brute_force():
  """Over every set of hidden words of captions of up to seven words, sampled for longer."""
  rng = np.random.default_rng(0)
  for scene, _, said, _ in texts(EASY, 4) + texts(world.DIFFICULTIES['medium'], 2):
    everything = {t for c in grammar(world.DIFFICULTIES['medium']) for t in sentences.wordings(c)}
    true = [text.split() for text in everything if holds(text, scene)]
    for caption in said[::2]:
      words = caption.text.split()
      for hidden in rng.permutation(2 ** len(words))[:128].tolist():
        seen = [not hidden >> i & 1 for i in range(len(words))]
        alike = [
          t
          for t in true
          if len(t) == len(words)
          and list(itertools.compress(t, seen)) == list(itertools.compress(words, seen))
        ]
        for p in range(len(words)):
          doubtful = any(mask >> p & 1 and mask & hidden == mask for mask in caption.rivals)
          assert doubtful == (len({t[p] for t in alike}) > 1)


def test_prune_keeps_verdicts():
  assert rivals.prune([1, 2, 3, 4, 6, 12]) == (1, 2, 4, 12)
  assert rivals.prune([]) == ()


# --- Nothing is told by the text alone ---------------------------------------------------


def guesses(train, test):
  """[N] whether each answer of `test` is guessed, knowing `train`: lists of (contexts, answer).

  Contexts go from the most special to the most general; the most frequent answer in the
  first one that was seen five times is the guess. No model of the text alone does much
  better, as the texts are so few that nearly all are seen.
  """
  table = defaultdict(Counter)
  for contexts, answer in train:
    for context in contexts:
      table[context][answer] += 1
  guessed = []
  for contexts, answer in test:
    known = next((c for c in contexts if table[c].total() >= 5), contexts[-1])
    guessed.append(table[known].most_common(1)[0][0] == answer)
  return np.array(guessed)


def hidden_words(made):
  """For each visual word of each caption: its kind, (contexts, word), number of answers."""
  for _, _, said, _ in made:
    for caption in said:
      words = ['^', *caption.text.split(), '$']
      for i, kind in enumerate(caption.kinds, 1):
        if kind != '.':
          contexts = (' '.join([*words[:i], '?', *words[i + 1 :]]), tuple(words[i - 1 : i + 2 : 2]))
          few = kind == 'n' and re.search('total|every', caption.text)
          choices = {'c': 6, 's': 4, 'z': 2, 'n': 2 if few else 3, 'l': 2, 'p': 2}[kind]
          yield kind, (contexts, words[i]), choices


@pytest.mark.parametrize('name', ['easy', 'medium'])  # Only the latter has patterns.
def test_no_visual_word_is_told_by_its_neighbours(name):
  difficulty = world.DIFFICULTIES[name]
  made = texts(difficulty, 1500)
  by_kind = defaultdict(lambda: ([], []))
  chance = defaultdict(list)
  for side, part in enumerate((made[:1000], made[1000:])):
    for kind, item, choices in hidden_words(part):
      by_kind[kind][side].append(item)
      chance[kind].append(1 / choices)
  found = {kind: guesses(*sides).mean() for kind, sides in by_kind.items()}
  allowed = {kind: np.mean(values) + 0.05 for kind, values in chance.items()}
  assert set(WORDS) - set(found) == (set() if difficulty.patterns else {'p'})
  assert all(found[kind] <= allowed[kind] for kind in found), (found, allowed)


def asked(made):
  """For each question its type, (contexts, answer)."""
  for *_, questions_of_scene in made:
    for q in questions_of_scene:
      kind = q.question_type
      if kind == 'how many':
        kind += ' objects' if q.text == 'how many objects are there' else ' of a kind'
      if kind == 'is the':
        # The question itself leaves two answers, on one axis.
        kind += ' at' if ' at the ' in q.text else ' on'
      yield kind, ((q.text, (kind,)), q.truth)


def test_questions_are_not_answered_by_their_text():
  made = texts(EASY, 4500)
  by_type = defaultdict(lambda: ([], []))
  for side, part in enumerate((made[:3000], made[3000:])):
    for question_type, item in asked(part):
      by_type[question_type][side].append(item)
  for question_type, (train, test) in by_type.items():
    majority = Counter(answer for _, answer in test).most_common(1)[0][1] / len(test)
    assert guesses(train, test).mean() <= majority + 0.04, question_type
  for question_type in ('is there a', 'is a', 'is the on', 'is the at', 'how many objects'):
    answers = Counter(answer for _, answer in by_type[question_type][0])
    assert len(answers) == 2
    assert max(answers.values()) / answers.total() < 0.54


def bag(text):
  words = text.split()
  return [*words, *itertools.pairwise(words)]


def naive_bayes(train, test):
  """[N] whether a naive Bayes on words and pairs of words gets each (text, answer) right."""
  counts = defaultdict(Counter)
  for text, answer in train:
    counts[answer].update(bag(text))
  prior = Counter(answer for _, answer in train)
  size = len({feature for counter in counts.values() for feature in counter})

  def score(text, answer):
    known = counts[answer]
    likely = [np.log((known[f] + 1) / (known.total() + size)) for f in bag(text)]
    return np.log(prior[answer]) + sum(likely)

  return np.array([max(prior, key=lambda a: score(text, a)) == answer for text, answer in test])


def test_a_text_classifier_gains_nothing_over_the_majority_of_the_question_type():
  made = texts(EASY, 1500)
  for wanted in ('what colour is', 'what shape is', 'is there a', 'is a', 'what size is'):
    train, test = (
      [(q.text, q.truth) for *_, some in part for q in some if q.question_type == wanted]
      for part in (made[:1000], made[1000:])
    )
    majority = Counter(answer for _, answer in test).most_common(1)[0][1] / len(test)
    assert naive_bayes(train, test).mean() <= majority + 0.04, wanted


# --- Questions and statements ------------------------------------------------------------


def answered(q, scene):
  """The answer to a question, by a literal reading."""
  if found := re.fullmatch(r'how many (.+) are there', q):
    return str(len(fitting(found[1], scene)))
  if found := re.fullmatch(r'is there (.+)', q):
    return 'yes' if fitting(found[1], scene) else 'no'
  if q.startswith('is a'):
    return 'yes' if holds(q.removeprefix('is '), scene) else 'no'
  if found := re.fullmatch(r'is the (\w+ \w+) (?:on|at) the (\w+) or (?:on|at) the (\w+)', q):
    (thing,) = fitting(found[1], scene)
    (place,) = [place for place in found.groups()[1:] if is_at(thing, place, scene)]
    return place
  attribute, phrase = re.fullmatch(r'what (\w+) is the (.+?)', q).groups()
  phrase, *place = re.split(r' (?:on|at) the ', phrase)
  things = [t for t in fitting(phrase, scene) if not place or is_at(t, place[0], scene)]
  (thing,) = things
  return getattr(thing, attribute)


@pytest.mark.parametrize('difficulty', world.DIFFICULTIES.values(), ids=lambda d: d.name)
def test_questions_have_one_true_answer(difficulty):
  kinds = Counter()
  for scene, _, _, asked_of_scene in texts(difficulty, 150):
    for q in asked_of_scene:
      assert q.text.startswith(q.question_type)
      assert answered(q.text, scene) == q.truth, (q.text, scene)
      assert len(q.answers) == 10
      assert Counter(q.answers).most_common(1)[0][0] == q.truth
      expected = {'yes': 'yes/no', 'no': 'yes/no'}.get(q.truth, 'other')
      assert q.answer_type == ('number' if q.truth.isdigit() else expected)
      kinds[q.question_type] += 1
  assert len(kinds) == 7
  assert 5 < kinds.total() / 150 < 8


def pairs_of(number):
  scenes = [scene for scene, *_ in texts(EASY, 1500)][:number]
  return scenes, statements.statements(np.random.default_rng(0), 'train', scenes, EASY)


def test_statements_are_true_as_labelled():
  scenes, found = pairs_of(400)
  for s in found:
    assert s.left != s.right
    assert states(s.sentence, scenes[s.left], scenes[s.right]) == s.label, s


def test_each_sentence_comes_with_a_true_and_a_false_pair():
  _, found = pairs_of(400)
  assert len(found) == 600
  by_sentence = defaultdict(list)
  for s in found:
    split, number, pair, sentence = s.identifier.split('-')
    assert (split, sentence) == ('train', '0')
    by_sentence[number].append((s.sentence, pair, s.label))
  for stated in by_sentence.values():
    assert len({sentence for sentence, *_ in stated}) == 1
    assert {pair for _, pair, _ in stated} == {'0', '1'}
    assert {label for *_, label in stated} == {True, False}


def test_statements_are_not_judged_by_their_text():
  _, found = pairs_of(1500)
  items = [(s.sentence, s.label) for s in found]
  assert abs(naive_bayes(items[:1500], items[1500:]).mean() - 0.5) <= 0.04


def test_few_images_give_few_statements():
  scenes, _ = pairs_of(3)
  for number in range(3):
    assert len(statements.statements(np.random.default_rng(0), 'x', scenes[:number], EASY)) <= 4


# --- Vocabulary, oracle, records ----------------------------------------------------------


def test_every_word_is_one_token():
  tokens = vocabulary.FILE.read_text().splitlines()
  assert tokens == vocabulary.tokens()
  assert len(tokens) == len(set(tokens))
  assert tokens[:5] == ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  for name, difficulty in world.DIFFICULTIES.items():
    said = [c.text for *_, some, _ in texts(difficulty, 100) for c in some]
    said += [q.text for *_, some in texts(difficulty, 100) for q in some]
    said += [s['sentence'] for some in record.pairs(name, 'val', 60).values() for s in some]
    assert {word for text in said for word in text.split()} <= set(tokens)


def test_agreement_is_the_official_vqa_accuracy():
  assert [round(oracle.agreement(n), 9) for n in range(6)] == [0, 0.3, 0.6, 0.9, 1, 1]


def test_expected_recalls_by_hand():
  # Captions 0, 1 belong to image 0, caption 2 to image 1, of which caption 1 is true as well.
  true = np.array([[1, 0], [1, 1], [0, 1]], bool)
  assert recall.expected_image_recall(true, 1) == pytest.approx((1 + 0.5 + 1) / 3)
  assert recall.expected_text_recall(true, np.array([2, 1]), 1) == pytest.approx((1 + 0.5) / 2)
  assert recall.expected_text_recall(true, np.array([2, 1]), 2) == 1


def test_stated_scores_of_the_oracle_are_those_of_the_data():
  stated = json.loads(oracle.FILE.read_text())
  assert stated.keys() == world.DIFFICULTIES.keys()
  found = oracle.oracle([example(i, 'val') for i in range(record.SPLITS['val'])])
  assert found == pytest.approx(stated['easy']['val'], abs=1e-4)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(record, 'SPLITS', {'train': 12, 'val': 4, 'test': 6})
    builder = scenes_dataset_builder.Builder(
      data_dir=tmp_path_factory.mktemp('tfds'), config='easy', file_format='array_record'
    )
    builder.download_and_prepare()
  return builder


def test_builder_writes_the_records_in_order(built):
  import tensorflow_datasets as tfds

  raw = {'image': tfds.decode.SkipDecoding()}
  for split, number in (('train', 12), ('val', 4), ('test', 6)):
    source = built.as_data_source(split, decoders=raw)
    assert len(source) == number
    for i, read in enumerate(source):
      made = example(i, split)
      assert read['image'] == made['image']
      assert read['image_id'].decode() == made['image_id'] == f'{split}-{i:05d}'
      assert [c.decode() for c in read['claims']] == made['claims']
      answers = [json.loads(a) for a in read['questions']['answers']]
      assert answers == [json.loads(q['answers']) for q in made['questions']]
      boxes = [thing['bbox'] for thing in made['objects']]
      np.testing.assert_array_equal(read['objects']['bbox'], boxes)
      assert {left.decode() for left in read['statements']['left']} <= {made['image_id']}


def test_sidecar_rows_hold_what_was_said(built, tmp_path):
  rows = [row for read in built.as_data_source('train') for row in built.sidecar_rows(read)]
  for i, row in enumerate(rows):
    place = record.Place('easy', 'train', i)
    scene = record.scene(place)
    assert (row.height, row.width) == (scene.height, scene.width)
    assert all(holds(caption.text, scene) for caption in row.captions)
    assert all(caption.claim in row.claims for caption in row.captions)
    assert all(len(caption.kinds) == len(caption.text.split()) for caption in row.captions)
  sidecar.Sidecar.of(rows).write(tmp_path / 'sidecar')
  opened = sidecar.Sidecar.open(tmp_path / 'sidecar')
  assert opened.caption(9) == rows[1].captions[1].text
  assert tuple(opened.rivals[9]) == rows[1].captions[1].rivals
  asked = [(i, q) for i in range(12) for q in example(i, 'train')['questions']]
  for number, (i, question) in enumerate(asked):
    assert opened.questions.image[number] == i
    assert opened.questions.id[number] == question['question_id']
    assert opened.questions.text.text(number) == question['question']
    answers = [opened.questions.strings.text(a) for a in opened.questions.answers[number]]
    assert answers == json.loads(question['answers'])
    answer = opened.questions.multiple_choice_answer[number]
    assert opened.questions.strings.text(answer) == question['multiple_choice_answer']
  stated = [s for some in record.pairs('easy', 'train', 12).values() for s in some]
  assert len(opened.questions) == len(asked)
  assert len(opened.statements) == len(stated) > 0
  for number, statement in enumerate(stated):
    assert opened.statements.text.text(number) == statement['sentence']
    assert opened.statements.label[number] == (statement['label'] == 'True')
    for side, images in (('left', opened.statements.left), ('right', opened.statements.right)):
      assert opened.image_id[images[number]].decode() == statement[side]


def test_ids_are_unique_over_splits():
  made = [example(i, split) for split in record.SPLITS for i in range(10)]
  for texts_of, name in (('captions', 'id'), ('questions', 'question_id')):
    ids = [item[name] for e in made for item in e[texts_of]]
    assert len(ids) == len(set(ids))
