"""Host batches on a toy split: what the plan says, whoever asks for it and whenever."""

import contextlib
import dataclasses
import io
import json
import pathlib
import threading
import time

import numpy as np
import pytest
from PIL import Image

from pixelbert_jax import UserError
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import RecordError, Split
from pixelbert_jax.input.image import GREY, ImageError
from pixelbert_jax.input.pipeline import Batch, Threads, read
from pixelbert_jax.input.rows import Caption, Row
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.unreadable import Unreadable
from pixelbert_jax.input.visual import TextGuess
from pixelbert_jax.tasks.pretraining import Hiding, PairBatches

LENGTH, SHARE = 12, 0.3
# Reduced by the host, reduced by the device and on the other canvas, enlarged.
SIZES = ((40, 40), (20, 40), (10, 10))
# As they travel, as the model sees them, and the canvases for that, for one canvas of the model
# and the other.
PLACED = ((16, 16), (20, 40), (10, 10))
TARGET = ((16, 16), (16, 32), (16, 16))
TRAVEL = ((16, 16), (20, 40))
CANVASES = Canvases(16, 32, ((16, 16), (16, 32)))
ADJECTIVES, NOUNS = ('red', 'blue', 'green'), ('cat', 'dog', 'bus', 'street')


def png(number: int, size: tuple[int, int]) -> bytes:
  """An image whose every pixel is its number."""
  file = io.BytesIO()
  Image.new('RGB', size[::-1], (number, 2 * number, 255 - number)).save(file, 'PNG')
  return file.getvalue()


def split_of(images: int, captions: int, sizes=SIZES, visual=False) -> Split:
  source, rows = [], []
  for i in range(images):
    size = sizes[i % len(sizes)]
    source.append({'image': png(i % 250, size)})
    texts = [
      f'the {ADJECTIVES[(i + j) % 3]} {NOUNS[(i // 3 + j) % 4]} on a street{" in" * (j % 3)}'
      for j in range(captions)
    ]
    kinds = ['.cs'.ljust(len(text.split()), '.') if visual else None for text in texts]
    # Each caption is true of its image alone, though others say the same.
    said = [Caption(t, 100 * i + j, claim=f'{i} {j}', kinds=kinds[j]) for j, t in enumerate(texts)]
    rows.append(Row(f'image {i}', *size, said, [c.claim for c in said]))
  return Split(source, Sidecar.of(rows))


@pytest.fixture(scope='module')
def tokenizer(vocabulary):
  return Tokenizer(vocabulary, LENGTH)


@pytest.fixture(scope='module')
def split():
  return split_of(46, 5)


@pytest.fixture
def make(split, tokenizer):
  """Fresh batches of the toy split; any field may be given."""

  def batches(**fields) -> PairBatches:
    return PairBatches(
      **{
        'split': split,
        'tokenizer': tokenizer,
        'canvases': CANVASES,
        'seed': 3,
        'images': 4,
        'texts_per_image': 2,
        'hiding': Hiding(SHARE, whole=0.25),
        'training': True,
        **fields,
      }
    )

  return batches


def assert_same(left: Batch, right: Batch) -> None:
  assert left.keys() == right.keys()
  for name, array in left.items():
    assert array.dtype == right[name].dtype, name
    np.testing.assert_array_equal(array, right[name], name)


def plain(batch: Batch) -> np.ndarray:
  """The token ids of a batch as they were before any was hidden, unmatched texts too."""
  ids = batch['token_ids'].copy()
  used = batch['mlm_position'] > 0
  b, k, slot = np.nonzero(used)
  ids[b, k, batch['mlm_position'][used]] = batch['mlm_target'][b, k, slot]
  return ids


