#!/usr/bin/env bash
# Installs what the tests need and a fresh Debian machine with Go lacks: programs by
# apt, and in the user's cache Apache Kafka and Keycloak (Maven), moto, the Python and the
# Node clients.
# It may run as often as one likes, prints nothing when there is nothing to do, and
# names what it cannot have.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${TOLLGATE_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tollgate-e2e}
mkdir -p "$cache"

# missing prints the Debian packages whose check fails.
missing() {
  local package check
  while read -r package check; do
    eval "$check" >/dev/null 2>&1 || echo "$package"
  done <<'LIST'
openjdk-17-jdk-headless command -v java && command -v javac
maven command -v mvn
kcat command -v kcat
python3 command -v python3
python3-venv python3 -c 'import venv, ensurepip'
nodejs command -v node
npm command -v npm
haproxy command -v haproxy || test -x /usr/sbin/haproxy
redis-server command -v redis-server
postgresql ls /usr/lib/postgresql/*/bin/initdb || command -v initdb
krb5-kdc test -x /usr/sbin/krb5kdc
krb5-admin-server test -x /usr/sbin/kadmin.local
gcc command -v gcc
libc6-dev test -e /usr/include/stdlib.h
util-linux command -v unshare && command -v flock
LIST
}

install() {
  local want
  mapfile -t want < <(missing) # again, under the lock: another run may have been first
  [ ${#want[@]} -gt 0 ] || return 0
  echo "tools/setup.sh: installing ${want[*]}" >&2
  local apt=(apt-get -qq -y -o Dpkg::Use-Pty=0)
  [ "$(id -u)" = 0 ] || apt=(sudo -n "${apt[@]}")
  export DEBIAN_FRONTEND=noninteractive
  # The package lists may be absent or old; fetching them takes longer than most installs.
  "${apt[@]}" install --no-install-recommends "${want[@]}" >/dev/null 2>&1 || {
    "${apt[@]}" update >&2 || true
    "${apt[@]}" install --no-install-recommends "${want[@]}" >&2 || true
  }
  mapfile -t want < <(missing)
  if [ ${#want[@]} -gt 0 ]; then
    echo "tools/setup.sh: missing, and could not be installed: ${want[*]}" >&2
    return 1
  fi
}

if [ -n "$(missing)" ]; then
  (
    if command -v flock >/dev/null; then flock 9; fi
    install
  ) 9>"$cache/apt.lock"
fi

cd e2e && GOWORK=off go run ./internal/install
