"""The metrics of the queue, in the text format of Prometheus."""

from __future__ import annotations

from typing import Any

from odoo import api, models

from .ir_async_channel import EVERYTHING
from .ir_async_statistics import CHANNELS_MAX, QUANTILES, STATES

ESCAPES = str.maketrans({'\\': r'\\', '"': r'\"', '\n': r'\n'})


class IrAsync(models.Model):
    _inherit = 'ir.async'

    @api.model
    def _metrics(self):
        """Return the metrics of this database's queue, in the text format of Prometheus.

        :rtype: str
        """
        with self._cheaply():
            counts, is_estimated = self._count_jobs()
            paused, limits = self._limits()
            heads = self._due_heads()
            durations = self._durations()
            used_ids = self._used_ids()
            health = self._health()
        channels = sorted({channel for _state, channel in counts} | set(limits) - {EVERYTHING} | {'default'})[
            :CHANNELS_MAX
        ]
        codes = {reason['code'] for reason in health['reasons']}
        families: list[tuple[str, str, list[tuple[dict[str, Any], float]]]] = [
            ('jobs', "Jobs by state and channel.", [
                ({'state': state, 'channel': channel}, counts.get((state, channel), 0))
                for channel in channels for state in STATES]),
            ('jobs_estimated', "1 if some numbers of jobs are estimates, since the table is large.", [({}, int(is_estimated))]),
            ('oldest_due_seconds', "Seconds that the oldest due job has waited for its start.", [
                ({}, max((head['age'] for head in heads), default=0))]),
            ('job_duration_seconds', "Seconds that the jobs took that ended in the last hour.", [
                ({'channel': channel, 'quantile': quantile}, value)
                for channel, _count, *values in durations for quantile, value in zip(QUANTILES, values)]),
            ('jobs_ended_last_hour', "Jobs that ended in the last hour.", [
                ({'channel': channel}, count) for channel, count, *_values in durations]),
            ('workers', "Worker processes that are alive.", [({}, health['workers'])]),
            ('channel_capacity', "Maximum number of jobs of the channel that run at once. 0: no limit.", [
                ({'channel': channel}, capacity) for channel, (capacity, *_interval) in sorted(limits.items())[:CHANNELS_MAX]
                if channel != EVERYTHING]),
            ('channel_paused', "1 if the channel is paused. The channel * stands for all jobs.", [
                ({'channel': channel}, int(channel in paused)) for channel in sorted({*limits, EVERYTHING})[:CHANNELS_MAX]]),
            ('ids_used_ratio', "Share of the ids of the table that is used up, from 0 to 1.", [
                ({'table': table}, used) for table, used in used_ids.items()]),
            ('unhealthy', "1 if the queue is unhealthy for this reason.", [
                ({'reason': code}, int(code in codes))
                for code in ('no_worker', 'overdue', 'paused', 'upgrading', 'ids', 'copied')]),
        ]  # fmt: skip
        return ''.join(
            f'# HELP ir_async_{name} {text}\n# TYPE ir_async_{name} gauge\n'
            + ''.join(f'ir_async_{name}{_labels(labels)} {_number(value)}\n' for labels, value in samples)
            for name, text, samples in families
        )


def _labels(labels):
    return (
        '{%s}' % ','.join(f'{name}="{str(value).translate(ESCAPES)}"' for name, value in labels.items())
        if labels
        else ''
    )


def _number(value):
    return f'{value:.6f}'.rstrip('0').rstrip('.') if isinstance(value, float) else str(value)
