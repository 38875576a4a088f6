"""The page, in Gradio: a tab for each thing that the model can do."""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import fastapi
import gradio as gr
import uvicorn

from pixelbert_jax.demo import MEGABYTES
from pixelbert_jax.demo.examples import Example
from pixelbert_jax.demo.replies import TEXTS, Replies, Reply, heading
from pixelbert_jax.predict import Model

if TYPE_CHECKING:
  from pixelbert_jax.search import Index

CSS = """
.photo .image-frame img { width: 100%; height: 100%; object-fit: contain }
.found .grid-wrap { max-height: none; overflow: visible }
.found .grid-container { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)) !important }
.rows { width: 100%; border-collapse: collapse }
.rows caption { text-align: left; padding-bottom: .5rem }
.rows, .rows tbody, .rows tr, .rows td { border: none !important }
.rows td { padding: .25rem .75rem .25rem 0; vertical-align: top; overflow-wrap: anywhere }
.rows td:first-child { font-variant-numeric: tabular-nums; white-space: nowrap; width: 4rem }
.rows .bar { height: 4px; border-radius: 2px; background: var(--color-accent) }
.remark { margin-top: .5rem }
.error { color: var(--error-text-color); overflow-wrap: anywhere }
td.textbox { text-align: left; white-space: pre-line }
.caveat { border-left: 4px solid var(--color-accent); padding-left: .75rem }
"""
HOUR = 3600  # seconds, after which an uploaded photo is deleted
WAITING = 50  # requests; further ones are told to come back


def build(name: str, model: Model, index: 'Index | None', examples: Sequence[Example]) -> gr.Blocks:
  """Builds the page of a model.

  Args:
    name: that of its checkpoint.
    model: it is asked.
    index: the folder that is searched; None leaves those tabs out.
    examples: what to begin with.
  """
  replies = Replies(model, index)
  with gr.Blocks(
    title=f'{name}: Pixel-BERT', analytics_enabled=False, delete_cache=(HOUR, HOUR)
  ) as page:
    gr.HTML(heading(name, model))
    if 'answer' in model.heads:
      with gr.Tab('Ask a question'):
        box = gr.Textbox(label='Question', render=False)
        about_photo(box, replies.answer, [(e.path, e.question) for e in examples])
    if 'match' in model.heads:
      with gr.Tab('Match texts'):
        box = gr.Textbox(label='Texts, one a line', lines=3, render=False)
        about_photo(box, replies.match, [(e.path, '\n'.join(e.texts)) for e in examples])
    if 'fill' in model.heads:
      with gr.Tab('Fill a word'):
        box = gr.Textbox(label='Text with one [MASK]', render=False)
        about_photo(box, replies.fill, [(e.path, e.hidden) for e in examples])
    if index:
      with gr.Tab('Find photos'):
        about_folder(replies.find, [e.texts[0] for e in examples])
      with gr.Tab('Find texts'):
        every = '\n'.join(dict.fromkeys(text for e in examples for text in e.texts))
        label = f'Texts, one a line, at most {TEXTS}'
        box = gr.Textbox(every, label=label, lines=8, render=False)
        about_photo(box, replies.texts, [(e.path,) for e in examples])
  return page


def about_photo(
  box: gr.Textbox, reply: Callable[[str, str], Reply], examples: Sequence[tuple]
) -> None:
  """Lays out what is asked of a photo: it and a text, the reply beside, and examples below.

  Examples are photos, each with a text or alone.
  """

  async def local(value: Any) -> str | None:
    """Moves an upload to the cache, as Gradio does; an address is not fetched."""
    return None if str(value).lower().startswith(('http:', 'https:')) else await moved(value)

  def asked(photo: Mapping[str, Any] | None, text: str | None) -> Reply:
    return reply((photo or {}).get('path') or '', text or '')

  with gr.Row():
    with gr.Column():
      # The model reads the file as it is, without Gradio's conversion.
      photo = gr.Image(
        label='Photo',
        sources=['upload', 'clipboard'],
        buttons=[],
        height=280,
        elem_classes='photo',
      )
      moved = photo.async_move_resource_to_block_cache
      photo.async_move_resource_to_block_cache = local
      box.render()
      button = gr.Button('Ask', variant='primary')
    with gr.Column():
      said = gr.HTML(elem_classes='reply')
      heat = gr.Image(
        label='Where each word looks',
        show_label=False,  # It would lie over the first line of the picture.
        format='png',
        buttons=['fullscreen'],
        elem_classes='heat',
      )
  if examples:
    inputs = [photo, box][: len(examples[0])]
    gr.Examples([[str(path), *text] for path, *text in examples], inputs)
  listen(button, box, asked, [photo, box], [said, heat])


def about_folder(reply: Callable[[str], Reply], examples: Sequence[str]) -> None:
  """Lays out the search: a text, examples and the photos that are found."""
  box = gr.Textbox(label='Text')
  button = gr.Button('Find', variant='primary')
  if examples:
    gr.Examples([[text] for text in examples], [box])
  said = gr.HTML(elem_classes='reply')
  photos = gr.Gallery(
    label='Photos',
    show_label=False,
    height='auto',
    object_fit='contain',
    format='png',
    buttons=[],
    elem_classes='found',
  )
  listen(button, box, lambda text: reply(text or ''), [box], [said, photos])


def listen(
  button: gr.Button, box: gr.Textbox, reply: Callable, inputs: Sequence, outputs: Sequence
) -> None:
  """Has a button, and the enter key in a box, ask for a reply.

  Requests wait for one another, since JAX uses all cores for each.
  """
  gr.on(
    [button.click, box.submit],
    reply,
    inputs,
    outputs,
    preprocess=False,
    concurrency_limit=1,
    concurrency_id='model',
    api_visibility='private',
  )


def serve(page: gr.Blocks, where: socket.socket) -> None:
  """Serves a page at a socket that listens, until a signal ends the process."""
  page.queue(api_open=False, max_size=WAITING)
  # Gradio's own launch gives up after five seconds on a busy machine, and asks itself through a
  # proxy where there is one.
  app = gr.mount_gradio_app(
    fastapi.FastAPI(openapi_url=None),
    page,
    path='/',
    max_file_size=MEGABYTES * 10**6,
    css=CSS,
    footer_links=[],
    run_history=False,
    enable_monitoring=False,
    ssr_mode=False,
  )
  page.has_launched = True  # Else Gradio takes any path on this machine for an upload.
  config = uvicorn.Config(app, log_level='warning', timeout_graceful_shutdown=1)
  uvicorn.Server(config).run(sockets=[where])
