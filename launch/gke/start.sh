#!/usr/bin/env bash
# Starts or resumes a run on a TPU slice of GKE: fills in jobset.yaml and applies it.
set -euo pipefail

usage() {
  cat <<'TEXT'
launch/gke/start.sh RUN --image=I --bucket=B [options] -- --config=configs/pretrain.py:r50 ...
  RUN is the name of a JobSet: lower-case letters, digits and hyphens, a letter first
  --accelerator=A  default tpu-v5-lite-podslice
  --topology=T     default 4x4
  --hosts=N        number of hosts of the slice; default 4
  --chips=N        chips per host; default 4
  --account=A      Kubernetes service account with access to the bucket; default `default`
  --dry-run        print the calls and the manifest only
The image must contain the checkout in /pixelbert, installed by `pip install -e '.[tpu]'`. The
checkpoint gs://B/C to start from is /bucket/C there: --config.init_from=/bucket/C.
TEXT
}

RUN='' IMAGE='' BUCKET='' ACCELERATOR=tpu-v5-lite-podslice TOPOLOGY=4x4 HOSTS=4 CHIPS=4
ACCOUNT=default dry=''
# shellcheck disable=SC2034  # The variables are read by name below.
while (($#)); do
  case $1 in
    --image=*) IMAGE=${1#*=} ;;
    --bucket=*) BUCKET=${1#*=} ;;
    --accelerator=*) ACCELERATOR=${1#*=} ;;
    --topology=*) TOPOLOGY=${1#*=} ;;
    --hosts=*) HOSTS=${1#*=} ;;
    --chips=*) CHIPS=${1#*=} ;;
    --account=*) ACCOUNT=${1#*=} ;;
    --dry-run) dry=yes ;;
    --help) usage; exit ;;
    --) shift; break ;;
    -*) echo "error: unknown option $1; --help lists all" >&2; exit 1 ;;
    *) RUN=$1 ;;
  esac
  shift
done
[[ $RUN && $IMAGE && $BUCKET && $# -gt 0 ]] || { usage >&2; exit 1; }
BUCKET=${BUCKET#gs://} BUCKET=${BUCKET%/}

# Exits unless a value matches a pattern; the API server would refuse it, or YAML mistake it.
check() {
  local LC_ALL=C
  [[ $2 =~ ^($3)$ ]] || { echo "error: $1 $2 must be $4" >&2; exit 1; }
}

check --hosts "$HOSTS" '[1-9][0-9]{0,4}' 'a whole number of at least 1'
check --chips "$CHIPS" '[1-9][0-9]{0,4}' 'a whole number of at least 1'
# The names of pods, as first-slice-0-3-x8k2p, are of at most 63 characters.
longest=$((63 - 16 - ${#HOSTS} + 1))
check RUN "$RUN" "[a-z]([-a-z0-9]{0,$((longest - 2))}[a-z0-9])?" \
  "lower-case letters, digits and hyphens, a letter first, $longest characters at most"
check --image "$IMAGE" '[A-Za-z0-9][A-Za-z0-9._:/@-]*' 'the name of an image, as HOST/NAME:TAG'
check --bucket "$BUCKET" '[a-z0-9][a-z0-9._-]*' 'the name of a bucket'
check --accelerator "$ACCELERATOR" '[a-z0-9-]+' 'as tpu-v5-lite-podslice'
check --topology "$TOPOLOGY" '[1-9][0-9]*(x[1-9][0-9]*){1,2}' 'as 4x4'
check --account "$ACCOUNT" '[a-z0-9][-.a-z0-9]*' 'the name of a service account'

ARGUMENTS=''
for word in "$@"; do
  ARGUMENTS+="${ARGUMENTS:+, }'${word//\'/\'\'}'"  # quoted for YAML
done
manifest=$(<"$(dirname "$0")/jobset.yaml")
for name in RUN IMAGE BUCKET ACCELERATOR TOPOLOGY HOSTS CHIPS ACCOUNT ARGUMENTS; do
  manifest=${manifest//"\${$name}"/"${!name}"}
done

# A JobSet cannot be changed, and applying an existing one again has no effect, so it is deleted.
# `foreground` waits until its pods have saved and ended: old and new ones share the workdir.
delete=(kubectl delete jobset "$RUN" --ignore-not-found --cascade=foreground)
apply=(kubectl apply --filename=-)
printf '%q ' "${delete[@]}"; echo
[[ $dry ]] || "${delete[@]}"
printf '%q ' "${apply[@]}"; echo
if [[ $dry ]]; then printf '%s\n' "$manifest"; else "${apply[@]}" <<<"$manifest"; fi
