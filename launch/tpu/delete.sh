#!/usr/bin/env bash
# Gives a slice back, whatever state it is in: nothing is paid for any more. The bucket stays.
set -euo pipefail

name='' zone=us-west4-a dry=''
for word in "$@"; do
  case $word in
    --zone=*) zone=${word#*=} ;;
    --dry-run) dry=yes ;;
    --help) echo 'launch/tpu/delete.sh NAME [--zone=us-west4-a] [--dry-run]'; exit ;;
    -*) echo "error: no option $word; see --help" >&2; exit 1 ;;
    *) name=$word ;;
  esac
done
[[ $name ]] || { echo 'error: which NAME? See --help' >&2; exit 1; }

call() {
  printf '%q ' "$@"; echo
  [[ $dry ]] || "$@"
}

# --force deletes the VMs with it.
call gcloud compute tpus queued-resources delete "$name" "--zone=$zone" --force --quiet
