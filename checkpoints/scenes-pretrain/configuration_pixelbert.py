"""The sizes of a Pixel-BERT, as in `config.json`."""

from transformers import PretrainedConfig


class PixelBertConfig(PretrainedConfig):
  """The configuration in `config.json`; defaults are the paper's model with ResNet-50."""

  model_type = 'pixelbert'
  defaults = {  # noqa: RUF012
    'stages': (3, 4, 6, 3),  # blocks in each stage of the CNN
    'total_stride': 64,  # of the pixel features, in input pixels
    'cnn_width': 64,  # channels of the stem
    'groups': 1,  # of the 3x3 convolutions
    'group_width': 0,  # channels per group in the first stage; 0 for a plain ResNet
    'stem': '7x7',  # or 'space_to_depth'
    'batch_norm': 'frozen',  # statistics in training: 'frozen', or of the 'batch'
    'vocab_size': 30522,
    'max_position_embeddings': 512,
    'hidden_size': 768,
    'num_hidden_layers': 12,
    'num_attention_heads': 12,
    'intermediate_size': 3072,
    'pixel_position': 'none',  # or 'learnt', 'sine2d'
    'first_stage': 0,  # width of the space in which images and texts are ranked apart; 0 for none
    'dropout': 0.1,
    'initializer_range': 0.02,
    'image_mean': (0.485, 0.456, 0.406),  # of RGB in 0..1
    'image_deviation': (0.229, 0.224, 0.225),
    'image_shorter': 800,  # length of the shorter side of images ...
    'image_longer': 1333,  # ... unless the longer side would exceed this
  }

  def __init__(self, **kwargs):
    for name, default in self.defaults.items():
      setattr(self, name, kwargs.pop(name, default))
    super().__init__(**kwargs)
