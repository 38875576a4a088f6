"""A page in the browser that asks a trained model about photos; `__main__.py` is the command.

`replies.py` is what it says, `examples.py` what it begins with; `page.py` alone imports Gradio.
docs/demo.md shows it.
"""

# Of an uploaded photo.
MEGABYTES = 20
MEGAPIXELS = 50
