"""Recalls, CxC and ECCV Caption against the package `eccv-caption` and their definitions."""

import json
import pathlib
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_jax import UserError
from pixelbert_jax.score import __main__ as score
from pixelbert_jax.score import annotations, eccv, matrix, scored

MOST = 48  # positives of a query of ECCV Caption


@pytest.fixture(scope='module')
def package():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # It warns where `ujson` is missing.
    import eccv_caption
  return eccv_caption.Metrics()


# Against the package, on COCO's test split.


class Split:
  """Scores of COCO's images and captions, in an order of their own."""

  def __init__(self, package, ties: bool):
    """Draws scores: true pairs have high ones, some above all others; with ties 1,024 levels."""
    rng = np.random.default_rng(ties)
    self.image_of = {c: package.coco_gts['t2i'][c][0] for c in package.coco_ids.tolist()}
    self.places = {image: i for i, image in enumerate(dict.fromkeys(self.image_of.values()))}
    self.images = rng.permutation(list(self.places))
    self.texts = rng.permutation(list(self.image_of))
    row, column = ({x: i for i, x in enumerate(ids.tolist())} for ids in (self.images, self.texts))
    self.scores = rng.random((len(row), len(column)), np.float32)
    for truth in (package.coco_gts, package.cxc_gts, package.eccv_gts):
      pairs = [(row[i], column[c]) for c, images in truth['t2i'].items() for i in images]
      pairs += [(row[i], column[c]) for i, x in truth['i2t'].items() for c in x if c in column]
      high = rng.choice([1] * 9 + [1.01], len(pairs)) - 10 ** rng.uniform(-5, -1, len(pairs))
      self.scores[tuple(np.transpose(pairs))] = high
    if ties:
      self.scores = np.round(self.scores * 1024)

  def write(self, folder: pathlib.Path, named: bool) -> None:
    """Writes the matrix, its images by number or by file name, and Karpathy's annotations."""
    entries = {
      i: {'split': 'test', 'cocoid': i, 'filename': f'{i}.jpg', 'sentences': []}
      for i in self.places
    }
    for caption, image in self.image_of.items():
      entries[image]['sentences'].append({'sentid': caption})
    annotations = {'images': list(entries.values())}
    (folder / 'dataset_coco.json').write_text(json.dumps(annotations))
    images = [f'{i}.jpg' for i in self.images] if named else self.images
    matrix.write(folder / 'a.npz', self.scores, images, self.texts)


def lists(scores, queries, candidates, truths, depth):
  """Lists the first candidates of each query: for each truth, the wrong ones first in a tie."""
  found = [{} for _ in truths]
  cut = np.partition(scores, -depth, axis=1)[:, -depth]
  for query, row, least in zip(queries.tolist(), scores, cut, strict=True):
    near = np.flatnonzero(row >= least)
    pairs = list(zip((-row[near]).tolist(), candidates[near].tolist(), strict=True))
    for ranked, truth in zip(found, truths, strict=True):
      if query in truth:
        positive = set(truth[query])
        order = sorted((loss, name in positive, name) for loss, name in pairs)
        ranked[query] = [name for _, _, name in order[:depth]]
  return found


