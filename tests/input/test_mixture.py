"""Mixtures: every pair of every source where it belongs, in the declared shares."""

import collections
import dataclasses
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from configs.pretrain import get_config
from data.build import build
from data.scenes import record
from pixelbert_jax import UserError
from pixelbert_jax.experiment import Experiment, prepare_data, resolve
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.dataset import Dataset, DatasetError, Split
from pixelbert_jax.input.joined import join
from pixelbert_jax.input.mixture import firsts, mix, shares_of
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.order import Batching, plan_epoch
from pixelbert_jax.input.pipeline import read
from pixelbert_jax.input.rows import Caption, Question, Row
from pixelbert_jax.input.selection import select
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.text import Tokenizer
from pixelbert_jax.input.truth import Truth
from pixelbert_jax.input.visual import TextGuess
from pixelbert_jax.tasks.pretraining import Hiding, PairBatches

CANVASES = Canvases(8, 16, ((8, 8), (8, 16)))
SIZES = ((8, 8), (4, 8))
COUNTS = {'few': (30, 2), 'many': (20, 9), 'other': (25, 4)}  # images, texts of each


def png(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
  file = io.BytesIO()
  Image.new('RGB', size[::-1], colour).save(file, 'PNG')
  return file.getvalue()


def split_of(name: str, claims: bool = False, **caption) -> Split:
  """A split whose images show which they are, by colour; some texts are listed more than once."""
  images, texts = COUNTS[name]
  source, rows = [], []
  for i in range(images):
    size = SIZES[i % 2]
    source.append({'image': png((list(COUNTS).index(name), i, 0), size)})
    said = [f'{name} {i} {j}' for j in range(texts - 1)] + [f'a dog {i % 5}']
    claim = [f'{t}!' if claims else None for t in said]
    captions = [
      Caption(t, 100 * i + j, claim=c, **caption)
      for j, (t, c) in enumerate(zip(said, claim, strict=True))
    ]
    rows.append(Row(f'{i}', *size, captions, list(filter(None, claim))))
  return Split(source, Sidecar.of(rows))


def dataset(name: str, splits=('train',), **options) -> Dataset:
  return Dataset(name, pathlib.Path(name), {s: split_of(name, **options) for s in splits})


def mixed(*names: str, **options) -> Split:
  return mix([dataset(name, **options) for name in names], 'train', ())['train']


@pytest.fixture(scope='module')
def vocabulary(vocabulary, tmp_path_factory):
  """The path of a vocabulary in which the texts of all images differ."""
  path = tmp_path_factory.mktemp('vocabulary') / 'vocab.txt'
  digits = [f'{start}{digit}' for start in ('', '##') for digit in range(10)]
  path.write_text('\n'.join([*vocabulary.read_text().split(), *COUNTS, *digits]))
  return path


@pytest.fixture
def make(vocabulary):
  """Fresh batches of a mixture; any field may be given."""

  def batches(names=('few', 'many'), **fields) -> PairBatches:
    return PairBatches(
      **{
        'split': mixed(*names),
        'tokenizer': Tokenizer(vocabulary, 8),
        'canvases': CANVASES,
        'seed': 3,
        'images': 4,
        'texts_per_image': 1,
        'hiding': Hiding(0.2),
        'training': True,
        **fields,
      }
    )

  return batches


def pairs_of(plan) -> list[tuple[int, int, bool]]:
  """(image, text, matched) of all that counts, by number of the mixture."""
  image = np.broadcast_to(plan.image[..., None], plan.text.shape)
  real = plan.weight > 0
  columns = (image, plan.text, plan.matched)
  return list(zip(*(x[real].tolist() for x in columns), strict=True))


def epoch(split: Split, number=0, images=1, texts=1, share=()):
  shares = shares_of(split, share)
  batching = Batching(
    canvases=CANVASES, seed=0, images=images, texts_per_image=texts, training=True
  )
  return plan_epoch(
    split.sidecar, batching, number, shares, Negatives(split.sidecar, Truth(split.sidecar))
  )


# --- Joined ------------------------------------------------------------------------------


def test_sources_lie_one_after_the_other():
  parts, whole = [split_of(name) for name in COUNTS], mixed(*COUNTS)
  sidecar, image, text = whole.sidecar, 0, 0
  for name, part in zip(COUNTS, parts, strict=True):
    for i in range(len(part.sidecar.image_id)):
      assert sidecar.image_id[image].decode() == f'{name}/{i}'
      assert sidecar.size[image].tolist() == part.sidecar.size[i].tolist()
      assert whole.encoded(image) == part.encoded(i)
      assert sidecar.captions[image].tolist() == part.sidecar.captions[i].tolist()
      for j in range(part.sidecar.captions.start[i], part.sidecar.captions.start[i + 1]):
        assert sidecar.caption(text) == part.sidecar.caption(j)
        assert sidecar.caption_image[text] == image
        text += 1
      image += 1
  assert image == len(whole.source) == len(sidecar.image_id)
  assert text == len(sidecar.text) == len(sidecar.label)
  with pytest.raises(IndexError):
    whole.source[image]


def test_texts_of_a_source_without_claims_are_true_of_its_own_images_alone():
  with_claims, without = split_of('few', claims=True).sidecar, split_of('many').sidecar
  joined = join({'a': with_claims, 'b': without})
  images = np.repeat(np.arange(len(joined.claims)), np.diff(joined.claims.start))
  first = len(with_claims.text)
  assert not set(joined.claim[:first]) & set(joined.claim[first:])
  border = len(with_claims.image_id)
  held = joined.claims.values
  assert not set(held[images < border]) & set(held[images >= border])
  assert all(
    claim in joined.claims[image]
    for claim, image in zip(joined.claim, joined.caption_image, strict=True)
  )


def test_equal_claims_mean_the_same_in_all_sources():
  few, many = split_of('few', claims=True).sidecar, split_of('many', claims=True).sidecar
  joined = join({'few': few, 'many': many})
  truth, images = Truth(joined), np.arange(len(joined.image_id))
  texts = [n for n in range(len(joined.text)) if joined.caption(n) == 'a dog 3']
  true_of = {tuple(images[truth(images, np.full(len(images), text))]) for text in texts}
  assert true_of == {(*range(3, 30, 5), *range(33, 50, 5))}
  assert all((np.diff(joined.claims[i]) > 0).all() for i in images)


def test_evaluation_is_on_the_first_that_has_the_split():
  first, second = dataset('few', ('train', 'val')), dataset('many', ('train', 'val', 'test'))
  mixture = mix([first, second], 'train', ('val', 'test'))
  assert mixture.name == 'few+many'
  assert mixture['val'] is first['val']
  assert mixture['test'] is second['test']
  assert len(mixture['train'].source) == 50
  with pytest.raises(DatasetError, match=r"few\+many .*has no split 'dev'"):
    mix([first, second], 'train', ('dev',))['dev']
  with pytest.raises(DatasetError, match=r"many .*has no split 'restval'"):
    mix([dataset('few', ('restval',)), second], 'restval', ())


def asking(name: str, *splits: str) -> Dataset:
  """A dataset of two images a split, each with a question; that about the second is in `held`."""
  made = {}
  for split in splits:
    rows = [
      Row(f'{i}', 8, 8, questions=[Question(f'{name} {split} {i}?', i, subset='held' * i)])
      for i in range(2)
    ]
    made[split] = Split(
      [{'image': f'{name} {split} {i}?'.encode()} for i in range(2)], Sidecar.of(rows)
    )
  return Dataset(name, pathlib.Path(name), made)


def asked_of(split: Split) -> list[str]:
  """The questions of a split; each has the image it is about."""
  table = split.sidecar.questions
  found = [table.text.text(i) for i in range(len(table))]
  assert [split.encoded(image).decode() for image in table.image] == found
  return found


def test_each_dataset_gives_the_splits_of_a_selection_that_it_has():
  a, b, c = asking('a', 'train', 'val', 'test'), asking('b', 'train'), asking('c', 'val', 'test')
  selection = 'train+val[!held]'
  mixture = mix([a, b, c], selection, ('val[held]', 'test'))
  first = ['a train 0?', 'a train 1?', 'a val 0?']
  train = select(mixture, selection)
  assert asked_of(train) == [*first, 'b train 0?', 'b train 1?', 'c val 0?']
  assert asked_of(train.first) == first
  assert firsts(train) == (0, 4, 6)
  assert asked_of(select(mixture, 'val[held]')) == ['a val 1?']
  assert asked_of(select(mixture, 'test')) == ['a test 0?', 'a test 1?']
  # Splits of one dataset are not sources of a mixture.
  alone = select(a, selection)
  assert firsts(alone) == (0,)
  assert alone.first is alone
  with pytest.raises(DatasetError, match=r"^b .*has no split 'val', only train"):
    mix([b, a], selection, ())
  with pytest.raises(DatasetError, match=r"^c .*has no split 'train', only val, test"):
    mix([a, c], 'train', ())


def test_what_cannot_be_mixed():
  with pytest.raises(UserError, match=r'few\+few names a dataset twice'):
    mixed('few', 'few')
  few, many = (split_of(name, label=False).sidecar for name in ('few', 'many'))
  assert not join({'few': few, 'many': many}).label.any()
  with pytest.raises(UserError, match='few has labels of its own'):
    join({'few': few, 'many': split_of('many').sidecar})


# --- Planned -----------------------------------------------------------------------------


def test_every_pair_once_an_epoch_and_batches_of_several_sources():
  split = mixed('few', 'many')
  texts = len(split.sidecar.text)
  for number in (0, 1):
    plan = epoch(split, number)
    pairs = pairs_of(plan)
    assert sorted(text for _, text, _ in pairs) == list(range(texts))
    assert 2 * sum(matched for *_, matched in pairs) == texts
  plan = epoch(split, images=8)
  from_many = plan.image >= 30
  assert (from_many.any(1) & ~from_many.all(1)).mean() > 0.8


@pytest.mark.parametrize('claims', [False, True])
def test_untrue_pairs_are_untrue_and_come_from_both_sources(claims):
  split = mixed('few', 'many', claims=claims)
  sidecar = split.sidecar
  # What is listed with an image, and where there are no claims, what is the same words.
  listed = collections.defaultdict(set)
  for text, image in enumerate(sidecar.caption_image.tolist()):
    listed[image].add(sidecar.caption(text))
  crossed = 0
  for number in range(4):
    for image, text, matched in pairs_of(epoch(split, number)):
      same_source = (image < 30) == (text < 60)
      assert matched == ((not claims or same_source) and sidecar.caption(text) in listed[image])
      crossed += not same_source
  assert crossed > 50


@pytest.mark.parametrize('texts', [1, 2])
@pytest.mark.parametrize('share', [(0.5, 0.5), (3, 1), (0.1, 0.9)])
def test_a_mixture_has_its_shares(share, texts):
  split = mixed('few', 'many')
  # Of 60 and 180 texts, with two at a time of 60 and 160.
  total = min(60 / share[0], (180 if texts == 1 else 160) / share[1]) * sum(share)
  seen, lengths = collections.Counter(), set()
  for number in range(12):
    plan = epoch(split, number, texts=texts, share=share)
    pairs = pairs_of(plan)
    assert len({text for _, text, _ in pairs}) == len(pairs)
    counts = [sum(text < 60 for _, text, _ in pairs), sum(text >= 60 for _, text, _ in pairs)]
    for count, wanted in zip(counts, share, strict=True):
      # Of each source and canvas there is a whole number of groups.
      assert abs(count - total * wanted / sum(share)) <= 2 * texts * 0.5
    seen.update(text for _, text, _ in pairs)
    lengths.add(len(plan))
  assert len(lengths) == 1
  # Those left out are others in each epoch.
  assert len(seen) > max(160, len(pairs))


def test_epochs_of_a_mixture_by_shares_are_equally_long():
  split = mixed(*COUNTS)
  plans = [epoch(split, number, images=3, texts=3, share=(1, 1, 1)) for number in range(20)]
  assert len({len(plan) for plan in plans}) == 1
  assert len({tuple(sorted(plan.canvas.tolist())) for plan in plans}) == 1


@pytest.mark.parametrize('share', [(0.5,), (1, 2, 3), (1, 0), (2, -1)])
def test_bad_shares(share):
  with pytest.raises(UserError, match=r'data.shares \(.*each of 2 sources'):
    shares_of(mixed('few', 'many'), share)
  with pytest.raises(UserError, match='each of 1 sources'):
    shares_of(split_of('few'), (1, 1))


# --- Read --------------------------------------------------------------------------------


def assert_same(left, right) -> None:
  assert left.keys() == right.keys()
  for name, array in left.items():
    np.testing.assert_array_equal(array, right[name], name)


def test_images_are_those_of_their_source(make):
  batches = make(('few', 'many', 'other'))
  for step in range(len(batches)):
    image = batches.plan(0).image[step]
    shown = batches[step]['image'][:, 0, 0]
    source = np.searchsorted([30, 50], image, side='right')
    np.testing.assert_array_equal(shown[:, 0], source)
    np.testing.assert_array_equal(shown[:, 1], image - np.array([0, 30, 50])[source])


@pytest.mark.parametrize('share', [(), (0.5, 0.5)])
@pytest.mark.parametrize('number', [2, 4])
def test_two_epochs_are_the_same_on_any_number_of_processes(make, number, share):
  shares = shares_of(mixed('few', 'many'), share)
  whole = make(shares=shares)
  parts = [make(shares=shares, devices=((i,), number)) for i in range(number)]
  for step in range(2 * len(whole)):
    batches = [part[step] for part in parts]
    joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    assert_same(joined, whole[step])


@pytest.mark.parametrize('share', [(), (0.5, 0.5)])
def test_goes_on_exactly_where_it_stopped(make, share):
  shares = shares_of(mixed('few', 'many'), share)
  whole = make(shares=shares)
  stop = len(whole) + 5
  expected = list(read(whole, range(stop)))
  for start in (7, len(whole) - 1, len(whole)):
    again = read(make(shares=shares), range(start, stop))
    for batch, same in zip(again, expected[start:], strict=True):
      assert_same(batch, same)


@pytest.mark.parametrize('share', [(), (1.0, 1.0)])
def test_a_configuration_of_a_mixture(tmp_path, share, capsys):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(record, 'SPLITS', {'train': 40, 'val': 8, 'test': 8})
    build('scenes/easy', tmp_path)
    patch.setattr(record, 'SPLITS', {'train': 20, 'val': 8, 'test': 8})
    build('scenes/hard', tmp_path)
  config = resolve(get_config('test'))
  config.update(batch_size=16, texts_per_image=4)
  config.data.update(name='scenes/easy+scenes/hard', data_dir=str(tmp_path), shares=share)
  data = prepare_data(config)
  said = capsys.readouterr().out
  assert 'scenes/easy 40 images with' in said
  assert 'scenes/hard 20 images with' in said
  assert 'val of scenes/easy' in said
  batches = Experiment.of(config, data).batches
  assert len(batches['train'].split.source) == 60
  assert len(batches['test'].split.source) == 8
  counts = np.bincount((batches['train'].plan(0).image >= 40).ravel(), minlength=2)
  assert abs(counts[0] / counts[1] - (1 if share else 2)) < 0.25
  batch = batches['train'][1]
  # Hard scenes are twice as large, and reduced by the device.
  assert batch['image'].shape == (4, 128, 128, 3)
  assert batch['canvas'].shape == (4, 64, 64, 0)
  assert set(batches['test'][0]['mlm_kind'].ravel()) > {0}


def test_visual_words_where_only_one_source_marks_them(make):
  split = join({'a': split_of('few').sidecar, 'b': _marked().sidecar})
  batches = make()
  both = Split(mixed('few', 'many').source, split)
  batches = dataclasses.replace(
    batches, split=both, guess=TextGuess(split), hiding=Hiding(0.6), training=False
  )
  kinds = [
    (batches.plan(0).text[step] >= 60, batches[step]['mlm_kind'].any(-1))
    for step in range(len(batches))
  ]
  assert any((marked & kind).any() for marked, kind in kinds)
  assert not any((~marked & kind).any() for marked, kind in kinds)


def _marked() -> Split:
  split = split_of('many')
  rows = [
    Row(f'{i}', *size, [Caption(f'a red cat {i}', i, kinds='.cs.')])
    for i, size in enumerate(split.sidecar.size.tolist())
  ]
  return Split(split.source, Sidecar.of(rows))
