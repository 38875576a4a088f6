"""Pages of HTML, parsed as far as tests ask."""

import dataclasses
from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}


@dataclasses.dataclass
class Element:
  """An element: its tag, attributes, parts, and whatever it holds in order."""

  tag: str
  attributes: dict[str, str | None]
  parts: list['Element | str'] = dataclasses.field(default_factory=list)

  @property
  def text(self) -> str:
    """All text in it, with single blanks."""
    words = [part if isinstance(part, str) else part.text for part in self.parts]
    return ' '.join(' '.join(words).split())

  @property
  def classes(self) -> set[str]:
    """Its classes."""
    return set((self.attributes.get('class') or '').split())

  def all(self, tag: str = '', cls: str = '') -> Iterator['Element']:
    """Yields the elements inside of a tag, or of a class, or of both."""
    for part in self.parts:
      if isinstance(part, Element):
        if tag in ('', part.tag) and (not cls or cls in part.classes):
          yield part
        yield from part.all(tag, cls)

  def one(self, cls: str) -> 'Element':
    """Returns the only element of a class inside."""
    (found,) = self.all(cls=cls)
    return found


class _Parser(HTMLParser):
  def __init__(self):
    super().__init__()
    self.open = [Element('', {})]

  def handle_starttag(self, tag, attrs):
    element = Element(tag, dict(attrs))
    self.open[-1].parts.append(element)
    if tag not in VOID:
      self.open.append(element)

  def handle_startendtag(self, tag, attrs):
    self.open[-1].parts.append(Element(tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop().tag == tag

  def handle_data(self, data):
    self.open[-1].parts.append(data)


def parse(html: str) -> Element:
  """Parses a page whose elements are all closed, in the order in which they were opened."""
  parser = _Parser()
  parser.feed(html)
  parser.close()
  (root,) = parser.open
  return root
