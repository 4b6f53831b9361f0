#!/usr/bin/env bash
# Installs what the tests of the engines and of the server talk to: Slurm, sshd, PostgreSQL, Prometheus, Chromium.
# On Debian and Ubuntu as root it installs what is missing; elsewhere it says what to install. It starts nothing:
# each test starts its own servers, on free ports, in folders of its own, and stops them.
set -euo pipefail

declare -A NEEDS=(
  [slurmctld]=slurmctld [slurmd]=slurmd [sbatch]=slurm-client [munged]=munge
  [ssh]=openssh-client [sshd]=openssh-server [sudo]=sudo
  [psql]=postgresql [prometheus]=prometheus [chromium]=chromium
)
missing=()
for command in "${!NEEDS[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${NEEDS[$command]}")
done
if ! compgen -G "/usr/lib/*/slurm*/select_cons_tres.so" >/dev/null; then missing+=(slurm-wlm-basic-plugins); fi
if ! compgen -G "/usr/share/fonts/opentype/noto/NotoSansCJK*" >/dev/null; then missing+=(fonts-noto-cjk); fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]} (the first time: a minute) ..."
  export DEBIAN_FRONTEND=noninteractive
  # Installed, not run: a server of the system's own is nobody's business here.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
elif [ "${CI:-}" = true ]; then
  echo "error: the tests need ${missing[*]}, and only root can install them" >&2
  exit 1
else
  echo "note: without ${missing[*]} the tests that need them are skipped" >&2
  echo "hint: apt-get install --no-install-recommends ${missing[*]}" >&2
fi
