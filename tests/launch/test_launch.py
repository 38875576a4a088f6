"""The scripts of launch/ against tools that stand for the real ones (fake_tools.py)."""

import json
import os
import shutil
import signal
import subprocess

import pytest
import yaml

from tests.support import fake_tools
from tests.support.paths import ROOT
from tests.support.processes import STEPS, assert_ends_as, ends

SCRIPTS = sorted([*ROOT.glob('launch/**/*.sh'), *ROOT.glob('launch/**/*.sbatch')])
RUN = ['launch/tpu/run.sh', 'slice', '--bucket=gs://b', '--run=r', '--poll=0']
TRAIN = ['--', '--config=configs/pretrain.py:test']
# What gcloud says when it fails itself; it exits with 1, when the connection is lost with 255.
PREEMPTED = 'This TPU has terminal state "PREEMPTED", so it cannot be used anymore.'
STOPPING = 'This TPU has state "STOPPING", so it cannot be currently connected to.'
NO_NETWORK = "gcloud crashed (ConnectionError): Failed to resolve 'tpu.googleapis.com'"
LOST = '[/usr/bin/ssh] exited with return code [255].'
NO_LOGIN = 'There was a problem refreshing your current auth tokens: Reauthentication failed.'


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  """The folder of an empty cloud; the tools that stand for the real ones come first on PATH."""
  folder = tmp_path / 'cloud'
  (folder / 'buckets/b').mkdir(parents=True)
  fake_tools.install(tmp_path / 'bin')
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  monkeypatch.setenv('FAKE_CLOUD', str(folder))
  # Tests beside this one send archives of the same name.
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  return folder


def shell(*command, **options):
  """Runs a command to its end."""
  options = {'cwd': ROOT, 'capture_output': True, 'text': True, 'timeout': 60} | options
  return subprocess.run(list(map(str, command)), check=False, **options)


def calls(cloud, tool='gcloud', word=''):
  path = cloud / 'calls.jsonl'
  lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
  return [words for first, *words in lines if first == tool and (not word or word in words)]


def write(cloud, **lists):
  for name, content in lists.items():
    (cloud / f'{name}.json').write_text(json.dumps(content))


def create(cloud, *arguments, states=('ACTIVE',)):
  write(cloud, states=states)
  return shell('launch/tpu/create.sh', 'slice', '--poll=0', *arguments)


def trainings(cloud):
  return sum('pixelbert_jax.main' in ' '.join(words) for words in calls(cloud))


def test_shellcheck_has_nothing_to_say():
  assert len(SCRIPTS) == 6
  done = shell('shellcheck', *SCRIPTS)
  assert done.returncode == 0, done.stdout
  assert all(os.access(path, os.X_OK) for path in SCRIPTS)
  assert all('\nset -euo pipefail\n' in path.read_text() for path in SCRIPTS)


@pytest.mark.parametrize(
  'command',
  [
    ['launch/tpu/create.sh', 'slice', '--spot'],
    ['launch/tpu/create.sh', 'slice', '--max-run=2d', '--valid-for=1h'],
    ['launch/tpu/delete.sh', 'slice'],
    [*RUN, '--dry-run', *TRAIN, "--config.data.name=it's"],
    ['launch/tpu/prepare_data.sh', 'scenes', '--bucket=gs://b', '--data_dir=/a b'],
    ['launch/gke/start.sh', 'r', '--image=i', '--bucket=b', '--dry-run', *TRAIN],
    ['launch/slurm/train.sbatch', '--dry-run', 'r', '--config=c'],
  ],
  ids=lambda command: '-'.join(command[0].split('/')[1:]),
)
def test_a_dry_run_calls_nothing(cloud, command):
  done = shell(*command, *([] if '--dry-run' in command else ['--dry-run']))
  assert done.returncode == 0, done.stderr
  assert not (cloud / 'calls.jsonl').exists()
  tools = {'gcloud', 'git', 'kubectl', 'python3', 'srun', 'scontrol'}
  lines = done.stdout.splitlines()[: 2 if 'gke' in command[0] else None]
  assert all(line.split()[0] in tools for line in lines), done.stdout


def test_the_lines_of_a_dry_run_can_be_pasted(cloud):
  arguments = [*TRAIN, "--config.data.name=it's"]
  shown = shell(*RUN, '--dry-run', *arguments).stdout
  create(cloud)
  write(cloud, ends=[[[0, 0], 1], [[0, 0], 2]])
  made = len(calls(cloud))
  assert shell('bash', '-euc', shown).returncode == 0
  pasted = calls(cloud)[made:]
  assert shell(*RUN, *arguments).returncode == 0
  really = [words for words in calls(cloud)[made + len(pasted) :] if words[:2] != ['storage', 'ls']]
  assert pasted == really
  assert any("it\\'s" in words[-1] for words in pasted)


