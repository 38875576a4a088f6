"""The plan of an epoch: every pair where it belongs, and nothing left to the order of processes."""

import collections
import dataclasses
import itertools
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_jax import UserError
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.groups import Groups
from pixelbert_jax.input.image import placed_size
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.order import (
  Batching,
  Plan,
  group_texts,
  plan_epoch,
  shuffled,
  swap_images,
  texts_at_a_time,
)
from pixelbert_jax.input.ragged import Ragged
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth, text_numbers

SQUARE = Canvases(64, 64, ((64, 64),))
SEVERAL = Canvases(64, 128, ((64, 64), (64, 128), (128, 64), (64, 96)))
SIZES = ((100, 100), (100, 130), (50, 25), (60, 130))


def sidecar_of(counts, sizes=((100, 100),), text='{image}-{number}', label=None) -> Sidecar:
  """Images with so many captions each, without claims; sizes are dealt out in turn."""
  rows = []
  for i, count in enumerate(counts):
    captions = [
      Caption(
        text.format(image=i, number=j, few=(7 * i + j) % 10),
        1000 * i + j,
        label=label is None or label(i, j),
      )
      for j in range(count)
    ]
    rows.append(Row(f'image {i}', *sizes[i % len(sizes)], captions))
  return Sidecar.of(rows)


def claiming(images: int, captions: int, claims: int, true: int) -> Sidecar:
  """Images of which `true` of all `claims` hold, and each of whose captions says one of them."""
  rng = np.random.default_rng(7)
  rows = []
  for i in range(images):
    hold = [f'claim {c}' for c in rng.choice(claims, true, replace=False)]
    said = rng.choice(hold, captions)
    rows.append(
      Row(f'{i}', 64, 64, [Caption(c, 100 * i + j, claim=c) for j, c in enumerate(said)], hold)
    )
  return Sidecar.of(rows)


def batching(images=4, texts=2, training=True, seed=0, canvases=SQUARE) -> Batching:
  return Batching(
    canvases=canvases,
    seed=seed,
    images=images,
    texts_per_image=texts,
    training=training,
  )


def groups_of(sidecar, texts, rng, training) -> Groups:
  canvas = SQUARE.choose(sidecar.size)
  way = batching(texts=texts, training=training)
  return group_texts(sidecar.captions.start, canvas, sidecar.label, way, rng)


def epoch(sidecar, number=0, images=4, texts=2, training=True, seed=0, canvases=SQUARE) -> Plan:
  way = batching(images, texts, training, seed, canvases)
  return plan_epoch(sidecar, way, number, negatives=Negatives(sidecar, Truth(sidecar)))


def listed(plan: Plan) -> list[tuple[int, int, bool]]:
  """(image, text, matched) of every pair that counts."""
  image = np.broadcast_to(plan.image[..., None], plan.text.shape)
  real = plan.weight > 0
  return list(
    zip(image[real].tolist(), plan.text[real].tolist(), plan.matched[real].tolist(), strict=True)
  )


def assert_same(left: Plan, right: Plan) -> None:
  for name, array in vars(left).items():
    np.testing.assert_array_equal(array, getattr(right, name), name)


# --- How many texts at a time ------------------------------------------------------------


@pytest.mark.parametrize(
  ('count', 'most', 'expected'),
  [
    ([5] * 99 + [7], 100, 5),
    ([5] * 9, 3, 3),
    ([1, 0, 1], 8, 1),
    ([0], 8, 1),
    ([50], 64, 50),
    ([1] * 60 + [60], 64, 2),
  ],
)
def test_texts_at_a_time_cost_least(count, most, expected):
  assert texts_at_a_time(np.array(count), most) == expected


