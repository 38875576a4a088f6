"""The model card of an export: what the model is, what it was trained on, how to load it."""

from typing import Any

CARD = """---
library_name: transformers
tags:
- pixel-bert
- image-text-matching
- fill-mask
---

# Pixel-BERT, {name}

Pixel-BERT ([Huang et al. 2020](https://arxiv.org/abs/2004.00849)): a convolutional network on raw
pixels and a BERT on words in one Transformer, without an object detector. Written by
`pixelbert_jax`; its PyTorch code is `modeling_pixelbert.py` in this folder.

| | |
|---|---|
| CNN | {cnn} |
| Transformer | {num_hidden_layers} layers, width {hidden_size}, {num_attention_heads} heads |
| vocabulary | {vocab_size:,} entries, uncased WordPiece |
| parameters | {parameters:.2f} M, float32 |
| images | RGB; the shorter side {image_shorter}, the longer at most {image_longer}; bicubic |
| texts | at most {length} tokens, [CLS] and [SEP] counted |

## Trained on

{trained_on}

The whole configuration is `training_config` in `config.json`.

## Use

Needs `torch`, `transformers` and, for images, `Pillow`. `trust_remote_code=True` runs
`modeling_pixelbert.py`: read it first, it is short.

```python
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained('THIS_FOLDER', trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained('THIS_FOLDER', trust_remote_code=True)
texts = tokenizer(['a text', 'a [MASK]'], padding=True, truncation=True, return_tensors='pt')
with torch.no_grad():
  outputs = model(**model.preprocess([Image.open('image.jpg')]), **texts)
outputs.itm_logits.sigmoid()  # the probability that image and text match, for each text
hidden = texts.input_ids[1] == tokenizer.mask_token_id
tokenizer.decode(outputs.mlm_logits[1, hidden].argmax(-1))  # the word under the [MASK]
```

Several images come with as many texts each, those of the first image first. `labels` and
`itm_labels` give losses. Back to JAX, bit by bit the same parameters:
`python -m pixelbert_jax.convert --bert=THIS_FOLDER --output=CHECKPOINT`.

## Limits

- It answers for images and texts like those it was trained on, in English, lower-cased. What it
  says of others, of people above all, was not examined.
- It has the two heads of pre-training. Other tasks need fine-tuning.
- Images are seen at 1/{total_stride} of their size: small things are lost.
"""

CONVERTED = """Nothing yet as a whole: it was put together from a BERT and a CNN in PyTorch. What
only Pixel-BERT has (`projection`, `semantic`, `itm`) is random, so its answers mean nothing until
it is trained."""


def model_card(config: dict[str, Any], parameters: int) -> str:
  """The text of README.md.

  Args:
    config: what `config.json` of the export holds.
    parameters: how many numbers are trained.
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
      f'`{trained["data"]}`: {trained["steps"]:,} steps of {trained["batch_size"]:,} image-text '
      f'pairs, for hidden words and image-text matching; started from `{trained["init_from"]}`.'
    )
  return CARD.format(
    **config | {'trained_on': trained_on},
    name=':'.join(filter(None, (training['name'], training['variant']))),
    cnn=f'{kind} of {stages} blocks{grouped}, width {config["cnn_width"]}, {config["stem"]} stem',
    parameters=parameters / 1e6,
    length=training['text']['length'],
  )