def test_create_waits_until_the_slice_is_there(cloud):
  done = create(cloud, '--spot', states=['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'])
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[1:] == [
    f'slice is {state}' for state in ('WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE')
  ]
  assert '--spot' in calls(cloud)[0]


def test_create_goes_on_waiting_when_the_network_fails(cloud):
  write(cloud, fails={'describe': [None, NO_NETWORK, NO_NETWORK]})
  done = create(cloud, states=['PROVISIONING', 'ACTIVE'])
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'slice is ACTIVE'


@pytest.mark.parametrize(
  ('states', 'options', 'message'),
  [
    (['PROVISIONING', 'FAILED'], [], 'FAILED: no capacity or quota'),
    (['SUSPENDED'], [], 'is SUSPENDED: the slice was preempted'),
    (['WAITING_FOR_RESOURCES'], ['--wait=1'], 'is still WAITING_FOR_RESOURCES after 1 s'),
    (['ACTIVE'], ['--zome=x'], 'unknown option --zome=x'),
    (['ACTIVE'], ['--spot', '--max-run=1d'], 'exclude each other'),
  ],
)
def test_create_says_why_there_is_no_slice(cloud, states, options, message):
  done = create(cloud, *options, states=states)
  assert done.returncode == 1
  assert message in done.stderr
  assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(
  ('ends', 'options', 'code', 'starts', 'message'),
  [
    # [exit codes of the workers, the newest step then]
    ([[[75, 75], 5], [[134, 255], 8], [[255, 255], 9], [[0, 0], 12]], [], 0, 4, ''),
    ([[[75, 75], 5], [[1, 1], 8]], [], 1, 2, 'ended with an error'),
    ([[[134, 1], 5]], [], 1, 1, 'ended with an error'),
    ([[[75], 5], [[1], 8]], [], 1, 2, 'ended with an error'),
    ([[[134, 134], 5], [[134, 134], 5]], [], 134, 2, 'nothing saved since step 5'),
    ([[[75, 75], n] for n in (1, 2, 3)], ['--restarts=2'], 75, 3, 'after 2 restarts'),
  ],
)
def test_run_restarts_what_may_go_on(cloud, ends, options, code, starts, message):
  create(cloud)
  write(cloud, ends=ends)
  done = shell(*RUN, *options, '--no-setup', *TRAIN)
  assert done.returncode == code, done.stderr
  assert trainings(cloud) == starts
  assert message in done.stderr


def test_run_asks_again_for_a_slice_that_was_taken_back(cloud):
  create(cloud, '--spot', '--type=v6e-16', '--runtime=v2-alpha-tpuv6e')
  write(cloud, ends=[[[255, 255], 5], [[0, 0], 9]], states=['SUSPENDED'])
  done = shell(*RUN, *TRAIN)
  assert done.returncode == 0, done.stderr
  first, second = calls(cloud, word='create')
  assert {*first} == {*second}
  assert any('v6e-16' in word for word in second)


@pytest.mark.parametrize(
  ('ssh', 'describe', 'ends', 'options', 'slices'),
  [
    # What gcloud says to ssh (null: nothing) and to describe; the runs of the training; how many
    # slices were asked for in all.
    ([None, PREEMPTED], [], [[[75, 75], 5], [[0, 0], 9]], ['--no-setup'], 2),
    ([None, None, PREEMPTED], [], [[[75, 75], 5], [[0, 0], 9]], [], 2),
    # While it is set up.
    ([PREEMPTED], [], [[[0, 0], 9]], [], 2),
    ([None, None, PREEMPTED, LOST], [], [[[75], 5], [[0], 9]], [], 2),
    # It cannot be asked for at first.
    ([None, PREEMPTED, PREEMPTED], [None, None, NO_NETWORK], [[[75], 5], [[0], 9]], [], 2),
    ([None, STOPPING], [], [[[75, 75], 5], [[0, 0], 9]], ['--no-setup'], 1),
    # One failure of gcloud's own is no failure of the training, after which nothing was saved.
    ([None, NO_NETWORK], [None, NO_NETWORK], [[[75], 5], [[75], 8], [[0], 9]], ['--no-setup'], 1),
    ([*[NO_NETWORK] * 4, None, NO_NETWORK], [], [[[75], 0], [[0], 9]], ['--no-setup'], 1),
  ],
)
def test_run_goes_on_when_gcloud_itself_failed(cloud, ssh, describe, ends, options, slices):
  create(cloud, '--spot')
  write(cloud, ends=ends, fails={'ssh': ssh, 'describe': describe})
  done = shell(*RUN, *options, *TRAIN)
  assert done.returncode == 0, done.stderr
  assert json.loads((cloud / 'ends.json').read_text()) == []
  made = calls(cloud, word='create')
  assert len(made) == slices
  assert all('--spot' in words for words in made)
  assert len(calls(cloud, word='scp')) >= slices - ('--no-setup' in options)