# --- Which pairs there are ---------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
  counts=st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any),
  texts=st.integers(1, 4),
  images=st.integers(1, 5),
  training=st.booleans(),
  number=st.integers(0, 2),
)
def test_any_plan_is_whole(counts, texts, images, training, number):
  # One label is false, so pairs stay as the corpus lists them.
  first = next(i for i, count in enumerate(counts) if count)
  sidecar = sidecar_of(counts, SIZES, label=lambda i, j: (i, j) != (first, 0))
  canvas = np.array([(0, 3, 2, 1)[i % 4] for i in range(len(counts))])
  groups = [max(c // texts, c > 0) if training else -(-c // texts) for c in counts]
  on = np.repeat(canvas, groups)
  if training:
    on, _ = SEVERAL.fill(on, images, np.random.default_rng(0))
  sizes = np.bincount(on)
  batches = (sizes // images if training else -(-sizes // images)).sum()
  if not batches:
    with pytest.raises(UserError, match=f'a batch takes {images} images of {texts} texts'):
      epoch(sidecar, number, images, texts, training, canvases=SEVERAL)
    return
  plan = epoch(sidecar, number, images, texts, training, canvases=SEVERAL)
  assert plan.image.shape == (batches, images)
  assert plan.text.shape == plan.matched.shape == plan.weight.shape == (len(plan), images, texts)
  assert plan.weight.dtype == np.float32
  assert set(np.unique(plan.weight)) <= {0, 1}
  found = listed(plan)
  assert len(set(found)) == len(found)
  of = sidecar.caption_image
  assert all(of[text] == image for image, text, _ in found)
  assert all(matched == sidecar.label[text] for _, text, matched in found)
  shapes = np.array(SEVERAL.shapes)
  assert (shapes[canvas[plan.image]] <= shapes[plan.canvas][:, None]).all()
  if not training:
    assert (canvas[plan.image] == plan.canvas[:, None]).all()
    assert sorted(text for _, text, _ in found) == list(range(sum(counts)))


@pytest.mark.parametrize('texts', [1, 2, 3, 4])
@pytest.mark.parametrize('sidecar', [sidecar_of([5] * 40), claiming(40, 5, 30, 6)])
def test_no_pair_comes_twice_and_every_image_has_its_texts(texts, sidecar):
  plan = epoch(sidecar, texts=texts)
  found = listed(plan)
  assert (plan.weight == 1).all()
  assert len({text for _, text, _ in found}) == len(found) == 40 * (5 // texts) * texts
  assert collections.Counter(plan.image.ravel().tolist()) == dict.fromkeys(range(40), 5 // texts)


def test_a_batch_has_one_canvas_the_smallest():
  plan = epoch(sidecar_of([3] * 60, SIZES), canvases=SEVERAL)
  wanted = np.array([0, 3, 2, 1])[plan.image % 4]
  assert (wanted == plan.canvas[:, None]).all()
  assert set(plan.canvas.tolist()) == {0, 1, 2, 3}
  # Batches of several canvases take turns.
  assert (np.diff(plan.canvas) != 0).sum() > 3


def test_an_image_that_fits_no_canvas():
  with pytest.raises(UserError, match='hold no image of 64x128: add a canvas'):
    epoch(sidecar_of([2] * 9, ((100, 200),)), canvases=Canvases(64, 128, ((64, 96), (128, 64))))


def test_leftover_captions_are_others_in_each_epoch():
  sidecar = sidecar_of([5] * 12)
  left = collections.Counter()
  for number in range(40):
    used = {text for _, text, _ in listed(epoch(sidecar, number))}
    assert len(used) == 48
    left.update(set(range(60)) - used)
  # Each is left out in an epoch of five.
  assert len(left) == 60
  assert max(left.values()) < 8 + 5 * np.sqrt(40 * 0.2 * 0.8)


def test_no_image_is_lost_for_want_of_captions():
  counts = [1, 2, 3, 5, 9, 0] * 4
  sidecar = sidecar_of(counts)
  rng = np.random.default_rng(0)
  groups = groups_of(sidecar, 4, rng, training=True)
  assert collections.Counter(groups.image.tolist()) == {
    i: max(1, count // 4) for i, count in enumerate(counts) if count
  }
  assert groups.weight.sum(1).tolist() == [min(4, counts[i]) for i in groups.image]
  assert (sidecar.caption_image[groups.text] == groups.image[:, None]).all()
  for number in range(3):
    plan = epoch(sidecar, number, images=1, texts=4)
    assert set(plan.image.ravel().tolist()) == {i for i, count in enumerate(counts) if count}
    assert sorted(plan.weight.sum(-1).ravel()) == sorted(groups.weight.sum(1))


@pytest.mark.parametrize('texts', [1, 3, 4])
def test_what_fills_no_batch_is_dropped_and_is_other_in_each_epoch(texts):
  sidecar = sidecar_of([texts] * 11)
  dropped = set()
  for number in range(20):
    plan = epoch(sidecar, number, texts=texts)
    assert len(plan) == 2
    dropped |= set(range(11)) - set(plan.image.ravel().tolist())
  assert dropped == set(range(11))


@pytest.mark.parametrize('texts', [1, 3, 4])
def test_evaluation_has_every_caption_once(texts):
  counts = [5, 1, 3, 4, 2, 0, 5, 5, 1, 7]
  sidecar = sidecar_of(counts, SIZES)
  plan = epoch(sidecar, images=4, texts=texts, training=False, canvases=SEVERAL)
  found = listed(plan)
  assert sorted(text for _, text, _ in found) == list(range(sum(counts)))
  assert plan.weight.sum() == sum(counts) < plan.text.size
  real = plan.weight > 0
  assert (plan.weight[real] == 1).all()
  # Images in their own order, batch after batch of one canvas.
  assert np.all(np.diff(plan.canvas) >= 0)
  for canvas in range(4):
    images = plan.image[plan.canvas == canvas][real.any(-1)[plan.canvas == canvas]]
    assert (np.diff(images) >= 0).all()


def test_epochs_and_seeds_differ_and_repeat():
  sidecar = sidecar_of([4] * 40)
  assert_same(epoch(sidecar, 3), epoch(sidecar, 3))
  for other in (epoch(sidecar, 4), epoch(sidecar, 3, seed=1)):
    assert (other.image != epoch(sidecar, 3).image).mean() > 0.8
    assert len(other) == len(epoch(sidecar, 3))


# --- Half of the pairs are untrue --------------------------------------------------------


@pytest.mark.parametrize('texts', [1, 3, 4])
@pytest.mark.parametrize('claims', [False, True])
def test_untrue_pairs_are_a_permutation_of_their_own_texts(texts, claims):
  sidecar = claiming(61, 4, 30, 6) if claims else sidecar_of([4, 5, 2] * 20 + [4])
  rng = np.random.default_rng(0)
  before = groups_of(sidecar, texts, rng, training=False)
  kept = before.text.copy()
  after = Negatives(sidecar, Truth(sidecar))(before, rng)
  np.testing.assert_array_equal(before.text, kept)
  np.testing.assert_array_equal(after.weight, before.weight)
  untrue = ~after.matched & (after.weight > 0)
  np.testing.assert_array_equal(after.text[~untrue], before.text[~untrue])
  np.testing.assert_array_equal(np.sort(after.text[untrue]), np.sort(before.text[untrue]))
  # Half of each group, and where that is no whole number, of half of the groups one more.
  in_group = (~after.matched).sum(1)
  assert set(in_group.tolist()) == {texts // 2, -(-texts // 2)}
  assert abs(after.matched.mean() - 0.5) <= 0.5 / len(after)


@pytest.mark.parametrize('texts', [1, 3, 4])
@pytest.mark.parametrize('training', [False, True])
def test_untrue_pairs_are_untrue_by_their_claims(texts, training):
  sidecar = claiming(60, 12, 20, 6)
  for number in range(3):
    for image, text, matched in listed(epoch(sidecar, number, texts=texts, training=training)):
      # Three of ten pairs are true by chance.
      assert (sidecar.claim[text] in sidecar.claims[image]) == matched


@pytest.mark.parametrize('texts', [1, 3, 4])
def test_untrue_pairs_are_never_listed_together(texts):
  sidecar = sidecar_of([12] * 6)
  of = sidecar.caption_image
  for number in range(5):
    for image, text, matched in listed(epoch(sidecar, number, images=1, texts=texts)):
      assert (of[text] == image) == matched


def test_an_equal_text_of_another_image_is_listed_too():
  sidecar = sidecar_of([4] * 30, text='text {few}')
  said = [{sidecar.caption(4 * i + j) for j in range(4)} for i in range(30)]
  for number in range(5):
    for image, text, matched in listed(epoch(sidecar, number)):
      assert (sidecar.caption(text) in said[image]) == matched


def test_100k_pairs_are_half_matched_wherever_they_stand():
  sidecar = sidecar_of([4] * 25_000, SIZES)
  for texts in (1, 3, 4):
    plan = epoch(sidecar, images=32, texts=texts, canvases=SEVERAL)
    number = plan.matched.size
    assert number > 74_000
    # Exactly half, but for the few groups that fill no batch and an odd one.
    assert abs(plan.matched.mean() - 0.5) < (0 if texts == 4 else 64 * texts / number) + 1e-12
    for matched in (plan.matched[:, 0], plan.matched[:, :, 0], plan.matched[:, :, -1]):
      assert abs(matched.mean() - 0.5) < 2.5 / np.sqrt(matched.size)
    for canvas in range(4):
      assert abs(plan.matched[plan.canvas == canvas].mean() - 0.5) < 0.02


def test_a_text_says_nothing_about_whether_it_is_matched():
  sidecar = claiming(24, 4, 20, 4)
  matched = np.zeros(96)
  for number in range(200):
    for _, text, true in listed(epoch(sidecar, number, images=4, texts=4)):
      matched[text] += true
  assert abs(matched - 100).max() < 5 * np.sqrt(50)


def test_an_untrue_text_may_come_from_any_other_image():
  sidecar = sidecar_of([1] * 12)
  seen = set()
  for number in range(200):
    seen |= {(i, t) for i, t, matched in listed(epoch(sidecar, number, texts=1)) if not matched}
  assert seen == {(i, t) for i in range(12) for t in range(12) if i != t}


def test_labels_of_the_corpus_are_kept():
  sidecar = sidecar_of([3] * 40, label=lambda i, j: j != i % 4)
  for training in (True, False):
    found = listed(epoch(sidecar, images=5, texts=3, training=training))
    assert len(found) == 120
    for image, text, matched in found:
      assert text // 3 == image
      assert matched == (text % 3 != image % 4)


@pytest.mark.parametrize('texts', [2, 5])
def test_few_images_are_enough_for_untrue_pairs(texts):
  for counts in ([texts] * 2, [10] * 2, [20] * 2, [2 * texts] * 3):
    sidecar = sidecar_of(counts)
    of = sidecar.caption_image
    for seed in range(20):
      found = listed(epoch(sidecar, images=1, texts=2, seed=seed))
      assert all((of[text] == image) == matched for image, text, matched in found)
      assert 2 * sum(matched for *_, matched in found) == len(found)


@pytest.mark.parametrize(
  'sidecar',
  [
    sidecar_of([8]),
    Sidecar.of([Row(f'{i}', 64, 64, [Caption('grey', i, claim='g')], ['g']) for i in range(20)]),
  ],
  ids=['one image', 'all the same'],
)
def test_texts_true_of_every_image_cannot_be_mismatched(sidecar):
  with pytest.raises(UserError, match=r'true of nearly every image.*for example') as error:
    epoch(sidecar, images=1)
  assert '\n' not in str(error.value)
  assert repr(sidecar.caption(0))[:3] in str(error.value)


# --- Swapped images ----------------------------------------------------------------------


def test_swapping_keeps_no_image_and_all_else():
  plan = epoch(sidecar_of([3] * 61, SIZES), texts=3, training=False, canvases=SEVERAL)
  swapped = swap_images(plan)
  assert (swapped.image != plan.image).all()
  for name in ('canvas', 'text', 'matched', 'weight'):
    np.testing.assert_array_equal(getattr(swapped, name), getattr(plan, name))
  # One to one, within a canvas.
  to = dict(zip(plan.image.ravel().tolist(), swapped.image.ravel().tolist(), strict=True))
  assert sorted(to) == sorted(to.values()) == list(range(61))
  assert all(a % 4 == b % 4 for a, b in to.items())
  np.testing.assert_array_equal(np.vectorize(to.get)(plan.image), swapped.image)


def test_an_image_alone_on_its_canvas_stays():
  sidecar = sidecar_of([3] * 5, ((100, 100), (100, 130), (100, 100), (100, 100), (100, 100)))
  plan = epoch(sidecar, texts=3, training=False, canvases=SEVERAL)
  swapped = swap_images(plan)
  np.testing.assert_array_equal(swapped.image == plan.image, plan.image == 1)


def test_a_text_that_is_true_everywhere_is_left_out_of_the_untrue_half():
  rows = [
    Row(
      f'{i}',
      64,
      64,
      [Caption(f'text {i} {j}', j, claim=f'{i} {j}') for j in range(3)],
      [f'{i} {j}' for j in range(3)] + ['always'],
    )
    for i in range(12)
  ]
  always = Caption('there is something', 9, claim='always')
  rows[0] = dataclasses.replace(rows[0], captions=[*rows[0].captions, always])
  for number in range(8):
    plan = epoch(Sidecar.of(rows), number, images=2, texts=2)
    there = (plan.text == 3) & (plan.weight > 0)
    assert plan.matched[there].all()


def test_a_split_without_texts_is_refused():
  with pytest.raises(UserError, match='has no texts'):
    epoch(Sidecar.of([Row('a', 64, 64, [])]))


# --- What travels, and many texts --------------------------------------------------------


def test_canvases_on_which_images_travel():
  canvases = Canvases(64, 128, ((64, 64), (64, 128), (128, 64)))
  # Smaller, up to twice as large, larger than that and so reduced to 64x64; and wide ones.
  sizes = np.array([(30, 20), (100, 40), (90, 128), (1000, 1000), (40, 80), (100, 202)])
  chosen = canvases.choose(sizes)
  assert chosen.tolist() == [2, 2, 1, 0, 1, 1]
  assert canvases.sources(sizes) == [(64, 64), (100, 202), (100, 40)]
  # With what may come from the square canvas to the upright one, and from that to none.
  assert canvases.sources(sizes, [(0, 2)]) == [(64, 64), (100, 202), (100, 64)]
  # None for which there is no image.
  assert canvases.sources(sizes[:2]) == [(1, 1), (1, 1), (100, 40)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.text('a\0', max_size=3), st.text(max_size=6)), max_size=30))
def test_equal_texts_and_no_others_have_equal_numbers(texts):
  coded = [text.encode() for text in texts]
  numbers = text_numbers(Ragged.of(coded, np.uint8)).tolist()
  assert len(set(numbers)) == len(set(coded)) == len(set(zip(coded, numbers, strict=True)))
  assert not texts or max(numbers) < len(texts)


def test_a_million_texts_are_numbered_in_seconds():
  rng = np.random.default_rng(0)
  which = rng.integers(0, 400_000, 1_000_000)
  text = which.astype('>u4')[:, None].view(np.uint8).reshape(-1)
  began = time.process_time()
  numbers = text_numbers(Ragged(text, np.arange(len(which) + 1) * 4))
  assert time.process_time() - began < 8  # It takes less than one.
  first = np.full(400_000, -1)
  first[which] = numbers
  np.testing.assert_array_equal(first[which], numbers)
  assert len(np.unique(numbers)) == len(np.unique(which))


@pytest.mark.parametrize('texts', [1, 4])
def test_a_million_texts_are_planned_in_seconds_and_little_memory(texts):
  images, each, length = 40_000, 25, 4
  number = images * each
  said = np.arange(number).astype('>u4')[:, None].view(np.uint8).reshape(-1)
  sidecar = dataclasses.replace(
    sidecar_of([1] * 2),
    size=np.full((images, 2), 64, np.int32),
    captions=Ragged(np.arange(number), np.arange(images + 1) * each),
    text=Ragged(said, np.arange(number + 1) * length),
    label=np.ones(number, bool),
  )
  negatives = Negatives(sidecar, Truth(sidecar))
  way = batching(4096 // texts, texts)
  tracemalloc.start()
  began = time.process_time()
  plan = plan_epoch(sidecar, way, 0, negatives=negatives)
  seconds = time.process_time() - began
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert plan.text.dtype == plan.image.dtype == np.int32
  assert plan.weight.sum() == number // 4096 * 4096 - (0 if texts == 1 else 40960)
  assert seconds < 1  # It takes 0.2.
  assert peak / number < 64  # bytes


@pytest.mark.parametrize('texts', [2, 3])
def test_all_orders_of_the_texts_of_an_image_are_equally_likely(texts):
  start = np.cumsum([0, *[texts, 0, 1] * 6000])
  order = shuffled(start, np.random.default_rng(0))
  # The only text of an image, and those of the others.
  np.testing.assert_array_equal(order[texts :: texts + 1], start[2::3])
  rows = order.reshape(-1, texts + 1)[:, :texts] - start[:-1:3, None]
  found = collections.Counter(map(tuple, rows.tolist()))
  assert found.keys() == set(itertools.permutations(range(texts)))
  assert abs(np.array(list(found.values())) - 6000 / len(found)).max() < 5 * np.sqrt(
    6000 / len(found)
  )


def test_a_part_that_begins_anywhere_is_numbered_alike():
  words = Ragged.of([b'one', b'two', b'one', b'three'], np.uint8)
  later = Ragged(words.values, words.start[1:])
  assert len(set(text_numbers(later).tolist())) == 3


CANVASES = Canvases(64, 96, ((64, 96), (96, 64), (96, 96)))
WIDE, UPRIGHT = (100, 140), (140, 100)


@pytest.mark.parametrize(
  ('sizes', 'missed'),
  [
    ([WIDE] * 40 + [UPRIGHT] * 9, 0),  # too few that are upright: wide ones join them
    ([WIDE] * 9 + [UPRIGHT] * 9, 0),
    ([WIDE] * 40 + [UPRIGHT] * 16, 0),
    ([WIDE] * 17 + [UPRIGHT] * 9, 9),  # wide ones would then be too few
  ],
)
def test_what_has_a_canvas_of_its_own_comes_in_training_too(sizes, missed):
  sidecar = sidecar_of([2] * len(sizes), sizes)
  plans = [epoch(sidecar, number, images=16, canvases=CANVASES) for number in range(20)]
  assert {len(plan) for plan in plans} == {len(plans[0])}
  shown = np.unique(np.concatenate([plan.image.reshape(-1) for plan in plans]))
  assert len(shown) == len(sizes) - missed
  assert {plan.missed for plan in plans} == {missed}
  for plan in plans:
    target = CANVASES.target(sidecar.size[plan.image])
    assert (target <= np.array(CANVASES.shapes)[plan.canvas][:, None]).all()
    placed = placed_size(sidecar.size[plan.image], target)
    assert (
      placed <= np.array(CANVASES.sources(sidecar.size, plan.moves))[plan.canvas][:, None]
    ).all()


SIDES = st.sampled_from([64, 96, 128])


@settings(max_examples=200, deadline=None)
@given(
  shapes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6, unique=True),
  counts=st.lists(st.integers(0, 40), min_size=6, max_size=6),
  least=st.integers(1, 16),
)
def test_no_canvas_has_too_few_where_another_can_help(shapes, counts, least):
  canvases = Canvases(64, 128, tuple(shapes))
  before = np.repeat(np.arange(len(shapes)), counts[: len(shapes)])
  (after, moves), (other, _) = (
    canvases.fill(before, least, np.random.default_rng(seed)) for seed in (0, 1)
  )
  count = np.bincount(after, minlength=len(shapes))
  np.testing.assert_array_equal(count, np.bincount(other, minlength=len(shapes)))
  sides = np.array(shapes)
  assert (sides[before] <= sides[after]).all()
  # `moves` say where any may have come from.
  gets = [{n} for n in range(len(shapes))]
  for source, target in moves:
    gets[target] |= gets[source]
  assert all(b in gets[a] for b, a in zip(before, after, strict=True))
  for short in np.flatnonzero((count > 0) & (count < least)):
    others = [n for n in range(len(shapes)) if n != short]
    assert not any((sides[short] <= sides[n]).all() for n in others)
    smaller = [n for n in others if (sides[n] <= sides[short]).all()]
    assert all(count[n] < 2 * least - count[short] for n in smaller)


def test_a_fuller_canvas_is_preferred_to_an_empty_one_of_the_same_size():
  paper = Canvases(800, 1333, ((832, 832), (832, 1088), (832, 1344), (1088, 832), (1344, 832)))
  before = np.repeat([0, 3], [200, 5000])
  after, _ = paper.fill(before, 256, np.random.default_rng(0))
  assert np.bincount(after, minlength=5).tolist() == [0, 0, 0, 5200, 0]
