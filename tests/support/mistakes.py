"""Mistakes on the command line of training: arguments, and words that the one line must hold."""

TEST = '--config=configs/pretrain.py:test'
R50 = ('--config=configs/pretrain.py:r50', '--config.init_from=scratch')


def override(*fields):
  return (TEST, *(f'--config.{field}' for field in fields))


# Arguments, and words that the line must hold.
MISTAKES = {
  'no configuration': ((), ['--config']),
  'no such file': (
    ('--config=configs/pretrian.py',),
    ['configs/pretrian.py', 'configs/pretrain.py'],
  ),
  'a folder': (('--config=configs',), ['file configs does not exist']),
  'not Python': (('--config=README.md',), ['--config=README.md', 'line']),
  'no get_config': (('--config=pixelbert_jax/__init__.py',), ['no function get_config']),
  'no such variant': (('--config=configs/pretrain.py:r51',), ['r51', 'r50', 'x152']),
  'unknown flag': ((TEST, '--wokdir=x'), ['unknown flag --wokdir: did you mean --workdir?']),
  'name of a configuration': (('--config=pretrain',), ['did you mean configs/pretrain.py?']),
  'name and variant': (('--config=vqa:r50',), ['did you mean configs/vqa.py:r50?']),
  'file without ending': (
    ('--config', 'configs/pretrain:r50'),
    ['did you mean configs/pretrain.py:r50?'],
  ),
  'a variant alone': (('--config=r50',), ['there are configs/labels.py, ', 'configs/vqa.py']),
  'field as a flag': ((TEST, '--batch_size=32'), ['did you mean --config.batch_size=32?']),
  'field with dashes': ((TEST, '--batch-size=32'), ['did you mean --config.batch_size=32?']),
  'field as a flag and a blank': ((TEST, '--seed', '1'), ['did you mean --config.seed=VALUE?']),
  'inner field as a flag': ((TEST, '--dropout=0'), ['--config.transformer.dropout=0?']),
  'rate as a flag': (
    (TEST, '--lr=1e-3'),
    ['--config.optimizer.cnn_rate=1e-3 or --config.optimizer.transformer_rate=1e-3?'],
  ),
  'flag with a dash': (
    (TEST, '--work_dir=x'),
    ['unknown flag --work_dir: did you mean --workdir?'],
  ),
  'a vague flag': ((TEST, '--image_size=64'), ['unknown flag --image_size; --help']),
  'dataset as a flag': ((TEST, '--data=coco'), ['did you mean --config.data.name=coco?']),
  'configuration after a blank': (
    ('--config', 'configs/vqa.py', '--batch_size=8'),
    ['did you mean --config.batch_size=8?'],
  ),
  'an export to start from': (
    override('init_from=checkpoints/scenes-pretrain'),
    ['scenes-pretrain is not a checkpoint', 'pixelbert_jax.convert --checkpoint='],
  ),
  'mode as a flag': ((TEST, '--eval'), ['unknown flag --eval: did you mean --mode=evaluate?']),
  'another mode': ((TEST, '--mode=eval'), ["'eval'", "'evaluate'"]),
  'evaluation without checkpoint': ((TEST, '--mode=evaluate'), ['--checkpoint=C']),
  'a stray word': ((TEST, 'now'), ['unknown argument now']),
  'flag without value': ((TEST, '--workdir'), ['--workdir']),
  'value after a blank': ((TEST, '--config.seed', '1'), ['"="', '--config.seed=1']),
  'override without value': (override('seed'), ['config.seed', 'a value is missing']),
  'mistyped field': (override('sed=1'), ['unknown field config.sed: did you mean seed?']),
  'rate of both parts': (
    override('optimizer.lr=1e-3'),
    ['optimizer.lr: did you mean optimizer.cnn_rate or optimizer.transformer_rate?'],
  ),
  'decay of both parts': (
    override('weight_decay=0.1'),
    ['did you mean optimizer.cnn_decay or optimizer.transformer_decay?'],
  ),
  'mistyped inner field': (override('transformer.layer=3'), ['transformer.layers']),
  'field of another part': (override('cnn.layers=3'), ['cnn.layers', 'transformer.layers']),
  'a part for a field': (override('cnn=3'), ['config.cnn holds fields', '--config.cnn.']),
  'unknown part': (override('vision.width=3'), ['config.vision.width', 'width']),
  'text for a number': (
    override('seed=one'),
    ["config.seed: expected a whole number such as 0, got 'one'"],
  ),
  'fraction for a whole number': (override('batch_size=1.5'), ['config.batch_size', "'1.5'"]),
  'text for a fraction': (override('mask_share=some'), ['config.mask_share', 'a number']),
  'text for a switch': (override('cnn.remat=maybe'), ['config.cnn.remat', 'true or false']),
  'no tuple': (override('cnn.stages=(1,'), ['config.cnn.stages', 'tuple']),
  'nothing for a number': (override('seed='), ['config.seed', "''"]),
  'negative seed': (override('seed=-1'), ['config.seed', 'at least 0', '-1']),
  'no pairs': (override('batch_size=0'), ['config.batch_size', 'at least 1']),
  'no epochs': (override('epochs=0'), ['config.epochs', 'above 0']),
  'endless epochs': (override('epochs=inf'), ['config.epochs', 'inf']),
  'never logged': (override('log_every=0'), ['config.log_every', 'at least 1']),
  'everything hidden': (override('mask_share=1.0'), ['config.mask_share', 'below 1']),
  'share above 1': (override('whole_share=1.5'), ['config.whole_share', 'from 0 to 1']),
  'another number type': (override('dtype=float16'), ['config.dtype', 'bfloat16', 'float16']),
  'another stem': (override('cnn.stem=5x5'), ['config.cnn.stem', 'space_to_depth']),
  'another BatchNorm': (override('cnn.batch_norm=group'), ['config.cnn.batch_norm', 'frozen']),
  'another optimiser': (override('optimizer.cnn_rule=adam'), ['optimizer.cnn_rule', 'muon']),
  'fractional blocks': (override('cnn.stages=(1, 1.5)'), ['config.cnn.stages', 'whole number']),
  'word for a tuple': (override('cnn.stages=abc'), ['config.cnn.stages', 'a tuple', "'abc'"]),
  'no stages': (override('cnn.stages=()'), ['config.cnn.stages', 'one or more']),
  'one beta': (override('optimizer.betas=(0.9,)'), ['optimizer.betas', '2 numbers']),
  'beta of 1': (override('optimizer.betas=(0.9, 1.0)'), ['optimizer.betas', 'below 1']),
  'epochs out of order': (override('optimizer.decay_epochs=(3, 2)'), ['ascending']),
  'dropout of 1': (override('transformer.dropout=1'), ['transformer.dropout', 'below 1']),
  'negative rate': (override('optimizer.cnn_rate=-0.1'), ['optimizer.cnn_rate', 'at least 0']),
  'flat canvases': (override('image.canvases=(64, 64)'), ['image.canvases', '((64, 64),)']),
  'canvas of no size': (override('image.canvases=((0, 64),)'), ['image.canvases']),
  'longer below shorter': (override('image.longer=32'), ['image.longer 32', 'shorter 64']),
  'texts that do not divide': (override('texts_per_image=3'), ['batch_size 16', 'multiple']),
  'heads that do not divide': (override('transformer.heads=3'), ['width 32', '3 heads']),
  'texts beyond positions': (override('text.length=65'), ['text.length 65', 'max_positions 64']),
  'stride of more stages': (override('cnn.total_stride=64'), ['total_stride', '[8, 16]', '64']),
  'more frozen than there is': (
    override('cnn.frozen_stages=3'),
    ['config.cnn.frozen_stages 3', '2', 'config.cnn.stages (1, 1)'],
  ),
  'frozen beyond the last stage': (override('cnn.frozen_stages=5'), ['at most 4', '5']),
  'another type of gradients': (override('gradient_dtype=float16'), ['gradient_dtype', 'bfloat16']),
  'groups without width': (override('cnn.groups=32'), ['cnn.groups 32', 'group_width 0']),
  'no start': (('--config=configs/pretrain.py:r50',), ['init_from', 'convert', '=scratch']),
  'nowhere to fine-tune from': (
    ('--config=configs/vqa.py:r50', '--config.init_from='),
    ['init_from', 'pixelbert_jax.main --config=configs/pretrain.py:r50', '=scratch'],
  ),
  'pre-training not there yet': (
    ('--config=configs/vqa.py', '--config.init_from=runs/pretrain-test-s77'),
    ['runs/pretrain-test-s77', 'main --config=configs/pretrain.py:test --config.seed=77`'],
  ),
  'no such task': (override('name=vqa2'), ["config.name: no task 'vqa2'", 'pretrain, vqa, nlvr2']),
  'no such answer list': (
    ('--config=configs/vqa.py:test', '--config.data.answers=a.json'),
    ['data.answers', 'a.json'],
  ),
  'mixture of statements': (
    ('--config=configs/nlvr2.py:test', '--config.data.name=scenes/easy+scenes/easy'),
    ['data.name', 'only pretrain and vqa take a mixture'],
  ),
  'long warm-up': (override('optimizer.warmup_epochs=-1'), ['warmup_epochs', 'at least 0']),
  'no such checkpoint': (override('init_from=nowhere'), ['init_from', 'nowhere']),
  'BERT for a checkpoint': (
    override('init_from=bert-base-uncased'),
    ['init_from: bert-base-uncased: no such folder', 'python -m pixelbert_jax.convert', '=scratch'],
  ),
  'more devices': (override('mesh.data=64'), ['mesh: data=64, fsdp=1', 'devices']),
  'no devices': (override('mesh.fsdp=0'), ['config.mesh.fsdp', '-1']),
  'parts that do not divide': (override('micro_batches=3'), ['4 images', '3 micro_batches']),
  'no vocabulary': (
    (*R50, '--config.data.name=nlvr'),
    ['config.text.vocabulary', 'bert-base-uncased'],
  ),
  'vocabulary in a bucket': (
    override('text.vocabulary=gs://b/vocab.txt'),
    ['config.text.vocabulary: gs://b/vocab.txt is an address', 'mount the bucket'],
  ),
  'data in a bucket': (override('data.data_dir=s3://b/data'), ['config.data.data_dir', 'mount']),
  'no such vocabulary': (override('text.vocabulary=v.txt'), ['text.vocabulary', "'v.txt'"]),
  'not a vocabulary': (override('text.vocabulary=README.md'), ['README.md', '[CLS]']),
  'no such dataset': (
    override('data.name=scene', 'text.vocabulary=data/scenes/vocab.txt'),
    ["no dataset 'scene'", 'nlvr2, scenes'],
  ),
  'part of a name of a dataset': (
    (*R50, '--config.data.name=coco'),
    ["no dataset 'coco': did you mean coco_karpathy?"],
  ),
  'no such dataset in a mixture': (
    (*R50, '--config.data.name=coco_karpathy+visual_genom'),
    ["'visual_genom': did you mean visual_genome?"],
  ),
  'no such difficulty': (override('data.name=scenes/harder'), ['scenes/easy', 'scenes/hard']),
  'dataset not built': (
    override('data.name=nlvr', 'text.vocabulary=data/scenes/vocab.txt'),
    ['nlvr is not built', 'python -m data.build nlvr', '--manual_dir'],
  ),
  'no such split': (override('data.test=hidden'), ["no split 'hidden'", 'train, val, test']),
  'no such subset': (override('data.test=val[left]'), ["val has no subset 'left'", 'none']),
  'half a selection': (override('data.test=val['), ["'val['", 'SPLIT[SUBSET,...]']),
  'canvas too small': (
    override('image.canvases=((48, 48),)'),
    ['image.canvases', 'hold no image', 'add a canvas'],
  ),
  'batch beyond the data': (
    override('batch_size=1024'),
    ['scenes, split train: batch_size: a batch takes 256 images of 4 texts', 'lower batch_size'],
  ),
}