@pytest.mark.parametrize(('fails', 'code'), [(1, 0), (5, 1)])
def test_a_slice_that_cannot_be_created_at_once_is_asked_for_again(cloud, fails, code):
  create(cloud, '--spot')
  write(cloud, ends=[[[255, 255], 5], [[0, 0], 9]], states=['SUSPENDED'])
  write(cloud, fails={'create': [NO_NETWORK] * fails})
  done = shell(*RUN, *TRAIN)
  assert done.returncode == code, done.stderr
  if code:
    assert done.stderr.splitlines()[-1].startswith('error: slice is deleted and could not be')
    assert '--type=v5litepod-16' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
  ('ssh', 'ends', 'options', 'code', 'starts', 'last'),
  [
    ([NO_LOGIN] * 9, [], [], 1, 5, f'5 times in a row; the last: ERROR: (gcloud.*) {NO_LOGIN}'),
    ([None, *[NO_NETWORK] * 9], [[[75], 5]], [], 1, 6, 'times in a row; the last: ERROR: gcloud'),
    ([NO_NETWORK] * 9, [], ['--restarts=2'], 1, 3, 'exit code 1 after 2 restarts'),
    # Nothing was saved between two runs of the training, whatever was between them.
    ([None, STOPPING], [[[75], 5], [[134], 5]], [], 134, 3, '134 again and nothing saved since'),
  ],
)
def test_run_does_not_try_for_ever(cloud, ssh, ends, options, code, starts, last):
  create(cloud)
  write(cloud, ends=ends, fails={'ssh': ssh})
  done = shell(*RUN, *options, '--no-setup', *TRAIN)
  assert done.returncode == code, done.stderr
  assert trainings(cloud) == starts
  line = done.stderr.splitlines()[-1].replace('compute.tpus.tpu-vm.ssh', '*')
  assert line.startswith('error: ')
  assert last in line


def test_run_ends_at_once_when_a_worker_cannot_be_set_up(cloud, tmp_path):
  create(cloud)
  (tmp_path / 'bin/gcsfuse').unlink()
  done = shell(*RUN, *TRAIN)
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1].startswith('error: a worker ended with an error')
  assert len(calls(cloud, word='ssh')) == 1


@pytest.mark.parametrize(
  ('saved', 'said', 'code', 'starts'),
  [((5, 8, 9), [None, None, NO_NETWORK], 0, 4), ((5, 5, 5), [None, NO_NETWORK], 75, 3)],
)
def test_a_bucket_that_does_not_answer_is_no_empty_one(cloud, saved, said, code, starts):
  create(cloud)
  write(cloud, ends=[*([[75, 75], step] for step in saved), [[0, 0], 12]])
  write(cloud, fails={'ls': said})
  done = shell(*RUN, '--no-setup', *TRAIN)
  assert done.returncode == code, done.stderr
  assert trainings(cloud) == starts


def replace_python(cloud, command):
  """Makes Python on each worker a shell command."""
  for worker in range(fake_tools.WORKERS):
    python = cloud / f'workers/{worker}/pixelbert/.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n{command}\n')
    python.chmod(0o755)


def test_the_name_of_a_run_may_have_a_space(cloud):
  create(cloud)
  replace_python(cloud, r'printf "%s\n" "$@" > ~/arguments')
  done = shell(*RUN, '--run=my run', '--no-setup', *TRAIN, '--config.data.name=a b')
  assert done.returncode == 0, done.stderr
  arguments = (cloud / 'workers/0/arguments').read_text().splitlines()[3:]
  workdir = f'--workdir={cloud}/workers/0/bucket/runs/my run'
  assert arguments == [workdir, TRAIN[1], '--config.data.name=a b']


