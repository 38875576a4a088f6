#!/usr/bin/env bash
# Trains on all workers of a slice until training is done; restarts after preemptions and losses.
set -euo pipefail

usage() {
  cat <<'TEXT'
launch/tpu/run.sh NAME --bucket=gs://B --run=R [options] -- --config=configs/pretrain.py:r50 ...
  --zone=Z         default us-west4-a
  --restarts=N     maximum number of restarts; default 100
  --poll=SECONDS   time between a failure and the next attempt; default 30
  --no-setup       use the checkout, environment and data that the workers have
  --dry-run        print the calls only
Arguments after -- go to pixelbert_jax.main; the checkpoint gs://B/C to start from is ~/bucket/C on
the workers: --config.init_from='~/bucket/C'. The workdir is gs://B/runs/R; the same R resumes the
run. Datasets are read from gs://B/data (prepare_data.sh); compiled programs are kept in
gs://B/compilation_cache.
TEXT
}

name='' zone=us-west4-a bucket='' run='' restarts=100 poll=30 setup=yes dry=''
while (($#)); do
  case $1 in
    --zone=*) zone=${1#*=} ;;
    --bucket=*) bucket=${1#*=} bucket=${bucket%/} ;;
    --run=*) run=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
    --no-setup) setup='' ;;
    --dry-run) dry=yes ;;
    --help) usage; exit ;;
    --) shift; break ;;
    -*) echo "error: unknown option $1; --help lists all" >&2; exit 1 ;;
    *) name=$1 ;;
  esac
  shift
