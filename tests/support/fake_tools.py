"""Stands for gcloud, kubectl, srun and what a TPU VM has, in tests of launch/.

    python tests/fake_tools.py TOOL ARGUMENT...

Flags that the real tool does not have (Google Cloud SDK 528) are errors. The cloud is the folder
$FAKE_CLOUD: `resource.json` (the slice), `buckets/B`, `workers/N` (their homes), `calls.jsonl`.
Commands for workers really run, as local processes. `states.json` there is a list of the states
that the slice is found in, the last one for good; `ends.json` one of [exit codes, newest step],
which stand for runs of the training; `fails.json` has what gcloud says when it fails itself: lists
by the last word of its command (null: it does not fail this time).
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

CLOUD = pathlib.Path(os.environ.get('FAKE_CLOUD', '.'))
WORKERS = 2
QUEUED = ('compute', 'tpus', 'queued-resources')
VM = ('compute', 'tpus', 'tpu-vm')


def parse(words, *flags, optional=(), switches=(), positional=()):
  """Parses the arguments; exits if one is unknown or missing."""
  parser = argparse.ArgumentParser(allow_abbrev=False)
  for name in positional:
    parser.add_argument(name)
  for name in (*flags, *optional):
    parser.add_argument(f'--{name}', required=name in flags)
  for name in switches:
    parser.add_argument(f'--{name}', action='store_true')
  return parser.parse_args(words)


def pop(name):
  """Removes and returns the first of a list in a file, or None; the last one of states stays."""
  path = CLOUD / f'{name}.json'
  left = json.loads(path.read_text()) if path.exists() else []
  if name != 'states' or len(left) > 1:
    path.write_text(json.dumps(left[1:]))
  return left[0] if left else None


def failure(command):
  """Returns the message of a failure of the tool itself; None if it works."""
  path = CLOUD / 'fails.json'
  left = json.loads(path.read_text()) if path.exists() else {}
  if not left.get(command):
    return None
  said = left[command].pop(0)
  path.write_text(json.dumps(left))
  return said


def create(words, *more):
  args = parse(
    words,
    *('zone', 'node-id', 'accelerator-type', 'runtime-version', *more),
    optional=['valid-until-duration'],
    switches=['spot'],
    positional=['name'],
  )
  assert not (CLOUD / 'resource.json').exists(), f'{args.name} is there already'
  node = {'acceleratorType': args.accelerator_type, 'runtimeVersion': args.runtime_version}
  resource = {'name': args.name, 'tpu': {'nodeSpec': [{'node': node}]}}
  (CLOUD / 'resource.json').write_text(json.dumps(resource | ({'spot': {}} if args.spot else {})))
  if not (CLOUD / 'states.json').exists():
    states = ['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE']
    (CLOUD / 'states.json').write_text(json.dumps(states))


def describe(words):
  args = parse(words, 'zone', 'format', positional=['name'])
  resource = json.loads((CLOUD / 'resource.json').read_text())
  node = resource['tpu']['nodeSpec'][0]['node']
  print(
    {
      'value(state.state)': lambda: pop('states'),
      'value(tpu.nodeSpec[0].node.acceleratorType)': lambda: node['acceleratorType'],
      'value(tpu.nodeSpec[0].node.runtimeVersion)': lambda: node['runtimeVersion'],
      'json': lambda: json.dumps(resource),
    }[args.format]()
  )


def delete(words):
  parse(words, 'zone', switches=['force', 'quiet', 'async'], positional=['name'])
  (CLOUD / 'resource.json').unlink()
  (CLOUD / 'states.json').unlink()
  shutil.rmtree(CLOUD / 'workers', ignore_errors=True)  # their disks go with them


def home(worker):
  path = CLOUD / 'workers' / str(worker)
  path.mkdir(parents=True, exist_ok=True)
  return path


def scp(words):
  args = parse(words, 'zone', 'worker', positional=['source', 'target'])
  assert args.worker == 'all'
  name, path = args.target.split(':')
  assert name == json.loads((CLOUD / 'resource.json').read_text())['name']
  for worker in range(WORKERS):
    shutil.copy(args.source, home(worker) / path)


def ssh(words):
  args = parse(words, 'zone', 'worker', 'command', positional=['name'])
  assert args.worker == 'all'
  assert (CLOUD / 'resource.json').exists()
  end = pop('ends') if 'pixelbert_jax.main' in args.command else None
  if end:
    codes, step = end
    (CLOUD / f'buckets/b/runs/r/checkpoints/{step}').mkdir(parents=True, exist_ok=True)
  else:
    codes = run_on_workers(args.command)
  for worker, code in enumerate(codes):
    if code and len(codes) > 1:  # of a single one it says nothing
      print(
        f'##### Command execution on worker {worker} failed with exit status {code}. Continuing.',
        file=sys.stderr,
      )
  return next((code for code in codes if code), 0)


def run_on_workers(command):
  """Runs a command on all workers; returns the exit codes, 255 where a VM was lost."""
  with socket.socket() as found:
    found.bind(('localhost', 0))
    address = f'localhost:{found.getsockname()[1]}'
  processes, threads = [], []
  for worker in range(WORKERS):
    own = {'HOME': str(home(worker)), 'JAX_COORDINATOR_ADDRESS': address}
    own |= {'JAX_NUM_PROCESSES': str(WORKERS), 'JAX_PROCESS_ID': str(worker)}
    process = subprocess.Popen(
      ['bash', '-c', command], cwd=home(worker), env=os.environ | own, stdout=subprocess.PIPE
    )
    (CLOUD / f'pid.{worker}').write_text(str(process.pid))
    thread = threading.Thread(target=copy, args=[process.stdout])
    thread.start()
    processes.append(process)
    threads.append(thread)
  codes = [process.wait() for process in processes]
  for thread in threads:
    thread.join()
  return [{-9: 255}.get(code, 128 - code if code < 0 else code) for code in codes]


def copy(lines):
  for line in lines:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def bucket(url):
  if not url.startswith('gs://'):
    return url
  path = url.removeprefix('gs://')
  assert '//' not in path, f'{url} is another place than one would think'
  return CLOUD / 'buckets' / path


def rsync(words):
  args = parse(words, switches=['recursive'], positional=['source', 'target'])
  assert args.recursive
  shutil.copytree(bucket(args.source), bucket(args.target), dirs_exist_ok=True)


def ls(words):
  url = parse(words, positional=['url']).url
  folder = pathlib.Path(bucket(url))
  if not folder.is_dir():
    sys.exit('ERROR: (gcloud.storage.ls) One or more URLs matched no objects.')
  for path in sorted(folder.iterdir()):
    print(f'{url}{path.name}{"/" if path.is_dir() else ""}')


def gcsfuse(words):
  args = parse(
    words,
    *['metadata-cache-ttl-secs'],
    switches=['implicit-dirs'],
    positional=['bucket', 'path'],
  )
  assert '/' not in args.bucket, args.bucket
  os.rmdir(args.path)
  os.symlink(CLOUD / 'buckets' / args.bucket, args.path)


def mountpoint(words):
  return 0 if os.path.islink(words[-1]) else 1


def pip3(words):
  assert words == ['install', '--quiet', '--user', 'uv'], words
  uv = pathlib.Path.home() / '.local/bin/uv'
  uv.parent.mkdir(parents=True, exist_ok=True)
  uv.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} uv "$@"\n')
  uv.chmod(0o755)


def uv(words):
  if words[0] == 'venv':
    assert words[1:] == ['--quiet', '--python', '3.12'], words
    python = pathlib.Path('.venv/bin/python')
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
  else:
    assert words == ['pip', 'install', '--quiet', '-e', '.[tpu]'], words


def kubectl(words):
  applied = CLOUD / 'applied.yaml'
  if words[:2] == ['delete', 'jobset']:
    args = parse(words[2:], 'cascade', switches=['ignore-not-found'], positional=['name'])
    if not applied.exists() and not args.ignore_not_found:
      sys.exit(f'Error from server (NotFound): jobsets "{args.name}" not found')
    applied.unlink(missing_ok=True)
    return
  assert words == ['apply', '--filename=-'], words
  manifest = sys.stdin.read()
  if not applied.exists():
    print('jobset created')
  elif applied.read_text() == manifest:
    print('jobset unchanged')
  else:
    sys.exit('The JobSet is invalid: spec.replicatedJobs: field is immutable')
  applied.write_text(manifest)


def srun(words):
  cpus = f'--cpus-per-task={os.environ["SLURM_CPUS_PER_TASK"]}'
  assert words[:2] == ['--kill-on-bad-exit=0', cpus], words
  codes, step = pop('ends')
  (pathlib.Path('runs/r/checkpoints') / str(step)).mkdir(parents=True, exist_ok=True)
  return codes[0]


def scontrol(words):
  assert words == ['requeue', os.environ['SLURM_JOB_ID']], words


GCLOUD = {
  (*QUEUED, 'create'): create,
  ('alpha', *QUEUED, 'create'): lambda w: create(w, 'provisioning-model', 'max-run-duration'),
  (*QUEUED, 'describe'): describe,
  (*QUEUED, 'delete'): delete,
  (*VM, 'scp'): scp,
  (*VM, 'ssh'): ssh,
  ('storage', 'rsync'): rsync,
  ('storage', 'ls'): ls,
}


def gcloud(words):
  for command, run in GCLOUD.items():
    if tuple(words[: len(command)]) == command:
      if said := failure(command[-1]):
        crashed = said.startswith('gcloud crashed')
        where = '' if crashed else f'(gcloud.{".".join(command)}) '
        print(f'ERROR: {where}{said}', file=sys.stderr)
        return 255 if 'return code [255]' in said else 1
      return run(words[len(command) :])
  sys.exit(f'no such command: {words}')


def python3(words):
  assert words[:2] == ['-m', 'data.build'], words
  parse(words[2:], 'data_dir', optional=['manual_dir'], positional=['name'])


TOOLS = (gcloud, gcsfuse, kubectl, mountpoint, pip3, python3, scontrol, srun, uv)


def install(folder):
  """Writes the tools but uv, which is installed on workers, into a folder for PATH."""
  folder.mkdir(parents=True)
  for tool in TOOLS[:-1]:
    path = folder / tool.__name__
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {tool.__name__} "$@"\n')
    path.chmod(0o755)


if __name__ == '__main__':
  with open(CLOUD / 'calls.jsonl', 'a') as log:
    log.write(json.dumps(sys.argv[1:]) + '\n')
  sys.exit({tool.__name__: tool for tool in TOOLS}[sys.argv[1]](sys.argv[2:]) or 0)
