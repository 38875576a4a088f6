"""The PyTorch class of each model, and how a model card shows its use."""

import dataclasses

from pixelbert_jax.models import heads

TEXTS = """texts = tokenizer({texts}, padding=True, truncation=True, return_tensors='pt')
"""
IMAGE = """images = model.preprocess([Image.open('image.jpg')])
"""
BEST = """for score, number in zip(*scores.topk(min(5, len(scores))), strict=True):
  print(model.config.id2label[number.item()], score.item())
"""


@dataclasses.dataclass(frozen=True)
class Twin:
  """A class of `pytorch/modeling_pixelbert.py`.

  Attributes:
    name: of the class.
    tags: of a model card.
    task: what its head is for.
    items: what a batch of its training is counted in.
    example: code of a model card, after `model` and `tokenizer` are loaded.
    auto: the class of transformers, besides AutoModel, that loads models of its task; '' for none.
  """

  name: str
  tags: tuple[str, ...]
  task: str
  items: str
  example: str
  auto: str = ''


TWINS: dict[type[heads.Model], Twin] = {
  heads.PretrainingModel: Twin(
    name='PixelBertForPreTraining',
    tags=('image-text-matching', 'fill-mask'),
    task='masked language modelling and image-text matching',
    items='image-text pairs',
    auto='AutoModelForPreTraining',
    example=IMAGE
    + TEXTS.format(texts="['a text', 'a [MASK]']")
    + """with torch.no_grad():
  outputs = model(**images, **texts)
print(outputs.itm_logits.sigmoid())  # the probability that image and text match, for each text
masked = texts.input_ids[1] == tokenizer.mask_token_id
print(tokenizer.decode(outputs.mlm_logits[1, masked].argmax(-1)))  # the word under the [MASK]
""",
  ),
  heads.VqaModel: Twin(
    name='PixelBertForQuestionAnswering',
    tags=('visual-question-answering',),
    task='visual question answering',
    items='image-question pairs',
    auto='AutoModelForVisualQuestionAnswering',
    example=IMAGE
    + TEXTS.format(texts="['what colour is the object']")
    + """with torch.no_grad():
  scores = model(**images, **texts).logits[0].sigmoid()
"""
    + BEST,
  ),
  heads.MatchingModel: Twin(
    name='PixelBertForImageAndTextRetrieval',
    tags=('image-text-matching', 'image-text-retrieval'),
    task='image-text matching',
    items='image-text pairs',
    example=IMAGE
    + TEXTS.format(texts="['a text', 'another text']")
    + """with torch.no_grad():
  outputs = model(**images, **texts)
print(outputs.logits.sigmoid())  # is it true of the image? larger for the better text
""",
  ),
  heads.Nlvr2Model: Twin(
    name='PixelBertForImagesAndTextClassification',
    tags=('nlvr2', 'visual-reasoning'),
    task='statements about two images',
    items='statements about two images',
    example="""images = model.preprocess([Image.open('left.jpg'), Image.open('right.jpg')])
"""
    + TEXTS.format(texts="['a statement about both', 'another one']")
    + """with torch.no_grad():
  outputs = model(**images, **texts)
print(outputs.logits.sigmoid())  # the probability that each statement is true of the two
""",
  ),
  heads.LabelModel: Twin(
    name='PixelBertForImageClassification',
    tags=('image-classification',),
    task='multi-label image classification, by the CNN alone',
    items='images',
    auto='AutoModelForImageClassification',
    example=IMAGE
    + """with torch.no_grad():
  scores = model(**images).logits[0].sigmoid()
"""
    + BEST,
  ),
}

# For a MatchingModel with a first stage.
FIRST_STAGE = """with torch.no_grad():  # Images and texts apart, to rank many of them fast
  similarity = model.get_image_features(**images) @ model.get_text_features(**texts).T
print(similarity)
"""
