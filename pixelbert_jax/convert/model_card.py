"""Model card of an export: what the model is, what it was trained on, how to load it."""

from typing import Any

from pixelbert_jax.convert.twins import FIRST_STAGE, Twin

CARD = """---
library_name: transformers
tags:
- pixel-bert
{tags}
---

# Pixel-BERT, {name}

Pixel-BERT ([Huang et al. 2020](https://arxiv.org/abs/2004.00849)) feeds the features of a
convolutional network and the tokens of a text to one Transformer, without an object detector.
This one is for {twin.task}. Exported by `pixelbert_jax`; the PyTorch code is in this folder,
with the class `{twin.name}` in `modeling_pixelbert.py`.

| | |
|---|---|
| CNN | {cnn} |
| Transformer | {num_hidden_layers} layers, width {hidden_size}, {num_attention_heads} heads |
| vocabulary | {vocab_size:,} entries, uncased WordPiece |
| parameters | {parameters:.2f} M, float32 |
| images | RGB; shorter side {image_shorter}, longer side at most {image_longer}; bicubic |
| texts | at most {length} tokens, including [CLS] and [SEP] |

## Trained on

{trained_on}

The whole configuration is `training_config` in `config.json`.

## Use

Needs `torch`, `transformers` and, for images, `Pillow`. `trust_remote_code=True` runs the Python
files of this folder; they are short enough to read first.

```python
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained('THIS_FOLDER', trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained('THIS_FOLDER', trust_remote_code=True)
{example}```

With several images, give the same number of texts for each, those of the first image first. With
labels the outputs contain losses. To import the folder into JAX, with bitwise equal parameters:
`python -m pixelbert_jax.convert --checkpoint=THIS_FOLDER --output=CHECKPOINT`, or
`--checkpoint=hf://USER/NAME` from the hub.

## Limits

- It was trained on lower-cased English texts. Its behaviour on images and texts unlike those of
  its training data, above all on people, was not evaluated.
- Other tasks than {twin.task} need fine-tuning.
- Pixel features have 1/{total_stride} of the image's resolution: small objects are lost.
"""

CONVERTED = """Nothing yet as a whole: it was assembled from a BERT and a CNN in PyTorch. The
modules that only Pixel-BERT has (`projection`, `semantic`, `itm`) are random, so its outputs are
meaningless until it is trained."""


def model_card(config: dict[str, Any], twin: Twin, parameters: int) -> str:
  """Returns the text of README.md.

  Args:
    config: the content of `config.json` of the export.
    twin: the class of the model.
    parameters: number of trainable parameters.
  """
  training, trained = config['training_config'], config['trained_on']
  stages = ', '.join(map(str, config['stages']))
  grouped = f', {config["groups"]}x{config["group_width"]}d' if config['group_width'] else ''
  kind = 'ResNeXt' if grouped else 'ResNet'
  trained_on = CONVERTED
  if trained['datasets']:
    trained_on = f'{", ".join(f"`{name}`" for name in trained["datasets"])}.'
  if trained['steps']:
    trained_on = (
      f'`{trained["data"]}`: {trained["steps"]:,} steps of {trained["batch_size"]:,} {twin.items}, '
      f'for {twin.task}; started from `{trained["init_from"]}`.'
    )
  return CARD.format(
    **config | {'trained_on': trained_on},
    twin=twin,
    tags='\n'.join(f'- {tag}' for tag in twin.tags),
    example=twin.example + (FIRST_STAGE if config['first_stage'] else ''),
    name=':'.join(filter(None, (training['name'], training['variant']))),
    cnn=f'{kind} of {stages} blocks{grouped}, width {config["cnn_width"]}, {config["stem"]} stem',
    parameters=parameters / 1e6,
    length=training['text']['length'],
  )
