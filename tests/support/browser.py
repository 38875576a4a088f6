"""A headless Chromium for tests of pages, which reaches this machine alone."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

DRIVER = '/usr/bin/chromedriver'  # Debian's chromium-driver; selenium would download another
LOCAL = 'MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1'


@contextlib.contextmanager
def browser(width: int = 1200, dark: bool = False) -> Iterator[webdriver.Chrome]:
  """Opens a browser whose window is `width` pixels wide; skips the test where Chromium is missing.

  Every name but this machine's is unknown to it, so a page that asks the network gets an error.
  """
  chromium, driver = shutil.which('chromium'), shutil.which('chromedriver') or DRIVER
  if not chromium or not pathlib.Path(driver).exists():
    pytest.skip('Chromium is missing: apt-get install -y chromium chromium-driver')
  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  options.add_argument('--headless=new')
  options.add_argument('--disable-dev-shm-usage')  # which is small in containers
  options.add_argument(f'--host-resolver-rules={LOCAL}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  if os.geteuid() == 0:
    options.add_argument('--no-sandbox')
  opened = webdriver.Chrome(options=options, service=Service(driver))
  try:
    opened.execute_cdp_cmd(
      'Emulation.setDeviceMetricsOverride',
      {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False},
    )
    scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
    opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [scheme]})
    yield opened
  finally:
    opened.quit()


def complaints(opened: webdriver.Chrome) -> list[str]:
  """Returns what the browser's console says of errors, such as requests that failed."""
  return [entry['message'] for entry in opened.get_log('browser') if entry['level'] == 'SEVERE']