@pytest.mark.parametrize('training', [True, False])
def test_shapes_and_types(make, training):
  batches = make(training=training, guess=TextGuess(make().split.sidecar))
  places = 3  # 0.3 of 10 tokens
  for step in range(len(batches)):
    batch = batches[step]
    number = batches.plan(0).canvas[step]
    assert {name: (x.shape, x.dtype.name) for name, x in batch.items()} == {
      'image': ((4, *TRAVEL[number], 3), 'uint8'),
      'canvas': ((4, *CANVASES.shapes[number], 0), 'uint8'),
      'source_size': ((4, 2), 'int32'),
      'size': ((4, 2), 'int32'),
      'token_ids': ((4, 2, LENGTH), 'int32'),
      'token_mask': ((4, 2, LENGTH), 'bool'),
      'mlm_position': ((4, 2, places), 'int32'),
      'mlm_target': ((4, 2, places), 'int32'),
      'mlm_weight': ((4, 2, places), 'float32'),
      'mlm_kind': ((4, 2, places), 'int32'),
      'mlm_guessed': ((4, 2, places), 'float32'),
      'itm_label': ((4, 2), 'int32'),
      'weight': ((4, 2), 'float32'),
    }
  assert not {'mlm_kind', 'mlm_guessed'} & make()[0].keys()


@pytest.mark.parametrize('fields', [{}, {'micro_batches': 2, 'flip': 0.5, 'devices': ((1,), 2)}])
def test_the_shapes_of_batches_are_known_before_they_are_made(make, fields):
  batches = make(**fields)
  parts, found = batches.micro_batches, batches.shapes(range(len(batches)))
  assert len(found) == len(CANVASES.shapes)
  made = [batches[number] for number in range(parts * len(batches))]
  forms, expected = (
    {tuple((name, x.shape, x.dtype) for name, x in sorted(batch.items())) for batch in some}
    for some in (found, made)
  )
  assert forms == expected
  # Only the canvases of the numbers that are asked for.
  assert len(batches.shapes([len(batches) + 2])) == 1


@pytest.mark.parametrize('training', [True, False])
def test_a_batch_is_what_the_plan_says(make, tokenizer, training):
  batches = make(training=training)
  sidecar, seen = batches.split.sidecar, set()
  for step in range(len(batches)):
    batch, plan = batches[step], batches.plan(0)
    kind = plan.image[step] % 3
    assert set(kind) <= ({1} if plan.canvas[step] else {0, 2})
    assert batch['source_size'].tolist() == [list(PLACED[i]) for i in kind]
    assert batch['size'].tolist() == [list(TARGET[i]) for i in kind]
    colour = np.stack([plan.image[step], 2 * plan.image[step], 255 - plan.image[step]], -1)
    for image, size, c in zip(batch['image'], batch['source_size'], colour, strict=True):
      assert (image[: size[0], : size[1]] == c).all()
    texts = [sidecar.caption(i) for i in plan.text[step].ravel()]
    ids, _ = tokenizer(texts)
    np.testing.assert_array_equal(plain(batch).reshape(8, LENGTH), ids)
    np.testing.assert_array_equal(batch['token_mask'].reshape(8, LENGTH), ids != tokenizer.pad_id)
    np.testing.assert_array_equal(batch['itm_label'], plan.matched[step])
    np.testing.assert_array_equal(batch['weight'], plan.weight[step])
    seen |= set(kind)
  assert seen == {0, 1, 2}


def test_unknown_words_are_seen_but_not_hidden(make, tokenizer):
  # They are read alike; with labels of their own they stay with their images.
  rows = [Row(f'{i}', 16, 16, [Caption(f'zebra{i} ' * 5, i, label=i > 0)]) for i in range(4)]
  split = Split([{'image': png(i, (16, 16))} for i in range(4)], Sidecar.of(rows))
  batch = make(split=split, texts_per_image=1, hiding=Hiding(SHARE))[0]
  expected = ['[CLS]', *['[UNK]'] * 5, '[SEP]', *['[PAD]'] * 5]
  for ids in batch['token_ids'].reshape(4, LENGTH):
    assert [tokenizer.words[i] for i in ids] == expected
  assert (batch['token_mask'].sum(-1) == 7).all()
  assert (batch['mlm_weight'] == 0).all()


def test_words_are_predicted_in_matched_pairs_only_and_hidden_in_all(make, tokenizer):
  for training in (True, False):
    batches = make(training=training)
    hidden = {0: 0, 1: 0}
    for step in range(len(batches)):
      batch = batches[step]
      counts = batch['itm_label'] * batch['weight']
      assert (batch['mlm_weight'] <= counts[..., None]).all()
      used = (batch['mlm_position'] > 0).sum(-1)
      np.testing.assert_array_equal(batch['mlm_weight'].sum(-1), used * counts)
      for label in hidden:
        hidden[label] += (batch['token_ids'] == tokenizer.mask_id)[
          batch['itm_label'] == label
        ].sum()
    # So that [MASK] says nothing about the match.
    assert 0.5 < hidden[0] / hidden[1] < 2


