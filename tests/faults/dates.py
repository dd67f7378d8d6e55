"""When dated jobs began."""

MORE_DELAY = 0.3  # seconds, of what the method `enqueue_more` enqueues
LATEST = 10  # seconds after its date that a job may begin if nothing kept it waiting


def find_waits(runs, calls):
    """Return the run and the seconds from the date to the begin of each dated job.

    :param list runs: of a database, by their begin
    :param dict calls: of a database, by their tokens
    """
    begun = {}
    for run in runs:
        begun.setdefault(run.token, run)
    # A date is never before what its call asked for: the call was made after the time that we know.
    dates = {token: call.time + call.delay for token, call in calls.items() if call.delay}
    dates |= {f'{token}/more': run.begin + MORE_DELAY for token, run in begun.items()}
    return [(begun[token], begun[token].begin - dates[token]) for token in dates.keys() & begun.keys()]
