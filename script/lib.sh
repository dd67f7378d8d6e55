# Shared by the scripts: where everything is, and the database cluster.
# shellcheck shell=bash
set -euo pipefail

root=$(realpath "${BASH_SOURCE[0]%/*}/..")
cache=${XDG_CACHE_HOME:-~/.cache}/ir_async
mkdir -p "$cache"
cache=$(realpath "$cache")
key=$(printf '%s\n' "$root" "$cache" "$UID" | sha256sum | cut -c-10)

state=$cache/$key  # of this checkout: the addons link, odoo.conf, the filestore
venv=$cache/venv
sockets=/tmp/ir_async-$key  # short: the path of a socket has at most 107 bytes
PATH=$venv/bin:$PATH:/usr/sbin

if [[ ${ODOO_SOURCE:-} ]]; then
    odoo_path=$(realpath "$ODOO_SOURCE") odoo_bin=$odoo_path/odoo-bin
    core_addons=$odoo_path/addons
else
    odoo_path=$cache/odoo/usr/lib/python3/dist-packages odoo_bin=$cache/odoo/usr/bin/odoo
    core_addons=$odoo_path/odoo/addons
fi

say() { printf '\e[1mir_async:\e[0m %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

pg_bin=$(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV | while read -r bin; do
    [[ ! -x $bin/initdb ]] || { echo "$bin"; break; }
done)
if [[ ! $pg_bin ]] && command -v initdb >/dev/null; then
    pg_bin=$(dirname "$(realpath "$(command -v initdb)")")
fi

# PostgreSQL refuses to run as root, and user postgres does not get into root's home.
if (( UID )); then
    cluster=$state/pg
    as_pg() { (cd / && "$@"); }
else
    cluster=$(getent passwd postgres | cut -d: -f6 || true)/ir_async-$key
    as_pg() { (cd / && setpriv --reuid postgres --regid postgres --init-groups "$@"); }
fi
[[ ! $pg_bin ]] || cluster+=-$("$pg_bin/postgres" --version | grep -oE '[0-9]+' | head -1)

cluster_running() { as_pg "$pg_bin/pg_ctl" -D "$cluster" status >/dev/null; }

cluster_start() {
    {
        flock 8
        if ! cluster_running || [[ ! -S $sockets/.s.PGSQL.5432 ]]; then
            [[ -d $sockets ]] || as_pg mkdir -m 700 "$sockets"
            # 8 is closed: the server must not inherit the lock.
            as_pg "$pg_bin/pg_ctl" -D "$cluster" -l "$cluster/log" -w -s start </dev/null 8>&- \
                || { tail -5 "$cluster/log" >&2; die "PostgreSQL does not start, see $cluster/log"; }
        fi
    } 8>"$state/lock"
}

# Stop the cluster, unless somebody else still works with it.
cluster_stop() {
    local others
    cluster_running || return 0
    others=$(psql -h "$sockets" -U odoo -d postgres -Atc \
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid != pg_backend_pid()" || echo 0)
    if (( others )); then
        say "PostgreSQL is left running: it has $others other connections"
    else
        as_pg "$pg_bin/pg_ctl" -D "$cluster" -m fast -w -s stop
    fi
}

# What the scripts need to run Odoo; `exec` it, so that signals reach it.
odoo_env() {
    export PYTHONPATH=$odoo_path ODOO_RC=$state/odoo.conf PGHOST=$sockets PGUSER=odoo
    # Not left to the file: commands of addons are looked up before it is read.
    export ODOO_ADDONS_PATH=$core_addons,$state/addons${IR_ASYNC_EXTRA_ADDONS:+,$IR_ASYNC_EXTRA_ADDONS}
    export PYTHONDONTWRITEBYTECODE=1  # Odoo's linters read the checkout
}