@pytest.mark.parametrize('number', [1, 2, 4])
@pytest.mark.parametrize('training', [True, False])
def test_processes_share_the_batches_of_one(make, number, training):
  # Evaluation has groups and batches that are filled up.
  texts = 2 if training else 3
  guess = TextGuess(make().split.sidecar)
  whole = make(training=training, texts_per_image=texts, guess=guess)
  shares = [
    make(training=training, texts_per_image=texts, guess=guess, devices=((i,), number))
    for i in range(number)
  ]
  assert {len(share) for share in shares} == {len(whole)}
  for step in (*range(len(whole)), len(whole) + 1):
    parts = [share[step] for share in shares]
    assert all(len(x) == 4 // number for part in parts for x in part.values())
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert_same(joined, whole[step])


def test_a_process_makes_the_rows_of_its_devices_wherever_they_are_in_the_mesh(make):
  whole, share = make()[0], make(devices=((0, 2), 4))[0]
  assert_same(share, {name: x[[0, 2]] for name, x in whole.items()})


def test_a_batch_follows_from_its_number(make):
  first, second = make(), make()
  steps = [0, 2 * len(first) + 3, 5, len(first), 5, 1, len(first) - 1]
  expected = {step: first[step] for step in sorted(set(steps))}
  for step in steps:
    assert_same(second[step], expected[step])
  assert (make(seed=4)[0]['token_ids'] != expected[0]['token_ids']).any()


def test_the_seed_decides_which_words_are_hidden(make):
  # One caption an image and labels of its own: the plan of evaluation leaves nothing to chance.
  rows = [Row(f'{i}', 16, 16, [Caption('the red cat on a bus', i, label=i > 0)]) for i in range(32)]
  split = Split([{'image': png(i, (16, 16))} for i in range(32)], Sidecar.of(rows))
  first, again, other = (
    make(split=split, seed=seed, images=32, texts_per_image=1, training=False)[0]
    for seed in (3, 3, 4)
  )
  assert_same(first, again)
  np.testing.assert_array_equal(plain(first), plain(other))
  assert (first['mlm_position'] != other['mlm_position']).any()


@pytest.mark.parametrize('threads', [Threads(1, 1), Threads(3, 2)], ids=str)
def test_reading_goes_on_from_any_step(make, threads):
  batches = make()
  stop = len(batches) + 4
  for start in (0, 3, len(batches) - 1, len(batches), stop):
    steps = range(start, stop)
    for step, batch in zip(steps, read(make(), range(start, stop), threads), strict=True):
      assert_same(batch, batches[step])


def test_an_epoch_shows_no_pair_twice_and_the_next_is_another(make):
  batches = make()
  epochs = []
  for number in (0, 1):
    plan = batches.plan(number)
    epochs.append(list(zip(plan.image.repeat(2).tolist(), plan.text.ravel().tolist(), strict=True)))
    assert len(set(epochs[-1])) == len(epochs[-1]) == 8 * len(batches)
  assert epochs[0] != epochs[1]
  shown = [batches[step]['image'][:, 0, 0, 0] for step in range(2 * len(batches))]
  np.testing.assert_array_equal(shown[len(batches) :], batches.plan(1).image)


@pytest.mark.parametrize('texts', [1, 3])
def test_evaluation_counts_every_caption_once(make, texts):
  batches = make(training=False, texts_per_image=texts, hiding=Hiding(SHARE, whole=1.0))
  sidecar = batches.split.sidecar
  found = []
  for batch in read(batches, range(len(batches))):
    assert set(np.unique(batch['weight'])) <= {0, 1}
    found += batch['token_ids'][batch['weight'] > 0].tolist()
    assert (batch['mlm_weight'][batch['weight'] == 0] == 0).all()
  expected, _ = batches.tokenizer([sidecar.caption(i) for i in range(len(sidecar.text))])
  assert sorted(found) == sorted(expected.tolist())
  assert len(found) % (4 * texts) != 0


@pytest.mark.parametrize(('images', 'texts'), [(10, 1), (4, 2), (1, 3)])
def test_regrouped_evaluation_shows_each_image_once_if_its_texts_fit(make, images, texts):
  batches = make(training=False, images=images, texts_per_image=texts).regrouped()
  plan = batches.plan(0)
  real = plan.image[plan.weight.any(-1)]
  assert sorted(plan.text[plan.weight > 0].tolist()) == list(range(batches.texts))
  assert batches.images * batches.texts_per_image <= images * texts
  times = 1 if images * texts >= 5 else 2
  np.testing.assert_array_equal(np.bincount(real), np.full(46, times))


@pytest.mark.parametrize('devices', [1, 2])
def test_regrouped_batches_divide_among_devices(make, devices):
  batches = make(training=False, images=8, texts_per_image=1, devices=((0,), devices)).regrouped()
  assert batches.images % devices == 0
  assert batches.images * batches.texts_per_image <= 8
  assert len(batches[0]['image']) == batches.images // devices


def test_swapped_images_change_nothing_else(make):
  own = make(training=False)
  other = dataclasses.replace(own, swapped=True)
  sizes = ('source_size', 'size')
  for step in range(len(own)):
    left, right = own[step], other[step]
    assert (left['image'] != right['image']).any(axis=(1, 2, 3)).all()
    unchanged = left.keys() - {'image', *sizes}
    assert_same({k: left[k] for k in unchanged}, {k: right[k] for k in unchanged})
    # The sizes go with the image.
    kind = right['image'][:, 0, 0, 0] % 3
    assert right['source_size'].tolist() == [list(PLACED[i]) for i in kind]
    assert right['size'].tolist() == [list(TARGET[i]) for i in kind]


def test_whole_texts(make, tokenizer):
  steps = range(len(make()))
  for share in (0.0, 0.25, 1.0):
    batches = [make(hiding=Hiding(SHARE, whole=share))[step] for step in steps]
    whole = np.concatenate([(b['mlm_position'] == 0).all(-1).ravel() for b in batches])
    # Of texts this long, at least one token is hidden otherwise.
    assert abs(whole.mean() - share) <= 5 * np.sqrt(share * (1 - share) / whole.size)
    if share == 1:
      assert not any((b['token_ids'] == tokenizer.mask_id).any() for b in batches)
      assert not any(b['mlm_weight'].any() for b in batches)


def test_kinds_of_visual_words_are_marked(make, tokenizer):
  split = split_of(12, 2, visual=True)
  guess = TextGuess(split.sidecar)
  batches = make(split=split, guess=guess, hiding=Hiding(0.9), training=False)
  found = {}
  for step in range(len(batches)):
    batch = batches[step]
    for place in np.ndindex(batch['mlm_kind'].shape):
      position, kind = batch['mlm_position'][place], batch['mlm_kind'][place]
      shown = batch['token_ids'][*place[:2], position]
      if position:
        expected = {2: 1, 3: 2}.get(int(position), 0) if shown == tokenizer.mask_id else 0
        assert kind == expected
        found[kind] = found.get(kind, 0) + 1
      else:
        assert kind == 0
  assert found.keys() == {0, 1, 2}


def test_100k_examples(make, tokenizer):
  """Matching and masking as the batches have it, over 100,000 pairs."""
  batches = make(
    split=split_of(20, 20, sizes=((1, 1),)),
    canvases=Canvases(1, 1, ((1, 1),)),
    images=20,
    texts_per_image=20,
    hiding=Hiding(SHARE),
  )
  assert len(batches) == 1
  pairs = hideable = predicted = masked = kept = 0
  for batch in read(batches, range(250)):
    matched = batch['itm_label'] > 0
    assert (matched.sum(-1) == 10).all()
    pairs += matched.size
    words = (plain(batch) != batches.tokenizer.pad_id).sum(-1) - 2
    hideable += words[matched].sum()
    real = batch['mlm_weight'] > 0
    shown = np.take_along_axis(batch['token_ids'], batch['mlm_position'], -1)[real]
    predicted += real.sum()
    masked += (shown == tokenizer.mask_id).sum()
    kept += (shown == batch['mlm_target'][real]).sum()
    assert not tokenizer.special[batch['mlm_target'][real]].any()
  assert pairs == 100_000
  assert abs(predicted - SHARE * hideable) < 5 * np.sqrt(pairs / 2 / 4)
  ordinary = (~tokenizer.special).sum()
  for count, share in ((masked, 0.8), (kept, 0.1 + 0.1 / ordinary)):
    assert abs(count - share * predicted) < 5 * np.sqrt(predicted * share * (1 - share))


# --- Plans of epochs to come -------------------------------------------------------------


@pytest.fixture
def planned(make):
  """Fresh batches, and a list that grows by each plan made: (epoch, whether in the background).

  Plans of the epochs in `bad` cannot be made.
  """

  def batches(bad=(), **fields) -> tuple[PairBatches, list[tuple[int, bool]]]:
    made = []

    class Watched(PairBatches):
      def _plan(self, epoch):
        made.append((epoch, threading.current_thread().daemon))
        if epoch in bad:
          raise UserError(f'epoch {epoch}')
        return super()._plan(epoch)

    plain = make(**fields)
    values = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain) if f.init}
    return Watched(**values), made

  return batches


