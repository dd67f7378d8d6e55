"""What the servers logged."""

import re
from collections import Counter

# What faults explain. The end of a job says its id; those that may fail are left out by `_log`.
NOISE = (
    r'psycopg2\.(OperationalError|InterfaceError): ',
    r'psycopg2\.errors\.(\w+Shutdown|CannotConnectNow|\w+Timeout|LockNotAvailable|QueryCanceled|SerializationFailure|DeadlockDetected|DiskFull|ReadOnlySqlTransaction|OutOfMemory): ',
    r'odoo\.sql_db: (bad query|Connection to the database failed|Couldn.t|Programming error)',
    # Odoo logs this without the cause. If a fault was not the cause, jobs are left.
    r'odoo\.registry: Failed to load registry',
    r'odoo\.modules\.loading: Some modules have inconsistent states',  # a registry that is loaded in the middle of an installation
    r'(?i)(terminating connection|server closed|connection .*(closed|lost|refused)|could not connect|shutting down|starting up|recovery)',
)

# A worker goes on after whatever it meets. It calls the end of a connection and the like information, so this is something else.
SURPRISE = r' \S+ \S+: Worker \(\d+\) backs off from database '


def find_errors(world, may_fail, is_quiet):
    """Return the lines that no fault explains, without their numbers.

    :param World world: with the servers
    :param set may_fail: pairs of database and job whose errors are no surprise
    :param bool is_quiet: without any fault, also warnings are unexpected
    :return: how often there is each pair of a level and a text
    :rtype: Counter
    """
    levels = '(WARNING|ERROR|CRITICAL)' if is_quiet else f'(ERROR|CRITICAL|WARNING(?={SURPRISE}))'
    found = Counter()
    # With the lines of its traceback, a record says what caused it.
    for record in re.split(r'\n(?=\d{4}-\d\d-\d\d \S+ \d+ )', world.log_text()):
        match = re.match(rf'\S+ \S+ \d+ {levels} (\S+) (.*)', record)
        if not match or (not is_quiet and any(re.search(noise, record) for noise in NOISE)):
            continue
        text = match[3]
        job_ids = {int(number) for number in re.findall(r'\b[Jj]obs? (\d+)', text)}
        if any((name, job_id) in may_fail for name in {name for name, _id in may_fail} for job_id in job_ids):
            continue
        if re.search(
            r'\((fail_times|raise_odd|failing_hook)\b|\.(fail_times|raise_odd|failing_hook)\b|left threads behind|left \d+ cursors open|changed its process',
            text,
        ):
            continue
        if len(lines := record.strip().splitlines()) > 1:  # the error at the end of the traceback
            text = f'{text[:180]} … {lines[-1]}'
        found[match[1], re.sub(r'\d+', 'N', text)[:360]] += 1
    return found


def lines_of(world, job_ids):
    """Return the lines of the servers' logs that name one of these jobs."""
    wanted = {str(job_id) for job_id in job_ids}
    return [line for line in world.log_text().splitlines() if wanted & set(re.findall(r'\b[Jj]ob (\d+)', line))]
