#!/usr/bin/env bash
# Trains on every worker of a slice until it is done, through preemptions and lost machines.
set -euo pipefail

usage() {
  cat <<'TEXT'
launch/tpu/run.sh NAME --bucket=gs://B --run=R [options] -- --config=configs/pretrain.py:r50 ...
  --zone=Z         default us-west4-a
  --restarts=N     at most; default 100
  --poll=SECONDS   between a failure and the next try; default 30
  --no-setup       the checkout, environment and data are there already
  --dry-run        print the calls, run none
What follows -- goes to pixelbert_jax.main. The workdir is gs://B/runs/R: the same R goes on with
the same run. Datasets are taken from gs://B/data (prepare_data.sh).
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
    -*) echo "error: no option $1; --help lists them" >&2; exit 1 ;;
    *) name=$1 ;;
  esac
  shift
done
[[ $name && $run && $bucket == gs://* && $# -gt 0 ]] || { usage >&2; exit 1; }
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

# On each worker: the checkout, Python (the VM's own may be too old), the bucket, the data.
# Whatever fails there is an error, which is not tried again.
prepare="trap 'exit 1' ERR
mkdir -p ~/pixelbert ~/bucket ~/data
tar -xzf ~/pixelbert.tar.gz -C ~/pixelbert
cd ~/pixelbert
pip3 install --quiet --user uv
test -d .venv || ~/.local/bin/uv venv --quiet --python 3.12
~/.local/bin/uv pip install --quiet -e '.[tpu]'
mountpoint -q ~/bucket || gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 ${bucket#gs://} ~/bucket
test ! -d ~/bucket/data || gcloud storage rsync --recursive $bucket/data ~/data"

# A lost connection may have left a process behind, and a chip serves one at a time.
train="cd ~/pixelbert
if old=\$(cat ~/train.pid 2>/dev/null) && kill \$old 2>/dev/null; then
  for _ in \$(seq 60); do kill -0 \$old 2>/dev/null || break; sleep 1; done
  kill -9 \$old 2>/dev/null || true
fi
echo \$\$ > ~/train.pid
export TFDS_DATA_DIR=~/data
exec .venv/bin/python -m pixelbert_jax.main --distributed \\
  --workdir=\$HOME/bucket/runs/$(printf '%q ' "$run" "$@")"

prepare_workers() {
  git -C "$here/../.." diff --quiet HEAD || echo 'note: uncommitted changes do not travel' >&2
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

# A slice that was taken back is asked for again, as it was.
recreate() {
  local type runtime all spot=''
  type=$(describe 'value(tpu.nodeSpec[0].node.acceleratorType)') &&
    runtime=$(describe 'value(tpu.nodeSpec[0].node.runtimeVersion)') &&
    all=$(describe json) &&
    "$here/delete.sh" "$name" "--zone=$zone" || return 0  # tried again at the next restart
  # An empty message: as a value it would show as nothing, like a missing one.
  if [[ $all == *'"spot"'* ]]; then spot=--spot; fi
  setup=yes
  for ((attempt = 1; attempt <= 5; attempt++)); do
    "$here/create.sh" "$name" "--zone=$zone" "--type=$type" "--runtime=$runtime" "--poll=$poll" \
      $spot && return
    sleep "$poll"
  done
  echo "error: $name is deleted and could not be created again: create it, with --type=$type" \
    "--runtime=$runtime $spot, and give the same command" >&2
  exit 1
}

# 0 if there is none; fails if the bucket does not answer.
newest_step() {
  local listed
  listed=$(gcloud storage ls "$bucket/runs/$run/checkpoints/" 2>&1) ||
    [[ $listed == *'matched no objects'* ]] || return
  { echo 0; sed -n 's|.*/checkpoints/\([0-9]*\)/$|\1|p' <<<"$listed"; } | sort -n | tail -n 1
}

if [[ $dry ]]; then start; exit; fi

# The newest step at the failure before; how often in a row training was not even started.
before=-1 unstarted=0
for ((restart = 0; ; restart++)); do
  code=0
  start 2> >(tee "$scratch/errors" >&2) || code=$?
  ((code == 0)) && exit 0
  wait "$!" 2>/dev/null || true  # for tee
  # gcloud returns the code of the first worker that failed, and names those of all if there are
  # several. When it fails itself, before it reaches any, it returns 1 too.
  own=$(grep -E -m 1 '^ERROR: (\(gcloud\.|gcloud crashed)' "$scratch/errors" || true)
  if [[ $code == 1 && ! $own ]] || grep -q 'failed with exit status 1\.' "$scratch/errors"; then
    echo 'error: a worker ended with an error, see above: mend it and run again' >&2
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
    echo "error: exit code $code after $restarts restarts; run again to go on" >&2
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