def wait_for(made: list, number: int) -> None:
  end = time.monotonic() + 20
  while len(made) < number and time.monotonic() < end:
    time.sleep(0.01)


@pytest.mark.parametrize('parts', [1, 2])
def test_an_epoch_is_planned_before_its_first_batch_is_asked_for(make, planned, parts):
  (batches, made), plain = planned(micro_batches=parts), make(micro_batches=parts)
  size = parts * len(batches)
  last = 2 * size - 1
  for index in range(size):
    batches.plan_ahead(index, last)
    assert_same(batches[index], plain[index])
    if index < size // 2 - parts:
      assert made == [(0, False)]
  wait_for(made, 2)
  # It is known to be planned before any batch of it is made, and is not planned again.
  assert made == [(0, False), (1, True)]
  for index in range(size, 2 * size):
    batches.plan_ahead(index, last)
    assert_same(batches[index], plain[index])
  assert len(made) == 2


@pytest.mark.parametrize('threads', [Threads(1, 1), Threads(3, 2)], ids=str)
def test_reading_plans_ahead_and_gives_the_same_batches(make, planned, threads):
  (batches, made), plain = planned(), make()
  start, stop = len(plain) - 2, 3 * len(plain)
  for step, batch in enumerate(read(batches, range(start, stop), threads), start):
    assert_same(batch, plain[step])
  assert made == [(0, False), (1, True), (2, True)]