done
[[ $name && $run && $bucket == gs://* && $# -gt 0 ]] || { usage >&2; exit 1; }
LC_ALL=C  # for the ranges of letters
[[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || {
  echo "error: NAME $name must be lower-case letters, digits and hyphens, a letter first," \
    'at most 63 characters' >&2
  exit 1
}
[[ $bucket =~ ^gs://[a-z0-9][a-z0-9._-]*$ ]] || {
  echo "error: --bucket=$bucket must be gs:// and the name of a bucket, without a folder" >&2
  exit 1
}
# It is a folder; gcloud takes other characters for patterns.
[[ $run =~ ^[A-Za-z0-9_][A-Za-z0-9\ _.+=@,/-]*$ && ! $run =~ (^|/)\.{0,2}(/|$) ]] || {
  echo "error: --run=$run must be letters, digits, blanks and any of _.+=@,/-" >&2
  exit 1
}
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
archive=${TMPDIR:-/tmp}/pixelbert-$name.tar.gz

call() {
  printf '%q ' "$@"; echo
  [[ $dry ]] || "$@"
}

on_all() {
  call gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all "--command=$1"
}

# Sets up each worker: the checkout, Python (the VM's may be too old), the bucket, the data.
# Any failure exits with 1, which is not retried.
prepare="trap 'exit 1' ERR
mkdir -p ~/pixelbert ~/bucket ~/data
tar -xzf ~/pixelbert.tar.gz -C ~/pixelbert
cd ~/pixelbert
pip3 install --quiet --user uv
test -d .venv || ~/.local/bin/uv venv --quiet --python 3.12
~/.local/bin/uv pip install --quiet -e '.[tpu]'
mountpoint -q ~/bucket || gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 ${bucket#gs://} ~/bucket
test ! -d ~/bucket/data || gcloud storage rsync --recursive $bucket/data ~/data"

# A lost connection may have left a process running, and a chip serves one process only.
train="cd ~/pixelbert
if old=\$(cat ~/train.pid 2>/dev/null) && kill \$old 2>/dev/null; then
  for _ in \$(seq 60); do kill -0 \$old 2>/dev/null || break; sleep 1; done
  kill -9 \$old 2>/dev/null || true
fi
echo \$\$ > ~/train.pid
export TFDS_DATA_DIR=~/data
# In the bucket: the first worker writes it, all read it, and it outlives the slice.
export JAX_COMPILATION_CACHE_DIR=\${JAX_COMPILATION_CACHE_DIR:-\$HOME/bucket/compilation_cache}
exec .venv/bin/python -m pixelbert_jax.main --distributed \\
  --workdir=\$HOME/bucket/runs/$(printf '%q ' "$run" "$@")"

prepare_workers() {
  git -C "$here/../.." diff --quiet HEAD || echo 'note: uncommitted changes are not copied' >&2
  call git -C "$here/../.." archive --format=tar.gz "--output=$archive" HEAD || exit
  call gcloud compute tpus tpu-vm scp "$archive" "$name:pixelbert.tar.gz" \
    "--zone=$zone" --worker=all && on_all "$prepare"
}

start() {
  if [[ $setup ]]; then prepare_workers || return; fi
  setup=''
  on_all "$train"
}

describe() {
  gcloud compute tpus queued-resources describe "$name" "--zone=$zone" "--format=$1"
}

# Deletes a slice that was taken back, and requests the same again.
recreate() {
  local type runtime all spot=''
  type=$(describe 'value(tpu.nodeSpec[0].node.acceleratorType)') &&
    runtime=$(describe 'value(tpu.nodeSpec[0].node.runtimeVersion)') &&
    all=$(describe json) &&
    "$here/delete.sh" "$name" "--zone=$zone" || return 0  # retried at the next restart
  # `spot` is an empty message: `value(...)` could not tell it from a missing one.
  if [[ $all == *'"spot"'* ]]; then spot=--spot; fi
  setup=yes
  for ((attempt = 1; attempt <= 5; attempt++)); do
    "$here/create.sh" "$name" "--zone=$zone" "--type=$type" "--runtime=$runtime" "--poll=$poll" \
      $spot && return
    sleep "$poll"
  done
  echo "error: $name is deleted and could not be created again: create it with --type=$type" \
    "--runtime=$runtime $spot, then run the same command" >&2
  exit 1
}

# Prints the newest saved step, 0 if none is saved; fails if the bucket does not answer.
newest_step() {
  local listed
  listed=$(gcloud storage ls "$bucket/runs/$run/checkpoints/" 2>&1) ||
    [[ $listed == *'matched no objects'* ]] || return
  { echo 0; sed -n 's|.*/checkpoints/\([0-9]*\)/$|\1|p' <<<"$listed"; } | sort -n | tail -n 1
}

if [[ $dry ]]; then start; exit; fi

# Newest step at the previous failure; number of consecutive failures to start training.
before=-1 unstarted=0
for ((restart = 0; ; restart++)); do
  code=0
  start 2> >(tee "$scratch/errors" >&2) || code=$?
  ((code == 0)) && exit 0
  wait "$!" 2>/dev/null || true  # until tee has written all
  # gcloud returns the exit code of the first worker that failed, and prints those of all if there
  # are several. It also returns 1 when it fails itself before reaching a worker.
  own=$(grep -E -m 1 '^ERROR: (\(gcloud\.|gcloud crashed)' "$scratch/errors" || true)
  if [[ $code == 1 && ! $own ]] || grep -q 'failed with exit status 1\.' "$scratch/errors"; then
    echo 'error: a worker ended with an error, see above: fix it and run again' >&2
    exit 1
  fi
  if [[ $setup || $code == 1 ]]; then
    progress='training was not started'
    if ((++unstarted == 5)); then
      echo "error: $progress, 5 times in a row; the last: ${own:-exit code $code}" >&2
      exit "$code"
    fi
  else
    progress='the bucket does not answer' unstarted=0
    if after=$(newest_step); then
      if ((after <= before)); then
        echo "error: exit code $code again and nothing saved since step $before: not restarted" >&2
        exit "$code"
      fi
      progress="step $after is saved" before=$after
    fi
  fi
  if ((restart >= restarts)); then
    echo "error: exit code $code after $restarts restarts; run again to resume" >&2
    exit "$code"
  fi
  sleep "$poll"
  state=$(describe 'value(state.state)' || echo unknown)
  echo "exit code $code, the slice is $state, $progress: restart $((restart + 1))"
  # The slice itself may be gone while the request for it is still ACTIVE.
  case "$state $own" in
    SUSPENDING* | SUSPENDED* | FAILED* | *'terminal state'*) recreate ;;
  esac
done
