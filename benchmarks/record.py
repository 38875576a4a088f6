"""Writes measurements to benchmarks/results/, one JSON line each, with the date and the machine."""

import datetime
import json
import os
import pathlib
import platform
from typing import Any

import jax


def append(path: pathlib.Path, **fields: Any) -> None:
  """Appends one JSON object to a file: date, machine, device and load, then the fields."""
  line = {
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'machine': f'{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}',
    'device': jax.devices()[0].device_kind,
    'load': round(os.getloadavg()[0], 1),
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a') as file:
    file.write(json.dumps(line | fields) + '\n')