@pytest.mark.parametrize('training', [True, False])
def test_no_epoch_is_planned_that_is_not_read(planned, training):
  batches, made = planned(training=training)
  list(read(batches, range(len(batches))))
  list(read(batches, range(0)))
  assert made == [(0, False)]


def test_an_epoch_that_cannot_be_planned_is_an_error_where_it_begins(planned):
  batches, made = planned(bad=[1])
  good, found = len(batches), 0
  with pytest.raises(UserError, match='epoch 1'):  # noqa: PT012 - after how many batches counts
    for _ in read(batches, range(2 * good)):
      found += 1
  assert found == good
  assert made == [(0, False), (1, True)]
  with pytest.raises(UserError, match='epoch 1'):
    batches.plan(1)


def test_two_plans_are_kept_and_a_batch_of_an_earlier_epoch_can_be_made_again(planned):
  batches, made = planned()
  size = len(batches)
  expected = batches[0]
  for index in range(2 * size):
    batches.plan_ahead(index, 3 * size)
    batches[index]
  wait_for(made, 3)
  assert [epoch for epoch, _ in made] == [0, 1, 2]
  assert_same(batches[0], expected)
  batches[size], batches[2 * size]
  # The plan of epoch 2 gave way to that of epoch 0; that of epoch 1, which is in use, did not.
  assert [epoch for epoch, _ in made] == [0, 1, 2, 0, 2]


# --- Images that cannot be read ----------------------------------------------------------


def spoilt(images: int, bad, captions: int = 2) -> Split:
  split = split_of(images, captions)
  for number in bad:
    split.source[number]['image'] = b'\xff\xd8\xff not a picture'
  return split


def test_an_image_that_cannot_be_read_is_an_error_of_evaluation(make):
  with pytest.raises(ImageError, match=r'^image 7: '):
    list(read(make(split=spoilt(12, [7]), training=False), range(6)))