def test_the_workers_of_a_slice_share_compiled_programs_in_the_bucket(cloud, monkeypatch):
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  create(cloud)
  replace_python(cloud, 'echo "$JAX_COMPILATION_CACHE_DIR" > ~/programs')
  assert shell(*RUN, '--no-setup', *TRAIN).returncode == 0
  for worker in range(fake_tools.WORKERS):
    home = cloud / f'workers/{worker}'
    assert (home / 'programs').read_text() == f'{home}/bucket/compilation_cache\n'


def test_a_bucket_may_be_given_with_a_slash(cloud):
  create(cloud)
  write(cloud, ends=[[[75, 75], 5], [[0, 0], 8]])
  done = shell(*RUN, '--bucket=gs://b/', *TRAIN)
  assert done.returncode == 0, done.stderr


def test_data_is_built_and_copied_to_the_bucket(cloud, tmp_path):
  (tmp_path / 'a b/scenes').mkdir(parents=True)
  (tmp_path / 'a b/scenes/x').write_text('y')
  script = 'launch/tpu/prepare_data.sh'
  done = shell(script, 'scenes', '--bucket=gs://b', f'--data_dir={tmp_path / "a b"}')
  assert done.returncode == 0, done.stderr
  assert (cloud / 'buckets/b/data/scenes/x').read_text() == 'y'


