# ---
# jupyter:
#   accelerator: GPU
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: accelerator
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Pixel-BERT: evaluate a checkpoint, and see what it looks at
#
# Scores a model on visual question answering, shows its answers beside the true ones, and draws
# where in the image each word of a question looks. *Runtime → Run all.* It runs on a TPU, on a GPU
# and, in about a quarter of an hour, on a plain CPU.
#
# No weights of Pixel-BERT were ever published. Give the checkpoint of a run of your own, or leave
# `CHECKPOINT` empty: then a small model is trained first, on rendered scenes of coloured shapes.

# %%
REPOSITORY = 'https://github.com/pixelbert/pixelbert_jax'  # @param {type:"string"}
VERSION = 'main'  # @param {type:"string"}
# The whole path of the workdir of a run of configs/vqa.py, such as one on a mounted drive; or ''.
CHECKPOINT = ''  # @param {type:"string"}
# ':test' trains for seconds, to see that all works; its answers are guesses.
VARIANT = ''  # @param ["", ":test"]

# %% [markdown]
# ## Installing

# %%
import glob
import os
import shutil

# A second run of this cell is in the checkout already.
CHECKOUT = os.path.abspath('.' if os.path.isdir('configs') else 'pixelbert_jax')
# !test -d {CHECKOUT} || git clone --quiet -c advice.detachedHead=false --depth=1 --branch={VERSION} {REPOSITORY} {CHECKOUT}
# %cd {CHECKOUT}
chips = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/*')
EXTRA = '[cuda]' if shutil.which('nvidia-smi') else '[tpu]' if chips else ''
# %pip install --quiet --editable .{EXTRA}

# %% [markdown]
# ## A first answer
#
# By a small model that comes with the repository. It has seen rendered scenes of coloured shapes alone.

# %%
# !python -m pixelbert_jax.predict --checkpoint=checkpoints/scenes-vqa --image=docs/scene.jpg --question="what colour is the cross"
assert _exit_code == 0, 'the last line above says what is wrong'

# %% [markdown]
# ## Training, where no checkpoint is given
#
# The two commands of the README: pre-training on images with captions, then questions. Each prints
# the time that is left, and goes on where it was if it is run again.

# %%
TRAINED_HERE = f'runs/vqa{VARIANT.replace(":", "-")}-s0'
if CHECKPOINT in ('', TRAINED_HERE):
  CHECKPOINT = TRAINED_HERE
  # !python -m pixelbert_jax.main --config=configs/pretrain.py{VARIANT}
  # !python -m pixelbert_jax.main --config=configs/vqa.py{VARIANT}
  assert _exit_code == 0, 'the last line above says what is wrong'

# %% [markdown]
# ## Evaluating
#
# All questions about the held-out images, by the official definition of accuracy. A model that only
# reads the question, and gives the commonest answer to each type of it, is in the table too.

# %%
SCORED = 'runs/scored-' + CHECKPOINT.strip('/').replace('/', '-').replace('@', '-')
# !python -m pixelbert_jax.main --config=configs/vqa.py{VARIANT} --mode=evaluate "--checkpoint={CHECKPOINT}" --workdir={SCORED}
assert _exit_code == 0, 'the last line above says what is wrong'

# %% [markdown]
# ## Its answers
#
# The predictions that were just scored, `predictions/test.json` in that folder, in the form that the VQA
# server takes.

# %%
import io
import json

import matplotlib.pyplot as plt
from IPython.display import display
from PIL import Image

from data.scenes import record

with open(f'{SCORED}/predictions/test.json') as file:
  answers = {row['question_id']: row['answer'] for row in json.load(file)}
scenes = [record.example(record.Place('easy', 'test', index)) for index in range(6)]

figure, axes = plt.subplots(2, 3, figsize=(12, 9), layout='constrained')
for axis, scene in zip(axes.flat, scenes, strict=True):
  axis.imshow(Image.open(io.BytesIO(scene['image'])))
  axis.set_axis_off()
  lines = []
  for question in scene['questions'][:4]:
    said, true = answers[question['question_id']], question['multiple_choice_answer']
    verdict = '✓' if said == true else f'✗, {true}'
    lines.append(f'{question["question"]}?  {said} {verdict}')
  axis.set_title('\n'.join(lines), y=-0.04, va='top', fontsize=9)
plt.show()

# %% [markdown]
# ## Where its words look
#
# A panel for each word: how much the word attends to each place, relative to an even share. On
# held-out scenes, the words `red` and `circle` find the red circle in three of four cases, where
# chance finds one of six. (From here on this notebook holds the TPU or GPU: to train again, restart it.)

# %%
from pixelbert_jax import predict

model = predict.load(CHECKPOINT)
for scene in scenes[:3]:
  question = scene['questions'][2]['question']
  image = Image.open(io.BytesIO(scene['image']))
  print(question, model.answer(image, question, k=3)[0])
  display(model.heatmap(image, question).picture())

# %% [markdown]
# ## A photograph of your own
#
# On Colab, put it into the folder at the left; write its whole path here, such as
# `/content/photo.jpg`, and run the cell. What a model that knows rendered scenes says of photographs means nothing,
# and it says so.

# %%
PHOTO = ''  # @param {type:"string"}
QUESTION = 'what colour is the circle'  # @param {type:"string"}

if PHOTO:
  print(model.answer(PHOTO, QUESTION)[0])
  display(model.heatmap(PHOTO, QUESTION).picture())