@pytest.mark.parametrize('threads', [Threads(1, 1), Threads(3, 2)], ids=str)
def test_in_training_its_pairs_do_not_count_and_it_is_named(make, threads, capsys):
  hidden = {'hiding': Hiding(0.9)}
  good, bad = make(split=split_of(12, 2), **hidden), make(split=spoilt(12, [7]), **hidden)
  stop, met, words = 2 * len(good), 0, 0
  for step, batch in enumerate(read(bad, range(stop), threads)):
    expected = good[step]
    row = good.plan(step // len(good)).image[step % len(good)] == 7
    met += row.sum()
    words += expected['mlm_weight'][row].sum()
    assert not batch['weight'][row].any()
    assert not batch['mlm_weight'][row].any()
    # A grey image of the size that was planned; all else as if nothing were wrong.
    assert (batch['image'][row] == GREY).all()
    for name, array in batch.items():
      same = slice(None) if name not in ('image', 'weight', 'mlm_weight') else ~row
      np.testing.assert_array_equal(array[same], expected[name][same], name)
  assert met == 2
  assert words
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith('unreadable  image 7: 17 bytes that are not')


class Records(list):
  """Records of which number 7 is damaged, as array_record reports it."""

  def __getitem__(self, number):
    if number == 7:
      raise RuntimeError('Chunk hash mismatch\nin Riegeli')
    return super().__getitem__(number)


def test_a_damaged_record_counts_as_an_unreadable_image(make, capsys):
  split = split_of(12, 2)
  split = dataclasses.replace(split, source=Records(split.source), path=pathlib.Path('/data/set'))
  batches = make(split=split)
  for step in range(len(batches)):
    row = batches.plan(0).image[step] == 7
    batch = batches[step]
    assert not batch['weight'][row].any()
    assert batch['weight'][~row].all()
    assert (batch['image'][row] == GREY).all()
  said = 'image 7: record 7 cannot be read (Chunk hash mismatch): delete /data/set and build again'
  assert capsys.readouterr().err == f'unreadable  {said}; its pairs do not count\n'
  with pytest.raises(RecordError, match=r'^image 7: record 7 cannot be read'):
    list(read(make(split=split, training=False), range(6)))


def test_which_rows_do_not_count_is_the_same_on_any_number_of_processes(make):
  split = spoilt(46, [7, 8, 30], captions=5)
  whole = make(split=split)
  parts = [make(split=split, devices=((i,), 2)) for i in range(2)]
  for step in range(len(whole)):
    batches = [part[step] for part in parts]
    joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    assert_same(joined, whole[step])


def test_an_image_of_another_size_than_planned_does_not_count(make, capsys):
  split = split_of(12, 2)
  split.source[7]['image'] = png(7, (5, 5))
  batches = make(split=split)
  weights = np.concatenate([batches[step]['weight'] for step in range(len(batches))])
  assert (weights == 0).sum() == 2
  assert 'image 7: 5x5 pixels, but its dataset has 20x40' in capsys.readouterr().err


def test_too_many_unreadable_images_stop_the_run(make):
  batches = make(split=spoilt(40, [3, 9]), images=1)
  whole = 5 * len(batches)
  for step in range(whole):
    batches[step]  # Ten times one of the two.
  said = r'11 of [\d,]+ images read .* image [39], image [39]:'
  with pytest.raises(UserError, match=said) as error:
    list(read(batches, range(whole, whole + len(batches))))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(('read_each', 'stops'), [(101, False), (99, True)])
def test_a_small_share_of_unreadable_images_is_no_reason_to_stop(read_each, stops):
  count = Unreadable(share=0.01, at_least=3)
  error = {'a': ImageError('a: bad')}
  for i in range(3):
    count.count(i, read_each, error)
  with pytest.raises(UserError) if stops else contextlib.nullcontext():
    count.count(3, read_each, error)


def test_unreadable_images_are_named_in_a_file_and_counted_by_batch(make, tmp_path):
  split, file = spoilt(46, [7, 8, 30], captions=5), tmp_path / 'unreadable-0.jsonl'
  file.write_text('{"image": "of an earlier run", "error": "it is gone"}\n')
  batches = make(split=split, unreadable=Unreadable(share=0.01, at_least=20))
  whole = range(len(batches))
  batches[3]  # before there is a file
  batches.unreadable.open(file)
  for _ in range(2):  # As where a bad batch is made again.
    list(read(batches, whole))
  lines = [json.loads(line) for line in file.read_text().splitlines()]
  assert lines[0]['image'] == 'of an earlier run'
  assert {line['image'] for line in lines[1:]} == {'image 7', 'image 8', 'image 30'}
  assert len(lines) == 4
  assert all(line['error'].startswith(f'{line["image"]}: 17 bytes') for line in lines[1:])
  shown = [np.isin(batches.plan(0).image[i], [7, 8, 30]).sum() for i in whole]
  assert [batches.unreadable.number(range(i, i + 1)) for i in whole] == shown
  assert batches.unreadable.number(whole) == sum(shown) > 1


# --- Threads -----------------------------------------------------------------------------


class Slow(list):
  """Records that come late, as from a bucket; remembers how many were waited for at once."""

  def __init__(self, records):
    super().__init__(records)
    self.waiting, self.most, self.lock = 0, 0, threading.Lock()

  def __getitem__(self, number):
    with self.lock:
      self.waiting += 1
      self.most = max(self.most, self.waiting)
    time.sleep(0.02)
    with self.lock:
      self.waiting -= 1
    return super().__getitem__(number)


@pytest.mark.parametrize('reading', [1, 12])
def test_as_many_threads_wait_for_storage_as_are_asked_for(make, reading):
  split = split_of(46, 5)
  slow = dataclasses.replace(split, source=Slow(split.source))
  made = read(make(split=slow, images=8), range(5), Threads(decoding=1, reading=reading))
  for batch, expected in zip(made, map(make(images=8).__getitem__, range(5)), strict=True):
    assert_same(batch, expected)
  assert slow.source.most == reading


# --- Mirrored images ---------------------------------------------------------------------


def sided() -> Split:
  """Images of which every third has a text with a side in it."""
  texts = ('a red cat', 'a bright street', 'the dog on the Leftmost bus', 'a bus right of a cat')
  rows = [
    Row(f'{i}', 16, 16, [Caption(f'a dog {n}', 2 * i), Caption(f'{texts[i % 4]} {n}', 2 * i + 1)])
    for i in range(64)
    for n in [' '.join(NOUNS[i // place % 4] for place in (1, 4, 16))]  # read as other texts
  ]
  return Split([{'image': png(i, (16, 16))} for i in range(64)], Sidecar.of(rows))


def test_images_are_mirrored_where_no_text_names_a_side(make):
  batches = make(split=sided(), flip=0.5)
  flips, eligible, bright = [], [], []
  for step in range(8 * len(batches)):
    epoch, number = divmod(step, len(batches))
    texts = batches.plan(epoch).text[number]
    flip = batches[step]['flip']
    assert flip.shape == (4,)
    assert flip.dtype == bool
    names_side = ((texts % 8 == 5) | (texts % 8 == 7)).any(1)
    assert not (flip & names_side).any()
    flips += flip[~names_side].tolist()
    bright += flip[~names_side & (texts % 8 == 3).any(1)].tolist()
    eligible.append(~names_side)
  assert 0.2 < np.mean(eligible) < 0.9
  for found in (flips, bright):
    assert abs(np.mean(found) - 0.5) < 5 * 0.5 / np.sqrt(len(found))


def test_mirroring_is_off_by_default_and_in_evaluation(make):
  assert 'flip' not in make(split=sided())[0]
  assert 'flip' not in make(split=sided(), flip=1.0, training=False)[0]


def test_mirroring_follows_from_seed_and_step_and_changes_nothing_else(make):
  whole, plain_ones = make(split=sided(), flip=0.5), make(split=sided())
  parts = [make(split=sided(), flip=0.5, devices=((i,), 2)) for i in range(2)]
  for step in range(len(whole) + 2):
    batch = whole[step]
    joined = [part[step]['flip'] for part in parts]
    np.testing.assert_array_equal(np.concatenate(joined), batch['flip'])
    assert_same({k: x for k, x in batch.items() if k != 'flip'}, plain_ones[step])
  other = make(split=sided(), flip=0.5, seed=4)
  assert any((other[s]['flip'] != whole[s]['flip']).any() for s in range(len(whole)))