def test_data_folders_are_meant_from_where_the_user_stands(cloud, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  (tmp_path / 'sets/scenes').mkdir(parents=True)
  done = shell(
    ROOT / 'launch/tpu/prepare_data.sh',
    *('scenes', '--bucket=gs://b/', '--data_dir=sets', '--manual_dir=~/corpora'),
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  assert (cloud / 'buckets/b/data/scenes').is_dir()
  (built,) = calls(cloud, 'python3')
  assert built[3:] == [f'--data_dir={tmp_path}/sets', f'--manual_dir={tmp_path}/home/corpora']


def test_the_jobset_is_what_gke_expects(cloud):
  done = shell(
    *(
      'launch/gke/start.sh',
      'r',
      '--image=i:1',
      '--bucket=gs://b/',
      '--hosts=2',
      '--',
      '--config=c',
    ),
    "--config.data.name=it's",
  )
  assert done.returncode == 0, done.stderr
  jobset = yaml.safe_load((cloud / 'applied.yaml').read_text())
  assert (jobset['apiVersion'], jobset['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  (replicated,) = jobset['spec']['replicatedJobs']
  job = replicated['template']['spec']
  assert (job['parallelism'], job['completions'], job['backoffLimit']) == (2, 2, 0)
  assert job['podFailurePolicy']['rules'][0]['onExitCodes']['values'] == [1]
  (container,) = job['template']['spec']['containers']
  assert container['command'][-1] == '--distributed'
  assert container['args'] == ['--workdir=/bucket/runs/r', '--config=c', "--config.data.name=it's"]
  assert {
    'name': 'JAX_COMPILATION_CACHE_DIR',
    'value': '/bucket/compilation_cache',
  } in container['env']
  assert container['resources']['requests'] == container['resources']['limits']
  (volume,) = job['template']['spec']['volumes']
  assert volume['csi']['volumeAttributes']['bucketName'] == 'b'
  assert '${' not in json.dumps(jobset)


@pytest.mark.parametrize('image', ['i:1', 'i:2'])
def test_the_same_command_goes_on_with_a_run_on_gke(cloud, image):
  command = ['launch/gke/start.sh', 'r', '--bucket=b', *TRAIN]
  for shown in ('i:1', image):
    done = shell(*command[:2], f'--image={shown}', *command[2:])
    assert done.returncode == 0, done.stderr
    assert 'jobset created' in done.stdout
  assert f"image: '{image}'" in (cloud / 'applied.yaml').read_text()


GKE = ['launch/gke/start.sh', '--image=i', '--bucket=b', *TRAIN]
LONG = 'r' * 48  # one more than the names of pods leave


@pytest.mark.parametrize(
  ('command', 'said'),
  [
    *([[GKE[0], run, *GKE[1:]], f'RUN {run} must be'] for run in ('20261128', 'My_Run', 'a b')),
    *([[GKE[0], run, *GKE[1:]], f'RUN {run} must be'] for run in ('r-', 'a.b', 'ä', LONG)),
    ([*GKE[:1], 'r', '--hosts=two', *GKE[1:]], '--hosts two must be'),
    ([*GKE[:1], 'r', '--topology=4', *GKE[1:]], '--topology 4 must be'),
    ([*GKE[:1], 'r', '--account=a: b', *GKE[1:]], '--account a: b must be'),
    (['launch/tpu/create.sh', 'My_Slice'], 'NAME My_Slice must be'),
    (['launch/tpu/delete.sh', '1st'], 'NAME 1st must be'),
    ([RUN[0], 'a b', *RUN[2:], *TRAIN], 'NAME a b must be'),
    ([*RUN, '--run=../r', *TRAIN], '--run=../r must be'),
    ([*RUN, '--run=r*', *TRAIN], '--run=r* must be'),
    ([*RUN, '--bucket=gs://b/runs', *TRAIN], '--bucket=gs://b/runs must be'),
    (['launch/slurm/train.sbatch', '--config=c', '--config.seed=1'], 'RUN --config=c must be'),
    (['launch/slurm/train.sbatch', '/r', '--config=c'], 'RUN /r must be'),
  ],
)
def test_a_name_that_would_be_refused_is_so_before_anything_is_called(cloud, command, said):
  done = shell(*command)
  assert done.returncode == 1
  assert done.stderr.startswith(f'error: {said}')
  assert done.stderr.count('\n') == 1
  assert not (cloud / 'calls.jsonl').exists()


def test_a_name_that_yaml_takes_for_no_text_stays_one(cloud):
  assert shell(GKE[0], 'no', *GKE[1:]).returncode == 0
  jobset = yaml.safe_load((cloud / 'applied.yaml').read_text())
  assert jobset['metadata']['name'] == 'no'
  assert shell(GKE[0], LONG[:-1], *GKE[1:]).returncode == 0


@pytest.mark.parametrize(
  ('code', 'step', 'requeued'), [(0, 9, 0), (75, 9, 1), (75, 5, 0), (1, 9, 0), (134, 9, 1)]
)
def test_slurm_requeues_what_may_go_on(cloud, tmp_path, code, step, requeued):
  (tmp_path / 'runs/r/checkpoints/5').mkdir(parents=True)
  write(cloud, ends=[[[code], step]])
  variables = os.environ | {'SLURM_JOB_ID': '7', 'SLURM_SUBMIT_DIR': str(tmp_path)}
  variables |= {'SLURM_CPUS_PER_TASK': '6'}  # of sbatch --cpus-per-task=6
  done = shell(ROOT / 'launch/slurm/train.sbatch', 'r', '--config=c', env=variables)
  assert done.returncode == (0 if requeued else code), done.stderr
  assert len(calls(cloud, 'scontrol')) == requeued


def wait_for(process, word):
  seen = []
  for line in process.stdout:
    seen.append(line)
    if line.startswith(word):
      return
  raise AssertionError(''.join(seen))


@pytest.mark.slow
def test_a_run_through_a_preemption_and_a_lost_worker_is_an_undisturbed_one(
  cloud, start_pair, environment, tmp_path
):
  arguments = [f'--config.epochs={STEPS / 100}']
  codes, outputs = ends(start_pair(tmp_path / 'through'))
  assert codes == [0, 0], outputs

  data = environment['TFDS_DATA_DIR']
  shutil.copytree(data, cloud / 'buckets/b/data')
  variables = environment | {k: os.environ[k] for k in ('PATH', 'FAKE_CLOUD')}
  variables |= {'PIXELBERT_HEARTBEAT_SECONDS': '10'}
  assert create(cloud, '--spot').returncode == 0
  process = subprocess.Popen(
    [*RUN, *TRAIN, *arguments],
    cwd=ROOT,
    env=variables,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    wait_for(process, 'step 3/')
    os.kill(int((cloud / 'pid.1').read_text()), signal.SIGTERM)
    wait_for(process, 'exit code 75, the slice is ACTIVE')
    wait_for(process, 'step 19/')
    write(cloud, states=['SUSPENDED'])
    os.kill(int((cloud / 'pid.1').read_text()), signal.SIGKILL)
    wait_for(process, 'exit code 134, the slice is SUSPENDED')
    wait_for(process, 'resuming')
    rest, _ = process.communicate(timeout=200)
    assert process.returncode == 0, rest
  finally:
    process.kill()
    process.communicate()
  assert trainings(cloud) == 3
  assert shell('launch/tpu/delete.sh', 'slice').returncode == 0
  assert not (cloud / 'resource.json').exists()

  assert_ends_as(cloud / 'buckets/b/runs/r', tmp_path / 'through')