def ranked(split: Split, package) -> dict[str, dict]:
  """Makes the ranked lists that the package takes, by what is ranked against which truth."""
  names = ('coco_1k', 'coco_5k', 'cxc', 'eccv')
  found = {name: {'i2t': {}, 't2i': {}} for name in names}
  fold = np.array([split.places[i] // 1000 for i in split.images.tolist()])
  text_fold = np.array([split.places[split.image_of[c]] // 1000 for c in split.texts.tolist()])
  for kind, of_query, of_candidate in (('i2t', fold, text_fold), ('t2i', text_fold, fold)):
    queries, candidates = split.images, split.texts
    if kind == 't2i':
      queries, candidates = candidates, queries
    coco, cxc, judged = (x[kind] for x in (package.coco_gts, package.cxc_gts, package.eccv_gts))
    for f in range(5):
      rows = np.flatnonzero(of_query == f)
      block = split.scores[rows] if kind == 'i2t' else split.scores.T[rows]
      of_eccv = np.isin(queries[rows], list(judged))
      places = (queries[rows], candidates)
      made = lists(block, *places, (coco, cxc), 10)
      made += lists(block[of_eccv], places[0][of_eccv], candidates, (judged,), MOST)
      inside = np.flatnonzero(of_candidate == f)
      made += lists(block[:, inside], places[0], candidates[inside], (coco,), 10)
      for name, part in zip(('coco_5k', 'cxc', 'eccv', 'coco_1k'), made, strict=True):
        found[name][kind] |= part
  return found


def by_package(package, found: dict[str, dict]) -> dict[str, float]:
  """Returns the package's scores under the names of the command."""
  theirs = {}
  for k in (1, 5, 10):
    theirs[f'recall_at_{k}'] = package.coco_5k_recalls(found['coco_5k'], 'all', k)
    theirs[f'recall_at_{k}_1k'] = package.coco_1k_recalls(found['coco_1k'], 'all', k)
    theirs[f'cxc recall_at_{k}'] = package.cxc_recalls(found['cxc'], 'all', k)
  judged = package.eccv_metrics(found['eccv'], 'all')
  theirs['eccv map_at_r'] = judged['eccv_map_at_r']
  theirs['eccv r_precision'] = judged['eccv_rprecision']
  theirs['eccv recall_at_1'] = judged['eccv_r1']
  scores = {}
  for kind, direction in (('text', 'i2t'), ('image', 't2i')):
    for name, by_direction in theirs.items():
      *dataset, metric = name.split()
      scores['_'.join([*dataset, kind, metric])] = by_direction[direction]
  return scores


@pytest.mark.parametrize('ties', [False, True])
def test_all_scores_are_those_of_the_package(tmp_path, capsys, package, ties):
  split = Split(package, ties)
  split.write(tmp_path, named=ties)
  files = (f'--predictions={tmp_path}/a.npz', f'--annotations={tmp_path}/dataset_coco.json')
  assert score.main(['retrieval', *files, '--eccv', '--json']) == 0
  (tmp_path / 'a.npz').unlink()  # 500 MB
  printed = capsys.readouterr()
  assert printed.err == ''
  found = json.loads(printed.out)
  assert [found.pop(x) for x in ('images', 'texts')] == [5000, 25_000]
  assert found.pop('captions') == found.pop('judged_captions') == 'all 25,000'
  expected = by_package(package, ranked(split, package))
  assert found == pytest.approx(expected, rel=0, abs=1e-9)
  assert len(found) == 24
  assert not {name: value for name, value in found.items() if not 0.01 < value < 0.99}


# Small ones, by their definitions.


def literal_scores(scores, right):
  """Sorts candidates, the wrong ones first in a tie; `right` may name what is no candidate."""
  order = sorted(scores, key=lambda name: (-scores[name], name in right))
  hits = [name in right for name in order]
  first = hits[: len(right)]
  precision = [sum(first[: r + 1]) / (r + 1) if hit else 0 for r, hit in enumerate(first)]
  recalls = {f'recall_at_{k}': float(any(hits[:k])) for k in (1, 5, 10)}
  return recalls | {
    'map_at_r': sum(precision) / len(right),
    'r_precision': sum(first) / len(right),
  }


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5, 100]), st.sampled_from([1, 20, 1 << 23]))
@settings(max_examples=200, deadline=None)
def test_scores_of_small_matrices_by_their_definition(seed, levels, block):
  rng = np.random.default_rng(seed)
  images, captions = (rng.permutation(50)[:n].tolist() for n in (4, 12))
  # Three columns are no candidates, and neither are the ids 100 and 101.
  scores = rng.integers(-levels, levels, (4, 15)).astype(rng.choice(['f4', 'f2', 'i1']))
  row = dict(zip(images, rng.permutation(4).tolist(), strict=True))
  column = dict(zip(captions, rng.permutation(15)[:12].tolist(), strict=True))
  positives = {
    kind: {
      query: rng.permutation([*others, 100, 101])[: rng.integers(1, 6)].tolist()
      for query in rng.permutation(queries)[:3].tolist()
    }
    for kind, queries, others in (('text', images, captions), ('image', captions, images))
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(eccv, '_BLOCK', block)
    found = eccv.ranks(scores, eccv.Places(row, column), positives)
  for kind, truth in positives.items():
    assert list(found[kind]) == list(truth)
    table = eccv.cxc(found[kind]) | eccv.eccv(found[kind])
    for i, (query, right) in enumerate(truth.items()):
      if kind == 'text':
        candidates = {c: int(scores[row[query], column[c]]) for c in captions}
      else:
        candidates = {m: int(scores[row[m], column[query]]) for m in images}
      measured = {name: float(values[i]) for name, values in table.items()}
      assert measured == pytest.approx(literal_scores(candidates, right))


@pytest.fixture
def small(tmp_path, monkeypatch):
  """Two images with two captions each and one that nobody judged, 14; two matrices of them."""
  monkeypatch.chdir(tmp_path)
  captions = {'10': 'a', '11': 'a', '12': 'b', '13': 'b', '14': 'b'}
  pathlib.Path('captions.json').write_text(json.dumps(captions))
  scores = np.array([[5, 1, 4, 2, 9], [3, 6, 8, 0, 9]])
  matrix.write('a.npz', scores, ['a', 'b'], list(captions))
  order = [4, 2, 0, 1, 3]
  matrix.write('b.npz', scores[::-1, order], ['b', 'a'], np.array(list(captions))[order])
  judgements = eccv.Judgements(
    {10: 1, 11: 1, 12: 2, 13: 2},
    cxc={'text': {1: [10, 11, 12], 2: [13]}, 'image': {10: [1], 11: [1], 13: [1, 2]}},
    eccv={'text': {1: [10, 11, 12]}, 'image': {11: [1]}},
  )
  monkeypatch.setattr(eccv, 'read', lambda: judgements)
  splits = annotations.read_captions('captions.json')
  return lambda path: scored.score_retrieval(path, 'captions.json', splits, judgements)


def test_what_is_judged_is_added(small):
  result = small('a.npz')
  assert result.summary['judged_captions'] == 'five an image, 4 of 5'
  # Image 1 ranks captions 10, 12, 13, 11; image 2 ranks 12, 11, 10, 13.
  assert result.summary['eccv_text_map_at_r'] == pytest.approx(2 / 3)
  assert result.summary['eccv_text_r_precision'] == pytest.approx(2 / 3)
  assert result.summary['eccv_text_recall_at_1'] == 1
  assert result.summary['cxc_text_recall_at_1'] == 1 / 2
  # Captions 10 and 13 find image 1 first, caption 11 image 2.
  assert result.summary['cxc_image_recall_at_1'] == pytest.approx(2 / 3)
  assert result.summary['eccv_image_map_at_r'] == 0
  assert (result.sizes['cxc_text_recall_at_5'], result.sizes['eccv_image_map_at_r']) == (2, 1)
  assert result.per_item['cxc_text_retrieval'] == {'1': 1, '2': 4}
  assert result.per_item['cxc_image_retrieval'] == {'10': 1, '11': 2, '13': 1}


def test_judged_scores_are_compared_whatever_the_order(small):
  differences = scored.compare(small('a.npz'), small('b.npz'))
  assert len(differences) == 6 + 6 + 6
  for difference in differences.values():
    assert difference['first'] == difference['second']
    assert difference['interval'] == (0, 0)
  assert differences['eccv_text_map_at_r']['clusters'] == 1
  # Captions 10 and 11 are of image 1, caption 13 of image 2.
  assert differences['cxc_image_recall_at_1']['clusters'] == 2


def test_the_tables(small, capsys):
  files = ('--predictions=a.npz', '--annotations=captions.json', '--compare=b.npz')
  assert score.main(['retrieval', *files, '--eccv', '--per_item']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert ['eccv_text_map_at_r', '66.67', '1'] in [line.split() for line in lines]
  assert 'judged_captions: five an image, 4 of 5' in lines
  assert 'paired bootstrap, 10,000 resamples of 1 to 2 images' in lines
  assert 'cxc_text_retrieval 2 4' in lines
  assert score.main(['retrieval', *files]) == 0
  assert 'eccv' not in capsys.readouterr().out


def test_what_the_matrix_must_have():
  judgements = eccv.read()
  texts = [str(caption) for caption in judgements.image_of]
  number = {image: i for i, image in enumerate(dict.fromkeys(judgements.image_of.values()))}
  text_image = np.array([number[image] for image in judgements.image_of.values()])
  places = eccv.locate(texts, text_image, judgements)
  assert places.row == number
  with pytest.raises(UserError, match='25,000 judged captions 2 are missing, such as 77'):
    eccv.locate(texts[2:], text_image[2:], judgements)
  text_image[7] = 0
  with pytest.raises(UserError, match=f'caption {texts[7]} is annotated with another image'):
    eccv.locate(texts, text_image, judgements)
