"""Return of COMMIT → first line of the method, one job after the other."""

import statistics

from report import percentile

SYSTEMS = ('ours', 'queue_job', 'pgqueuer', 'cron')


def run(bench):
    q = bench.quick
    counts = {
        bench.ours: 80 if q else 300,
        bench.queue_job: 40 if q else 150,
        bench.pgqueuer: 40 if q else 150,
        bench.cron: 20 if q else 60,
    }

    def measure(system, row, count):
        row.samples += (samples := system.latency(count, 0.03))
        row.values.append(statistics.median(samples))
        system.clean()

    rows = bench.compare_counts(
        "A single job, nothing else running: return of COMMIT → first line of the method, p50",
        1 if q else 3,
        measure,
        counts,
        'ms',
        1,
    )
    for row in rows.values():
        if row.samples:
            p95, p99 = percentile(row.samples, 0.95), percentile(row.samples, 0.99)
            row.add_note(f'p95 {p95:.1f}, p99 {p99:.1f} ms of {len(row.samples)}')
    if samples := rows[bench.ours].samples:
        rows[bench.ours].judge(
            'p50 ≤ 2 ms, p95 ≤ 5 ms', statistics.median(samples) <= 2 and percentile(samples, 0.95) <= 5
        )
    bench.cron.stop()
