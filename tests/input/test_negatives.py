"""The untrue half of an epoch's pairs: of which corpus, how like the truth, and never true."""

import collections

import numpy as np
import pytest

from data.scenes import record, vocabulary
from data.scenes.scenes_dataset_builder import Builder
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.joined import join
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.order import Batching, Plan, plan_epoch
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.truth import Truth

CANVASES = Canvases(64, 64, ((64, 64),))
LENGTH = 12
LARGE, SMALL = 3_000, 400  # images of two corpora, with 4 captions each
WORDS = [w for w in vocabulary.FILE.read_text().split('\n') if w.isalpha() and len(w) > 2]


def corpus(name: str, images: int, captions: int = 4, words: int = 12) -> Sidecar:
  """A corpus whose captions begin alike and partly repeat, with capitals and full stops."""
  rng = np.random.default_rng(len(name))
  rows = []
  for i in range(images):
    said = [
      ' '.join(['we', 'see', *rng.choice(WORDS[:words], 3), name]) + rng.choice(['', '.', ' !'])
      for _ in range(captions)
    ]
    said = [text.capitalize() if rng.random() < 0.5 else text for text in said]
    rows.append(Row(f'{i}', 64, 64, [Caption(t, 10 * i + j) for j, t in enumerate(said)]))
  return Sidecar.of(rows)


@pytest.fixture(scope='module')
def tokenizer() -> Tokenizer:
  return Tokenizer(vocabulary.FILE, LENGTH)


@pytest.fixture(scope='module')
def mixed() -> Sidecar:
  return join({'large': corpus('circle', LARGE), 'small': corpus('square', SMALL)})


@pytest.fixture(scope='module')
def scenes() -> Sidecar:
  places = [record.Place('easy', 'val', i) for i in range(300)]
  return Sidecar.of(row_of(record.example(place)) for place in places)


def row_of(example: dict) -> Row:
  """The row of a record, as it is read from a file."""
  columns = {
    name: [c[name].encode() if isinstance(c[name], str) else c[name] for c in example['captions']]
    for name in example['captions'][0]
  }
  encoded = {
    'image_id': example['image_id'].encode(),
    'captions': columns,
    'claims': [c.encode() for c in example['claims']],
    'questions': collections.defaultdict(list),
    'statements': collections.defaultdict(list),
  }
  return Builder.sidecar_rows(example | encoded)[0]


def planned(sidecar: Sidecar, epoch: int = 0, **ways) -> Plan:
  batching = Batching(canvases=CANVASES, seed=0, images=20, texts_per_image=4, training=True)
  return plan_epoch(sidecar, batching, epoch, negatives=Negatives(sidecar, **ways))


def untrue(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
  """Image and text of every untrue pair that counts."""
  image = np.broadcast_to(plan.image[..., None], plan.text.shape)
  these = ~plan.matched & (plan.weight > 0)
  return image[these], plan.text[these]


def read(text: str) -> tuple[str, ...]:
  """What is read of a text of whole words: those that are not cut, in lower case."""
  words = ''.join(f' {c} ' if c in '.!' else c for c in text.lower()).split()
  return tuple(w for w in words[: LENGTH - 2] if w.isalnum())


@pytest.mark.parametrize('hard', [0.0, 0.5])
def test_no_untrue_text_reads_like_an_own_one(mixed, tokenizer, hard):
  truth, pairs = Truth(mixed, tokenizer), 0
  own = [{read(mixed.caption(j)) for j in range(4 * i, 4 * i + 4)} for i in range(LARGE + SMALL)]
  for epoch in range(16):
    images, texts = untrue(planned(mixed, epoch, truth=truth, first=(0, LARGE), hard=hard))
    pairs += len(images)
    alike = [read(mixed.caption(t)) in own[i] for i, t in zip(images, texts, strict=True)]
    assert not any(alike)
  assert pairs > 100_000


def test_untrue_texts_stay_in_their_corpus_or_come_from_all(mixed):
  truth, of = Truth(mixed), mixed.caption_image
  images, texts = untrue(planned(mixed, truth=truth, first=(0, LARGE)))
  np.testing.assert_array_equal(images < LARGE, of[texts] < LARGE)
  images, texts = untrue(planned(mixed, truth=truth))
  small = images >= LARGE
  expected = SMALL / (LARGE + SMALL)
  assert np.mean(of[texts[small]] >= LARGE) == pytest.approx(expected, abs=0.03)


def test_true_and_untrue_pairs_have_the_same_texts(mixed):
  plan = planned(mixed, truth=Truth(mixed), first=(0, LARGE), hard=0.5)
  assert plan.weight.all()
  texts = np.sort(plan.text[plan.weight > 0])
  np.testing.assert_array_equal(texts, np.arange(len(mixed.text)))


def test_hard_texts_have_more_words_in_common_with_an_own_caption():
  sidecar = corpus('circle', LARGE, words=60)
  # Besides three that all captions have.
  words = [set(read(sidecar.caption(i))) - {'we', 'see', 'circle'} for i in range(4 * LARGE)]

  def common(hard: float) -> float:
    images, texts = untrue(planned(sidecar, truth=Truth(sidecar), hard=hard))
    best = [
      max(len(words[t] & words[j]) for j in range(4 * i, 4 * i + 4))
      for i, t in zip(images, texts, strict=True)
    ]
    return float(np.mean(best))

  by_chance, near = common(0.0), common(1.0)
  assert by_chance < 0.7
  assert near > 1.5


def test_the_share_of_hard_texts_and_whose_foils_they_are(scenes, tokenizer):
  captions = len(scenes.text)
  truth = Truth(scenes, tokenizer)
  for hard in (0.0, 0.5, 1.0):
    images, texts = untrue(planned(scenes, truth=truth, hard=hard))
    foil = texts >= captions
    # A few captions have no foil.
    assert foil.mean() == pytest.approx(hard, abs=0.04)
    for image, text in zip(images[foil], texts[foil] - captions, strict=True):
      own = range(scenes.captions.start[image], scenes.captions.start[image + 1])
      assert any(text in scenes.foils[j] for j in own)
  first, second = (planned(scenes, n, truth=truth, hard=1.0) for n in (0, 1))
  assert set(untrue(first)[1].tolist()) != set(untrue(second)[1].tolist())


def test_a_foil_that_is_cut_to_an_own_text_is_not_used():
  long = 'we see a red circle and a blue square'
  rows = [
    Row(f'{i}', 64, 64, [Caption(f'{long} {w}', i, foils=(f'{long} and more', 'a star'))])
    for i, w in enumerate(WORDS[:40])
  ]
  sidecar = Sidecar.of(rows)
  reader = Tokenizer(vocabulary.FILE, LENGTH - 1)  # Nine words: without the last.
  truth = Truth(sidecar, reader)
  batching = Batching(canvases=CANVASES, seed=0, images=20, texts_per_image=1, training=True)
  plan = plan_epoch(sidecar, batching, 0, negatives=Negatives(sidecar, truth, hard=1.0))
  _, texts = untrue(plan)
  said = {sidecar.strings.text(t - 40) for t in texts if t >= 40}
  assert said == {'a star'}


def test_without_negatives_every_pair_is_true(mixed):
  batching = Batching(canvases=CANVASES, seed=0, images=20, texts_per_image=4, training=True)
  plan = plan_epoch(mixed, batching, 0)
  assert plan.matched.all()
  np.testing.assert_array_equal(
    np.repeat(plan.image[..., None], 4, -1), mixed.caption_image[plan.text]
  )
