"""What a job must not find from an earlier one."""

import os
import signal
import sys
from functools import cache
from pathlib import Path

_first = {}  # by process: the state at the begin of its first job
_current = {}  # by process: the job that it began last

LEFT_ON_SESSION = """
    SELECT 'role ' || current_user WHERE current_user != 'odoo' OR session_user != 'odoo'
 UNION ALL SELECT 'isolation ' || current_setting('transaction_isolation')
            WHERE current_setting('transaction_isolation') != 'repeatable read'
 UNION ALL SELECT 'read only' WHERE current_setting('transaction_read_only') = 'on'
 UNION ALL SELECT 'setting ' || name FROM pg_settings WHERE source = 'session'
            AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable', 'session_authorization')
 UNION ALL SELECT 'custom setting' WHERE current_setting('ir_async_ledger.left', true) != ''
 UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
 UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements
 UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
 UNION ALL SELECT 'channel ' || channel FROM pg_listening_channels() channel
 UNION ALL SELECT 'lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""


def _state():
    os.umask(mask := os.umask(0o077))
    return {
        'working directory': os.getcwd(),
        'environment': dict(os.environ),
        'umask': mask,
        'signal mask': signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        'recursion limit': sys.getrecursionlimit(),
    }


@cache
def process_start(pid):
    """Return when a process was started, in ticks since the boot. Its number alone may be used again."""
    return int(Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()[19])


def find_left(cr, job_id):
    """Return the names of what earlier jobs left on the connection and in the process."""
    cr.execute(LEFT_ON_SESSION)
    left = [name for [name] in cr.fetchall()]
    job, pid = (cr.dbname, job_id), os.getpid()
    if _current.get(pid) == job:
        return left  # its own earlier try, in place
    _current[pid] = job
    state = _state()
    first = _first.setdefault(pid, state)
    return left + [name for name in state if state[name] != first[name]]
