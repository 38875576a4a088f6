#!/usr/bin/env bash
# Requests a TPU slice as a queued resource and waits until it is ACTIVE.
set -euo pipefail

usage() {
  cat <<'TEXT'
launch/tpu/create.sh NAME [options]
  --zone=Z         default us-west4-a
  --type=T         accelerator type; default v5litepod-16
  --runtime=R      runtime version of the VMs; default v2-alpha-tpuv5-lite
  --spot           cheaper; may be preempted at any time
  --valid-for=D    cancel the request if it is not fulfilled after D; default 6h
  --max-run=D      delete the slice after D, up to 7d (flex-start, alpha; not with --spot)
  --wait=SECONDS   time that this script waits for the slice; default 21600
  --poll=SECONDS   time between two checks; default 30
  --dry-run        print the calls only
TEXT
}

name='' zone=us-west4-a type=v5litepod-16 runtime=v2-alpha-tpuv5-lite
valid_for=6h max_run='' spot='' wait=21600 poll=30 dry=''
for word in "$@"; do
  case $word in
    --zone=*) zone=${word#*=} ;;
    --type=*) type=${word#*=} ;;
    --runtime=*) runtime=${word#*=} ;;
    --valid-for=*) valid_for=${word#*=} ;;
    --max-run=*) max_run=${word#*=} ;;
    --wait=*) wait=${word#*=} ;;
    --poll=*) poll=${word#*=} ;;
    --spot) spot=yes ;;
    --dry-run) dry=yes ;;
    --help) usage; exit ;;
    -*) echo "error: unknown option $word; --help lists all" >&2; exit 1 ;;
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
[[ $spot && $max_run ]] && { echo 'error: --spot and --max-run exclude each other' >&2; exit 1; }

call() {
  printf '%q ' "$@"; echo
  [[ $dry ]] || "$@"
}

create=(gcloud)
[[ $max_run ]] && create+=(alpha)  # --max-run-duration exists only there.
create+=(compute tpus queued-resources create "$name" "--node-id=$name" "--zone=$zone")
create+=("--accelerator-type=$type" "--runtime-version=$runtime")
create+=("--valid-until-duration=$valid_for")
[[ $spot ]] && create+=(--spot)
[[ $max_run ]] && create+=(--provisioning-model=flex-start "--max-run-duration=$max_run")
describe=(gcloud compute tpus queued-resources describe "$name" "--zone=$zone")
describe+=('--format=value(state.state)')

call "${create[@]}"
if [[ $dry ]]; then call "${describe[@]}"; exit; fi

deadline=$((SECONDS + wait)) before=''
while true; do
  state=$("${describe[@]}" || echo unknown)  # for example without network for a moment
  [[ $state == "$before" ]] || echo "$name is $state"
  before=$state
  case $state in
    ACTIVE) exit 0 ;;
    FAILED)
      echo "error: $name FAILED: no capacity or quota for $type in $zone, or a wrong --runtime;" \
        "launch/tpu/delete.sh $name --zone=$zone, then create it again or in another zone" >&2
      exit 1 ;;
    SUSPENDING | SUSPENDED)
      echo "error: $name is $state: the slice was preempted or its time is over;" \
        "launch/tpu/delete.sh $name --zone=$zone, then create it again" >&2
      exit 1 ;;
  esac
  if ((SECONDS >= deadline)); then
    echo "error: $name is still $state after $wait s and stays in the queue;" \
      "launch/tpu/delete.sh $name --zone=$zone removes it" >&2
    exit 1
  fi
  sleep "$poll"
done
