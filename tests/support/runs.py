"""What a run leaves in its workdir, read back."""

import json
import pathlib


def metrics(workdir: pathlib.Path) -> list[dict]:
  """The lines of its log."""
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def timeless(lines: list[dict]) -> list[dict]:
  """Lines without what depends on the clock."""
  return [{k: x for k, x in line.items() if 'second' not in k} for line in lines]
