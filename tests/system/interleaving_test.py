"""Statements of two connections, in all orders."""

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    'name',
    [
        'ClaimClaim',
        'ClaimCancel',
        'LimitedClaimCancel',
        'FairClaimCancel',
        'CommitRescue',
        'ReleaseRescue',
        'ReleaseRelease',
        'RescueRescue',
        'FinishRescue',
        'FinishCancel',
        'FinishStop',
        'UnblockUnblock',
        'UnblockSweep',
        'UnblockCancel',
        'KeyKey',
        'KeyClaim',
        'CapacityCapacity',
        'StartStart',
        'RetryPrune',
    ],
)
def test_all_orders(database, name):
    import_module('interleavings').play_all(database, name)
