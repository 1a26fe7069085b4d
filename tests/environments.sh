#!/usr/bin/env bash
# Runs the fast tests on the oldest and the newest JAX that we support, both on Python 3.13.
# The environments are kept in .venv-floor and .venv-newest; remove .venv-newest to look for a
# newer JAX.
set -euo pipefail
exec </dev/null
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
fast() {
  local folder=$1 start=$SECONDS rc=0
  timeout --foreground 240 .ci/environment "$folder" 3.13 "${@:2}" || rc=$?
  if ((rc == 3)); then
    return # there is no such interpreter here, as the line above says
  fi
  echo "$folder: environment took $((SECONDS - start)) s, exit $rc"
  start=$SECONDS
  if ((rc == 0)); then
    "$folder/bin/python" -c 'import jax, flax; print("jax", jax.__version__, "flax", flax.__version__)'
    timeout --foreground 240 "$folder/bin/python" -m pytest -m fast || rc=$?
  fi
  echo "$folder: fast tests took $((SECONDS - start)) s, exit $rc"
  ((rc == 0)) || failed+=("$folder")
}

fast .venv-floor jax==0.7.2 jaxlib==0.7.2 flax==0.11.2
fast .venv-newest

if ((${#failed[@]})); then
  echo "environments: failed in ${failed[*]}"
  exit 1
fi
