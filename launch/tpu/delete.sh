#!/usr/bin/env bash
# Deletes a slice in any state, which ends its costs. The bucket stays.
set -euo pipefail

name='' zone=us-west4-a dry=''
for word in "$@"; do
  case $word in
    --zone=*) zone=${word#*=} ;;
    --dry-run) dry=yes ;;
    --help) echo 'launch/tpu/delete.sh NAME [--zone=us-west4-a] [--dry-run]'; exit ;;
    -*) echo "error: unknown option $word; see --help" >&2; exit 1 ;;
    *) name=$word ;;
  esac
done
[[ $name ]] || { echo 'error: NAME is missing; see --help' >&2; exit 1; }
LC_ALL=C  # for the ranges of letters
[[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || {
  echo "error: NAME $name must be lower-case letters, digits and hyphens, a letter first," \
    'at most 63 characters' >&2
  exit 1
}

call() {
  printf '%q ' "$@"; echo
  [[ $dry ]] || "$@"
}

# --force also deletes the VMs.
call gcloud compute tpus queued-resources delete "$name" "--zone=$zone" --force --quiet
