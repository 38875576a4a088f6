"""Mutations of files: bytes at random, and pieces that readers of a format stumble over."""

import random

PIECES = {
  'csv': [
    *(b',', b'"', b'""', b'\r', b'\n', b'\r\n', b'\0', b'|', b'\xef\xbb\xbf', b'\xff', b';'),
    *(b'image,caption\n', b'image', b'../', b'./', b'/etc/passwd', b'train', b'9' * 400, b'id'),
  ],
  'json': [
    *(b'[', b'{', b']', b'}', b'"', b':', b',', b'null', b'true', b'NaN', b'-Infinity', b'1e999'),
    *(b'[' * 3000, b'{"a":' * 2000, b'9' * 6000, b'""', b'-1', b'1.5', b'"\\ud800"', b'\\u0000'),
    *(b'\xef\xbb\xbf', b'\xff\xfe', b'\0', b'"caption":', b'"captions":', b'"split":', b'{}'),
  ],
  'archive': [
    *(b'PK\x03\x04', b'PK\x01\x02', b'PK\x05\x06', b'PK\x06\x06', b'\xff' * 4, b'\0' * 512),
    *(b'../' * 20, b'/', b'ustar\0', b'\xff' * 12, b'7' * 11, b'L', b'x', b'K', b'1', b'2'),
  ],
  'image': [
    *(b'\xff\xd8', b'\xff\xd9', b'\xff\xda', b'\xff\xe1', b'Exif\0\0', b'IHDR', b'IDAT', b'eXIf'),
    *(b'acTL', b'\xff' * 4, b'\0' * 8, b'II*\0', b'MM\0*', b'RIFF', b'WEBPVP8X', b'GIF89a', b'BM'),
  ],
  'text': [
    *(b'\n', b'\r', b'\r\n', b'\0', b'[MASK]\n', b'[CLS]\n', b'##', b'\xff', b'\xef\xbb\xbf'),
    *('\u2028\n'.encode(), 'É\n'.encode(), b'a' * 5000, b'\n\n', b' \n'),
  ],
  'weights': [
    *(b'\xff' * 8, b'\0' * 8, b'{', b'"dtype":', b'"F32"', b'"shape":[', b'-1', b'9' * 30, b'PK'),
    *(b'"data_offsets":', b'cos\nsystem\n', b'\x80\x02', b'c__builtin__\neval\n', b'R', b'.'),
  ],
}


def mutate(content: bytes, pieces: list[bytes], chance: random.Random) -> bytes:
  """Returns a changed copy of a file: one to six changes, each at a random place."""
  result = bytearray(content)
  for _ in range(chance.randint(1, 6)):
    place = chance.randrange(len(result) + 1)
    end = min(len(result), place + chance.choice((1, 2, 4, 16, 64, 1024)))
    match chance.randrange(7):
      case 0 if place < len(result):
        result[place] ^= 1 << chance.randrange(8)
      case 1 if place < len(result):
        result[place] = chance.randrange(256)
      case 2:
        del result[place:end]
      case 3:
        result[place:place] = result[place:end] * chance.choice((1, 2, 50))
      case 4:
        del result[place:]
      case _:
        result[place : chance.choice((place, end))] = chance.choice(pieces)
  return bytes(result)
