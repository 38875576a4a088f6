"""At most two batches are on the devices, and only time in which these stand idle is waiting."""

import threading
import time

import pytest

from pixelbert_jax.in_flight import InFlight

STEP = 0.1  # seconds


class Computing:
  """What a step on a device returns at once; it is ready when the device has done it."""

  device_free = 0.0

  def __init__(self):
    Computing.device_free = self.end = max(Computing.device_free, time.perf_counter()) + STEP

  def block_until_ready(self):
    time.sleep(max(self.end - time.perf_counter(), 0))


@pytest.mark.parametrize(
  ('seconds', 'expected'), [(0.0, 0.0), (0.5 * STEP, 0.0), (1.5 * STEP, 0.33), (3 * STEP, 0.67)]
)
def test_the_share_of_time_that_devices_wait_for_data(seconds, expected):
  def batches():
    while True:
      time.sleep(seconds)
      yield seconds

  made, in_flight = batches(), InFlight()
  in_flight.take(made)
  in_flight.add(Computing())
  in_flight.waiting()
  for _ in range(10):
    in_flight.take(made)
    in_flight.add(Computing())
  assert in_flight.waiting() == pytest.approx(expected, abs=0.12)


def test_no_more_than_two_batches_are_on_the_devices():
  in_flight, lock, free = InFlight(), threading.Lock(), threading.Semaphore(0)
  taken, done = [], []

  class Result:
    def block_until_ready(self):
      free.acquire()
      with lock:
        done.append(1)

  def batches():
    for number in range(6):
      with lock:
        taken.append(number - len(done))
      yield number

  def work():
    made = batches()
    for number in range(6):
      assert in_flight.take(made) == number
      in_flight.add(Result())
      if number == 3:
        in_flight.follow(Result())

  thread = threading.Thread(target=work)
  thread.start()
  for _ in range(7):
    time.sleep(0.05)
    free.release()
  thread.join(timeout=10)
  assert not thread.is_alive()
  assert max(taken) == 1  # one before the one that is taken
