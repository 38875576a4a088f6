"""The commands of the whole way, as a user types them, and the overrides of a rehearsal.

The overrides make the runs short and, for tests, the model small; they change no code path.
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Iterator, Sequence

PRETRAIN, VQA = 'configs/pretrain.py:r50', 'configs/vqa.py:r50_trainval'
SPLITS = {'test-dev': 'test[test-dev]', 'val': 'val'}  # that are answered, by stage
TEXT = 'a clock'

MAIN, CONVERT = ['-m', 'pixelbert_jax.main'], ['-m', 'pixelbert_jax.convert']
SCORE = ['-m', 'pixelbert_jax.score', 'vqa']

# What a user of an export types in Python (docs/pytorch.md).
PYTORCH = """\
from PIL import Image
from transformers import AutoModel, AutoTokenizer
model = AutoModel.from_pretrained({export}, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained({export}, trust_remote_code=True)
images = model.preprocess([Image.open({photo})])
text = tokenizer([{text}], return_tensors="pt")
print(model(**images, **text).itm_logits.sigmoid().item())"""


@dataclasses.dataclass(frozen=True)
class Places:
  """Where files lie; by default as in the pages of the documentation."""

  raw: str = 'M'  # the corpora as they are downloaded
  bert: str = 'bert-base-uncased'
  cnn: str = 'resnet50.pth'
  data: str = 'D'
  start: str = 'C'
  runs: str = 'runs'
  lists: str = 'LISTS'  # of VQA, unpacked
  export: str = 'DIR'
  again: str = 'C2'
  photo: str = 'bus.jpg'

  @classmethod
  def below(cls, folder: str, pytorch: bool) -> 'Places':
    """Places everything in one folder; a .pth file only where PyTorch can write and read it."""
    root = pathlib.Path(folder)
    names = {
      'raw': 'raw',
      'bert': 'bert-base-uncased',
      'cnn': 'resnet50.pth' if pytorch else 'resnet50.safetensors',
      'data': 'datasets',
      'start': 'converted',
      'runs': 'runs',
      'lists': 'lists',
      'export': 'export',
      'again': 'again',
      'photo': 'photo.jpg',
    }
    return cls(**{field: str(root / name) for field, name in names.items()})


@dataclasses.dataclass(frozen=True)
class Stage:
  """A command of the whole way.

  Attributes:
    name: of the stage.
    words: the arguments of Python.
    shorter: further arguments, with which it is a rehearsal.
    makes: what it writes and refuses to replace; '' if it goes on by itself after a kill.
  """

  name: str
  words: Sequence[str]
  shorter: Sequence[str] = ()
  makes: str = ''

  def __str__(self) -> str:
    return shlex.join(['python', *self.words, *self.shorter])


def overrides(**fields: object) -> list[str]:
  """Formats overrides of a configuration; `__` in a name stands for a dot."""
  return [f'--config.{name.replace("__", ".")}={value}' for name, value in fields.items()]


# A model and a canvas with which a step takes milliseconds; without `small` they are the paper's.
SMALL_MODEL = overrides(
  cnn__stages=(2, 1),
  cnn__width=8,
  cnn__total_stride=16,
  transformer__layers=2,
  transformer__width=32,
  transformer__heads=2,
  transformer__mlp_width=64,
  transformer__max_positions=64,
  image__shorter=64,
  image__longer=96,
  image__canvases=((96, 96),),
)
SMALL_PRETRAINING = [*SMALL_MODEL, *overrides(sampled_pixels=8)]
SMALL_INPUTS = ['--shrink=10', '--words=512']


@dataclasses.dataclass(frozen=True)
class Way:
  """The stages of the whole way.

  Attributes:
    at: where files lie.
    images: in a batch of the rehearsal.
    small: whether the rehearsal is of a small model.
  """

  at: Places
  images: int = 2
  small: bool = False

  def __iter__(self) -> Iterator[Stage]:
    yield from self.preparation()
    yield from self.training()
    yield from self.scores()
    yield from self.exports()

  @property
  def pretrained(self) -> str:
    """The workdir of pre-training."""
    return f'{self.at.runs}/pretrain-r50-s0'

  @property
  def tuned(self) -> str:
    """The workdir of VQA."""
    return f'{self.at.runs}/vqa-r50_trainval-s0'

  def answers(self, name: str, split: str) -> str:
    """Returns the file of the answers to a split."""
    return f'{self.tuned}-{name}/predictions/{split}.json'

  def preparation(self) -> Iterator[Stage]:
    """Yields the stages from downloads to datasets and a checkpoint to start from."""
    at, small = self.at, SMALL_PRETRAINING if self.small else []
    weights = [f'--bert={at.bert}', f'--cnn={at.cnn}', f'--config={PRETRAIN}']
    inputs = ['-m', 'launch.rehearsal.inputs', f'--raw={at.raw}', f'--photo={at.photo}', *weights]
    corpora = ['coco_karpathy', 'visual_genome', 'vqa_v2']
    build = ['-m', 'data.build', *corpora, f'--manual_dir={at.raw}', f'--data_dir={at.data}']
    yield Stage('inputs', inputs, [*small, *(SMALL_INPUTS if self.small else [])])
    yield Stage('build', build)
    yield Stage('convert', [*CONVERT, *weights, f'--output={at.start}'], small, at.start)

  def training(self) -> Iterator[Stage]:
    """Yields the stages of pre-training and of VQA, and the answers to its splits."""
    at, model = self.at, SMALL_MODEL if self.small else []
    data = f'--config.data.data_dir={at.data}'
    pairs = overrides(
      batch_size=2 * self.images, texts_per_image=2, micro_batches=1, steps=2, eval_batches=1
    )
    pretrain = [f'--config={PRETRAIN}', f'--config.init_from={at.start}', data]
    small = SMALL_PRETRAINING if self.small else []
    yield Stage('pretrain', [*MAIN, *pretrain, f'--workdir={self.pretrained}'], [*small, *pairs])
    step = overrides(batch_size=self.images, texts_per_image=1, micro_batches=1, steps=1)
    vqa = [f'--config={VQA}', f'--config.init_from={self.pretrained}', data]
    yield Stage('vqa', [*MAIN, *vqa, f'--workdir={self.tuned}'], [*model, *step])
    evaluate = [*MAIN, f'--config={VQA}', '--mode=evaluate', f'--checkpoint={self.tuned}', data]
    for name, split in SPLITS.items():
      words = [*evaluate, f'--config.data.test={split}', f'--workdir={self.tuned}-{name}']
      yield Stage(name, words, [*model, *step])

  def scores(self) -> Iterator[Stage]:
    """Yields the stages that score the answers to val, and check the file of those to test-dev."""
    at, unpack = self.at, ['-m', 'zipfile', '-e']
    annotations, questions = 'v2_Annotations_Val_mscoco.zip', 'v2_Questions_Test_mscoco.zip'
    yield Stage('annotations', [*unpack, f'{at.raw}/{annotations}', at.lists])
    yield Stage('questions', [*unpack, f'{at.raw}/{questions}', at.lists])
    for name, words in {
      'val': f'--annotations={at.lists}/v2_mscoco_val2014_annotations.json',
      'test-dev': f'--questions={at.lists}/v2_OpenEnded_mscoco_test-dev2015_questions.json',
    }.items():
      yield Stage(
        f'score {name}', [*SCORE, f'--predictions={self.answers(name, SPLITS[name])}', words]
      )

  def exports(self) -> Iterator[Stage]:
    """Yields the stages from the pre-trained model to PyTorch and back."""
    at = self.at
    export = [*CONVERT, f'--checkpoint={self.pretrained}', f'--export={at.export}']
    again = [*CONVERT, f'--checkpoint={at.export}', f'--output={at.again}']
    predict = [f'--checkpoint={at.again}', f'--image={at.photo}', f'--text={TEXT}', '--json']
    yield Stage('export', export, makes=at.export)
    yield Stage('import', again, makes=at.again)
    yield Stage('predict', ['-m', 'pixelbert_jax.predict', *predict])
    named = {'export': at.export, 'photo': at.photo, 'text': TEXT}
    code = PYTORCH.format(**{name: json.dumps(value) for name, value in named.items()})
    yield Stage('pytorch', ['-c', code])
