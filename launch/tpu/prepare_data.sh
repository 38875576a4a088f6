#!/usr/bin/env bash
# Builds datasets on this machine, which needs room on its disk, and copies them to a bucket.
set -euo pipefail

bucket='' data_dir=${TFDS_DATA_DIR:-$HOME/tensorflow_datasets} manual_dir='' dry='' names=()
for word in "$@"; do
  case $word in
    --bucket=*) bucket=${word#*=} bucket=${bucket%/} ;;
    --data_dir=*) data_dir=${word#*=} ;;
    --manual_dir=*) manual_dir=${word#*=} ;;
    --dry-run) dry=yes ;;
    --help)
      echo 'launch/tpu/prepare_data.sh DATASET... --bucket=gs://B [--data_dir=D] [--manual_dir=M]' \
        '[--dry-run]'
      exit ;;
    -*) echo "error: unknown option $word; see --help" >&2; exit 1 ;;
    *) names+=("$word") ;;
  esac
done
((${#names[@]})) || { echo 'error: DATASET is missing; see --help' >&2; exit 1; }
[[ $bucket == gs://* ]] || { echo 'error: --bucket=gs://... is missing' >&2; exit 1; }

call() {
  printf '%q ' "$@"; echo
  [[ $dry ]] || "$@"
}

# Makes a path absolute, relative to the user's current folder.
absolute() {
  case $1 in
    '' | /*) echo "$1" ;;
    \~/*) echo "$HOME/${1#\~/}" ;;
    *) echo "$PWD/$1" ;;
  esac
}

data_dir=$(absolute "$data_dir") manual_dir=$(absolute "$manual_dir")
cd "$(dirname "$0")/../.."
call python3 -m data.build "${names[@]}" "--data_dir=$data_dir" \
  ${manual_dir:+"--manual_dir=$manual_dir"}
for name in "${names[@]}"; do
  call gcloud storage rsync --recursive "$data_dir/$name" "$bucket/data/$name"
done
