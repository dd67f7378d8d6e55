# Shared by the scripts: paths, environment, and the database cluster.
# shellcheck shell=bash
set -euo pipefail

root=$(realpath "${BASH_SOURCE[0]%/*}/..")
cache=${XDG_CACHE_HOME:-~/.cache}/ir_async
mkdir -p "$cache"
cache=$(realpath "$cache")
# Another version of PostgreSQL has other databases, so everything of this checkout is apart.
key=$(printf '%s\n' "$root" "$cache" "$UID" ${IR_ASYNC_PG:+"$IR_ASYNC_PG"} | sha256sum | cut -c-10)

state=$cache/$key  # the folder of this checkout: addons link, odoo.conf, filestore
venv=$cache/venv${IR_ASYNC_PYTHON:+-$IR_ASYNC_PYTHON}
sockets=/tmp/ir_async-$key  # a short path, since the path of a socket has at most 107 bytes
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

need_space() {  # MB folder
    local free
    free=$(df -Pm "$2" | awk 'NR == 2 {print $4}')
    (( free >= $1 )) || die "not enough space in $2: $1 MB needed, $free MB free"
}

# PostgreSQL refuses to run as root, and the user postgres has no access to root's home.
if (( UID )); then
    pg_home=$cache cluster=$state/pg
    as_pg() { (cd / && "$@"); }
else
    pg_home=$(getent passwd postgres | cut -d: -f6 || true) cluster=$pg_home/ir_async-$key
    as_pg() { (cd / && setpriv --reuid postgres --regid postgres --init-groups "$@"); }
fi

# The newest PostgreSQL, or version IR_ASYNC_PG, which script/setup may have downloaded.
pg_download=$pg_home/ir_async-postgresql-${IR_ASYNC_PG:-}
pg_bin=$(printf '%s\n' /usr/lib/postgresql/${IR_ASYNC_PG:-*}/bin /usr/pgsql-${IR_ASYNC_PG:-*}/bin "$pg_download/bin" \
    | sort -rV | while read -r bin; do [[ ! -x $bin/initdb ]] || { echo "$bin"; break; }; done)
if [[ ! $pg_bin && ! ${IR_ASYNC_PG:-} ]] && command -v initdb >/dev/null; then
    pg_bin=$(dirname "$(realpath "$(command -v initdb)")")
fi
[[ ! $pg_bin ]] || cluster+=-$("$pg_bin/postgres" --version | grep -oE '[0-9]+' | head -1)

cluster_running() { as_pg "$pg_bin/pg_ctl" -D "$cluster" status >/dev/null; }

# Each script that uses the cluster holds a lock on file 7 as long as it runs. The lock survives `exec`.
cluster_start() {
    exec 7>"$state/users"
    flock -s 7
    {
        flock 8
        if ! cluster_running || [[ ! -S $sockets/.s.PGSQL.5432 ]]; then
            [[ -d $sockets ]] || as_pg mkdir -m 700 "$sockets"
            # The server must not inherit the locks.
            as_pg "$pg_bin/pg_ctl" -D "$cluster" -l "$cluster/log" -w -s start </dev/null 7>&- 8>&- \
                || { tail -5 "$cluster/log" >&2; die "PostgreSQL does not start, see $cluster/log"; }
            export IR_ASYNC_STOP_CLUSTER=1  # the script that started the cluster stops it in the end
        fi
    } 8>"$state/lock"
}

cluster_stop() {
    {
        flock 8
        if ! cluster_running; then
            return
        elif flock -xn 7; then
            as_pg "$pg_bin/pg_ctl" -D "$cluster" -m fast -w -s stop 7>&- 8>&-
        else
            say "PostgreSQL is left running: another script uses it"
        fi
    } 7>"$state/users" 8>"$state/lock"
}

# Set the environment in which the scripts run Odoo. Start Odoo by `exec`, so that signals reach it.
odoo_env() {
    export IR_ASYNC_STATE=$state IR_ASYNC_ODOO=$odoo_bin IR_ASYNC_PG_BIN=$pg_bin
    export PYTHONPATH=$odoo_path ODOO_RC=$state/odoo.conf PGHOST=$sockets PGUSER=odoo
    # Not in odoo.conf, since Odoo looks up commands of addons before it reads that file.
    export ODOO_ADDONS_PATH=$core_addons,$state/addons${IR_ASYNC_EXTRA_ADDONS:+,$IR_ASYNC_EXTRA_ADDONS}
    export PYTHONPYCACHEPREFIX=$cache/pycache  # outside the checkout, since Odoo's linters read all of its files
    unset PYTHONDONTWRITEBYTECODE  # with it, each server would compile all of Odoo
}
